"""`Round`: frames that were labelled together, and how they had been chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cval_torch.errors import InvalidInputError


@dataclass(frozen=True)
class Round:
    """Frames that were labelled together, and how they had been chosen.

    Attributes:
        frame_ids: their ids, in the order they were given (rank order, for a selection).
        scores: one frame score an id, None for frames of `random_ids` that no stage scored; None where nothing scored
            any (`random`, diversity alone, by hand).
        stages: the stages that chose them, as plain dicts of what was set; a callable is its dotted name.
            Empty for frames that no stage chose, such as the ones labelled from the start.
        epoch: the epoch after which they were chosen, if it was in a training loop.
        model_fingerprint: of the weights that chose them (`model_fingerprint`), if it is known.
        random_ids: those of the frames that were drawn at random from all unlabelled ones, whether or not the stages
            chose them, too: a sample of the pool as it was, to compare the others with.
    """

    frame_ids: tuple[str, ...]
    scores: tuple[float | None, ...] | None = None
    stages: tuple[Mapping[str, Any], ...] = ()
    epoch: int | None = None
    model_fingerprint: str | None = None
    random_ids: tuple[str, ...] = ()

    @property
    def strategy(self) -> str | None:
        """The strategies of the stages, such as `"entropy, clustering"`; None where no stage chose."""
        return ", ".join(str(stage["selection_strategy"]) for stage in self.stages) or None

    @property
    def seed(self) -> int | None:
        """The seed of the last stage; None where no stage chose."""
        return int(self.stages[-1]["seed"]) if self.stages else None

    def part(self, frame_ids: Iterable[str]) -> Round:
        """The same round with only some of its frames, in its own order."""
        wanted = set(frame_ids)
        rows = [row for row, frame_id in enumerate(self.frame_ids) if frame_id in wanted]
        scores = tuple(None if self.scores is None else self.scores[row] for row in rows)
        return replace(
            self,
            frame_ids=tuple(self.frame_ids[row] for row in rows),
            scores=None if all(score is None for score in scores) else scores,
            random_ids=tuple(frame_id for frame_id in self.random_ids if frame_id in wanted),
        )

    def state_dict(self) -> dict[str, Any]:
        """The round as str, int, float, bool, list and dict; what is None is left out."""
        state: dict[str, Any] = {"frame_ids": list(self.frame_ids), "stages": [dict(stage) for stage in self.stages]}
        if self.scores is not None:
            state["scores"] = list(self.scores)
        if self.epoch is not None:
            state["epoch"] = self.epoch
        if self.model_fingerprint is not None:
            state["model_fingerprint"] = self.model_fingerprint
        if self.random_ids:
            state["random_ids"] = list(self.random_ids)
        return state

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Round:
        """The round that `state_dict` described.

        Raises:
            KeyError, TypeError, AttributeError, InvalidInputError: it is damaged.
        """
        frame_ids, stages = state["frame_ids"], state["stages"]
        _check_list("frame_ids", frame_ids, str)
        if len(set(frame_ids)) != len(frame_ids):
            twice = next(frame_id for place, frame_id in enumerate(frame_ids) if frame_id in frame_ids[:place])
            raise ValueError(f"frame {twice!r} is named twice in one round")
        _check_list("stages", stages, Mapping)
        for stage in stages:
            _check_value("selection_strategy", stage["selection_strategy"], str)
            _check_value("seed", stage["seed"], int)
        scores, epoch, fingerprint = (state.get(name) for name in ("scores", "epoch", "model_fingerprint"))
        if epoch is not None:
            _check_value("epoch", epoch, int)
        if fingerprint is not None:
            _check_value("model_fingerprint", fingerprint, str)
        random_ids = state.get("random_ids", [])
        _check_list("random_ids", random_ids, str)
        if strangers := set(random_ids) - set(frame_ids):
            raise ValueError(f"`random_ids` has {min(strangers)!r}, which is not in the round")
        return cls(
            tuple(frame_ids),
            None if scores is None else as_scores(scores, frame_ids, random_ids=random_ids),
            tuple(dict(stage) for stage in stages),
            epoch,
            fingerprint,
            tuple(random_ids),
        )


def _check_list(name: str, values: Any, kind: type) -> None:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"`{name}` is no list but {values!r}")
    for value in values:
        _check_value(name, value, kind)


def _check_value(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"`{name}` has {value!r}, which is no {kind.__name__}")


def as_scores(
    scores: Iterable[float | None], frame_ids: Sequence[str], *, random_ids: Iterable[str] = ()
) -> tuple[float | None, ...] | None:
    """The scores as floats; None if all are NaN, which is how a selection says that nothing scored its frames.

    Args:
        scores: one a frame; None is NaN.
        frame_ids: of the frames.
        random_ids: frames whose scores may be NaN beside others that are not; they become None.

    Raises:
        InvalidInputError: not one a frame, or some NaN or infinite.
    """
    values = tuple(math.nan if score is None else float(score) for score in scores)
    drawn = set(random_ids)
    if len(values) != len(frame_ids):
        raise InvalidInputError(f"`scores` must be one a frame, of which there are {len(frame_ids)}; got {len(values)}")
    if all(math.isnan(value) for value in values):
        return None
    for frame_id, value in zip(frame_ids, values, strict=True):
        if not math.isfinite(value) and not (math.isnan(value) and frame_id in drawn):
            raise InvalidInputError(f"`scores` must be finite, or all NaN; got {value} for frame {frame_id!r}")
    return tuple(None if math.isnan(value) else value for value in values)
