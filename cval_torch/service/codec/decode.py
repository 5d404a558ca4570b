"""From payloads to a `Pool`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, InstanceOf, ValidationError
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.service.codec.numbers import NO_DETECTION
from cval_torch.service.protocol import BBoxScores, FrameEmbedding, FramePrediction

Vector = Sequence[float] | npt.NDArray[np.float32]
Vectors = Mapping[tuple[str, str], Vector]
"""Embeddings by `(frame_id, embedding_id)`."""


class Box(BBoxScores, extra="forbid"):
    """A box from a program of the user's: no limit of the wire holds for its score, and no key is passed over."""

    score: Annotated[float, Field(ge=0, le=1)] | None = None


class Frame(FramePrediction, extra="forbid"):
    """The boxes of one frame, likewise."""

    predictions: list[Box | InstanceOf[BBoxScores]] | None = None


class Embeddings(FrameEmbedding, extra="forbid"):
    """As a frame: no key is passed over."""


_STRICT: dict[type[BaseModel], type[BaseModel]] = {FramePrediction: Frame, FrameEmbedding: Embeddings}

_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value")


def pool_from_payloads(
    predictions: Iterable[FramePrediction | Mapping[str, Any]],
    embeddings: Iterable[FrameEmbedding | Mapping[str, Any]] | None = None,
) -> Pool:
    """The pool that payloads describe, on the CPU, with float32 columns.

    Args:
        predictions: one a frame, as models or as the dicts that they are on the wire. In dicts a score may be 0 or 1.
        embeddings: of the boxes, and of frames without boxes, found by frame id and embedding id. Those that no box
            names are not read. None leaves the pool without.

    Returns:
        A pool whose `probabilities` are `softmax` and whose `frame_embeddings`, if any frame stood in the predictions
        by its own embedding, are zero for the others. A box without a category, beside others that have one, gets -1.

    Raises:
        InvalidInputError: a payload against the protocol, or with a key that is not read; boxes of which only some
            have a score, probabilities or an embedding; vectors of unequal lengths; an embedding that is not there. The
            message names the frame.

    >>> pool = pool_from_payloads([{"frame_id": "a", "predictions": [{"category_id": 3, "score": 0.5}]}])
    >>> pool.frame_ids, pool.scores, pool.labels
    (('a',), tensor([0.5000]), tensor([3]))
    """
    if embeddings is None:
        return pool_from_vectors(predictions, None)
    vectors: dict[tuple[str, str], Vector] = {}
    for frame in _models(embeddings, FrameEmbedding, "embeddings"):
        for vector in frame.embeddings:
            vectors[frame.frame_id, vector.embedding_id] = vector.embedding
    return pool_from_vectors(predictions, vectors)


def pool_from_vectors(predictions: Iterable[FramePrediction | Mapping[str, Any]], vectors: Vectors | None) -> Pool:
    """As `pool_from_payloads`, with the embeddings already by `(frame_id, embedding_id)`, such as from a database."""
    frames = _models(predictions, FramePrediction, "predictions")
    lone = [_stand_in(frame) for frame in frames]
    boxed = [() if alone else frame.predictions or () for frame, alone in zip(frames, lone, strict=True)]
    boxes = list(itertools.chain.from_iterable(boxed))
    owners = [frame.frame_id for frame, mine in zip(frames, boxed, strict=True) for _ in mine]
    offsets = torch.zeros(len(frames) + 1, dtype=torch.int64)
    offsets[1:] = torch.tensor([len(mine) for mine in boxed], dtype=torch.int64).cumsum(0)
    scores = _all_or_none([box.score for box in boxes], owners, "score")
    rows = _all_or_none([box.probabilities for box in boxes], owners, "probabilities")
    columns: dict[str, Any] = {
        "scores": None if scores is None else torch.tensor(scores, dtype=torch.float32),
        "labels": _labels([box.category_id for box in boxes]),
        "probabilities": None if rows is None else _matrix(rows, owners, "probabilities"),
    }
    if vectors is not None:
        columns["box_embeddings"] = _box_embeddings(boxes, owners, vectors)
        columns["frame_embeddings"] = _frame_embeddings([frame.frame_id for frame in frames], lone, vectors)
    ids = [frame.frame_id for frame in frames]
    return Pool(ids, offsets, activation=None if rows is None else "softmax", **columns)


def _models(items: Iterable[_Model | Mapping[str, Any]], model: type[_Model], name: str) -> list[_Model]:
    found = []
    for row, item in enumerate(items):
        if isinstance(item, model):
            found.append(item)
            continue
        try:
            found.append(cast("_Model", _STRICT[model].model_validate(item)))
        except ValidationError as error:
            raise InvalidInputError(
                f"`{name}` must be payloads of the protocol; in number {row}, {_problem(error, model)}"
            ) from error
    return found


def _problem(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong first, and where; an unknown key, and the known ones, before anything else."""
    errors = error.errors(include_url=False, include_context=False)
    errors = [each for each in errors if each["type"] != "is_instance_of"] or errors
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    path = [part for part in first["loc"] if part != Box.__name__]
    where = ".".join(map(str, path)) or "all of it"
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']}"
    known = BBoxScores if len(path) > 1 and model is FramePrediction else model
    return f"{where} is no key that is read; those are {', '.join(known.model_fields)}"


def _stand_in(frame: FramePrediction) -> BBoxScores | None:
    """The one box that stands for a frame without boxes, if that is what the frame has."""
    if frame.predictions is None or len(frame.predictions) != 1:
        return None
    box = frame.predictions[0]
    sure = box.score is None or np.float32(box.score) == 1
    return box if box.category_id == NO_DETECTION and sure else None


def _all_or_none(values: list[_Value | None], owners: list[str], name: str) -> list[_Value] | None:
    there = [value for value in values if value is not None]
    if len(there) == len(values):
        return there if values or name == "score" else None
    if not there:
        return None
    missing = next(row for row, value in enumerate(values) if value is None)
    raise InvalidInputError(
        f"`{name}` must be there for all boxes or for none; a box of frame {owners[missing]!r} has none"
    )


def _labels(categories: list[int | None]) -> Tensor | None:
    if categories and all(category is None for category in categories):
        return None
    known = [NO_DETECTION if category is None else category for category in categories]
    return torch.tensor(known, dtype=torch.int64)


def _matrix(rows: Sequence[Vector], owners: Sequence[str], name: str) -> Tensor:
    width = len(rows[0])
    for row, owner in zip(rows, owners, strict=True):
        if len(row) != width:
            raise InvalidInputError(
                f"`{name}` must have one length; got {width} in frame {owners[0]!r} and {len(row)} in frame {owner!r}"
            )
    matrix = np.empty((len(rows), width), dtype=np.float32)
    with np.errstate(over="ignore"):  # what float32 cannot hold is inf, which the Pool refuses by name
        for number, row in enumerate(rows):
            matrix[number] = row
    return torch.from_numpy(matrix)


def _box_embeddings(boxes: list[BBoxScores], owners: list[str], vectors: Vectors) -> Tensor | None:
    names = _all_or_none([box.embedding_id for box in boxes], owners, "embedding_id")
    if names is None:
        return None
    found = [_find(vectors, owner, name) for owner, name in zip(owners, names, strict=True)]
    return _matrix(found, owners, "embedding")


def _frame_embeddings(frame_ids: list[str], lone: list[BBoxScores | None], vectors: Vectors) -> Tensor | None:
    rows, found = [], []
    for row, (frame_id, box) in enumerate(zip(frame_ids, lone, strict=True)):
        if box is not None and box.embedding_id is not None:
            rows.append(row)
            found.append(_find(vectors, frame_id, box.embedding_id))
    if not rows:
        return None
    known = _matrix(found, [frame_ids[row] for row in rows], "embedding")
    column = torch.zeros(len(frame_ids), known.shape[1])
    column[rows] = known
    return column


def _find(vectors: Vectors, frame_id: str, embedding_id: str) -> Vector:
    vector = vectors.get((frame_id, embedding_id))
    if vector is None:
        raise InvalidInputError(f"frame {frame_id!r} has no embedding {embedding_id!r} among those given")
    return vector
