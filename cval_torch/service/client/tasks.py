"""Detection sampling and its results, and what a server of one's own says it can do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from tqdm import tqdm

from cval_torch.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ProtocolError,
    RateLimitedError,
    ServerFaultError,
    ServiceUnreachableError,
)
from cval_torch.service.client.deadline import Backoff, Deadline
from cval_torch.service.client.resource import ANYTHING, Resource, quoted, spool
from cval_torch.service.client.transport import Transport
from cval_torch.service.protocol import DetectionSamplingRequest, Result

SAMPLING_PATH = "/on-premise/sampling/detection"


class Features(BaseModel):
    """What a server of one's own says of itself at `/strategies`."""

    strategies: list[str]
    options: list[str] = []


_RESULT = TypeAdapter(Result)


_RESULTS = TypeAdapter(list[Result])


_FEATURES = TypeAdapter(Features)


class ResultResource(Resource):
    """Results of tasks. It remembers the task that it last asked for."""

    task_id: str | None = None

    def get(self, task_id: str | None = None) -> Result:
        """The task as it is now; its `result` is None, or tells progress, while it runs."""
        return self._get(self._remembered(task_id), self._deadline())

    def get_many(self, dataset_id: str | None = None, limit: int = 100) -> list[Result]:
        """The last `limit` tasks, newest first.

        Args:
            dataset_id: only those of this dataset.
            limit: at most so many.
        """
        query = {"limit": limit, "dataset_id": dataset_id}
        return self._transport.call("GET", "/results", _RESULTS, query=query, deadline=self._deadline())

    def cancel(self, task_id: str | None = None) -> None:
        """Cancel a task that waits or runs, and forget it, where the service can: a server of one's own can.

        Raises:
            NotFoundError, RequestRejectedError: the service does not know the task, or cannot.
        """
        path = f"/result/{quoted(self._remembered(task_id), '`task_id`')}"
        self._transport.call("DELETE", path, ANYTHING, deadline=self._deadline())

    def wait(self, task_id: str | None = None, *, timeout: float = 3600.0, progress: bool = True) -> Result:
        """Ask again and again, ever less often, until the frames are chosen.

        Failures of the network on the way are passed over while there is time.

        Args:
            task_id: None means the remembered one.
            timeout: seconds in all.
            progress: whether to show a bar.

        Raises:
            DeadlineExceededError: it is not done. The error carries the `task_id`: the task goes on, and can be
                waited for again.
            ResponseError: the service says that the task failed, or does not know it.
        """
        task = self._remembered(task_id)
        deadline = self._deadline(timeout)
        backoff = Backoff(0.2, 5.0)
        trouble = ""
        with tqdm(desc="waiting for the service", unit=" polls", disable=not progress, leave=False) as bar:
            while deadline.remaining() > 0:
                try:
                    result = self._get(task, deadline.within(self._timeout))
                except (ServiceUnreachableError, ServerFaultError, RateLimitedError, DeadlineExceededError) as error:
                    trouble = f"; the last attempt failed: {error}"
                else:
                    trouble = ""
                    if isinstance(result.result, list):
                        return result
                    if result.time_end is not None and result.result is None:
                        raise ProtocolError(f"task {task!r} has ended with no result")
                    bar.set_postfix_str(_progress_of(result))
                bar.update()
                self._transport.sleep(max(0.0, min(backoff.next(), deadline.remaining())))
        raise DeadlineExceededError(
            f"task {task!r} was not done within {timeout:.3g} s{trouble}; it goes on at the service: "
            "wait for it again with `connection.result().wait(task_id)`",
            task_id=task,
        )

    def _get(self, task_id: str, deadline: Deadline) -> Result:
        result = self._transport.call("GET", f"/result/{quoted(task_id, '`task_id`')}", _RESULT, deadline=deadline)
        if result.task_id != task_id:
            raise ProtocolError(f"task {task_id!r} was asked for, and {result.task_id[:100]!r} was answered")
        return result

    def _remembered(self, task_id: str | None) -> str:
        self.task_id = task_id or self.task_id
        if self.task_id is None:
            raise InvalidInputError("`task_id` must be given: no task was started or named before")
        return self.task_id


class DetectionResource(Resource):
    """Choosing frames by predictions. `result` knows the task that was started last."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        super().__init__(transport, timeout)
        self.result = ResultResource(transport, timeout)

    def on_premise_sampling(self, config: DetectionSamplingRequest | Mapping[str, Any]) -> Result:
        """Start a selection among the `frames` of `config`.

        Args:
            config: as a model, or as a dict of its fields. Callables have no place on the wire.

        Returns:
            The task, with its `result` if the service answers at once (up to 10 000 predictions).
        """
        request = (
            config if isinstance(config, DetectionSamplingRequest) else DetectionSamplingRequest.model_validate(config)
        )
        for name in ("selection_strategy", "bbox_selection_policy"):
            if callable(getattr(request, name)):
                raise InvalidInputError(f"`{name}` must be a name: a callable cannot be sent to a service")
        return self.send_sampling([request.model_dump_json(exclude_none=True, exclude_defaults=True).encode()])

    def send_sampling(self, body: Iterable[bytes], *, timeout: float | None = None) -> Result:
        """The same, with the JSON of the request in pieces. What is longer than 32 MiB waits on disk, not in memory."""
        spooled = spool(body)
        try:
            result = self._transport.call(
                "POST", SAMPLING_PATH, _RESULT, body=spooled, deadline=self._deadline(timeout), repeatable=False
            )
        finally:
            if not isinstance(spooled, bytes):
                spooled.close()
        self.result.task_id = result.task_id
        return result


class ServiceResource(Resource):
    """What a service has beyond the protocol."""

    def features(self) -> Features:
        """The strategies and request fields of a server of one's own.

        Raises:
            NotFoundError: the service has only what the protocol has.
        """
        return self._transport.call("GET", "/strategies", _FEATURES, deadline=self._deadline())


def _progress_of(result: Result) -> str:
    if not isinstance(result.result, dict):
        return "running"
    return ", ".join(f"{key}={value}" for key, value in list(result.result.items())[:3])[:60]
