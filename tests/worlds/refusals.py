"""What a `cache_dir` says of a model that is, or is not, the one it was begun with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_variants import cached_pass

from cval_torch.errors import InvalidInputError


def unfinish(folder: Path) -> None:
    """Damage a pass, so that it has to go on."""
    os.truncate(next(folder.glob("part-*/journal")), 10)


def refused(folder: Path, then: Any, now: Any, *, adapters: tuple[Any, Any] = (None, None), **options: Any) -> str:
    """What differs, according to the error for a finished pass, and the same for one that is to go on."""
    cached_pass(folder, then(), adapter=adapters[0], **options)
    found = []
    for finished in (True, False):
        if not finished:
            unfinish(folder)
        with pytest.raises(InvalidInputError, match=r"holds another pass: .* To begin anew give another") as caught:
            cached_pass(folder, now(), adapter=adapters[1], **options)
        found.append(str(caught.value).partition("another pass: ")[2].partition(". To begin anew")[0])
    assert found[0] == found[1]
    return found[0]


def accepts(folder: Path, then: Any, now: Any, adapter: Callable[[], Any] = lambda: None, **options: Any) -> None:
    """A pass with `then` is read, and continued, with `now`; both give the rows of a pass without a cache."""
    for finished in (True, False):
        place = folder / str(finished)
        begun = cached_pass(place, then(), adapter=adapter(), **options)
        if not finished:
            unfinish(place)
        found = cached_pass(place, now(), adapter=adapter(), **options)
        assert found.frame_ids == begun.frame_ids
        assert torch.equal(found.scores, begun.scores)
