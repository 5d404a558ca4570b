"""`random_state_kept`: what draws random numbers meanwhile shifts none of the user's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def random_state_kept(device: torch.device | None = None) -> Iterator[None]:
    """Put the global random states of Python, numpy and torch back afterwards, also after an error.

    Args:
        device: where a model runs; of a CUDA device the state is kept too.

    >>> before = random.getstate()
    >>> with random_state_kept():
    ...     _ = random.random()
    >>> random.getstate() == before
    True
    """
    python, legacy = random.getstate(), np.random.get_state()  # the user's, whoever uses it
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
