"""What a comparison is asked for, checked before anything is inferred."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from cval_torch.comparison.truth import Targets, TruthReader
from cval_torch.errors import InvalidInputError
from cval_torch.selection.checks import checked_stages
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.labels import LabelPool

Strategy = str | Callable[..., Any] | DetectionSampling | Sequence[DetectionSampling]
"""A name or a callable, which is one stage with its defaults; or a stage, or stages."""


@dataclass(frozen=True)
class Frames:
    """What is replayed.

    Attributes:
        loader: over all frames.
        start: ids labelled before, sorted.
        reader: reads what frames truly show.
        notes: what a reader must know.
    """

    loader: Iterable[Any]
    start: tuple[str, ...]
    reader: TruthReader
    notes: tuple[str, ...] = ()


def frames_of(
    loader: Iterable[Any] | LabelPool,
    make_loader: Callable[[Dataset[Any]], DataLoader[Any]] | None,
    labeled: Iterable[str] | None,
    targets: Targets | None,
) -> Frames:
    """The frames of a loader, or the labelled ones of a `LabelPool`.

    Raises:
        InvalidInputError: `make_loader` without a `LabelPool`, or the other way round; nothing is labelled; `labeled`
            is no set of ids.
    """
    if isinstance(labeled, str):
        raise InvalidInputError(f"`labeled` must be several frame ids; got {labeled!r}")
    start = None if labeled is None else tuple(sorted(set(labeled)))
    if not isinstance(loader, LabelPool):
        if make_loader is not None:
            raise InvalidInputError("`make_loader` is for a LabelPool; a loader is used as it is")
        return Frames(loader if targets is not None else _unpinned(loader), start or (), TruthReader(targets))
    labels = loader
    if make_loader is None:
        raise InvalidInputError("a LabelPool needs `make_loader=`, a function from a Subset to a DataLoader over it")
    if not labels.rounds:
        raise InvalidInputError("the LabelPool has no labelled frames to replay")
    first, *others = labels.rounds
    if start is None:
        start = tuple(sorted(first.frame_ids)) if others and not first.stages else ()
    chosen_by = sorted({round_.strategy for round_ in labels.rounds if round_.strategy not in (None, "random")})
    notes: tuple[str, ...] = ()
    if chosen_by:
        notes = (
            f"the candidates are no random part of the data: some were chosen by {'; '.join(map(str, chosen_by))}, "
            "so random draws from them are better than random draws from everything",
        )
    reader = TruthReader(targets, lambda frame_id: labels.indices_of([frame_id])[0])
    made = make_loader(labels.labeled)
    return Frames(made if targets is not None else _unpinned(made), start, reader, notes)


def _unpinned(loader: Iterable[Any]) -> Iterable[Any]:
    """The same loader without pinned memory, which makes plain tensors of boxes that know their format."""
    if not isinstance(loader, DataLoader) or not loader.pin_memory:
        return loader
    unpinned = copy.copy(loader)
    unpinned.pin_memory = False
    return unpinned


def plans_of(
    strategies: Mapping[str, Strategy] | Sequence[str], num_of_samples: int, seed: int
) -> dict[str, tuple[DetectionSampling, ...]]:
    """The stages of each strategy, by name.

    Raises:
        InvalidInputError: no strategies, a name twice or that is `random`, stages that cannot be run, or that keep
            another number of frames.
    """
    if isinstance(strategies, (str, DetectionSampling)) or not isinstance(strategies, (Mapping, Sequence)):
        raise InvalidInputError(f"`strategies` must be a dict of stages by name, or names; got {strategies!r:.80}")
    given = strategies if isinstance(strategies, Mapping) else dict(zip(strategies, strategies, strict=True))
    for name in strategies:
        if not isinstance(name, str) or not name.strip():
            raise InvalidInputError(f"`strategies` must have names that are strings; got {name!r:.80}")
        if name == "random":
            raise InvalidInputError("`strategies`: 'random' is always beside them; leave it out")
    if not given or len(given) < len(strategies):
        got = "none" if not given else ", ".join(map(repr, strategies))
        raise InvalidInputError(f"`strategies` must be one or more, of different names; got {got}")
    plans = {}
    for name, strategy in given.items():
        if isinstance(strategy, str) or (callable(strategy) and not isinstance(strategy, DetectionSampling)):
            strategy = DetectionSampling(selection_strategy=strategy, num_of_samples=num_of_samples, seed=seed)  # noqa: PLW2901
        try:
            stages = checked_stages(strategy)
        except (InvalidInputError, TypeError) as error:
            raise InvalidInputError(f"strategy {name!r}: {error}") from error
        if stages[-1].num_of_samples != num_of_samples:
            raise InvalidInputError(
                f"strategy {name!r}: its last stage must keep num_of_samples={num_of_samples} frames, as the others "
                f"do; got {stages[-1].num_of_samples}"
            )
        for field in stages[-1].budget_fields:
            raise InvalidInputError(
                f"strategy {name!r}: its last stage must not have `{field}`, which may end it before the others; "
                f"got {getattr(stages[-1], field):g}"
            )
        plans[name] = stages
    return plans


def random_stage(num_of_samples: int, seed: int) -> DetectionSampling:
    """Random choice."""
    return DetectionSampling(selection_strategy="random", num_of_samples=num_of_samples, seed=seed % 2**63)


def check_numbers(**numbers: tuple[Any, int]) -> None:
    """Refuse an option that is no integer or is less than the second number."""
    for name, (value, least) in numbers.items():
        try:
            number = operator.index(value)
        except TypeError:
            raise InvalidInputError(f"`{name}` must be an integer; got {value!r}") from None
        if not least <= number < 2**63:
            raise InvalidInputError(f"`{name}` must be at least {least}; got {value}")


def check_ranges(**numbers: tuple[float, float]) -> None:
    """Refuse an option that is not between 0 and the second number, or not finite."""
    for name, (value, most) in numbers.items():
        if not (0 <= value <= most and math.isfinite(value)):
            span = "at least 0" if math.isinf(most) else f"in [0, {most:g}]"
            raise InvalidInputError(f"`{name}` must be {span}; got {value}")
