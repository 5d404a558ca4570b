"""`check_adapter`: for authors of adapters, whether theirs answers as it must, on one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import HookError
from cval_torch.extraction.batches import Split, parts_of
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import BatchParts, DetectorAdapter
from cval_torch.hooks.holding import find_detector
from cval_torch.pool.pool import Pool

_PIXELS, _SHARE = 0.5, 0.02  # what rounding may change of a box's side, and of a score or an embedding


def check_adapter(
    model: nn.Module | Any,
    adapter: DetectorAdapter,
    batch: Any,
    *,
    expected: Sequence[Mapping[str, Tensor]] | None = None,
    split: Split | None = None,
    device: torch.device | str | None = None,
) -> Pool:
    """Run an adapter of your own over one batch, and check everything that it answers.

    One call tells all that is wrong, as far as the check comes:

    - the methods of `DetectorAdapter`; `matches` knows the model; `modules` are parts of it, and they run;
    - the form of each column of `FrameBatch`, and what the numbers stand for: labels are columns of `probabilities`,
      scores are `probabilities[label]`, rows of a softmax sum to 1, boxes are corners in pixels of the loader's images
      (`extract` checks the same on the first batch with boxes);
    - embeddings differ where boxes differ;
    - each frame has its own boxes and embeddings: the batch in reverse order gives the same of each;
    - boxes, labels and scores are those that the detector's own code reports, if you pass these.

    Args:
        model: the detector, wrapped or not. It is left as it was.
        adapter: reads it.
        batch: as the loader yields it. Take one of several images in which the detector finds something: without boxes
            there is little to check.
        expected: what the detector's own code reports of each image of the batch: `boxes` (n, 4) xyxy in pixels of the
            image, `labels` (n,) and `scores` (n,), in any order. None: not compared.
        split: takes a batch of another kind apart, as in `extract`.
        device: the device to run on. None: where the model is.

    Returns:
        What the adapter read: the rows of the batch, for a look at them.

    Raises:
        HookError: the adapter's answer is not what it must be; the message says what and why.
        InvalidInputError: `adapter` lacks a method, the batch is no batch, or a number is NaN or inf.
        ExtractionError: the adapter or the model raised; the original error is the cause.
    """
    core = find_detector(model, adapter=adapter).model
    problems = _of_methods(core, adapter)

    def read(loader: list[Any], how: Split | None) -> Pool:
        return extract(model, loader, adapter=adapter, split=how, device=device, progress=False, distributed=False)

    try:
        pool = read([batch], split)
    except HookError as error:
        raise _told(adapter, [*problems, str(error)]) from error
    if not pool.num_boxes:
        problems.append(f"{adapter.name} read no boxes in this batch: pass one in which the detector finds something")
    problems += _of_embeddings(pool)
    parts = parts_of(batch, adapter, split, single=False)
    if isinstance(parts.images, list) and len(parts.images) > 1:
        backwards = BatchParts(parts.images[::-1], parts.count)
        problems += _of_order(pool, read([backwards], replace))
    if expected is not None:
        problems += _of_host(pool, expected)
    if problems:
        raise _told(adapter, problems)
    return pool


def _told(adapter: DetectorAdapter, problems: list[str]) -> HookError:
    if len(problems) == 1:
        return HookError(problems[0])
    listed = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, start=1))
    return HookError(f"{len(problems)} things are wrong with {adapter.name}:\n{listed}")


def _of_methods(model: nn.Module, adapter: DetectorAdapter) -> list[str]:
    found = []
    if not adapter.matches(model):
        found.append(
            f"`matches` of {adapter.name} says no to {type(model).__name__}. The search for an adapter asks "
            "it, and so do the callbacks of frameworks"
        )
    parts = {id(module) for module in model.modules()}
    for name, module in dict(adapter.modules(model)).items():
        if id(module) not in parts:
            found.append(f"`modules` of {adapter.name} gives {name!r}, which is no module of the model")
    return found


def _of_embeddings(pool: Pool) -> list[str]:
    if pool.box_embeddings is None or pool.boxes is None:
        return []
    for begin, end in zip(pool.offsets[:-1].tolist(), pool.offsets[1:].tolist(), strict=True):
        if end - begin > 1 and not _alike(pool.boxes[begin:end]) and _alike(pool.box_embeddings[begin:end]):
            return [
                f"`box_embeddings` of the {end - begin} boxes of one image are all equal, though the boxes differ: "
                "give each box the features of its own proposal, anchor or query"
            ]
    return []


def _alike(rows: Tensor) -> bool:
    return torch.equal(rows, rows[:1].expand_as(rows))


def _of_order(pool: Pool, backwards: Pool) -> list[str]:
    """What differs of a frame when the batch is read in reverse order."""
    frames = len(pool)
    if pool.counts.tolist() != backwards.counts.flip(0).tolist():
        return [
            f"the images have {pool.counts.tolist()} boxes, and {backwards.counts.flip(0).tolist()} when the batch is "
            "read in reverse order: give each image the boxes of its own"
        ]
    bounds = list(zip(backwards.offsets[:-1].tolist(), backwards.offsets[1:].tolist(), strict=True))
    rows = torch.tensor([row for frame in range(frames) for row in range(*bounds[frames - 1 - frame])]).long()
    found = []
    for name, limit in (("boxes", _PIXELS), ("scores", None), ("box_embeddings", None)):
        here, there = getattr(pool, name), getattr(backwards, name)
        if here is not None and not _near(here, there[rows], limit):
            found.append(
                f"`{name}` of an image change when the batch is read in reverse order: give each image what belongs to "
                "it, by its place in the batch"
            )
    return found


def _near(one: Tensor, other: Tensor, limit: float | None) -> bool:
    one, other = one.float(), other.float()
    limit = _SHARE * float(one.abs().max()) if limit is None and one.numel() else limit
    return not one.numel() or float((one - other).abs().max()) <= (limit or 0)


def _of_host(pool: Pool, expected: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """How the detections differ from those of the detector's own code."""
    if len(expected) != len(pool):
        return [f"`expected` must have one entry an image; got {len(expected)} for {len(pool)} images"]
    for frame, truth in enumerate(expected):
        begin, end = pool.offsets[frame : frame + 2].tolist()
        names = ("boxes", "labels", "scores")
        mine = {name: getattr(pool, name)[begin:end].float() for name in names}
        theirs = {name: truth[name].detach().cpu().float() for name in names}
        if len(mine["scores"]) != len(theirs["scores"]):
            return [f"image {frame} has {end - begin} boxes; the detector's own code gives {len(theirs['scores'])}"]
        free = torch.ones(end - begin, dtype=torch.bool)
        for row in range(end - begin):
            fits = free & (mine["labels"][row] == theirs["labels"])
            fits &= (mine["boxes"][row] - theirs["boxes"]).abs().amax(1) <= _PIXELS
            fits &= (mine["scores"][row] - theirs["scores"]).abs() <= _SHARE
            if not bool(fits.any()):
                said = ", ".join(f"{number:.1f}" for number in mine["boxes"][row].tolist())
                return [
                    f"image {frame} has ({said}) with label {int(mine['labels'][row])} and score "
                    f"{float(mine['scores'][row]):.3f}, which the detector's own code does not report"
                ]
            free[fits.nonzero()[0]] = False
    return []
