"""The work behind requests: it may run in a thread of the server, or in a process of its own."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.checks import checked_stages
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import CONSTRAINTS, DetectionSampling, Scoring
from cval_torch.service.codec import pool_from_vectors
from cval_torch.service.codec.numbers import short_decimals
from cval_torch.service.server.payloads import EMBEDDINGS, SAMPLING, Body, SamplingRequest, parsed
from cval_torch.service.server.settings import Limits, RefusedError
from cval_torch.service.server.store import Store, new_id
from cval_torch.strategies.registry import find_strategy, names_served

OPTIONS = ("class_weights", "null_policy", "scored_by", "seed", *CONSTRAINTS)
"""Fields of a sampling request that go beyond the protocol."""


class Work:
    """Parses bodies, chooses frames, and writes both down.

    Args:
        data: the server's directory.
        limits: what it takes.
    """

    def __init__(self, data: Path, limits: Limits) -> None:
        self.limits = limits
        self.store = Store(data / "cval.sqlite3")
        self._pools = data / "tasks"
        self._pools.mkdir(exist_ok=True)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def store_embeddings(self, dataset_id: str, part: str, body: Body) -> dict[str, Any]:
        """Store an upload, all of it or nothing; the answer says what is in it.

        Raises:
            RefusedError: the body is not what it must be, or too much.
        """
        frames = parsed(body, EMBEDDINGS)
        _at_most(len(frames), self.limits.frames, "frames")
        rows = []
        for frame in frames:
            vectors = []
            for item in frame.embeddings:
                _at_most(
                    len(item.embedding_id),
                    self.limits.id_length,
                    f"characters of an embedding id of frame {frame.frame_id!r}",
                )
                vectors.append((item.embedding_id, self._vector(item.embedding, frame.frame_id)))
            rows.append((frame.frame_id, vectors))
        self.store.add_embeddings(dataset_id, part, rows)
        return meta_answer([(frame_id, [name for name, _ in vectors]) for frame_id, vectors in rows])

    def take_sampling(self, owner: str, body: Body) -> dict[str, Any]:
        """Answer a small request with its result; make a large one a task. Either way it is on the disk.

        Raises:
            RefusedError: as above, or an unknown dataset or strategy, or embeddings that are not there.
        """
        start = time.time()
        request = parsed(body, SAMPLING)
        boxes = self._check_sampling(owner, request)
        stages = _stages(request)
        pool = self._pool(request)
        del request.frames  # a large request is in memory twice until here
        dataset_id = request.dataset_id
        add_task = partial(self.store.add_task, owner, dataset_id, start=start, keep=self.limits.finished_tasks)
        if max(boxes, len(pool)) <= self.limits.answer_at_once:
            return add_task(result=_selected(pool, stages)).payload()
        if self.store.count_waiting(owner) >= self.limits.waiting_tasks:
            raise RefusedError(429, f"{self.limits.waiting_tasks} tasks of this key are waiting already")
        task_id = new_id()
        pool.save(self._pool_path(task_id))
        text = json.dumps([stage.model_dump(exclude_defaults=True) for stage in stages])
        return add_task(stages=text, task_id=task_id).payload()

    def run_task(self, task_id: str) -> None:
        """Choose the frames of a task, and write them down, or why it cannot be done."""
        task = self.store.task(task_id)
        if task is None or task.stages is None or task.state in ("done", "failed"):
            return
        path = self._pool_path(task_id)
        try:
            stages = [DetectionSampling.model_validate(stage) for stage in json.loads(task.stages)]
            result = _selected(Pool.load(path), stages)
        except (RefusedError, InvalidInputError, OSError, MemoryError) as error:
            self.fail_task(task_id, getattr(error, "detail", None) or f"{type(error).__name__}: {error}")
            return
        self.store.finish_task(task_id, result=result)
        path.unlink(missing_ok=True)

    def fail_task(self, task_id: str, problem: str) -> None:
        """Write down that a task cannot be done."""
        self.store.finish_task(task_id, problem=problem[:2000])
        self._pool_path(task_id).unlink(missing_ok=True)

    def _pool_path(self, task_id: str) -> Path:
        return self._pools / f"{task_id}.pool"

    def _vector(self, values: list[float], frame_id: str) -> bytes:
        _at_most(len(values), self.limits.vector_length, f"numbers in an embedding of frame {frame_id!r}")
        with np.errstate(over="ignore"):
            vector = np.array(values, dtype="<f4")
        if not np.isfinite(vector).all():
            raise RefusedError(422, f"an embedding of frame {frame_id!r} has a number that float32 cannot hold")
        return vector.tobytes()

    def _check_sampling(self, owner: str, request: SamplingRequest) -> int:
        """The number of boxes, if all is within bounds."""
        if not request.frames:
            raise RefusedError(422, "`frames` must hold at least one frame")
        served = names_served("own server")
        for strategy in (
            request.selection_strategy,
            *([request.scored_by.selection_strategy] if request.scored_by else []),
        ):
            if strategy not in served:
                raise RefusedError(422, f"`selection_strategy` must be one of {', '.join(served)}; got {strategy!r}")
        if request.dataset_id is not None and self.store.dataset(owner, request.dataset_id) is None:
            raise RefusedError(404, f"there is no dataset {request.dataset_id!r}")
        _at_most(len(request.frames), self.limits.frames, "frames")
        boxes = sum(len(frame.predictions or ()) for frame in request.frames)
        _at_most(boxes, self.limits.predictions, "predictions")
        widest = max((len(b.probabilities or ()) for f in request.frames for b in f.predictions or ()), default=0)
        _at_most(widest, self.limits.vector_length, "probabilities of a box")
        return boxes

    def _pool(self, request: SamplingRequest) -> Pool:
        vectors: dict[tuple[str, str], Any] | None = None
        if find_strategy(request.selection_strategy).is_diversity or request.min_distance is not None:
            what = repr(request.selection_strategy) if request.min_distance is None else "`min_distance`"
            if request.dataset_id is None:
                raise RefusedError(422, f"{what} needs the `dataset_id` of the embeddings")
            ids = (frame.frame_id for frame in request.frames if frame.predictions)
            vectors = {
                (frame_id, embedding_id): np.frombuffer(vector, dtype="<f4")
                for frame_id, embedding_id, vector in self.store.vectors_of(request.dataset_id, ids)
            }
        try:
            return pool_from_vectors(request.frames, vectors)
        except InvalidInputError as error:
            raise RefusedError(422, str(error)[:2000]) from error


def _stages(request: SamplingRequest) -> list[DetectionSampling]:
    frames = len(request.frames)
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


def _selected(pool: Pool, stages: list[DetectionSampling]) -> list[str]:
    try:
        return list(LocalBackend().select(pool, stages).frame_ids)
    except InvalidInputError as error:
        raise RefusedError(422, str(error)[:2000]) from error


def meta_answer(frames: list[tuple[str, list[str]]]) -> dict[str, Any]:
    """The names of embeddings, as the protocol has them."""
    return {
        "frames_quantity": len(frames),
        "frames": [
            {"frame_id": frame_id, "embeddings_quantity": len(names), "embeddings": names} for frame_id, names in frames
        ],
    }


def embeddings_answer(frames: list[tuple[str, list[tuple[str, bytes]]]]) -> list[dict[str, Any]]:
    """Stored embeddings, as the protocol has them."""
    return [
        {
            "frame_id": frame_id,
            "embeddings": [{"embedding_id": name, "embedding": _floats(vector)} for name, vector in vectors],
        }
        for frame_id, vectors in frames
    ]


def _floats(vector: bytes) -> list[float]:
    values: list[float] = short_decimals(torch.from_numpy(np.frombuffer(vector, dtype="<f4").copy())).tolist()
    return values


def _at_most(got: int, most: int, what: str) -> None:
    if got > most:
        raise RefusedError(413, f"at most {most} {what} are taken; got {got}")
