"""Weights of classes: how much the uncertainty of a box counts, by its label (`DetectionSampling.class_weights`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.labeled import Labeled
from cval_torch.selection.stage import DetectionSampling

_NOTHING = 1e-9


def balanced_class_weights(
    counts: Mapping[int, float], *, classes: Iterable[int] = (), smoothing: float = 0.5, cap: float = 10.0
) -> dict[int, float]:
    """Weights that make every class count for as much as any other, however often it is annotated.

    A class of `n` objects weighs `z / (n + smoothing)`, at most `cap`, where `z` makes the mean over the annotated
    objects 1. With neither smoothing nor cap these are the weights `N / (K n)` of N objects of K classes that
    scikit-learn calls `balanced`, after King and Zeng, *Logistic Regression in Rare Events Data* (2001). The smoothing
    gives a class that nobody has annotated yet a weight too, that of a class with half an object, and the cap keeps
    one false detection of a rare class from outweighing a crowded image. What a class weighs does not depend on which
    others are in `classes`.

    Args:
        counts: annotated objects by label; finite, at least 0, fractions allowed.
        classes: labels to weigh besides those counted, as of 0 objects.
        smoothing: objects that every class is taken to have more of; above 0.
        cap: the greatest weight, at least 1.

    Returns:
        By label, in (0, cap]: the rarer, the more. All 1 where nothing was counted, or less than 1e-9 of an object.

    Raises:
        InvalidInputError: a count, `smoothing` or `cap` out of range.

    >>> weights = balanced_class_weights({1: 900, 2: 90, 3: 9}, classes=[4])
    >>> {label: round(weight, 2) for label, weight in weights.items()}
    {1: 0.51, 2: 5.04, 3: 10.0, 4: 10.0}
    """
    objects = checked_counts(counts, "counts")
    if not (math.isfinite(smoothing) and smoothing > 0):
        raise InvalidInputError(f"`smoothing` must be a finite number above 0; got {smoothing}")
    if not (math.isfinite(cap) and cap >= 1):
        raise InvalidInputError(f"`cap` must be a finite number of at least 1; got {cap}")
    for label in classes:
        objects.setdefault(int(label), 0.0)
    left = math.fsum(objects.values())
    if left < _NOTHING:  # so few would be lost in rounding
        return dict.fromkeys(objects, 1.0)
    # where the cap cuts a class off, what it would have had goes to the others: the rarest are cut off first
    rarest_first = sorted(objects.values())
    scale = 0.0
    for number, count in enumerate(rarest_first):
        shares = math.fsum(other / (other + smoothing) for other in rarest_first[number:])
        scale = left / shares
        if scale <= cap * (count + smoothing):
            break
        left -= cap * count
    return {label: min(cap, scale / (count + smoothing)) for label, count in objects.items()}


def class_counts(labeled: Pool) -> dict[int, float]:
    """How many objects of each class there are in a pool, as far as a detector can tell: the sum of its boxes' scores.

    Args:
        labeled: frames with `labels`; boxes without `scores` count 1.

    Returns:
        By label, at least 0; whatever the order of the frames.

    Raises:
        InvalidInputError: there are boxes, and no `labels`.

    >>> labeled = Pool(["a"], torch.tensor([0, 3]), scores=torch.tensor([1, 0.5, 0.25]), labels=torch.tensor([7, 7, 2]))
    >>> class_counts(labeled)
    {2: 0.25, 7: 1.5}
    """
    if labeled.labels is None:
        if labeled.num_boxes:
            raise InvalidInputError("the labelled frames must have the column `labels` to count classes; got none")
        return {}
    labels: list[int] = torch.unique(labeled.labels, sorted=True).tolist()
    if labeled.scores is None:
        return {label: float((labeled.labels == label).sum()) for label in labels}
    return {label: math.fsum(labeled.scores[labeled.labels == label].tolist()) for label in labels}


def checked_counts(counts: Mapping[int, float], name: str) -> dict[int, float]:
    """Objects by label, as int and float.

    Raises:
        InvalidInputError: not a mapping of whole numbers to finite numbers of at least 0; `name` is what it is called.
    """
    if not isinstance(counts, Mapping):
        raise InvalidInputError(f"`{name}` must be a dict of label to objects; got {type(counts).__name__}")
    checked = {}
    for label, count in counts.items():
        try:
            whole, number = int(label), float(count)
            fits = whole == label and math.isfinite(number) and number >= 0
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise InvalidInputError(
                f"`{name}` must be whole-number labels to finite numbers of objects, at least 0; "
                f"got {label!r}: {count!r}"
            )
        checked[whole] = number
    return checked


def counts_for(
    stages: Sequence[DetectionSampling],
    *,
    labeled: Pool | Labeled | None = None,
    labeled_counts: Mapping[int, float] | None = None,
) -> dict[int, float] | None:
    """The annotated objects by label, where a stage wants its classes balanced; None where none does.

    Raises:
        InvalidInputError: one does, and nothing is known of what is annotated.
    """
    if not any(stage.class_weights == "balanced" for stage in stages):
        return None
    if labeled_counts is not None:
        return dict(labeled_counts)
    if isinstance(labeled, Pool):
        return class_counts(labeled)
    raise counts_missing()


def counts_missing() -> InvalidInputError:
    """What to give, where classes cannot be balanced."""
    return InvalidInputError(
        "class_weights='balanced' needs the class counts of what is annotated: give "
        "LocalBackend(labeled_counts={label: objects}) or LocalBackend(labeled=extract(model, labeled_loader)), or, to "
        "any backend, class_weights=balanced_class_weights({label: objects})"
    )


def with_known_weights(stage: DetectionSampling, pool: Pool, counts: Mapping[int, float] | None) -> DetectionSampling:
    """The stage, with numbers for the classes in `pool` where it says `balanced`."""
    if stage.class_weights != "balanced" or counts is None:
        return stage
    classes: list[int] = [] if pool.labels is None else torch.unique(pool.labels).tolist()
    return stage.model_copy(update={"class_weights": balanced_class_weights(counts, classes=classes)})


def box_weights(labels: Tensor, weights: Mapping[int, float]) -> Tensor:
    """The weight of each box.

    Args:
        labels: (B,) int64.
        weights: by label; others weigh 1.

    Returns:
        (B,) float64 on the device of `labels`.

    >>> box_weights(torch.tensor([3, 1, 2]), {1: 0.5, 3: 2.0})
    tensor([2.0000, 0.5000, 1.0000], dtype=torch.float64)
    """
    if not weights:
        return torch.ones(len(labels), dtype=torch.float64, device=labels.device)
    known = torch.tensor(sorted(weights), dtype=torch.int64, device=labels.device)
    values = torch.tensor([weights[label] for label in sorted(weights)], dtype=torch.float64, device=labels.device)
    places = torch.searchsorted(known, labels).clamp_(max=len(known) - 1)
    return torch.where(known[places] == labels, values[places], 1.0)
