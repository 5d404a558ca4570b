"""`label_issues`: which annotations look wrong, told from what a detector says of the same frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cval_torch.comparison.label_issue_record import KINDS, IssueKind, LabelIssues
from cval_torch.comparison.label_issue_scores import (
    BoxScores,
    box_scores,
    boxes_of,
    columns_of,
    frame_scores,
    labels_of,
    overlaps,
    pairs_within,
)
from cval_torch.comparison.label_issue_targets import Annotations, read_annotations
from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import places_of
from cval_torch.pool.pool import Pool

HIGH_SCORE, LOW_SCORE = 0.95, 0.5
"""The scores from which on the paper takes a prediction as sure, and as likely."""

_AGREES = 0.5  # intersection over union of a prediction and an annotated box that mean the same object
_ENOUGH = 10  # predictions of a class that agree, for quartiles of its own
_UPPER, _LOWER = 0.75, 0.25


def label_issues(
    pool: Pool,
    targets: Mapping[str, Any] | Sequence[Any],
    *,
    high_score: float | None = None,
    low_score: float | None = None,
    max_score: float = 0.5,
    class_columns: Mapping[int, int] | None = None,
    alpha: float = 0.9,
    temperature: float = 0.1,
) -> LabelIssues:
    """Find annotations that look wrong, by what a detector predicts for the same frames (ObjectLab).

    The predictions should come from a detector that was not trained on the very frames, for example one of two that
    were each trained on the other half. With the similarity ::

        sim(a, p) = alpha * IoU(a, p) + (1 - alpha) * exp(-d(a, p) / 10)

    of an annotated box `a` and a predicted box `p` of a frame, `d` the distance of their centres in pixels, `m` the
    least `sim` above 0 of all frames (at most `1 - alpha`) and `s` the score of `p`, the label qualities are:

    - `overlooked`, for each prediction with `s >= high_score` that overlaps no annotated box: the largest `sim(a, p)`
      over the annotated boxes of its class, or `m (1 - s)` if the frame has none;
    - `badly_located`, for each annotated box: the largest `sim(a, p)` over predictions of its class with
      `s >= low_score` that overlap it, or 1 if there are none;
    - `swapped`, for each annotated box: `max(m, 1 - r sim(a, p))` for the largest `r sim(a, p)` over predictions of
      other classes with `s >= high_score`, or 1 if there are none. Here `r` is 1, as in the paper, where the pool has
      no `probabilities`. With them `r = max(0, 1 - p_given / p_said)`, from the probabilities of the annotated and the
      predicted class in that one prediction: a detector that wavers between the two says little.

    A frame's quality is the geometric mean of three soft minima, `sum(q w) / sum(w)` with `w = exp(-q / temperature)`
    over its qualities `q` of one kind.

    An issue is a label with a quality of `max_score` or less. A prediction that lies nearer to another annotated box of
    its own class says nothing against `a`, so objects that overlap are no issue. Crowds (`iscrowd`) are not judged,
    and what overlaps one is not overlooked.

    Args:
        pool: what the detector says of F frames: `boxes`, `labels`, `scores`, and `probabilities` for better `swapped`.
        targets: what is annotated: one target a frame in the order of the pool, or by frame id; None for a frame that
            is not annotated. A target is a dict of `boxes` and `labels`, as torchvision's detectors train on. With
            ids, a frame that is missing is not annotated.
        high_score: from which score on a prediction is sure, in [0, 1]; the paper takes 0.95. None: for each class the
            upper quartile of the scores of predictions that agree with an annotated box of it (an IoU of 0.5 or more),
            at most 0.95. Of all classes, for one with fewer than ten of them.
        low_score: from which score on a prediction is likely, in [0, 1]; the paper takes 0.5. None: the lower quartile
            of the same scores, at most 0.5.
        max_score: the quality up to which a label is an issue, in [0, 1].
        class_columns: by label the column of `probabilities`; None: they are the same number, as with all detectors
            that have an adapter here. A background column belongs to no label.
        alpha: the weight of the overlap in `sim`, in [0, 1].
        temperature: of the soft minimum, above 0: the smaller, the closer to the minimum.

    Raises:
        InvalidInputError: a missing column, a label without a column of `probabilities`, an option out of range, or
            targets that do not fit the pool; the message names the frame.

    References:
        Tkachenko, Thyagarajan and Mueller, *ObjectLab: Automated Diagnosis of Mislabeled Images in Object Detection
        Data*, 2023, arXiv 2309.00832. cleanlab's `object_detection` has the same qualities, `overlapping_label_check`
        aside, for the paper's scores and a pool without `probabilities`.

    >>> box = torch.tensor([[10.0, 10.0, 30.0, 30.0]])
    >>> pool = Pool(["a"], torch.tensor([0, 1]), boxes=box, labels=torch.tensor([3]), scores=torch.tensor([0.99]))
    >>> label_issues(pool, [{"boxes": box, "labels": [7]}])
    LabelIssues(0 overlooked, 0 badly_located, 1 swapped; in 1 of 1 annotated frames)
    """
    _check_options(
        {"high_score": high_score, "low_score": low_score, "max_score": max_score, "alpha": alpha}, temperature
    )
    _check_columns(pool, class_columns)
    found = read_annotations(pool, targets)
    objects = found.objects
    predicted = pool.only(("boxes", "labels", "scores", "probabilities")).to("cpu").take(found.rows)
    likely, sure = _score_limits(objects, predicted, low_score, high_score)
    scores = box_scores(
        objects,
        predicted,
        sure=_scores_of(predicted) >= sure,
        likely=_scores_of(predicted) >= likely,
        crowds=found.crowds,
        columns=class_columns,
        alpha=alpha,
    )
    of_frames = frame_scores(scores, objects, predicted, temperature=temperature)
    begins = pool.offsets.cpu()[found.rows] - predicted.offsets[:-1]  # a frame's boxes are moved by so many
    return _ranked(found, predicted, begins, _Found(scores, max_score), of_frames)


def _check_options(shares: Mapping[str, float | None], temperature: float) -> None:
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise InvalidInputError(f"`{name}` must be in [0, 1]; got {value}")
    if not temperature > 0:
        raise InvalidInputError(f"`temperature` must be above 0; got {temperature}")


def _check_columns(pool: Pool, class_columns: Mapping[int, int] | None) -> None:
    missing = [name for name in ("boxes", "labels", "scores") if getattr(pool, name) is None]
    if missing and pool.num_boxes:
        raise InvalidInputError(
            f"`pool` must have `boxes`, `labels` and `scores`; it has no `{'`, no `'.join(missing)}`"
        )
    if pool.probabilities is None or pool.labels is None:
        return
    without = pool.labels[columns_of(pool.labels, pool, class_columns) < 0]
    if len(without):
        raise InvalidInputError(
            f"`probabilities` has {pool.probabilities.shape[1]} columns, and none for label {int(without[0])}. Pass "
            "`class_columns`, the column of each label, or leave the probabilities out: "
            "`pool.replace(probabilities=None, activation=None)`"
        )


def _scores_of(pool: Pool) -> Tensor:
    return torch.zeros(0, dtype=torch.float64) if pool.scores is None else pool.scores.double()


def _score_limits(annotated: Pool, predicted: Pool, low: float | None, high: float | None) -> tuple[Tensor, Tensor]:
    """(B,) and (B,): from which scores on predictions of the class of each box are likely, and sure."""
    labels, scores = labels_of(predicted), _scores_of(predicted)
    classes, places = torch.unique(labels, return_inverse=True)
    agrees = torch.zeros(len(labels), dtype=torch.bool)
    if low is None or high is None:
        for a, p in pairs_within(annotated.offsets, predicted.offsets):
            near = overlaps(boxes_of(annotated)[a], boxes_of(predicted)[p]) >= _AGREES
            agrees[p[near & (labels_of(annotated)[a] == labels[p])]] = True
    right, of_class = scores[agrees], places[agrees]
    table = torch.tensor([[LOW_SCORE, HIGH_SCORE]], dtype=torch.float64).repeat(len(classes), 1)
    for row in range(len(classes) if len(right) else 0):
        own = right[of_class == row]
        table[row].clamp_max_(_quartiles(own if len(own) >= _ENOUGH else right))
    for column, value in enumerate((low, high)):
        if value is not None:
            table[:, column] = value
    return table[places, 0], table[places, 1]


def _quartiles(values: Tensor) -> Tensor:
    """(2,) the lower and the upper one, each one of the values; `torch.quantile` takes 16 million at most."""
    ordered = values.sort().values
    return ordered[[int(level * (len(ordered) - 1)) for level in (_LOWER, _UPPER)]]


class _Found:
    """The labels of a quality of `max_score` or less: I issues, kind after kind.

    Attributes:
        kinds: I names.
        quality: (I,) float64.
        by: (I,) int64, the predicted box that says so.
        given: (I,) int64, the annotated box; -1 where it is overlooked.
    """

    def __init__(self, scores: BoxScores, max_score: float) -> None:
        missed = (scores.overlooked <= max_score).nonzero().squeeze(1)
        moved = ((scores.badly_located <= max_score) & (scores.moved_by >= 0)).nonzero().squeeze(1)
        renamed = ((scores.renaming <= max_score) & (scores.renamed_by >= 0)).nonzero().squeeze(1)
        counts = (len(missed), len(moved), len(renamed))
        self.kinds = [kind for kind, count in zip(KINDS, counts, strict=True) for _ in range(count)]
        self.quality = torch.cat([scores.overlooked[missed], scores.badly_located[moved], scores.renaming[renamed]])
        self.by = torch.cat([missed, scores.moved_by[moved], scores.renamed_by[renamed]])
        self.given = torch.cat([torch.full_like(missed, -1), moved, renamed])

    def is_of(self, kind: IssueKind) -> Tensor:
        """(I,) bool."""
        return torch.tensor([each == kind for each in self.kinds], dtype=torch.bool)


def _ranked(
    annotations: Annotations, predicted: Pool, begins: Tensor, issues: _Found, of_frames: Tensor
) -> LabelIssues:
    """The issues as a record, the worst first; what the frames are called decides among equals."""
    objects, by = annotations.objects, issues.by
    frames = predicted.frame_rows[by]
    names = [objects.frame_ids[frame] for frame in frames.tolist()]
    given_boxes, given_labels = (
        _given(boxes_of(objects), issues.given, torch.nan),
        _given(labels_of(objects), issues.given, -1),
    )
    boxes = torch.where(issues.is_of("swapped")[:, None], given_boxes, boxes_of(predicted)[by].double())
    labels = torch.where(issues.is_of("badly_located"), given_labels, labels_of(predicted)[by])
    confidences = _scores_of(predicted)[by]
    keys = zip(issues.quality.tolist(), (-confidences).tolist(), names, issues.kinds, boxes.tolist(), strict=True)
    ranked = [place for _, place in sorted(zip(keys, range(len(by)), strict=True))]
    order = torch.tensor(ranked, dtype=torch.int64)
    worst = sorted(range(len(objects)), key=lambda row: (float(of_frames[row]), objects.frame_ids[row]))
    moved_to = torch.empty(objects.num_boxes, dtype=torch.int64)  # rows of boxes in that order
    moved_to[places_of(objects.offsets, torch.tensor(worst, dtype=torch.int64))[0]] = torch.arange(objects.num_boxes)
    return LabelIssues(
        frame_ids=tuple(names[place] for place in ranked),
        kinds=tuple(issues.kinds[place] for place in ranked),
        scores=issues.quality[order],
        frame_scores=of_frames[frames[order]],
        annotated_boxes=given_boxes[order],
        annotated_labels=given_labels[order],
        annotation_rows=_given(annotations.places, issues.given, -1)[order],
        object_rows=_given(moved_to, issues.given, -1)[order],
        suggested_boxes=boxes[order],
        suggested_labels=labels[order],
        prediction_rows=(by + begins[frames])[order],
        confidences=confidences[order],
        checked_ids=tuple(objects.frame_ids[row] for row in worst),
        checked_scores=of_frames[worst],
        annotated=objects.take(worst),
        crowds=annotations.crowds.take(worst),
    )


def _given(column: Tensor, rows: Tensor, missing: float) -> Tensor:
    """The rows of a column, and `missing` where a row is -1."""
    made = torch.full((len(rows), *column.shape[1:]), missing, dtype=column.dtype)
    made[rows >= 0] = column[rows[rows >= 0]]
    return made
