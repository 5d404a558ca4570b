"""`LabelIssues`: the annotations that look wrong, as columns, the worst first."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.files import replacing
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool

IssueKind = Literal["overlooked", "badly_located", "swapped"]
KINDS: tuple[IssueKind, ...] = get_args(IssueKind)


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
        suggested_boxes: (I, 4) float64, what the box should be: the predicted one; of `swapped`, the annotated one.
        suggested_labels: (I,) int64, what the class should be.
        prediction_rows: (I,) int64, the box of the pool that says so.
        confidences: (I,) float64 in [0, 1], the score of that prediction.
        checked_ids: the A annotated frames, the worst first, whether they have issues or not.
        checked_scores: (A,) float64, the quality of each, rising.
        annotated: the same A frames in the same order, with all annotated `boxes` and `labels` but those of crowds.
    """

    frame_ids: tuple[str, ...]
    kinds: tuple[IssueKind, ...]
    scores: Tensor
    frame_scores: Tensor
    annotated_boxes: Tensor
    annotated_labels: Tensor
    annotation_rows: Tensor
    suggested_boxes: Tensor
    suggested_labels: Tensor
    prediction_rows: Tensor
    confidences: Tensor
    checked_ids: tuple[str, ...]
    checked_scores: Tensor
    annotated: Pool

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
