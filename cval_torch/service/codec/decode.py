"""From payloads to a `Pool`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from pydantic import BaseModel, Field, InstanceOf, ValidationError

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.service.codec.gathering import GatheredFrames, Vector
from cval_torch.service.protocol import BBoxScores, FrameEmbedding, FramePrediction

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
    lookup = None if vectors is None else partial(_named, vectors)
    gathered = GatheredFrames(lookup)
    gathered.add(_models(predictions, FramePrediction, "predictions"))
    return gathered.pool()


def _named(vectors: Vectors, frame_id: str, names: Collection[str]) -> dict[str, Vector]:
    return {name: vectors[frame_id, name] for name in names if (frame_id, name) in vectors}


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
