"""The protocol's paths, each a few lines around what the server keeps and can do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.service.protocol import Dataset, DatasetRequest, EmbeddingsMeta, FrameEmbedding, Result
from cval_torch.service.server.answers import (
    embedding_answer,
    embeddings_answer,
    list_answer,
    meta_answer,
    tasks_answer,
)
from cval_torch.service.server.bodies import LARGE
from cval_torch.service.server.callers import By, Caller, From, In, Names, To
from cval_torch.service.server.payloads import DATASET, parsed
from cval_torch.service.server.settings import RefusedError

MOST_RESULTS = 10_000
_JSON = "application/json"


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


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 409, 413, 415, 422, 429, 503, 507)
}
router = APIRouter(responses=_PROBLEMS)


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI of a body that is read by hand."""
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


@router.get("/strategies", response_model=Features)
async def strategies(by: By) -> dict[str, Any]:
    """What this server has, also beyond the protocol."""
    found: dict[str, Any] = await by.service.features(by.owner)
    return found


@router.post("/dataset", response_model=Created, openapi_extra=_body(_ref("DatasetRequest")))
async def create_dataset(request: Request, by: By) -> dict[str, Any]:
    """Create a dataset."""
    wanted = await _dataset_request(request, by)
    most = by.service.limits.datasets
    return {
        "dataset_id": await by.change(lambda: by.store.create_dataset(by.owner, wanted, most=most)),
    }


@router.put("/dataset/{dataset_id}", response_model=Dataset, openapi_extra=_body(_ref("DatasetRequest")))
async def update_dataset(request: Request, dataset_id: str, by: By) -> Dataset:
    """Change a dataset; a null field leaves its value."""
    wanted = await _dataset_request(request, by)
    await by.change(by.dataset, dataset_id)
    await by.change(by.store.update_dataset, dataset_id, wanted)
    return await by.change(by.dataset, dataset_id)


@router.get("/dataset/{dataset_id}", response_model=Dataset)
def get_dataset(dataset_id: str, by: By) -> Dataset:
    """A dataset's name and description."""
    return by.dataset(dataset_id)


@router.delete("/dataset/{dataset_id}", response_model=None)
async def delete_dataset(dataset_id: str, by: By) -> None:
    """Remove a dataset and its embeddings."""
    await by.change(by.dataset, dataset_id)
    await by.change(by.store.delete_dataset, dataset_id)


@router.get("/datasets/all", response_model=list[Dataset])
async def list_datasets(by: By, dataset_name: str | None = None, dataset_description: str | None = None) -> Response:
    """All datasets, or those whose name and description match regular expressions."""
    found = await run_in_threadpool(by.store.datasets, by.owner)
    for field, pattern in (("dataset_name", dataset_name), ("dataset_description", dataset_description)):
        if pattern:
            keep = await by.service.matching(by.owner, pattern, [getattr(dataset, field) for dataset in found])
            found = [dataset for dataset, kept in zip(found, keep, strict=True) if kept]
    return _in_pieces(list_answer(found, lambda dataset: dataset.model_dump_json().encode()))


@router.post(
    "/dataset/{dataset_id}/{part}/embeddings",
    response_model=EmbeddingsMeta,
    openapi_extra=_body({"type": "array", "items": _ref("FrameEmbedding")}),
)
async def upload_embeddings(request: Request, place: In) -> Response:
    """Store embeddings, all or none. One that is there already is replaced."""
    by = place.caller
    async with by.service.bodies.read(request, by.owner) as body:
        stored = await by.service.run(by.owner, "store_embeddings", place.dataset_id, place.part, body=body)
    return Response(stored, media_type=_JSON)


@router.get("/dataset/{dataset_id}/{part}/embeddings", response_model=list[FrameEmbedding])
def get_embeddings(place: In, start: From = 0, stop: To = 1000) -> Response:
    """A slice of the frames with their embeddings, in the order in which they came."""
    return _in_pieces(embeddings_answer(place.store, place.slice(start, stop)))


@router.get("/dataset/{dataset_id}/{part}/embeddings/meta", response_model=EmbeddingsMeta)
def get_embeddings_meta(place: In, start: From = 0, stop: To = 1000) -> Response:
    """The same slice with the names of the embeddings only."""
    return _in_pieces(meta_answer(place.store, place.slice(start, stop)))


@router.delete("/dataset/{dataset_id}/{part}/embeddings", response_model=None)
async def delete_embeddings(place: In) -> None:
    """Remove all embeddings of the part."""
    await place.caller.change(place.store.delete_embeddings, place.dataset_id, place.part)


ONE_EMBEDDING = "/embedding/{frame_id:path}/{embedding_id}"


@router.get("/dataset/{dataset_id}/{part}" + ONE_EMBEDDING, response_model=FrameEmbedding)
@router.get("/dataset/{dataset_id}/{part}/" + ONE_EMBEDDING, response_model=FrameEmbedding, include_in_schema=False)
def get_embedding(place: In, names: Names) -> Response:
    """One embedding, in its frame. The public client asks with a doubled slash."""
    vector = place.store.embedding(place.dataset_id, place.part, *names)
    if vector is None:
        raise _no_embedding(names)
    return Response(embedding_answer(*names, vector), media_type=_JSON)


@router.delete("/dataset/{dataset_id}/{part}" + ONE_EMBEDDING, response_model=None)
async def delete_embedding(place: In, names: Names) -> None:
    """Remove one embedding of a frame, or `all`."""
    frame_id, which = names
    one = None if which == "all" else which
    delete = place.store.delete_embedding
    if not await place.caller.change(delete, place.dataset_id, place.part, frame_id, one):
        raise _no_embedding(names)


@router.post("/on-premise/sampling/detection", response_model=Result, openapi_extra=_body(_ref("SamplingRequest")))
async def sample(request: Request, by: By) -> Response:
    """Choose frames. A small request is answered with its result, a large one with a task to ask for."""
    async with by.service.bodies.read(request, by.owner) as body:
        task, waits = await by.service.run(by.owner, "take_sampling", by.owner, body=body)
    if waits:
        by.service.runner.wake()
    return Response(task, media_type=_JSON)


@router.get("/result/{task_id}", response_model=Result)
def get_result(task_id: str, by: By) -> Response:
    """A task; 409 if it failed."""
    task = by.service.kept.tasks.get(task_id, by.owner)
    if task is None:
        raise _no_task(task_id)
    if task.state == "failed":
        raise RefusedError(409, f"task {task_id} failed: {task.problem}")
    return Response(task.payload(), media_type=_JSON)


@router.delete("/result/{task_id}", response_model=None)
async def delete_result(task_id: str, by: By) -> None:
    """Forget a task, beyond the protocol. One that waits or runs is cancelled."""
    if not await by.change(by.service.kept.delete_task, task_id, by.owner):
        raise _no_task(task_id)
    await by.service.runner.cancel(task_id)


@router.get("/results", response_model=list[Result])
def list_results(
    by: By, limit: Annotated[int, Query(ge=0, le=MOST_RESULTS)] = 100, dataset_id: str | None = None
) -> Response:
    """The last tasks, newest first."""
    tasks = by.service.kept.tasks
    return _in_pieces(tasks_answer(tasks, tasks.newest(by.owner, dataset_id, limit)))


async def _dataset_request(request: Request, by: Caller) -> DatasetRequest:
    async with by.service.bodies.read(request, by.owner) as body:
        if not isinstance(body, bytes):
            raise RefusedError(413, f"a dataset is described in at most {LARGE} bytes")
        return await by.change(parsed, body, DATASET)


def _no_embedding(names: tuple[str, str]) -> RefusedError:
    return RefusedError(404, f"there is no embedding {names[1][:100]!r} of frame {names[0][:MAX_FRAME_ID_LENGTH]!r}")


def _no_task(task_id: str) -> RefusedError:
    return RefusedError(404, f"there is no task {task_id[:100]!r}")


def _in_pieces(pieces: Iterator[bytes]) -> Response:
    """An answer with its length if it is small, and else piece by piece as its reader takes them."""
    first = next(pieces)
    second = next(pieces, None)
    if second is None:
        return Response(first, media_type=_JSON)
    return StreamingResponse(chain((first, second), pieces), media_type=_JSON)
