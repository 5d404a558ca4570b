"""One selection through the protocol, stage by stage: what is sent, and what may come back."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ProtocolError,
    ServiceError,
    UnsupportedByServiceError,
    warn_user,
)
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.constraints import bounds_of, remarks_on_bounds
from cval_torch.selection.null_policy import SetApart, remark_on_number, sets_apart
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import CONSTRAINTS, DetectionSampling
from cval_torch.service.client.connection import CVALConnection
from cval_torch.service.client.deadline import Deadline
from cval_torch.service.client.tasks import Features
from cval_torch.service.codec import one_width, predictions_json, whole_frames, wire_weights
from cval_torch.service.protocol import DatasetPart, Result
from cval_torch.strategies.columns import COLUMNS
from cval_torch.strategies.registry import find_strategy

logger = logging.getLogger(__name__)

DATASET_NAME = "cval_torch"


@dataclass
class Asking:
    """One selection on its way through its stages.

    Attributes:
        connection: to the service.
        part_of_dataset: where embeddings are put.
        pool: all frames.
        stages: all stages, which the service has.
        deadline: of all of it.
        features: what the service has beyond the protocol; None for nothing.
        progress: whether to show bars.
        labeled: frames that are annotated already, which only a server of one's own is sent.
        labeled_counts: annotated objects by label, the same.
        remarks: what the user should know of the choice so far.
    """

    connection: CVALConnection
    part_of_dataset: DatasetPart
    pool: Pool
    stages: tuple[DetectionSampling, ...]
    deadline: Deadline
    features: Features | None
    progress: bool
    labeled: Pool | None = None
    labeled_counts: Mapping[int, float] | None = None
    remarks: list[str] = field(default_factory=list)

    def go_on(self, number: int, rows: Tensor) -> Selection:
        """Run the stages from `number` on, on the frames at `rows`."""
        for stage in range(number, len(self.stages)):
            kept = self.pool if len(rows) == len(self.pool) and number == stage == 0 else self.pool.take(rows)
            rows = self._run(stage, kept)
        return self._selected(rows)

    def finish(self, number: int, task_id: str, kept: Pool) -> Tensor:
        """Wait for a task of a stage that chose among `kept`; the rows in the pool of what it chose."""
        waiting = self.connection.result()
        try:
            result = waiting.wait(task_id, timeout=self.deadline.remaining(), progress=self.progress)
        except DeadlineExceededError as error:
            raise DeadlineExceededError(
                f"{error}; or take its result with `backend.resume(pool, stages, task_id={task_id!r}, stage={number})`",
                task_id=task_id,
                stage=number,
            ) from None
        self._forget(result.dataset_id)
        return self._rows_of(number, result, kept)

    def _run(self, number: int, kept: Pool) -> Tensor:
        stage = self.stages[number]
        strategy = find_strategy(stage.selection_strategy)
        apart = SetApart.of(kept.is_empty, kept.frame_ids, stage)
        self._remark(stage, remark_on_number(apart, stage, stage.num_of_samples))
        if not strategy.is_diversity and stage.min_distance is None:
            pieces = predictions_json(kept, embeddings=False, probabilities=strategy.reads_probabilities)
            return self._ask(number, kept, self._fields(stage, kept), pieces)
        sent = self._with_embeddings(kept, stage)
        labeled = self._labeled_beside(sent, stage)
        whole = strategy.sees == "contents"
        dataset_id = self._upload([sent] if labeled is None else [sent, labeled], whole=whole)
        try:
            fields = {**self._fields(stage, kept), "dataset_id": dataset_id}
            scored_by = self._scored_by(number, kept)
            if scored_by is not None:
                fields["scored_by"] = scored_by
            if whole and self.labeled_counts is not None:
                fields["labeled_counts"] = self.labeled_counts
            with_probabilities = strategy.reads_probabilities or scored_by is not None
            pieces = predictions_json(
                sent, embeddings=True, probabilities=with_probabilities, whole=whole, labeled=labeled
            )
            return self._ask(number, kept, fields, pieces)
        except DeadlineExceededError:
            raise  # the task may go on, and needs the embeddings
        except BaseException:
            self._forget(dataset_id)
            raise

    def _ask(self, number: int, kept: Pool, fields: dict[str, Any], frames: Iterator[bytes]) -> Tensor:
        detection = self.connection.detection()
        result = detection.send_sampling(_request(fields, frames), timeout=self._left())
        if isinstance(result.result, list):
            self._forget(fields.get("dataset_id"))
            return self._rows_of(number, result, kept)
        return self.finish(number, result.task_id, kept)

    def _fields(self, stage: DetectionSampling, kept: Pool) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "selection_strategy": stage.selection_strategy,
            "use_null_detections": True,  # that there are none if they are not wanted was checked
            "num_of_clusters": stage.num_of_clusters,
        }
        if stage.num_of_samples is not None:
            fields["num_of_samples"] = min(stage.num_of_samples, len(kept))
        if find_strategy(stage.selection_strategy).scores_boxes:
            fields |= _ranking_fields(stage, kept)
        if self.features is not None:
            known = {"seed": stage.seed, "null_policy": stage.null_policy}
            known |= {name: value for name in CONSTRAINTS if (value := getattr(stage, name)) is not None}
            fields |= {name: value for name, value in known.items() if name in self.features.options}
        return fields

    def _scored_by(self, number: int, kept: Pool) -> dict[str, Any] | None:
        """The last stage that scored, for a server that lets scores weigh; it scores what it chose the same again."""
        if self.features is None or "scored_by" not in self.features.options or kept.box_embeddings is None:
            return None
        for stage in reversed(self.stages[:number]):
            if find_strategy(stage.selection_strategy).scores_boxes:
                names = ("selection_strategy", "null_policy")
                return {name: getattr(stage, name) for name in names} | _ranking_fields(stage, kept)
        return None

    def _with_embeddings(self, kept: Pool, stage: DetectionSampling) -> Pool:
        """The pool as a stage of the service that needs embeddings takes it."""
        if find_strategy(stage.selection_strategy).sees == "contents":
            return kept
        if kept.box_embeddings is not None and (kept.num_boxes or kept.frame_embeddings is None):
            return kept if self.features is not None else one_width(kept)
        options = {"null_policy": stage.null_policy, **{name: getattr(stage, name) for name in CONSTRAINTS}}
        for name, value in options.items():  # which look at the boxes, and there are none in what is sent
            if value not in ("protocol", None):
                raise UnsupportedByServiceError(
                    f"{name}={value!r} of a stage that sends embeddings needs `box_embeddings` to be sent to a service"
                )
        return whole_frames(kept)

    def _labeled_beside(self, sent: Pool, stage: DetectionSampling) -> Pool | None:
        """The annotated frames, with the columns that are sent of the others; None where the stage looks at none."""
        if self.labeled is None or not looks_at_labeled(stage):
            return None
        if not sent.num_boxes and sent.box_embeddings is None and self.labeled.frame_embeddings is not None:
            return whole_frames(self.labeled)
        columns = {name for name in COLUMNS if getattr(sent, name) is not None}
        for name in columns:
            if getattr(self.labeled, name) is None and self.labeled.num_boxes:
                raise InvalidInputError(f"`labeled` must have the column `{name}`, which the pool has; got none")
        return self.labeled.only(columns)

    def _upload(self, pools: Sequence[Pool], *, whole: bool) -> str:
        dataset_id = self.connection.dataset().create(DATASET_NAME, time.strftime("%Y-%m-%d %H:%M:%S"))
        uploading = self.connection.embedding(dataset_id, self.part_of_dataset)
        try:
            for sent in pools:
                uploading.upload_pool(sent, timeout=self._left(), progress=self.progress, whole_frames=whole)
        except BaseException:
            self._forget(dataset_id)
            raise
        return dataset_id

    def _forget(self, dataset_id: str | None) -> None:
        """Delete embeddings that have served. If that fails the selection is still good, and somebody is told."""
        if dataset_id is None:
            return
        try:
            self.connection.embedding(dataset_id, self.part_of_dataset).delete_all()
            if self.features is not None:
                self.connection.dataset().delete(dataset_id)
        except ServiceError as error:
            logger.warning("dataset %s could not be emptied: %s", dataset_id, error)

    def _left(self) -> float:
        remaining = self.deadline.remaining()
        if remaining <= 0:
            raise DeadlineExceededError(f"the selection was not done within {self.deadline.seconds:.3g} s")
        return remaining

    def _rows_of(self, number: int, result: Result, kept: Pool) -> Tensor:
        """The rows, in the whole pool, of what was chosen.

        Raises:
            ProtocolError: not some of the frames that were asked about, each once.
        """
        chosen, asked = result.result, self.stages[number].num_of_samples
        most = len(kept) if asked is None else min(asked, len(kept))
        what = f"task {result.task_id!r}, for stage {number},"
        if not isinstance(chosen, list) or not chosen:
            raise ProtocolError(f"{what} chose no frames")
        if len(chosen) > most:
            raise ProtocolError(f"{what} chose {len(chosen)} frames, and was asked for {most}")
        allowed, seen = set(kept.frame_ids), set[str]()
        for frame_id in chosen:
            if frame_id not in allowed:
                raise ProtocolError(
                    f"{what} chose {frame_id[:MAX_FRAME_ID_LENGTH]!r}, which is not one of the frames that it was given"
                )
            if frame_id in seen:
                raise ProtocolError(f"{what} chose {frame_id!r} twice")
            seen.add(frame_id)
        row_of = {frame_id: row for row, frame_id in enumerate(self.pool.frame_ids) if frame_id in seen}
        rows = torch.tensor([row_of[frame_id] for frame_id in chosen], dtype=torch.int64)
        stage = self.stages[number]
        new_spacing = None if stage.min_distance is None else partial(Spacing.of, self.pool, stage.min_distance)
        costs, shown = bounds_of(self.pool, stage)
        self._remark(stage, remarks_on_bounds(rows, stage, costs=costs, shown=shown, new_spacing=new_spacing))
        return rows

    def _remark(self, stage: DetectionSampling, remarks: Sequence[str]) -> None:
        self.remarks += [f"the stage {stage.name!r} {remark}" for remark in remarks]

    def _selected(self, rows: Tensor) -> Selection:
        rows = rows.to(self.pool.device)
        for remark in self.remarks:
            warn_user(remark)
        return Selection.of(self.pool, rows, self._scores(rows), self.stages, remarks=tuple(self.remarks))

    def _scores(self, rows: Tensor) -> Tensor:
        """By the last stage that scored; NaN for frames that a `null_policy` set apart since."""
        chosen = self.pool.take(rows)
        for number, stage in reversed(list(enumerate(self.stages))):
            if find_strategy(stage.selection_strategy).scores_boxes:
                scores = frame_scores(chosen, stage)
                if any(map(sets_apart, self.stages[number:])):
                    scores[chosen.is_empty] = torch.nan
                return scores
        return torch.full((len(rows),), torch.nan, dtype=torch.float64, device=self.pool.device)


def looks_at_labeled(stage: DetectionSampling) -> bool:
    """Whether what is annotated already changes what the stage chooses."""
    return find_strategy(stage.selection_strategy).knows_labeled or stage.min_distance is not None


def _ranking_fields(stage: DetectionSampling, kept: Pool) -> dict[str, Any]:
    """What a null would leave to the service is said, so that it decides as `LocalBackend` does."""
    fields: dict[str, Any] = {
        "bbox_selection_policy": stage.bbox_selection_policy or "max",
        "sort_strategy": "descending" if stage.descending else "ascending",
    }
    if stage.class_weights is not None:
        fields["class_weights"] = stage.class_weights
    weights = wire_weights(stage, kept)
    return fields if weights is None else {**fields, "probs_weights": weights}


def _request(fields: dict[str, Any], frames: Iterator[bytes]) -> Iterator[bytes]:
    yield json.dumps(fields)[:-1].encode() + b',"frames":'
    yield from frames
    yield b"}"
