"""Learning curves: train on what a strategy chose, measure, look again, choose more."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset

from cval_torch.comparison.result import CurvePoint
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.identity import changes
from cval_torch.extraction.ids import NamedSubset
from cval_torch.hooks.finding import unwrap
from cval_torch.hooks.recorder import evaluating
from cval_torch.pool.files import read_record, write_record
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling

Train = Callable[[Subset[Any]], nn.Module]
"""`Subset of the loader's dataset -> a detector trained on it`."""

Evaluate = Callable[[nn.Module], float]
"""`detector -> how good it is`, higher = better, on frames of its own."""

_FORMAT = "cval_torch.comparison/1"
_SEED_STRIDE = 1_000_003  # far from the seeds of other draws


class Record:
    """What is trained already: by run, the frames chosen in each round and the metrics measured.

    Args:
        path: a JSON file that is written after every training; None: nothing is kept.
        identity: what it depends on. Of a mapping in it, only names that both have must agree, so that strategies can
            be added later.

    Raises:
        InvalidInputError: the file is of something else.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, dict(identity)
        self.runs: dict[str, dict[str, list[Any]]] = {}
        if path is None or not path.exists():
            return
        state = read_record(path, what="the record of a comparison", form=_FORMAT)
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise InvalidInputError(f"{str(path)!r} is not the record of a comparison of format {_FORMAT!r}")
        if differing := changes(state["identity"], self.identity):
            raise InvalidInputError(
                f"{str(path)!r} is the record of another comparison: {'; '.join(differing)}. Give another folder"
            )
        self.runs = state["runs"]
        for name, value in state["identity"].items():
            if isinstance(value, dict):
                self.identity[name] = value | dict(self.identity[name])

    def save(self) -> None:
        """Write it, whole or not at all."""
        if self.path is not None:
            write_record(self.path, {"format": _FORMAT, "identity": self.identity, "runs": self.runs})


def backend_beside(labeled: Pool | None) -> LocalBackend:
    """Chooses beside what is labelled; where nothing is, every class counts as not annotated yet."""
    return LocalBackend(labeled=labeled, labeled_counts={} if labeled is None else None)


def fingerprint_of(frame_ids: Sequence[str]) -> str:
    """Of the set of ids."""
    return hashlib.sha256(json.dumps(sorted(frame_ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What all runs share.

    Attributes:
        dataset: that the loader is over.
        everything: what the first detector said of all frames, those labelled before included.
        boxes_of: by frame id, the objects in it.
        start: ids labelled before.
        train, evaluate: the user's.
        look: what a detector says of all frames.
        rounds: how often to choose and train.
        seed: of torch's random numbers, at the beginning of every training.
        record: of what is done.
    """

    dataset: Any
    everything: Pool
    boxes_of: Mapping[str, int]
    start: tuple[str, ...]
    train: Train
    evaluate: Evaluate
    look: Callable[[nn.Module], Pool]
    rounds: int
    seed: int
    record: Record

    def begin(self, model: nn.Module) -> float:
        """The metric of the first detector."""
        run = self.record.runs.setdefault("", {"chosen": [], "metrics": []})
        if not run["metrics"]:
            run["metrics"].append(self._measured(lambda: model, "the start")[1])
            self.record.save()
        return float(run["metrics"][0])

    def curve(
        self,
        name: str,
        first: Sequence[str],
        stages: Sequence[DetectionSampling],
        start: float,
        step: Callable[[], object],
        *,
        blind: bool = False,
    ) -> tuple[CurvePoint, ...]:
        """The curve of one run, from the first choice on.

        Args:
            name: of the run, in the record and in errors.
            first: the ids of the first choice.
            stages: what chooses in the later rounds, each with another seed.
            start: the metric of the first detector.
            step: is called for each training that is done.
            blind: the stages look at nothing but ids, so no later detector has to look at the frames.
        """
        run = self.record.runs.setdefault(name, {"chosen": [list(first)], "metrics": []})
        for _ in run["metrics"]:
            step()
        while len(run["metrics"]) < self.rounds:
            number = len(run["metrics"]) + 1
            labelled = [*self.start, *(frame_id for chosen in run["chosen"] for frame_id in chosen)]
            frames = NamedSubset(self.dataset, self._rows(self.everything, labelled, indices=True), labelled)
            model, metric = self._measured(lambda frames=frames: self.train(frames), f"{name!r}, round {number}")  # type: ignore[misc]
            if number < self.rounds:
                pool = self.everything if blind else self.look(model)
                run["chosen"].append(self._choose(pool, labelled, stages, number))
            run["metrics"].append(metric)
            self.record.save()
            step()
        points = [CurvePoint(len(self.start), self._boxes(self.start), start)]
        labelled = list(self.start)
        for chosen, metric in zip(run["chosen"], run["metrics"], strict=True):
            labelled += chosen
            points.append(CurvePoint(len(labelled), self._boxes(labelled), float(metric)))
        return tuple(points)

    def _measured(self, trained: Callable[[], nn.Module], what: str) -> tuple[nn.Module, float]:
        """A detector and its metric, from the same random numbers each time; the user's go on as they were."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            model = trained()
            if not isinstance(model, nn.Module):
                raise InvalidInputError(f"`train` must return a detector; got {type(model).__name__} for {what}")
            with evaluating(unwrap(model)):
                metric = self.evaluate(model)
        try:
            value = float(metric)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise InvalidInputError(f"`evaluate` must return a finite number; got {metric!r} for {what}")
        return model, value

    def _choose(
        self, pool: Pool, labelled: Sequence[str], stages: Sequence[DetectionSampling], number: int
    ) -> list[str]:
        known = set(labelled)
        rest = pool.take([row for row, frame_id in enumerate(pool.frame_ids) if frame_id not in known])
        seeded = [stage.model_copy(update={"seed": (stage.seed + number * _SEED_STRIDE) % 2**63}) for stage in stages]
        labeled = pool.take(self._rows(pool, labelled)) if labelled else None
        return list(backend_beside(labeled).select(rest, seeded).frame_ids)

    def _boxes(self, frame_ids: Sequence[str]) -> int:
        return sum(self.boxes_of[frame_id] for frame_id in frame_ids)

    @staticmethod
    def _rows(pool: Pool, frame_ids: Sequence[str], *, indices: bool = False) -> list[int]:
        row_of = {frame_id: row for row, frame_id in enumerate(pool.frame_ids)}
        rows = [row_of[frame_id] for frame_id in frame_ids]
        return pool.indices[rows].tolist() if indices and pool.indices is not None else rows
