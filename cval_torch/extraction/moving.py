"""A stored pass over a dataset to which files were added, or from which some were removed: what of it still counts.

The frames that are there then and now are known by their marks, see `frame_marks`. The others are inferred as a pass of
their own, in a folder within, which survives the process like any other. Then both are joined to the pass that the
dataset now has, in its order.
"""

from __future__ import annotations

import itertools
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cval_torch.extraction.comparing import Ask, changed_answers, pass_changes, with_answers
from cval_torch.extraction.identity import DATASET_NAMES, TRANSFORMS, changes
from cval_torch.extraction.ids import innermost, own_ids
from cval_torch.extraction.listing import frame_marks
from cval_torch.extraction.loading import LoadingPlan, order_varies, share_of
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.pool.layout import Gathered
from cval_torch.pool.shards import Part, Slices, sync_folder
from cval_torch.pool.skipped import SkippedFrame


@dataclass(frozen=True)
class Move:
    """How a stored pass goes over into that of a dataset as it is now.

    Attributes:
        batches: the dataset rows of each batch of the pass that there will be.
        kept: of each row that is stored, the row that it had then.
        missing: the batches that are still to be inferred.
    """

    batches: list[list[int]]
    kept: dict[int, int]
    missing: list[list[int]]


def find_move(
    cache: PassCache,
    plan: LoadingPlan,
    *,
    identity: Mapping[str, Any],
    machine: Mapping[str, Any],
    ask: Ask,
    loader: Iterable[Any],
    retry: bool,
) -> Move | None:
    """What of a stored pass counts for `plan`, whose dataset or rows are others now.

    If there is a move, the folder's lock is held and nothing damaged is left in it.

    Args:
        cache: the folder.
        plan: what is to be loaded now.
        identity: what the pass is over now, and its options.
        machine: what must not change before a pass is finished.
        ask: asks the model what it answers to test images.
        loader: this process's. If it draws its order anew each time, the stored order goes on.
        retry: frames that were left out then are to be tried again.

    Returns:
        None if the stored pass is that of `plan` as it is, or if it cannot be told what of it counts. `resume` then
        goes on with it, or refuses it.

    Raises:
        InvalidInputError: the folder is in use.
        OSError: the folder cannot be read or written.
    """
    manifest = cache.read()
    if manifest is None or plan.batches is None:
        return None
    then, now = manifest["of"], identity
    same_dataset = all(then.get(name) == now.get(name) for name in DATASET_NAMES)
    rows_then, rows_now = _rows(cache.batches), _rows(plan.batches)
    left_out = retry and any(part.skipped for part in cache.parts(verify=False))
    if same_dataset and set(rows_then) == set(rows_now) and not left_out:
        return None
    stored = _stored(cache, cache.parts(verify=False))
    counterpart = _counterparts(cache, plan, rows_now, same_dataset=same_dataset)
    kept = {row: then for row, then in counterpart.items() if then in stored}
    if 2 * len(kept) < max(len(stored), 1):  # rather another loader than a few files less: nothing is thrown away
        return None
    sources = {part.layout.ids_from for part in cache.parts(verify=False) if part.layout is not None}
    if cache.batch_size != plan.batch_size or "frame_id" in sources:  # a function may name a frame by its row
        return None
    if changes(manifest["made_with"], machine) or changed_answers(then, ask):
        return None
    if pass_changes(_without_dataset(then), _without_dataset(now), ask, same_machine=True):
        return None
    cache.lock(alone=True)
    stored = _stored(cache, cache.mend())
    kept = {row: then for row, then in counterpart.items() if then in stored}
    size = plan.batch_size or plan.largest_batch or 1
    missing = _chunks([row for row in rows_now if row not in kept], size)
    batches = plan.batches
    if share_of(loader) is not None or order_varies(loader):
        place = {row: place for place, row in enumerate(rows_then)}
        in_order = sorted(kept, key=lambda row: place[kept[row]])
        batches = _chunks([*in_order, *_rows(missing)], size)
    return Move(batches, kept, missing)


def join(
    cache: PassCache,
    more: Path,
    move: Move,
    dataset: Any,
    *,
    identity: Mapping[str, Any],
    machine: Mapping[str, Any],
    ask: Ask,
) -> Iterator[int]:
    """Make of the stored pass and of what was inferred in `more` the pass that `move` describes.

    The older pass stays whole until the new one is. For the process that holds the lock.

    Yields:
        The frames of each shard that was copied; the last step is done only when there is no more.

    Raises:
        OSError: a full disk, as elsewhere.
    """
    token = uuid.uuid4().hex
    parts = cache.parts(verify=False)
    stored = _stored(cache, parts)
    places = {row: stored[then] for row, then in move.kept.items()}
    skipped: dict[int, SkippedFrame] = {}
    if move.missing:
        inner = PassCache(more, frames_per_shard=cache.frames_per_shard)
        inner.read()
        inner_parts = inner.parts(verify=False)
        found = _stored(inner, inner_parts)
        places |= {row: (len(parts) + part, place) for row, (part, place) in found.items()}
        skipped = {frame.index: frame for part in inner_parts for _, frame in part.skipped}
        parts = [*parts, *inner_parts]
    reading = [Slices(part) for part in parts]
    names = _names(parts, dataset)
    whole = Part(cache.folder / f"joining-{token}")
    rows, numbers, left_out = Gathered(), list[tuple[int, int]](), list[tuple[int, SkippedFrame]]()
    for number, batch in enumerate(move.batches):
        there = [row for row in batch if row in places]
        left_out += [(number, skipped[row]) for row in batch if row in skipped]
        for run in _runs(there, places):
            source, begin = places[run[0]]
            reading[source].give_frames(
                begin,
                begin + len(run),
                rows,
                frame_ids=None if names is None else [names(row) for row in run],
                indices=torch.tensor(run, dtype=torch.int64),
            )
        if there:
            numbers.append((number, len(there)))
        if len(rows) >= cache.frames_per_shard or number == len(move.batches) - 1:
            whole.append(rows, numbers, left_out)
            yield len(rows)
            rows, numbers, left_out = Gathered(whole.layout), [], []
    whole.folder.replace(cache.folder / f"part-{token[:8]}-all")
    sync_folder(cache.folder)
    marks = frame_marks(dataset, _rows(move.batches))
    cache.begin(
        with_answers(identity, ask), machine, move.batches, batch_size=cache.batch_size, marks=marks, token=token
    )
    cache.remove_others()
    shutil.rmtree(more, ignore_errors=True)


def _without_dataset(identity: Mapping[str, Any]) -> dict[str, Any]:
    """All that must not differ. A `ConcatDataset` may have other parts, if they load their frames the same way."""
    found = {name: value for name, value in identity.items() if name not in DATASET_NAMES}
    ways: dict[str, set[str]] = {}
    for name, value in identity.get(TRANSFORMS, {}).items():
        ways.setdefault(re.sub(r"datasets\[\d+\]\.", "", name), set()).add(value)
    return found | {TRANSFORMS: {name: " or ".join(sorted(values)) for name, values in ways.items()}}


def _rows(batches: list[list[int]]) -> list[int]:
    return [row for batch in batches for row in batch]


def _chunks(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _stored(cache: PassCache, parts: list[Part]) -> dict[int, tuple[int, int]]:
    """Of each row that the parts have, the part and the place there."""
    found: dict[int, tuple[int, int]] = {}
    for turn, part in enumerate(parts):
        left_out = {frame.index for _, frame in part.skipped}
        sizes, place = part.sizes(), 0
        for number, frames in part.batches:
            if cache.fits(number, sizes[number]):
                rows = [row for row in cache.batches[number] if row not in left_out]
                found.update((row, (turn, place + nth)) for nth, row in enumerate(rows))
            place += frames
    return found


def _counterparts(cache: PassCache, plan: LoadingPlan, rows: list[int], *, same_dataset: bool) -> dict[int, int]:
    """Of each row, the row that the same frame had then; rows that were not there then are left out."""
    if same_dataset:
        return {row: row for row in rows}
    then, now = cache.marks(), frame_marks(plan.dataset, rows)
    if then is None or now is None:
        return {}
    row_then = dict(zip(then, _rows(cache.batches), strict=True))
    return {row: row_then[mark] for row, mark in zip(rows, now, strict=True) if mark in row_then}


def _names(parts: list[Part], dataset: Any) -> Any:
    """What names a row as the dataset does now; None where frames keep the names they have."""
    sources = {part.layout.ids_from for part in parts if part.layout is not None}
    if sources & {"dataset", "labels"}:
        ids = own_ids(dataset) or ()
        return lambda row: ids[row]
    if "row" in sources:
        return lambda row: str(innermost(dataset, row)[1])
    return None


def _runs(rows: list[int], places: Mapping[int, tuple[int, int]]) -> Iterator[list[int]]:
    """The rows, split wherever two that follow each other do not lie side by side in one part."""
    numbered = list(enumerate(rows))
    for _, run in itertools.groupby(numbered, key=lambda item: (places[item[1]][0], places[item[1]][1] - item[0])):
        yield [row for _, row in run]
