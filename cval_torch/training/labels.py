"""`LabelPool`: which frames of a dataset are labelled, and how each came to be chosen, over rounds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any

from torch.utils.data import Dataset, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import NamedSubset, frame_ids_of, length_of, own_ids
from cval_torch.extraction.listing import row_marks
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.by_name import load_annotations
from cval_torch.formats.class_names import ClassNames
from cval_torch.formats.coco import Empty
from cval_torch.pool.files import read_record, write_record
from cval_torch.selection.stage import DetectionSampling, describe_stage
from cval_torch.training.annotate import Annotated, annotated, frames_of, latest
from cval_torch.training.label_ids import (
    Chosen,
    as_ids,
    check_new_ids,
    check_rows_are_ours,
    ids_fingerprint,
    rows_by_id,
    unknown_frame,
)
from cval_torch.training.learning_curve import LearningCurve
from cval_torch.training.rounds import Round, as_scores
from cval_torch.training.training_set import TrainingSet, Transforms

STATE_FORMAT = "cval_torch.labels/1"


class LabelPool:
    """A dataset whose frames become labelled round by round: never a frame twice, never one lost.

    Frames are known by id, so that a record outlives a change of the dataset's order. `labeled` and `unlabeled`
    part the dataset at any time. The frames labelled by hand before the first selection are a round too. What detectors
    measured that were trained on them is kept beside, in `learning_curve`, which forecasts what more labels will gain.

    Args:
        dataset: a dataset with a length and rows, labelled frames and unlabelled ones together.
        labeled: ids that are labelled from the start.
        frame_ids: one distinct id a row of `dataset`. None: the dataset's own (`CocoDetection.ids`, paths of files),
            else the row. `select` over a loader of `unlabeled` uses these ids, whatever `image_id` targets have.

    Raises:
        InvalidInputError: ids that do not fit the dataset, or that are not distinct.

    >>> labels = LabelPool(["first", "second", "third"], labeled=["b"], frame_ids=["a", "b", "c"])
    >>> labels.label(["c"]).frame_ids
    ('c',)
    >>> list(labels.labeled), list(labels.unlabeled)
    (['second', 'third'], ['first'])
    >>> labels.label(["b"])
    Traceback (most recent call last):
        ...
    cval_torch.errors.InvalidInputError: frame 'b' is labelled already, since round 0
    """

    def __init__(
        self, dataset: Dataset[Any], *, labeled: Iterable[str] = (), frame_ids: Sequence[str] | None = None
    ) -> None:
        self.dataset = dataset
        self.frame_ids = tuple(frame_ids_of(dataset) if frame_ids is None else frame_ids)
        length = len(dataset) if isinstance(dataset, Sized) else None
        if length != len(self.frame_ids):
            raise InvalidInputError(f"`frame_ids` must be one a row, of which there are {length}; got {len(self)}")
        self._rows_are_ids = frame_ids is None and own_ids(dataset) is None
        self._index_of = rows_by_id(self.frame_ids)
        self._rounds: list[Round] = []
        self._round_of: dict[str, int] = {}
        self.learning_curve = LearningCurve()
        initial = as_ids(labeled, name="labeled")
        if initial:
            self.record(Round(initial))

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __repr__(self) -> str:
        return f"LabelPool({len(self)} frames: {len(self._round_of)} labelled in {len(self._rounds)} rounds)"

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Every round, the oldest first."""
        return tuple(self._rounds)

    @property
    def labeled_ids(self) -> tuple[str, ...]:
        """Ids of the labelled frames, in the order they were labelled."""
        return tuple(self._round_of)

    @property
    def unlabeled_ids(self) -> tuple[str, ...]:
        """Ids of the other frames, in the order of the dataset."""
        return tuple(frame_id for frame_id in self.frame_ids if frame_id not in self._round_of)

    @property
    def labeled_indices(self) -> list[int]:
        """Rows of the dataset that are labelled, in the order they were labelled: earlier ones never move.

        `labeled_of(other)` is the labelled part of another view of the same rows, such as one with the augmentations
        of training.
        """
        return [self._index_of[frame_id] for frame_id in self._round_of]

    @property
    def unlabeled_indices(self) -> list[int]:
        """The other rows, ascending."""
        return [index for index, frame_id in enumerate(self.frame_ids) if frame_id not in self._round_of]

    @property
    def labeled(self) -> Subset[Any]:
        """The labelled frames as they are now; a later round does not change a `Subset` that was handed out."""
        return self._part(self.dataset, labeled=True)

    @property
    def unlabeled(self) -> Subset[Any]:
        """The frames without labels as they are now, in the order of the dataset; `select` calls them by our ids."""
        return self._part(self.dataset, labeled=False)

    def labeled_of(self, view: Dataset[Any]) -> Subset[Any]:
        """The labelled frames of another view of the same rows, such as one with other transforms.

        Raises:
            InvalidInputError: `view` has another number of rows.
        """
        return self._part(self._checked_view(view), labeled=True)

    def unlabeled_of(self, view: Dataset[Any]) -> Subset[Any]:
        """The unlabelled frames of another view of the same rows; `select` over it calls them by our ids.

        Raises:
            InvalidInputError: `view` has another number of rows.
        """
        return self._part(self._checked_view(view), labeled=False)

    def _part(self, view: Dataset[Any], *, labeled: bool) -> NamedSubset:
        rows, ids = (
            (self.labeled_indices, self.labeled_ids) if labeled else (self.unlabeled_indices, self.unlabeled_ids)
        )
        return NamedSubset(view, rows, ids, rows_of=self.dataset if self._rows_are_ids else None)

    def _checked_view(self, view: Dataset[Any]) -> Dataset[Any]:
        if length_of(view) != len(self):
            raise InvalidInputError(
                f"`view` must have the {len(self)} rows of the dataset, in its order; got {length_of(view)}. Make the "
                "view of the whole dataset, not of its labelled or unlabelled part"
            )
        return view

    def is_labeled(self, frame_id: str) -> bool:
        """Whether this frame is labelled."""
        return frame_id in self._round_of

    def indices_of(self, frame_ids: Iterable[str]) -> list[int]:
        """The rows of the dataset that these frames are. Raises `InvalidInputError` for one that it has not."""
        indices = []
        for frame_id in frame_ids:
            if frame_id not in self._index_of:
                raise InvalidInputError(unknown_frame(frame_id, self._index_of))
            indices.append(self._index_of[frame_id])
        return indices

    def ids_of(self, dataset: Any) -> list[str] | None:
        """The id of each row of `dataset`, which is ours or a `Subset` (of a `Subset` ...) of it; None if it is not."""
        if dataset is self.dataset:
            return list(self.frame_ids)
        if not isinstance(dataset, Subset):
            return None
        ids = self.ids_of(dataset.dataset)
        return None if ids is None else [ids[index] for index in dataset.indices]

    def label(
        self,
        frames: Iterable[str] | Chosen,
        *,
        scores: Iterable[float] | None = None,
        stages: Iterable[DetectionSampling] | None = None,
        epoch: int | None = None,
        model_fingerprint: str | None = None,
    ) -> Round:
        """Record frames as labelled, as one round; all of them, or, if one cannot be, none.

        Args:
            frames: ids, or a selection (`SelectedFrames`, `Selection`), whose scores and stages are then recorded.
                Of a `Subset` of this dataset, or of `unlabeled`, the rows count, whatever ids the selection gave them.
                Where nothing but its row names a frame, it must be a row of this dataset or of a view of all its rows.
            scores: one finite number an id; all NaN means that nothing scored them.
            stages: what chose them.
            epoch: the epoch after which they were chosen.
            model_fingerprint: of the weights that chose them.

        Returns:
            The round.

        Raises:
            InvalidInputError: no id, an id that the dataset has not, twice the same, one that is labelled
                already, or scores that do not fit the ids.
        """
        if isinstance(frames, Chosen):
            scores = frames.scores if scores is None else scores
            stages = frames.stages if stages is None else stages
        ours = self.ids_of(frames) if isinstance(frames, Subset) else None
        if ours is None:
            check_rows_are_ours(frames, self.dataset, len(self), named_by_rows=self._rows_are_ids)
        frame_ids = as_ids(frames, name="frames") if ours is None else tuple(ours)
        round_ = Round(
            frame_ids,
            None if scores is None else as_scores(scores, frame_ids),
            tuple(describe_stage(stage) for stage in stages or ()),
            epoch,
            model_fingerprint,
        )
        self.record(round_)
        return round_

    def measured(self, metrics: Mapping[str, float]) -> None:
        """Take note of what a detector measured that was trained on the labelled frames: `learning_curve` has it then.

        Args:
            metrics: values by name. What was measured with as many labelled frames before is replaced.
        """
        self.learning_curve.add(len(self._round_of), metrics)

    def record(self, round_: Round) -> None:
        """Label the frames of `round_`, which then is the last of `rounds`. Raises as `label` does."""
        check_new_ids(round_.frame_ids, self._index_of, self._round_of)
        self._round_of.update(dict.fromkeys(round_.frame_ids, len(self._rounds)))
        self._rounds.append(round_)

    def annotate_from(
        self,
        annotations: str | os.PathLike[str] | Annotations,
        *,
        format: str | None = None,  # noqa: A002, as in the libraries of the field
        class_names: ClassNames | None = None,
        empty: Empty = "unannotated",
        epoch: int | None = None,
    ) -> Annotated:
        """Take over what people annotated: the frames become labelled, as one round, and their boxes come back.

        A frame is found by the id that travelled along, else by the end of its path. Frames that nobody annotated stay
        as they are. A frame that is annotated, with nothing in it, is labelled.

        Args:
            annotations: a file, a zip file or a folder, as an annotation tool exported it; or what `load_...` read.
            format: "coco", "yolo", "cvat", "label_studio" or "csv". None: it is told from the file.
            class_names: the names and labels of your classes, which decide on the numbers of `labels`.
            empty: what a frame without boxes is where the format does not tell.
            epoch: the epoch after which the frames were chosen.

        Returns:
            See `Annotated`. It warns of what matches no frame.

        Raises:
            InvalidInputError: a file that cannot be understood; a name that several frames match; no frame that
                matches. Nothing is recorded then.
            OSError: the file cannot be read.
        """
        if not isinstance(annotations, Annotations):
            annotations = load_annotations(annotations, format=format, class_names=class_names, empty=empty)
        found, notes = frames_of(annotations, self._index_of, self.dataset)
        result = annotated(annotations, found, notes, labeled=self._round_of, index_of=self._index_of, epoch=epoch)
        if result.round is not None:
            self.record(result.round)
        return result

    def training_set(
        self,
        annotations: Annotated | Annotations | Sequence[Annotated | Annotations],
        *,
        view: Dataset[Any] | None = None,
        transforms: Transforms | None = None,
        incomplete: bool = False,
    ) -> TrainingSet:
        """The labelled frames with their annotations, in the order they were labelled, to train a detector on.

        Args:
            annotations: what `annotate_from` returned, of one round or of several; the last counts for a frame.
            view: another view of the same rows, such as one that gives tensors. None: the dataset.
            transforms: called with image and target, such as a transform of `torchvision.transforms.v2`.
            incomplete: leave out labelled frames that have no annotations here. False refuses them.

        Raises:
            InvalidInputError: a labelled frame without annotations; classes that differ between rounds.
        """
        joined = latest(annotations)
        known = set(joined.frame_ids)
        ids = [frame_id for frame_id in self._round_of if frame_id in known or not incomplete]
        dataset = self.dataset if view is None else self._checked_view(view)
        return TrainingSet(dataset, self.indices_of(ids), ids, joined, transforms=transforms)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs, of str, int, float, bool, list and dict only.

        It passes `torch.load(..., weights_only=True)` and `json`. Of the dataset it has a fingerprint of the ids.
        """
        state: dict[str, Any] = {
            "format": STATE_FORMAT,
            "frames": len(self),
            "dataset_fingerprint": ids_fingerprint(self.frame_ids),
            "rounds": [round_.state_dict() for round_ in self._rounds],
        }
        if self.learning_curve.metrics:
            state["learning_curve"] = self.learning_curve.state()
        marks = self.row_marks_of(self.labeled_ids)
        return state if marks is None else state | {"row_marks": marks}

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Take over what a `state_dict` says, in place of every round recorded here. All of it, or nothing.

        Args:
            state: from `state_dict`.
            strict: refuse a state whose dataset had other ids than this one. False accepts a dataset that has
                gained frames since, or lost unlabelled ones; every labelled frame must still be there.

        Raises:
            InvalidInputError: not a state of this format, or of another dataset; or the frames have no ids but their
                rows, and the dataset lists another frame where a labelled one was.
        """
        found = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        if found != STATE_FORMAT:
            raise InvalidInputError(f"`state` must be a LabelPool state of format {STATE_FORMAT!r}; got {found!r}")
        round_of: dict[str, int] = {}
        try:
            was = (state["frames"], state["dataset_fingerprint"])
            rounds = [Round.from_state(round_) for round_ in list(state["rounds"])]
            for number, round_ in enumerate(rounds):
                check_new_ids(round_.frame_ids, self._index_of, round_of)
                round_of.update(dict.fromkeys(round_.frame_ids, number))
            learning_curve = LearningCurve.from_state(state.get("learning_curve", []))
        except InvalidInputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"`state` is damaged: {type(error).__name__}: {error}") from error
        self.check_rows_stayed(state.get("row_marks"), list(round_of))
        now = (len(self), ids_fingerprint(self.frame_ids))
        if strict and was != now:
            raise InvalidInputError(
                f"`state` is of another dataset: that had {was[0]} frames, with ids of fingerprint {was[1]}; this has "
                f"{now[0]}, with {now[1]}. If frames were only added, or unlabelled ones removed, pass strict=False"
            )
        self._rounds, self._round_of, self.learning_curve = rounds, round_of, learning_curve

    def row_marks_of(self, frame_ids: Sequence[str]) -> list[str | None] | None:
        """What tells whether rows are the same frames later, see `row_marks`; None where frames have ids."""
        return row_marks(self.dataset, self.indices_of(frame_ids)) if self._rows_are_ids else None

    def check_rows_stayed(self, marks: Any, frame_ids: Sequence[str]) -> None:
        """Raise an `InvalidInputError` if a frame known by its row alone is another one than when it had its mark."""
        current = self.row_marks_of(frame_ids)
        if current is None or not isinstance(marks, list):
            return
        for frame_id, then, now in zip(frame_ids, marks, current, strict=False):
            if then is not None and now is not None and then != now:
                raise InvalidInputError(
                    f"`state` knows frames by their rows alone, and row {frame_id} of the dataset is another frame "
                    "now. List the frames as they were; then give them ids that stay, one a row, by "
                    "`LabelPool(dataset, frame_ids=...)`"
                )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON, whole or not at all: an older file stays intact if writing fails.

        Raises:
            OSError: the disk is full or read-only.
        """
        write_record(path, self.state_dict())

    def load(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        """Take over the record that `save` wrote, as `load_state_dict` does.

        Raises:
            InvalidInputError: the file is no such record, or of another dataset.
            OSError: it cannot be read.
        """
        state = read_record(path, what="a saved LabelPool", form=STATE_FORMAT)
        try:
            self.load_state_dict(state, strict=strict)
        except InvalidInputError as error:
            raise InvalidInputError(f"{os.fspath(path)!r}: {error}") from error
