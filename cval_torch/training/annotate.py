"""Annotations that come back from a tool: which frames of a `LabelPool` they are of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.extraction.listing import path_of
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.matching import match_paths
from cval_torch.training.rounds import Round

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Annotated:
    """What `LabelPool.annotate_from` read.

    Attributes:
        annotations: of the frames that are annotated, called by the ids of the `LabelPool`. `labels.training_set` takes
            them.
        round: the frames that were not labelled before, now a round of the `LabelPool`; None if there are none.
        relabeled: ids of annotated frames that were labelled before.
        unannotated: ids of frames that the file has, and that nobody annotated yet. They stay unlabelled.
        skipped: file names that the tool's users left out, such as cancelled tasks.
        unmatched: file names that match no frame of the dataset.
        notes: what else a user should know, each a sentence.
    """

    annotations: Annotations
    round: Round | None
    relabeled: tuple[str, ...]
    unannotated: tuple[str, ...]
    skipped: tuple[str, ...]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"Annotated({len(self.annotations)} frames, {len(self.annotations.labels)} boxes; "
            f"{0 if self.round is None else len(self.round.frame_ids)} newly labelled, "
            f"{len(self.unannotated)} not annotated, {len(self.skipped)} skipped, {len(self.unmatched)} unmatched)"
        )


def frames_of(
    annotations: Annotations, index_of: Mapping[str, int], dataset: object
) -> tuple[list[str | None], list[str]]:
    """Which frame each of the annotations is of.

    A frame that has an id of the dataset is that frame. Others are found by their file names, as `match_paths` finds
    them, among the files that the dataset names, or, where it names none, among the ids.

    Args:
        annotations: of F frames.
        index_of: rows of the dataset by id.
        dataset: which may name files.

    Returns:
        F ids, None where no frame matches, and remarks on the matching.

    Raises:
        InvalidInputError: a name that several frames match; two of the annotations that are of one frame.
    """
    found = [frame_id if frame_id in index_of else None for frame_id in annotations.frame_ids]
    rest = [row for row, frame_id in enumerate(found) if frame_id is None]
    remarks: list[str] = []
    if rest:
        id_of = _files(index_of, dataset)
        matches = match_paths([annotations.file_names[row] for row in rest], list(id_of), source=annotations.source)
        for row, path in zip(rest, matches.frame_ids, strict=True):
            found[row] = None if path is None else id_of[path]
        remarks = matches.remarks()
    _check_once(found, annotations)
    return found, remarks


def _files(index_of: Mapping[str, int], dataset: object) -> dict[str, str]:
    """Ids by the path of the file, or by the id itself where that could be one."""
    found: dict[str, str] = {}
    for frame_id, row in index_of.items():
        path = path_of(dataset, row) or frame_id
        if path.strip("./\\ "):
            found.setdefault(path, frame_id)
    return found


def _check_once(found: Sequence[str | None], annotations: Annotations) -> None:
    owner: dict[str, int] = {}
    for row, frame_id in enumerate(found):
        if frame_id is not None and owner.setdefault(frame_id, row) != row:
            raise InvalidInputError(
                f"{annotations.file_names[owner[frame_id]]!r} and {annotations.file_names[row]!r} of "
                f"{annotations.source} are both the frame {frame_id!r}. Remove the one that means another image"
            )


def annotated(
    annotations: Annotations,
    found: Sequence[str | None],
    notes: Sequence[str],
    *,
    labeled: Collection[str],
    index_of: Mapping[str, int],
    epoch: int | None,
) -> Annotated:
    """Sort annotations by what is to become of their frames.

    Args:
        annotations: of F frames.
        found: F ids, or None, as `frames_of` found them.
        notes: remarks on it.
        labeled: ids of the frames that are labelled.
        index_of: rows of the dataset by id.
        epoch: of the round.

    Raises:
        InvalidInputError: annotations are of frames, and none of them is in the dataset.
    """
    if found and not any(found):
        theirs = ", ".join(map(repr, annotations.file_names[:_SHOWN]))
        ours = ", ".join(map(repr, list(index_of)[:_SHOWN]))
        raise InvalidInputError(
            f"none of the {len(found)} frames of {annotations.source} is in the dataset. There they are {theirs}; here "
            f"the ids are {ours}"
        )
    looked = annotations.is_annotated.tolist()
    rows = [row for row, frame_id in enumerate(found) if frame_id is not None and looked[row]]
    rows.sort(key=lambda row: int(annotations.ranks[row]))  # the first choice first; equal ranks keep the file's order
    new = [row for row in rows if found[row] not in labeled]
    mine = annotations.take(rows).replace(frame_ids=[found[row] for row in rows], skipped=(), notes=())
    unmatched = [name for name, frame_id in zip(annotations.file_names, found, strict=True) if frame_id is None]
    remarks = (*annotations.notes, *notes)
    for remark in remarks:
        warn_user(remark)
    names = [str(found[row]) for row in new]
    scores = annotations.uncertainties[new] if new else torch.empty(0)
    known = len(scores) > 0 and bool(scores.isfinite().all())
    return Annotated(
        mine,
        Round(tuple(names), tuple(scores.tolist()) if known else None, (), epoch) if names else None,
        tuple(str(found[row]) for row in rows if found[row] in labeled),
        tuple(str(each) for row, each in enumerate(found) if each is not None and not looked[row]),
        tuple(annotations.skipped),
        tuple(unmatched),
        remarks,
    )


def latest(annotations: Annotated | Annotations | Sequence[Annotated | Annotations]) -> Annotations:
    """One record of several, in which the last counts for a frame that stands in several.

    Raises:
        InvalidInputError: nothing; annotations without ids; one label with two names.
    """
    several = annotations if isinstance(annotations, Sequence) else [annotations]
    parts = [each.annotations if isinstance(each, Annotated) else each for each in several]
    for part in parts:
        if None in part.frame_ids:
            raise InvalidInputError(
                f"{part.source} has frames without ids. Let `labels.annotate_from` find out which frames they are, and "
                "pass what it returns"
            )
    last = {frame_id: number for number, part in enumerate(parts) for frame_id in part.frame_ids}
    kept = [
        part.take([row for row, frame_id in enumerate(part.frame_ids) if last[frame_id] == number])
        for number, part in enumerate(parts)
    ]
    return Annotations.cat(kept)
