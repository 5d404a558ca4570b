"""Datasets, detection sampling and results, as the service has them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter
from tqdm import tqdm

from cval_torch.client.deadline import Backoff, Deadline
from cval_torch.client.transport import Body, Transport
from cval_torch.errors import (
    DeadlineExceededError,
    InvalidInputError,
    ProtocolError,
    RateLimitedError,
    ServerFaultError,
    ServiceUnreachableError,
)
from cval_torch.wire import Dataset, DatasetRequest, DetectionSampling, Result

if TYPE_CHECKING:
    from cval_torch.client.embeddings import EmbeddingResource

SAMPLING_PATH = "/on-premise/sampling/detection"
BODY_IN_MEMORY = 32 << 20


class _Created(BaseModel):
    dataset_id: str


class Features(BaseModel):
    """What a server of one's own says of itself at `/strategies`."""

    strategies: list[str]
    options: list[str] = []


_CREATED = TypeAdapter(_Created)
_DATASET = TypeAdapter(Dataset)
_DATASETS = TypeAdapter(list[Dataset])
_RESULT = TypeAdapter(Result)
_RESULTS = TypeAdapter(list[Result])
_FEATURES = TypeAdapter(Features)
ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


class Resource:
    """What all resources share: the transport, and how long a call may take."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        self._transport, self._timeout = transport, timeout

    def _deadline(self, seconds: float | None = None) -> Deadline:
        return Deadline(self._timeout if seconds is None else seconds, clock=self._transport.clock)


class DatasetResource(Resource):
    """Datasets: named places for embeddings. It remembers the id of the dataset that it last created or was given."""

    dataset_id: str | None = None

    def create(self, name: str | None = None, description: str | None = None) -> str:
        """Create a dataset.

        Args:
            name: at most 32 characters.
            description: at most 256 characters.

        Returns:
            Its `dataset_id`.
        """
        body = _dataset_body(name, description)
        created = self._transport.call(
            "POST", "/dataset", _CREATED, body=body, deadline=self._deadline(), repeatable=False
        )
        self.dataset_id = created.dataset_id
        return created.dataset_id

    def update(self, dataset_id: str | None = None, name: str | None = None, description: str | None = None) -> Dataset:
        """Change a dataset; what is None stays as it is. Without `dataset_id`, the remembered one."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        body = _dataset_body(name, description)
        return self._transport.call("PUT", path, _DATASET, body=body, deadline=self._deadline())

    def get(self, dataset_id: str | None = None) -> Dataset:
        """A dataset's name and description. Without `dataset_id`, of the remembered one."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        return self._transport.call("GET", path, _DATASET, deadline=self._deadline())

    def get_all(self, name: str | int | None = None, description: str | None = None) -> list[Dataset]:
        """Datasets whose name and description match.

        Args:
            name: a regular expression; empty, None or 0 (which old notebooks pass) matches all.
            description: the same.
        """
        query = {"dataset_name": name or None, "dataset_description": description or None}
        return self._transport.call("GET", "/datasets/all", _DATASETS, query=query, deadline=self._deadline())

    def delete(self, dataset_id: str | None = None) -> None:
        """Delete a dataset and its embeddings, where the service can: cval.ai cannot, a server of one's own can."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        self._transport.call("DELETE", path, ANYTHING, deadline=self._deadline())

    def embedding(self, part_of_dataset: str) -> EmbeddingResource:
        """Embeddings of one part of the remembered dataset."""
        from cval_torch.client.embeddings import EmbeddingResource  # noqa: PLC0415 - it builds on this module

        return EmbeddingResource(self._transport, self._timeout, self._remembered(None), part_of_dataset)

    def _remembered(self, dataset_id: str | None) -> str:
        self.dataset_id = dataset_id or self.dataset_id
        if self.dataset_id is None:
            raise InvalidInputError("`dataset_id` must be given: no dataset was created or named before")
        return self.dataset_id


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

    def on_premise_sampling(self, config: DetectionSampling | Mapping[str, Any]) -> Result:
        """Start a selection among the `frames` of `config`.

        Args:
            config: as a model, or as a dict of its fields. Callables have no place on the wire.

        Returns:
            The task, with its `result` if the service answers at once (up to 10 000 predictions).
        """
        stage = config if isinstance(config, DetectionSampling) else DetectionSampling.model_validate(config)
        for name in ("selection_strategy", "bbox_selection_policy"):
            if callable(getattr(stage, name)):
                raise InvalidInputError(f"`{name}` must be a name: a callable cannot be sent to a service")
        return self.send_sampling([stage.model_dump_json(exclude_none=True, exclude_defaults=True).encode()])

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


def spool(pieces: Iterable[bytes]) -> Body:
    """The pieces as one body: in memory if they are few, in a nameless file if they are many."""
    held, size = list[bytes](), 0
    rest = iter(pieces)
    for piece in rest:
        held.append(piece)
        size += len(piece)
        if size > BODY_IN_MEMORY:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - who sends it closes it
            try:
                file.writelines(held)
                del held
                file.writelines(rest)
            except BaseException:
                file.close()
                raise
            return file
    return b"".join(held)


def quoted(value: str, name: str) -> str:
    """One part of a path, whatever characters it has.

    Raises:
        InvalidInputError: empty, `.` or `..`, which no URL can carry as a part.
    """
    if value in ("", ".", ".."):
        raise InvalidInputError(f"{name} must not be empty, '.' or '..' to be part of a URL; got {value!r}")
    return quote(value, safe="")


def _dataset_body(name: str | None, description: str | None) -> bytes:
    request = DatasetRequest(dataset_name=name, dataset_description=description)
    return request.model_dump_json(exclude_none=True).encode()


def _progress_of(result: Result) -> str:
    if not isinstance(result.result, dict):
        return "running"
    return ", ".join(f"{key}={value}" for key, value in list(result.result.items())[:3])[:60]
