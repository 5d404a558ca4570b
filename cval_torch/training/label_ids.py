"""Ids of the frames of a `LabelPool`: which there are, which are new, and what a selection gives of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch.utils.data import Subset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import check_frame_id, innermost, length_of, named_part
from cval_torch.selection.stage import DetectionSampling


@runtime_checkable
class Chosen(Protocol):
    """What a selection gives to `LabelPool.label`: ids, with their scores and the stages that chose them."""

    @property
    def frame_ids(self) -> Sequence[str]:
        """The chosen ids, in rank order."""
        ...

    @property
    def scores(self) -> Any:
        """One float a frame id (a tensor, or a sequence), NaN where no stage scored frames."""
        ...

    @property
    def stages(self) -> Sequence[DetectionSampling]:
        """The stages that chose them."""
        ...


def rows_by_id(frame_ids: Sequence[str]) -> dict[str, int]:
    """The row of each id. Raises `InvalidInputError` if one is no id, or comes twice."""
    index_of: dict[str, int] = {}
    for index, frame_id in enumerate(frame_ids):
        check_frame_id(frame_id, index)
        if index_of.setdefault(frame_id, index) != index:
            raise InvalidInputError(
                f"`frame_ids` must be distinct; got {frame_id!r} for row {index_of[frame_id]} and for row {index}"
            )
    return index_of


def unknown_frame(frame_id: object, index_of: Mapping[str, int]) -> str:
    """What to say of an id that is none of the dataset's."""
    some = ", ".join(map(repr, list(index_of)[:3]))
    message = f"frame {frame_id!r} is not in the dataset, which has {len(index_of)} frames: {some}, ..."
    if not isinstance(frame_id, str):
        return f"{message} Ids are strings"
    return f"{message} To give frames other ids, pass LabelPool one a row: `frame_ids=`"


def as_ids(frames: Iterable[str] | Chosen, *, name: str) -> tuple[str, ...]:
    """The ids in what a user gives as `name`. Raises `InvalidInputError` if it is not several ids."""
    if isinstance(frames, Chosen):
        return tuple(frames.frame_ids)
    if isinstance(frames, str) or not isinstance(frames, Iterable):
        raise InvalidInputError(f"`{name}` must be several frame ids; got {frames!r}")
    return tuple(frames)


def check_new_ids(frame_ids: Sequence[str], index_of: Mapping[str, int], round_of: Mapping[str, int]) -> None:
    """Raise an `InvalidInputError` if these cannot be the frames of a new round.

    Args:
        frame_ids: of the round.
        index_of: the row of each frame of the dataset.
        round_of: the round of each labelled frame.
    """
    if not frame_ids:
        raise InvalidInputError("a round must have at least one frame; got none")
    seen: set[str] = set()
    for frame_id in frame_ids:
        if not isinstance(frame_id, str) or frame_id not in index_of:
            raise InvalidInputError(unknown_frame(frame_id, index_of))
        if frame_id in round_of:
            raise InvalidInputError(f"frame {frame_id!r} is labelled already, since round {round_of[frame_id]}")
        if frame_id in seen:
            raise InvalidInputError(f"frame {frame_id!r} is named twice in one round")
        seen.add(frame_id)


def check_rows_are_ours(frames: Any, dataset: object, length: int, *, named_by_rows: bool) -> None:
    """Raise an `InvalidInputError` if the ids of a choice are rows of a dataset that is none of a `LabelPool`'s.

    Args:
        frames: the choice.
        dataset: of the `LabelPool`.
        length: its number of frames.
        named_by_rows: whether their ids are their rows.
    """
    part = named_part(frames.dataset) if isinstance(frames, Subset) else None
    if part is not None and part.rows_of is not None and part.rows_of is not dataset:
        raise InvalidInputError(
            "these frames are from a LabelPool of another dataset, which knows them by their rows alone. Label "
            "them there, or give both LabelPools ids that stay, by `LabelPool(dataset, frame_ids=...)`"
        )
    if getattr(frames, "ids_from", None) != "row":
        return
    kind = "a dataset that the selection does not tell"
    if isinstance(frames, Subset):
        base = innermost(frames, 0)[0] if len(frames) else frames.dataset
        if named_by_rows and length_of(base) == length:
            return
        kind = f"a {type(base).__name__} with {length_of(base)} frames"
    raise InvalidInputError(
        f"these frames have no ids but their rows in {kind}, which are not rows of this LabelPool's dataset. "
        "Select from a loader over `labels.unlabeled`, or over `labels.unlabeled_of(view)` for a view of the whole "
        "dataset with other transforms, and label the SelectedFrames; or name frames with `frame_id=`"
    )


def ids_fingerprint(frame_ids: Sequence[str]) -> str:
    """Of the set of ids, in any order."""
    digest = hashlib.sha256()
    for frame_id in sorted(frame_ids):
        encoded = frame_id.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:32]
