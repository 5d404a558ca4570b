"""The work behind requests: it may run in a thread of the server, or in a process of its own."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import checked_stages
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import CONSTRAINTS, DetectionSampling, Scoring
from cval_torch.service.codec import GatheredFrames
from cval_torch.service.protocol import SampledFrame
from cval_torch.service.server.database import new_id
from cval_torch.service.server.incoming import Portion, incoming_sampling
from cval_torch.service.server.kept import Kept
from cval_torch.service.server.payloads import Body, SamplingRequest
from cval_torch.service.server.settings import Limits, RefusedError, at_most
from cval_torch.service.server.tasks import check_waiting
from cval_torch.strategies.registry import find_strategy, names_served

OPTIONS = ("class_weights", "null_policy", "scored_by", "seed", "labeled", "labeled_counts", *CONSTRAINTS)
"""Fields of a sampling request that go beyond the protocol."""


class Work(Kept):
    """Parses bodies, chooses frames, and writes both down.

    Args:
        data: the server's directory.
        limits: what it takes.
    """

    def __init__(self, data: Path, limits: Limits) -> None:
        super().__init__(data, limits)
        self._unwritten: tuple[str, dict[str, Any]] | None = None  # a task, and what came of it

    def features(self) -> dict[str, list[str]]:
        """The strategies, and the fields of a request that go beyond the protocol."""
        return {"strategies": list(names_served("own server")), "options": list(OPTIONS)}

    def take_sampling(self, owner: str, body: Body) -> tuple[bytes, bool]:
        """Answer a small request with its result; make a large one a task. Either way it is on the disk.

        Returns:
            The answer as JSON, and whether it is a task that waits.

        Raises:
            RefusedError: as above, or an unknown dataset or strategy, or embeddings that are not there.
        """
        start = time.time()
        taken = self._taken(owner, body)
        request = taken.request
        labeled = taken.gathered.labeled
        known = sum(labeled)
        if known == taken.frames:
            raise RefusedError(422, "`frames` must hold at least one frame that is not `labeled`")
        asked = _Asked(_stages(request, taken.frames - known), known, request.labeled_counts)
        pool = self._pool(taken)
        if known:  # they come last, so that one pool has all frames
            pool = pool.take(sorted(range(len(pool)), key=labeled.__getitem__))
        add_task = partial(self.tasks.add, owner, request.dataset_id, start=start, keep=self.limits.finished_tasks)
        if max(taken.boxes, len(pool)) <= self._most_at_once(request):
            return add_task(result=asked.selected(pool)).payload(), False
        most = self.limits.waiting_tasks
        waiting = [waiting_id for waiting_id, _ in self.tasks.unfinished(owner)]
        check_waiting(len(waiting), most)  # before much is written; it counts again when it is
        task_id = new_id()
        path = self.pool_path(task_id)
        try:
            pool.save(path)
            path.chmod(0o600)
            self._check_pools([*waiting, task_id])
            return add_task(stages=asked.text(), task_id=task_id, most_waiting=most).payload(), True
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _check_pools(self, task_ids: Sequence[str]) -> None:
        """Raise RefusedError, 507, if the frames of tasks that wait take too many bytes."""
        most, held = self.limits.stored_bytes, 0
        for task_id in task_ids:
            with contextlib.suppress(FileNotFoundError):  # it has just ended
                held += self.pool_path(task_id).stat().st_size
        if held > most:
            raise RefusedError(507, f"the tasks of a key that wait have at most {most} bytes")

    def _most_at_once(self, request: SamplingRequest) -> int:
        """Predictions. To compare frames with each other takes far longer than to score each of them."""
        if _compares_frames(request):
            return min(self.limits.answer_at_once, self.limits.compare_at_once)
        return self.limits.answer_at_once

    def run_task(self, task_id: str) -> None:
        """Choose the frames of a task, and write them down, or why it cannot be done.

        If they cannot be written, the next call for the task writes them without choosing again.
        """
        task = self.tasks.get(task_id)
        if task is None or task.stages is None or task.state in ("done", "failed"):
            return
        if self._unwritten is None or self._unwritten[0] != task_id:
            self._unwritten = (task_id, self._outcome(task_id, task.stages))
        self.tasks.finish(task_id, **self._unwritten[1])
        self._unwritten = None
        self.pool_path(task_id).unlink(missing_ok=True)

    def _outcome(self, task_id: str, described: str) -> dict[str, Any]:
        try:
            return {"result": _Asked.read(described).selected(Pool.load(self.pool_path(task_id)))}
        except (RefusedError, InvalidInputError, OSError, MemoryError) as error:
            problem = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
            return {"problem": problem[:2000]}

    def _taken(self, owner: str, body: Body) -> _Taken:
        """A request, if all is within bounds."""
        request, portions = incoming_sampling(body, most=self.limits.piece_bytes)
        refusal = self._refusal(owner, request)
        lookup = None
        if refusal is None and _compares_frames(request) and request.dataset_id is not None:
            lookup = partial(self._vectors, request.dataset_id)
        taken = _Taken(request, GatheredFrames(lookup))
        for portion in portions:
            taken.count(portion)
            if refusal is None and taken.excess(self.limits) is None:
                taken.gathered.add(portion.frames, continued=portion.continued, unended=portion.unended)
        if not taken.frames:
            raise RefusedError(422, "`frames` must hold at least one frame")
        refusal = refusal or taken.excess(self.limits)
        if refusal is not None:
            raise refusal
        return taken

    def _refusal(self, owner: str, request: SamplingRequest) -> RefusedError | None:
        """Why a request cannot be served, whatever its frames are."""
        served = names_served("own server")
        for strategy in (
            request.selection_strategy,
            *([request.scored_by.selection_strategy] if request.scored_by else []),
        ):
            if strategy not in served:
                said = f"`selection_strategy` must be one of {', '.join(served)}; got {strategy!r}"
                return RefusedError(422, said)
        if request.dataset_id is not None and self.store.dataset(owner, request.dataset_id) is None:
            return RefusedError(404, f"there is no dataset {request.dataset_id!r}")
        return None

    def _vectors(self, dataset_id: str, frame_id: str, names: Collection[str]) -> dict[str, Any]:
        found = self.store.vectors_of(dataset_id, frame_id, names)
        return {name: np.frombuffer(vector, dtype="<f4") for name, vector in found.items()}

    def _pool(self, taken: _Taken) -> Pool:
        request = taken.request
        if _compares_frames(request) and request.dataset_id is None:
            what = repr(request.selection_strategy) if request.min_distance is None else "`min_distance`"
            raise RefusedError(422, f"{what} needs the `dataset_id` of the embeddings")
        try:
            return taken.gathered.pool()
        except InvalidInputError as error:
            raise RefusedError(422, str(error)[:2000]) from error


@dataclass
class _Taken:
    """A request as far as it was read: its frames as columns, and how much it is."""

    request: SamplingRequest
    gathered: GatheredFrames
    frames: int = 0
    boxes: int = 0
    widest: int = 0

    def count(self, portion: Portion[SampledFrame]) -> None:
        """Count what comes."""
        self.frames += len(portion.frames) - portion.continued
        boxes = [box for frame in portion.frames for box in frame.predictions or ()]
        self.boxes += len(boxes)
        self.widest = max(self.widest, max((len(box.probabilities or ()) for box in boxes), default=0))

    def excess(self, limits: Limits) -> RefusedError | None:
        """What is too much."""
        try:
            at_most(self.frames, limits.frames, "frames")
            at_most(self.boxes, limits.predictions, "predictions")
            at_most(self.widest, limits.vector_length, "probabilities of a box")
        except RefusedError as refusal:
            return refusal
        return None


@dataclass(frozen=True)
class _Asked:
    """What is asked of a pool: the stages, how many of its frames, the last ones, are annotated, and their objects."""

    stages: list[DetectionSampling]
    labeled: int
    counts: dict[int, float] | None

    @classmethod
    def read(cls, text: str) -> _Asked:
        """What `text` wrote. Tasks of earlier versions have a list of stages alone."""
        found = json.loads(text)
        found = {"stages": found, "labeled": 0, "counts": None} if isinstance(found, list) else found
        counts = found["counts"] and {int(label): count for label, count in found["counts"].items()}
        return cls([DetectionSampling.model_validate(stage) for stage in found["stages"]], found["labeled"], counts)

    def text(self) -> str:
        """As JSON."""
        stages = [stage.model_dump(exclude_defaults=True) for stage in self.stages]
        return json.dumps({"stages": stages, "labeled": self.labeled, "counts": self.counts})

    def selected(self, pool: Pool) -> list[str]:
        """The ids of the frames that are chosen.

        Raises:
            RefusedError: 422, a stage that the columns cannot serve.
        """
        count = len(pool) - self.labeled
        known = pool.part(count, len(pool)) if self.labeled else None
        backend = LocalBackend(labeled=known, labeled_counts=self.counts)
        try:
            return list(backend.select(pool.part(0, count) if self.labeled else pool, self.stages).frame_ids)
        except InvalidInputError as error:
            raise RefusedError(422, str(error)[:2000]) from error


def _compares_frames(request: SamplingRequest) -> bool:
    """Whether it looks at embeddings: then frames are compared with each other."""
    # a strategy that is not served is refused before anybody asks
    return find_strategy(request.selection_strategy).is_diversity or request.min_distance is not None


def _stages(request: SamplingRequest, frames: int) -> list[DetectionSampling]:
    scored_by = [] if request.scored_by is None else [_stage(request.scored_by, num_of_samples=frames)]
    asked = None if request.num_of_samples is None else min(request.num_of_samples, frames)
    try:
        return list(checked_stages([*scored_by, _stage(request, num_of_samples=asked)]))
    except InvalidInputError as error:
        raise RefusedError(422, str(error)[:2000]) from error


def _stage(scoring: Scoring, *, num_of_samples: int | None) -> DetectionSampling:
    """The stage that a request, or a part of it, describes."""
    fields = scoring.model_dump(include=set(DetectionSampling.model_fields))
    return DetectionSampling.model_validate({**fields, "num_of_samples": num_of_samples})
