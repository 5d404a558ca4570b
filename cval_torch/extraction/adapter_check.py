"""`check_adapter`: for authors of adapters, whether theirs answers as it must, on one batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from cval_torch.errors import HookError
from cval_torch.extraction.batches import Split
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.pool.pool import Pool


def check_adapter(
    model: nn.Module,
    adapter: DetectorAdapter,
    batch: Any,
    *,
    split: Split | None = None,
    device: torch.device | str | None = None,
) -> Pool:
    """Run an adapter of your own over one batch, and check everything that it answers.

    Checked are the methods of `DetectorAdapter`, that the recorded modules run, the form of each column of
    `FrameBatch`, and what the numbers stand for: labels are columns of `probabilities`, scores are
    `probabilities[label]`, rows of a softmax sum to 1, boxes are corners in pixels of the loader's images. `extract`
    checks the same on the first batch with boxes.

    Args:
        model: the detector, wrapped or not. It is left as it was.
        adapter: reads it.
        batch: as the loader yields it. Take one in which the detector finds something: without boxes there is little
            to check.
        split: takes a batch of another kind apart, as in `extract`.
        device: the device to run on. None: where the model is.

    Returns:
        What the adapter read: the rows of the batch, for a look at them.

    Raises:
        HookError: the adapter's answer is not what it must be; the message says what and why.
        InvalidInputError: `adapter` lacks a method, the batch is no batch, or a number is NaN or inf.
        ExtractionError: the adapter or the model raised; the original error is the cause.
    """
    core = unwrap(model)
    find_adapter(core, adapter)  # whether it has all methods
    if not adapter.matches(core):
        raise HookError(
            f"`matches` of {adapter.name} says no to {type(core).__name__}. The callbacks of frameworks ask it to find "
            "the detector in a larger model"
        )
    pool = extract(model, [batch], adapter=adapter, split=split, device=device, progress=False, distributed=False)
    if not pool.num_boxes:
        raise HookError(f"{adapter.name} read no boxes in this batch: pass one in which the detector finds something")
    return pool
