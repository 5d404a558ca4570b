"""`RestBackend`: selection by cval.ai, or by a server of one's own, through one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch

from cval_torch.errors import (
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    RequestRejectedError,
    UnsupportedByServiceError,
)
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.checks import check_apart, checked_stages
from cval_torch.selection.class_weights import checked_counts
from cval_torch.selection.columns import columns_read
from cval_torch.selection.constraints import check_labels
from cval_torch.selection.ranking import check_can_score
from cval_torch.selection.stage import CONSTRAINTS, DetectionSampling
from cval_torch.service.client.connection import CVALConnection
from cval_torch.service.client.deadline import Deadline
from cval_torch.service.client.tasks import Features
from cval_torch.service.codec import whole_frames
from cval_torch.service.protocol import DatasetPart
from cval_torch.service.rest_selection import Asking, looks_at_labeled
from cval_torch.strategies.columns import COLUMNS, check_columns
from cval_torch.strategies.registry import STRATEGIES, find_strategy, names_served

_CALL_SECONDS = 300.0


class RestBackend:
    """Chooses frames through the protocol of cval.ai: the same one method as `LocalBackend`.

    Every stage is one request. Before a diversity stage the embeddings of the frames that are left, and only those,
    are uploaded to a dataset that is made for it; they are deleted once the frames are chosen.

    Args:
        api_key: None reads the environment's `CVAL_API_KEY`.
        url: None reads `CVAL_URL`, and is `https://cval.ai/api` without it; a server of one's own is at
            `http://HOST:PORT/api`.
        part_of_dataset: where the embeddings are put: `training`, `test` or `validation`.
        timeout: seconds for one `select`, all stages and uploads included.
        progress: whether to show bars.
        verify: True, or a file or folder of the authorities that sign the service's certificate.
        cert: a certificate of one's own for a service that asks for one: a file with its key, or both files.
        labeled: frames that are annotated already, with the columns of the pool, as for `LocalBackend`. They go to a
            server of one's own, embeddings included, for the stages that look at them; cval.ai cannot take them.
        labeled_counts: annotated objects by label, as for `LocalBackend`; the same holds.

    Raises:
        InvalidInputError: no key, a key that no header may carry, a URL that is none, or a file that is not there.
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        url: str | None = None,
        part_of_dataset: DatasetPart = "training",
        timeout: float = 3600.0,
        progress: bool = True,
        verify: bool | str | Path = True,
        cert: str | Path | tuple[str | Path, str | Path] | None = None,
        labeled: Pool | None = None,
        labeled_counts: Mapping[int, float] | None = None,
    ) -> None:
        self.part_of_dataset = part_of_dataset
        self.timeout, self.progress = timeout, progress
        self.labeled = labeled
        self.labeled_counts = None if labeled_counts is None else checked_counts(labeled_counts, "labeled_counts")
        self._connection = CVALConnection(api_key, url, timeout=min(timeout, _CALL_SECONDS), verify=verify, cert=cert)
        self._connection.embedding("-", part_of_dataset)  # checks the part
        self._features: Features | None = None
        self._asked = False

    def select(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Selection:
        """Narrow `pool` stage by stage; see `Backend.select`.

        Raises:
            InvalidInputError: no frames, no stages, or a stage that the pool's columns cannot serve.
            UnsupportedByServiceError: a strategy or an option that the service does not have, or a callable.
                Nothing was uploaded.
            DeadlineExceededError: the time is over. If it carries a `task_id`, that task goes on, and `resume` takes
                its result.
            ProtocolError: the service chose frames that it was not asked to choose from, or one twice, or too many.
            ServiceError: any other failure of the service.
        """
        return self._asking(pool, stages).go_on(0, torch.arange(len(pool)))

    def columns(self, stages: Sequence[DetectionSampling]) -> frozenset[str]:
        """The columns that `select` looks at, where they are there: a pass need not keep others for these stages."""
        known = all(isinstance(stage, DetectionSampling) and not _is_unheard_of(stage) for stage in stages)
        if type(self).select is not RestBackend.select or not known:
            return frozenset(COLUMNS)
        return frozenset[str]().union(*map(columns_read, stages))

    def check_pass(self, stages: Sequence[DetectionSampling], *, top_boxes: int | None) -> None:
        """Refuse a pass that would keep embeddings of some boxes only, where a stage sends those of all.

        Raises:
            InvalidInputError: a stage compares embeddings, and `top_boxes` is not None.
        """
        if top_boxes is None or type(self).select is not RestBackend.select:
            return
        for number, stage in enumerate(stages):
            if not isinstance(stage, DetectionSampling) or _is_unheard_of(stage):
                continue
            if find_strategy(stage.selection_strategy).is_diversity or stage.min_distance is not None:
                raise InvalidInputError(
                    f"`top_boxes={top_boxes}` keeps the embeddings of some boxes only, and stage {number} "
                    f"({stage.name}) sends those of all to the service: leave `top_boxes` out, or choose with "
                    "LocalBackend"
                )

    def resume(
        self,
        pool: Pool,
        stages: DetectionSampling | Sequence[DetectionSampling],
        *,
        task_id: str,
        stage: int | None = None,
    ) -> Selection:
        """Go on with a selection that ran out of time, from the task that it left at the service.

        Args:
            pool: as it was given to `select`.
            stages: the same.
            task_id: of the `DeadlineExceededError`.
            stage: its `stage`; may be left out if there is only one.

        Raises:
            InvalidInputError: no such stage, or several and none is named.
            ServiceError: as from `select`.
        """
        asking = self._asking(pool, stages)
        count = len(asking.stages)
        number = 0 if stage is None and count == 1 else stage
        if number is None or not 0 <= number < count:
            raise InvalidInputError(f"`stage` must be from 0 to {count - 1}, the task's; got {stage}")
        return asking.go_on(number + 1, asking.finish(number, task_id, pool))

    def close(self) -> None:
        """Close the kept network connections."""
        self._connection.close()

    def __enter__(self) -> RestBackend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _asking(self, pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> Asking:
        ran = (stages,) if isinstance(stages, DetectionSampling) else tuple(stages)
        if any(map(_is_unheard_of, ran)):
            self._features_for(ran)  # raises if the service has never heard of it either
        ran = _checked_for(pool, ran)
        check_apart(pool.frame_ids, self.labeled)
        features = self._features_for(ran)
        deadline = Deadline(self.timeout)
        return Asking(
            self._connection,
            self.part_of_dataset,
            pool,
            ran,
            deadline,
            features,
            self.progress,
            self.labeled,
            self.labeled_counts,
        )

    def _features_for(self, stages: Sequence[DetectionSampling]) -> Features | None:
        """What a server of one's own has; None for a service that has only what the protocol has.

        Raises:
            UnsupportedByServiceError: a stage asks for more.
        """
        if not self._asked:
            try:
                self._features = self._connection.service().features()
            except (NotFoundError, RequestRejectedError, ProtocolError):
                self._features = None
            self._asked = True
        names = names_served("cval.ai") if self._features is None else tuple(self._features.strategies)
        options = () if self._features is None else tuple(self._features.options)
        for number, stage in enumerate(stages):
            for field in ("selection_strategy", "bbox_selection_policy"):
                if callable(getattr(stage, field)):
                    raise UnsupportedByServiceError(
                        f"the `{field}` of stage {number} is a callable, which cannot be sent to a service: "
                        "use a name, or LocalBackend"
                    )
            if stage.selection_strategy not in names:
                raise UnsupportedByServiceError(
                    f"the service has no `selection_strategy` {stage.selection_strategy!r}, which stage {number} asks "
                    f"for; it has {', '.join(names)}. LocalBackend, or a server of your own, may have it"
                )
            for name, free in {"null_policy": "protocol", **dict.fromkeys(("class_weights", *CONSTRAINTS))}.items():
                if (value := getattr(stage, name)) != free and name not in options:
                    raise UnsupportedByServiceError(
                        f"the service has no `{name}`, which stage {number} sets to {value!r:.80}: "
                        f"use LocalBackend or a server of your own, or leave it {free!r}"
                    )
            if self.labeled is not None and "labeled" not in options and looks_at_labeled(stage):
                raise UnsupportedByServiceError(
                    f"the service has no `labeled` frames, which stage {number} ({stage.name}) looks at: use "
                    "LocalBackend or a server of your own, or leave them out"
                )
        return self._features

    def __repr__(self) -> str:
        return f"RestBackend({self._connection!r}, part_of_dataset={self.part_of_dataset!r})"


def _is_unheard_of(stage: object) -> bool:
    strategy = stage.selection_strategy if isinstance(stage, DetectionSampling) else None
    return isinstance(strategy, str) and strategy not in STRATEGIES


def _checked_for(pool: Pool, stages: DetectionSampling | Sequence[DetectionSampling]) -> tuple[DetectionSampling, ...]:
    """The stages, once all that can be told to be wrong before anything is sent is right."""
    ran = checked_stages(stages)
    if len(pool) == 0:
        raise InvalidInputError("`pool` must hold at least one frame to choose from; got none")
    for stage in ran:
        strategy = find_strategy(stage.selection_strategy)
        check_labels(pool, stage)
        if strategy.scores_boxes:
            check_can_score(pool, stage)
        if (strategy.sees == "vectors" or stage.min_distance is not None) and pool.box_embeddings is None:
            whole_frames(pool)  # raises where there is nothing to send
        if strategy.sees in ("boxes", "contents"):
            check_columns(pool, strategy.needs, strategy.name)
    return ran
