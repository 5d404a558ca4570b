"""Who asks, and of what: worked out before a path is served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Query, Request, Security
from fastapi.security import APIKeyHeader

from cval_torch.service.protocol import Dataset, DatasetPart
from cval_torch.service.server.answers import Frames
from cval_torch.service.server.service import Service
from cval_torch.service.server.settings import RefusedError
from cval_torch.service.server.store import Store

Value = TypeVar("Value")


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    service: Service
    owner: str

    @property
    def store(self) -> Store:
        """What the server keeps of datasets."""
        return self.service.kept.store

    def dataset(self, dataset_id: str) -> Dataset:
        """The caller's dataset.

        Raises:
            RefusedError: 404, there is none.
        """
        found = self.store.dataset(self.owner, dataset_id)
        if found is None:
            raise RefusedError(404, f"there is no dataset {dataset_id[:100]!r}")
        return found

    async def change(self, act: Callable[..., Value], *arguments: Any) -> Value:
        """See `Service.change`."""
        return await self.service.change(self.owner, act, *arguments)


@dataclass(frozen=True)
class Place:
    """A part of a dataset of the caller's, which is there."""

    caller: Caller
    dataset_id: str
    part: DatasetPart

    @property
    def store(self) -> Store:
        """What the server keeps of datasets."""
        return self.caller.store

    def slice(self, start: int, stop: int) -> Frames:
        """Frames of it.

        Raises:
            RefusedError: 413, too many.
        """
        most = self.caller.service.limits.page
        if stop - start > most:
            raise RefusedError(413, f"a slice has at most {most} frames; got {stop - start}")
        return self.store.frames(self.dataset_id, self.part, start, stop)


def service_of(request: Request) -> Service:
    """The server that was asked."""
    service: Service = request.app.state.service
    return service


_header = APIKeyHeader(name="Authorization", auto_error=False, description="`user_api_key:<KEY>`")


async def _caller_of(request: Request, _: Annotated[str | None, Security(_header)] = None) -> Caller:
    service = service_of(request)
    raw = [value for name, value in request.scope["headers"] if name == b"authorization"]
    owner = service.keys.owner_of(raw[0] if len(raw) == 1 else None)
    if owner is None:
        raise RefusedError(401, "the header `Authorization: user_api_key:<KEY>` is missing or wrong")
    request.state.owner = owner
    service.quota.count(owner)
    return Caller(service, owner)


By = Annotated[Caller, Depends(_caller_of)]


def _place_of(dataset_id: str, part: DatasetPart, by: By) -> Place:
    by.dataset(dataset_id)
    return Place(by, dataset_id, part)


def _named(request: Request, frame_id: str, embedding_id: str) -> tuple[str, str]:
    """The ids as they were sent: a quoted slash in an id does not part it, as it would in the decoded path."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    frame, embedding = raw.split(b"?")[0].split(b"/")[-2:]
    try:
        return unquote_to_bytes(frame).decode(), unquote_to_bytes(embedding).decode()
    except UnicodeDecodeError as error:
        raise RefusedError(422, "an id in a path must be UTF-8") from error


In = Annotated[Place, Depends(_place_of)]
Names = Annotated[tuple[str, str], Depends(_named)]
From = Annotated[int, Query(alias="start_limit", ge=0, le=2**62)]
To = Annotated[int, Query(alias="stop_limit", ge=0, le=2**62)]
