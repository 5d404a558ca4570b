"""The protocol's paths, each a few lines around `Work` and `Store`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Query, Request, Response, Security
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from pydantic_core import to_json

from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.service.protocol import Dataset, DatasetPart, DatasetRequest, EmbeddingsMeta, FrameEmbedding, Result
from cval_torch.service.server.bodies import LARGE
from cval_torch.service.server.patterns import matching
from cval_torch.service.server.payloads import DATASET, parsed
from cval_torch.service.server.service import Service
from cval_torch.service.server.settings import RefusedError
from cval_torch.service.server.store import Store, Task
from cval_torch.service.server.work import OPTIONS, embeddings_answer, meta_answer
from cval_torch.strategies.registry import names_served

MOST_RESULTS = 10_000


class Problem(BaseModel):
    """What an error answers."""

    detail: str


class Created(BaseModel):
    """The id of a new dataset."""

    dataset_id: str


class Features(BaseModel):
    """What this server has: strategies, and request fields beyond the protocol."""

    strategies: list[str]
    options: list[str]


class Health(BaseModel):
    """Whether the server works, and how many tasks it has not finished."""

    status: str
    unfinished_tasks: int


@dataclass(frozen=True)
class Caller:
    """Who asks, and of what."""

    service: Service
    owner: str

    @property
    def store(self) -> Store:
        """What the server keeps."""
        return self.service.work.store

    def dataset(self, dataset_id: str) -> Dataset:
        """The caller's dataset.

        Raises:
            RefusedError: 404, there is none.
        """
        found = self.store.dataset(self.owner, dataset_id)
        if found is None:
            raise RefusedError(404, f"there is no dataset {dataset_id[:100]!r}")
        return found


@dataclass(frozen=True)
class Place:
    """A part of a dataset of the caller's, which is there."""

    caller: Caller
    dataset_id: str
    part: DatasetPart

    @property
    def store(self) -> Store:
        """What the server keeps."""
        return self.caller.store

    def slice(self, start: int, stop: int, *, vectors: bool) -> list[tuple[str, list[tuple[str, bytes]]]]:
        """Frames of it.

        Raises:
            RefusedError: 413, too many.
        """
        most = self.caller.service.limits.page
        if stop - start > most:
            raise RefusedError(413, f"a slice has at most {most} frames; got {stop - start}")
        return self.store.embeddings(self.dataset_id, self.part, start, stop, vectors=vectors)


def _service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


_header = APIKeyHeader(name="Authorization", auto_error=False, description="`user_api_key:<KEY>`")


def _caller_of(request: Request, _: Annotated[str | None, Security(_header)] = None) -> Caller:
    service = _service_of(request)
    raw = [value for name, value in request.scope["headers"] if name == b"authorization"]
    owner = service.keys.owner_of(raw[0] if len(raw) == 1 else None)
    if owner is None:
        raise RefusedError(401, "the header `Authorization: user_api_key:<KEY>` is missing or wrong")
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

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 409, 413, 415, 422, 429, 503)
}
router = APIRouter(responses=_PROBLEMS)
open_router = APIRouter()


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI of a body that is read by hand."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


@open_router.get("/healthz", response_model=Health)
def healthz(request: Request) -> dict[str, Any]:
    """Whether the server works. Needs no key."""
    return {"status": "ok", "unfinished_tasks": _service_of(request).work.store.count_waiting(None)}


@router.get("/strategies", response_model=Features)
def strategies(by: By) -> dict[str, Any]:
    """What this server has, also beyond the protocol."""
    return {"strategies": list(names_served("own server")), "options": list(OPTIONS)}


@router.post("/dataset", response_model=Created, openapi_extra=_body(_ref("DatasetRequest")))
async def create_dataset(request: Request, by: By) -> dict[str, Any]:
    """Create a dataset."""
    wanted = await _dataset_request(request, by)
    if await asyncio.to_thread(by.store.count_datasets, by.owner) >= by.service.limits.datasets:
        raise RefusedError(409, f"a key has at most {by.service.limits.datasets} datasets")
    return {"dataset_id": await asyncio.to_thread(by.store.create_dataset, by.owner, wanted)}


@router.put("/dataset/{dataset_id}", response_model=Dataset, openapi_extra=_body(_ref("DatasetRequest")))
async def update_dataset(request: Request, dataset_id: str, by: By) -> Dataset:
    """Change a dataset; a null field leaves its value."""
    wanted = await _dataset_request(request, by)
    await asyncio.to_thread(by.dataset, dataset_id)
    await asyncio.to_thread(by.store.update_dataset, dataset_id, wanted)
    return await asyncio.to_thread(by.dataset, dataset_id)


@router.get("/dataset/{dataset_id}", response_model=Dataset)
def get_dataset(dataset_id: str, by: By) -> Dataset:
    """A dataset's name and description."""
    return by.dataset(dataset_id)


@router.delete("/dataset/{dataset_id}", response_model=None)
def delete_dataset(dataset_id: str, by: By) -> None:
    """Remove a dataset and its embeddings."""
    by.dataset(dataset_id)
    by.store.delete_dataset(dataset_id)


@router.get("/datasets/all", response_model=list[Dataset])
def list_datasets(by: By, dataset_name: str | None = None, dataset_description: str | None = None) -> list[Dataset]:
    """All datasets, or those whose name and description match regular expressions."""
    found = by.store.datasets(by.owner)
    if dataset_name:
        keep = matching(dataset_name, [dataset.dataset_name for dataset in found])
        found = [dataset for dataset, kept in zip(found, keep, strict=True) if kept]
    if dataset_description:
        keep = matching(dataset_description, [dataset.dataset_description for dataset in found])
        found = [dataset for dataset, kept in zip(found, keep, strict=True) if kept]
    return found


@router.post(
    "/dataset/{dataset_id}/{part}/embeddings",
    response_model=EmbeddingsMeta,
    openapi_extra=_body({"type": "array", "items": _ref("FrameEmbedding")}),
)
async def upload_embeddings(request: Request, place: In) -> Response:
    """Store embeddings, all or none. One that is there already is replaced."""
    service = place.caller.service
    async with service.bodies.read(request) as body:
        stored = await service.run("store_embeddings", place.dataset_id, place.part, body=body)
    return Response(stored, media_type="application/json")


@router.get("/dataset/{dataset_id}/{part}/embeddings", response_model=list[FrameEmbedding])
def get_embeddings(place: In, start: From = 0, stop: To = 1000) -> Response:
    """A slice of the frames with their embeddings, in the order in which they came."""
    return _json(embeddings_answer(place.slice(start, stop, vectors=True)))


@router.get("/dataset/{dataset_id}/{part}/embeddings/meta", response_model=EmbeddingsMeta)
def get_embeddings_meta(place: In, start: From = 0, stop: To = 1000) -> Response:
    """The same slice with the names of the embeddings only."""
    frames = place.slice(start, stop, vectors=False)
    return _json(meta_answer([(frame_id, [name for name, _ in vectors]) for frame_id, vectors in frames]))


@router.delete("/dataset/{dataset_id}/{part}/embeddings", response_model=None)
def delete_embeddings(place: In) -> None:
    """Remove all embeddings of the part."""
    place.store.delete_embeddings(place.dataset_id, place.part)


ONE_EMBEDDING = "/embedding/{frame_id:path}/{embedding_id}"


@router.get("/dataset/{dataset_id}/{part}" + ONE_EMBEDDING, response_model=FrameEmbedding)
@router.get("/dataset/{dataset_id}/{part}/" + ONE_EMBEDDING, response_model=FrameEmbedding, include_in_schema=False)
def get_embedding(place: In, names: Names) -> Response:
    """One embedding, in its frame. The public client asks with a doubled slash."""
    vector = place.store.embedding(place.dataset_id, place.part, *names)
    if vector is None:
        raise _no_embedding(names)
    return _json(embeddings_answer([(names[0], [(names[1], vector)])])[0])


@router.delete("/dataset/{dataset_id}/{part}" + ONE_EMBEDDING, response_model=None)
def delete_embedding(place: In, names: Names) -> None:
    """Remove one embedding of a frame, or `all`."""
    frame_id, which = names
    if not place.store.delete_embedding(place.dataset_id, place.part, frame_id, None if which == "all" else which):
        raise _no_embedding(names)


@router.post("/on-premise/sampling/detection", response_model=Result, openapi_extra=_body(_ref("SamplingRequest")))
async def sample(request: Request, by: By) -> Response:
    """Choose frames. A small request is answered with its result, a large one with a task to ask for."""
    async with by.service.bodies.read(request) as body:
        task = await by.service.run("take_sampling", by.owner, body=body)
    if task["result"] is None:
        by.service.runner.wake()
    return _json(task)


@router.get("/result/{task_id}", response_model=Result)
def get_result(task_id: str, by: By) -> Response:
    """A task; 409 if it failed."""
    task = by.store.task(task_id, by.owner)
    if task is None:
        raise RefusedError(404, f"there is no task {task_id[:100]!r}")
    if task.state == "failed":
        raise RefusedError(409, f"task {task_id} failed: {task.problem}")
    return _json(task.payload())


@router.get("/results", response_model=list[Result])
def list_results(
    by: By, limit: Annotated[int, Query(ge=0, le=MOST_RESULTS)] = 100, dataset_id: str | None = None
) -> Response:
    """The last tasks, newest first."""
    return _json([Task.payload(task) for task in by.store.tasks(by.owner, dataset_id, limit)])


async def _dataset_request(request: Request, by: Caller) -> DatasetRequest:
    async with by.service.bodies.read(request) as body:
        if not isinstance(body, bytes):
            raise RefusedError(413, f"a dataset is described in at most {LARGE} bytes")
        return await asyncio.to_thread(parsed, body, DATASET)


def _no_embedding(names: tuple[str, str]) -> RefusedError:
    return RefusedError(404, f"there is no embedding {names[1][:100]!r} of frame {names[0][:MAX_FRAME_ID_LENGTH]!r}")


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")
