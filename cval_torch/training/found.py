"""Whether the frames that were selected show more than random ones: from what annotators found in both."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.training.rounds import Round

_DRAWS = 4000


@dataclass(frozen=True)
class FoundFrames:
    """What annotators found in the selected frames of a round, and in its random ones.

    Attributes:
        num_selected, num_random: how many frames they are.
        selected, random: the mean value of a frame: its objects, each weighed by the scarcity of its class.
        ratio: the one over the other; infinite where random frames show nothing, NaN where neither do.
        low, high: in so many of 100 cases the ratio of many such frames is between these, as `level` says.
        level: in (0, 1).
    """

    num_selected: int
    num_random: int
    selected: float
    random: float
    ratio: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return (
            f"a selected frame shows {self.ratio:.2g} times what a random one does ({self.level:.0%}: {self.low:.2g} "
            f"to {self.high:.2g}; {self.num_selected} selected, {self.num_random} random frames)"
        )


def found_in(
    round_: Round,
    found: Mapping[str, Any] | Annotations,
    *,
    counts: Mapping[int, float] | None = None,
    level: float = 0.8,
) -> FoundFrames:
    """Compare what a choice brought with a fair sample of the pool, drawn by `random_share`.

    A frame is worth its objects. With `counts`, the n-th object that the frame adds to a class that has N counts for
    `1 / (N + n)`, so that the tenth of a class counts for more than its thousandth. The interval is that of the
    Bayesian bootstrap (Rubin, 1981) over the frames of both parts.

    Args:
        round_: has `random_ids`; frames that were drawn and selected count as random.
        found: by frame id the (n,) labels of its objects; or `Annotations` with such ids, as
            `labels.annotate_from(...).annotations`. Frames that nobody annotated are left out.
        counts: annotated objects by label, before the round. None: every object counts for 1.
        level: of the interval, in (0, 1).

    Raises:
        InvalidInputError: no random frame, or none besides, is annotated; `level` is out of range.

    >>> round_ = Round(("a", "b", "c", "d"), random_ids=("c", "d"))
    >>> print(found_in(round_, {"a": [1, 1], "b": [1], "c": [1], "d": []}))
    a selected frame shows 3 times what a random one does (80%: 1.6 to 16; 2 selected, 2 random frames)
    """
    if not 0 < level < 1:
        raise InvalidInputError(f"`level` must be above 0 and below 1; got {level}")
    labels = _labels_of(found) if isinstance(found, Annotations) else found
    drawn = set(round_.random_ids)
    parts: tuple[list[float], list[float]] = ([], [])
    for frame_id in round_.frame_ids:
        if frame_id in labels:
            parts[frame_id in drawn].append(_value(labels[frame_id], counts))
    for what, part in zip(("selected", "random"), parts, strict=True):
        if not part:
            raise InvalidInputError(
                f"of the {len(round_.frame_ids)} frames of the round no {what} one is annotated; {len(drawn)} are "
                "random. `SamplerCallback(random_share=0.1)` draws some, and `found` must have the frames of the round"
            )
    selected, random = (torch.tensor(part, dtype=torch.float64) for part in parts)
    ratios = _ratios(selected, random)
    ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    low, high = ratios.sort().values[(ends * (len(ratios) - 1)).round().long()].tolist()
    means = float(selected.mean()), float(random.mean())
    ratio = means[0] / means[1] if means[1] else math.inf if means[0] else math.nan
    return FoundFrames(len(selected), len(random), *means, ratio, low, high, level)


def scarce_objects(found: Mapping[int, int], counts: Mapping[int, float]) -> float:
    """Objects weighed by how scarce their class is: the n-th that joins N annotated ones counts for `1 / (N + n)`.

    Args:
        found: objects by label.
        counts: annotated objects by label; none of a label that is not there.

    >>> scarce_objects({0: 2, 1: 1}, {0: 9})
    1.190909090909091
    """
    return math.fsum(
        1 / (counts.get(label, 0) + number) for label, many in found.items() for number in range(1, many + 1)
    )


def _labels_of(annotations: Annotations) -> dict[str, list[int]]:
    offsets, labels = annotations.offsets.tolist(), annotations.labels.tolist()
    return {
        frame_id: labels[offsets[row] : offsets[row + 1]]
        for row, frame_id in enumerate(annotations.frame_ids)
        if frame_id is not None and bool(annotations.is_annotated[row])
    }


def _value(labels: Sequence[int] | Tensor, counts: Mapping[int, float] | None) -> float:
    values = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    return float(len(values)) if counts is None else scarce_objects(Counter(values), counts)


def _ratios(selected: Tensor, random: Tensor) -> Tensor:
    """Of many draws of weights for the frames."""
    chance = torch.Generator().manual_seed(0)

    def means(values: Tensor) -> Tensor:
        weights = -torch.rand(_DRAWS, len(values), dtype=torch.float64, generator=chance).clamp_min(1e-300).log()
        return (weights @ values) / weights.sum(1)

    return means(selected) / means(random)
