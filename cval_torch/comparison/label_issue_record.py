"""`LabelIssues`: the annotations that look wrong, as columns, the worst first."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from cval_torch.comparison.label_issue_scores import boxes_of, labels_of
from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, names_for
from cval_torch.pool.files import replacing
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool

IssueKind = Literal["overlooked", "badly_located", "swapped"]
KINDS: tuple[IssueKind, ...] = get_args(IssueKind)

ReviewLabels = Literal["corrected", "annotated", "suggested"]
"""Which boxes of a frame go to review: the annotated ones with the suggestions carried out, as they are, or the
suggestions alone."""


class _Boxes(NamedTuple):
    """Boxes of the frames for review. `frames` says whose they are: a place in that list, or -1 for another frame."""

    frames: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    is_crowd: Tensor

    @classmethod
    def of(cls, frames: Tensor, pool: Pool, *, crowd: bool) -> _Boxes:
        """All boxes of a pool whose frames are these; nothing scored them."""
        unscored = torch.full((pool.num_boxes,), torch.nan, dtype=torch.float64)
        of_boxes = frames[pool.frame_rows]
        return cls(of_boxes, boxes_of(pool), labels_of(pool), unscored, torch.full_like(of_boxes, crowd).bool())


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Annotations that look wrong, the worst first: I issues in some of the A frames that are annotated.

    Scores are label qualities in [0, 1]: 1 = clean, 0 = certainly wrong, as cleanlab has them.

    Attributes:
        frame_ids: I names; a frame may have several issues.
        kinds: I of `overlooked` (an object that nobody annotated), `badly_located` (an annotated box that should be
            moved) and `swapped` (an annotated box that should have another class).
        scores: (I,) float64, the quality of the label in question, rising.
        frame_scores: (I,) float64, the quality of the whole frame.
        annotated_boxes: (I, 4) float64 xyxy in pixels, the annotated box; NaN where it is overlooked.
        annotated_labels: (I,) int64, its class; -1 where it is overlooked.
        annotation_rows: (I,) int64, its place among the `boxes` of its frame's target; -1 where it is overlooked.
        object_rows: (I,) int64, its row in `annotated`; -1 where it is overlooked.
        suggested_boxes: (I, 4) float64, what the box should be: the predicted one; of `swapped`, the annotated one.
        suggested_labels: (I,) int64, what the class should be.
        prediction_rows: (I,) int64, the box of the pool that says so.
        confidences: (I,) float64 in [0, 1], the score of that prediction.
        checked_ids: the A annotated frames, the worst first, whether they have issues or not.
        checked_scores: (A,) float64, the quality of each, rising.
        annotated: the same A frames in the same order, with all annotated `boxes` and `labels` but those of crowds.
        crowds: the same A frames once more, with the `boxes` and `labels` of crowds, which are not judged.
    """

    frame_ids: tuple[str, ...]
    kinds: tuple[IssueKind, ...]
    scores: Tensor
    frame_scores: Tensor
    annotated_boxes: Tensor
    annotated_labels: Tensor
    annotation_rows: Tensor
    object_rows: Tensor
    suggested_boxes: Tensor
    suggested_labels: Tensor
    prediction_rows: Tensor
    confidences: Tensor
    checked_ids: tuple[str, ...]
    checked_scores: Tensor
    annotated: Pool
    crowds: Pool

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __repr__(self) -> str:
        counts = Counter(self.kinds)
        return (
            f"LabelIssues({', '.join(f'{counts[kind]} {kind}' for kind in KINDS)}; in {len(set(self.frame_ids))} of "
            f"{len(self.checked_ids)} annotated frames)"
        )

    def for_review(self, n: int | None = None) -> tuple[str, ...]:
        """Ids of the frames that are worth a second look, the worst first by `checked_scores`.

        Args:
            n: at most so many; fewer frames may have issues. None: all that have.

        Raises:
            InvalidInputError: n is negative.
        """
        if n is not None and n < 0:
            raise InvalidInputError(f"`n` must be 0 or more, or None for all frames with issues; got {n}")
        flagged = set(self.frame_ids)
        return tuple(frame_id for frame_id in self.checked_ids if frame_id in flagged)[:n]

    def review_pools(self, n: int | None = None) -> tuple[Pool, Pool]:
        """The frames of `for_review(n)`, in its order, as two pools: as they are annotated, and what is suggested.

        Both have `boxes` and `labels`. The second has a box for each issue of the frame, in the order of `scores`, and
        as its `scores` the `confidences`. Whatever draws or exports the boxes of a `Pool` takes them.
        """
        names = self.for_review(n)
        row_of = {frame_id: row for row, frame_id in enumerate(self.checked_ids)}
        place_of = {frame_id: place for place, frame_id in enumerate(names)}
        places = torch.tensor([place_of.get(frame_id, -1) for frame_id in self.frame_ids], dtype=torch.int64)
        issues = (places >= 0).nonzero().squeeze(1)
        issues = issues[places[issues].argsort(stable=True)]
        suggested = Pool(
            names,
            offsets_of(torch.bincount(places[issues], minlength=len(names))),
            boxes=self.suggested_boxes[issues],
            labels=self.suggested_labels[issues],
            scores=self.confidences[issues],
        )
        return self.annotated.take([row_of[frame_id] for frame_id in names]), suggested

    def annotations(
        self,
        n: int | None = None,
        *,
        which: ReviewLabels = "corrected",
        class_names: ClassNames | None = None,
        file_names: Mapping[str, str] | None = None,
    ) -> Annotations:
        """The frames of `for_review(n)`, in its order, as every `save_...` of `cval_torch.formats` takes them.

        Ranks count from 1, the worst frame first. `uncertainties` are 1 - the quality of the frame.

        Args:
            n: at most so many frames; None: all that have issues.
            which: `corrected`: all annotated boxes with the suggestions carried out, as pre-labels that people check.
                If several issues are about one box, the one with the lowest score counts. `suggested`: the boxes of
                the issues alone, as pre-labels. `annotated`: the annotations as they are. `is_annotated` is True for
                these only. Scores are the `confidences` of suggested boxes, and NaN for annotated ones.
            class_names: names of the classes by label, or a list of names; None: the numbers.
            file_names: the image file of each frame by its id; None: ids are paths.

        Returns:
            The annotations. Crowds are in them, too, unless `which` is `suggested`.

        Raises:
            InvalidInputError: n is negative; `which` is something else; a label without a name; a frame without a
                file name.

        >>> from cval_torch.comparison import label_issues
        >>> box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
        >>> label, score = torch.tensor([3]), torch.tensor([1.0])
        >>> pool = Pool(["a.jpg"], torch.tensor([0, 1]), boxes=box, labels=label, scores=score)
        >>> found = label_issues(pool, [{"boxes": box, "labels": [7]}])
        >>> found.annotations(class_names={3: "bolt", 7: "nut"}).labels
        tensor([3])
        """
        if which not in get_args(ReviewLabels):
            raise InvalidInputError(f"`which` must be one of {', '.join(get_args(ReviewLabels))}; got {which!r}")
        names = self.for_review(n)
        place_of = {frame_id: place for place, frame_id in enumerate(names)}
        joined = _joined(self._boxes_for_review(which, place_of))
        if file_names is not None and (missing := [frame_id for frame_id in names if frame_id not in file_names]):
            raise InvalidInputError(f"`file_names` must have a file for every frame; it has none for {missing[0]!r}")
        occurring = (labels_of(self.annotated), labels_of(self.crowds), self.suggested_labels)
        quality = dict(zip(self.checked_ids, self.checked_scores.tolist(), strict=True))
        return Annotations(
            names if file_names is None else [file_names[frame_id] for frame_id in names],
            offsets_of(torch.bincount(joined.frames, minlength=len(names))),
            boxes=joined.boxes,
            labels=joined.labels,
            class_names=names_for(torch.cat(occurring).tolist(), class_names),
            frame_ids=names,
            is_annotated=torch.full((len(names),), which == "annotated"),
            scores=joined.scores,
            is_crowd=joined.is_crowd,
            ranks=torch.arange(1, len(names) + 1),
            uncertainties=torch.tensor([1 - quality[frame_id] for frame_id in names], dtype=torch.float64),
            source="the label issues",
        )

    def _boxes_for_review(self, which: ReviewLabels, place_of: Mapping[str, int]) -> list[_Boxes]:
        frames = torch.tensor([place_of.get(frame_id, -1) for frame_id in self.checked_ids], dtype=torch.int64)
        places = torch.tensor([place_of.get(frame_id, -1) for frame_id in self.frame_ids], dtype=torch.int64)
        single = torch.zeros(len(self), dtype=torch.bool)
        said = _Boxes(places, self.suggested_boxes, self.suggested_labels, self.confidences, single)
        if which == "suggested":
            return [said]
        given = _Boxes.of(frames, self.annotated, crowd=False)
        crowds = _Boxes.of(frames, self.crowds, crowd=True)
        if which == "annotated":
            return [given, crowds]
        worst = {row: place for place, row in reversed([*enumerate(self.object_rows.tolist())]) if row >= 0}
        rows, issues = list(worst), list(worst.values())
        changed = given._replace(boxes=given.boxes.clone(), labels=given.labels.clone())
        changed.boxes[rows], changed.labels[rows] = said.boxes[issues], said.labels[issues]
        changed.scores[rows] = said.scores[issues]
        new = self.object_rows < 0
        return [changed, crowds, _Boxes(*(column[new] for column in said))]

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a row for each issue, the worst first; corners of boxes are `..._x0` to `..._y1`, empty where NaN.

        Returns:
            `path`.

        Raises:
            OSError: the file cannot be written.
        """
        corners = ("x0", "y0", "x1", "y1")
        header = ["frame_id", "kind", "score", "frame_score", "annotation_row", "annotated_label"]
        header += [f"annotated_{corner}" for corner in corners] + ["suggested_label"]
        header += [f"suggested_{corner}" for corner in corners] + ["prediction_row", "confidence"]
        columns: tuple[Tensor, ...] = (
            self.scores,
            self.frame_scores,
            self.annotation_rows,
            self.annotated_labels,
            self.annotated_boxes,
        )
        columns += (self.suggested_labels, self.suggested_boxes, self.prediction_rows, self.confidences)
        with replacing(path, newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            listed = zip(self.frame_ids, self.kinds, *(column.tolist() for column in columns), strict=True)
            for frame_id, kind, *values in listed:
                cells = [each for value in values for each in (value if isinstance(value, list) else [value])]
                writer.writerow([frame_id, kind, *("" if cell != cell else cell for cell in cells)])  # noqa: PLR0124
        return Path(path)


def _joined(parts: Sequence[_Boxes]) -> _Boxes:
    """Frame after frame, and in a frame part after part; what is of other frames is left out."""
    whole = _Boxes(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    order = whole.frames.argsort(stable=True)
    order = order[whole.frames[order] >= 0]
    return _Boxes(*(column[order] for column in whole))
