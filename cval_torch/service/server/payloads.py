"""Request bodies: what they must be, and how they are read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from cval_torch.selection.stage import BboxSelectionPolicy, CategoryId, ClassQuotas, ClassWeights, Scoring
from cval_torch.service.protocol import (
    DatasetRequest,
    DetectionSamplingRequest,
    FrameEmbedding,
    NullsAreDefaults,
    SampledFrame,
)
from cval_torch.service.server.settings import RefusedError

Model = TypeVar("Model")
Objects = Annotated[FiniteFloat, Field(ge=0)]
MESSAGES = 5
"""How many of the things that are wrong with a body are said."""

Body = bytes | Path
"""A small body as it is, or the file that a large one was written to."""


class NamedScoring(NullsAreDefaults, Scoring):
    """How frames are scored or spread, by names only; `DetectionSampling` documents the fields."""

    selection_strategy: Annotated[str, Field(max_length=64)]
    bbox_selection_policy: BboxSelectionPolicy | None = None
    class_weights: ClassWeights | None = None


class SamplingRequest(NamedScoring, DetectionSamplingRequest):
    """A selection among `frames`; `DetectionSampling` documents the other fields.

    Attributes:
        scored_by: beyond the protocol: the stage that chose these frames. It scores them again, for diversity
            strategies that weigh frames by how informative they are.
        labeled_counts: beyond the protocol: annotated objects by class, for strategies that go by them.
    """

    class_quotas: Annotated[ClassQuotas, Field(max_length=10_000)] | None = None
    scored_by: NamedScoring | None = None
    labeled_counts: Annotated[dict[CategoryId, Objects], Field(max_length=10_000)] | None = None
    frames: list[SampledFrame]  # type: ignore[assignment]


SAMPLING = TypeAdapter(SamplingRequest)
EMBEDDINGS = TypeAdapter(list[FrameEmbedding])
DATASET = TypeAdapter(DatasetRequest)


def parsed(body: bytes, adapter: TypeAdapter[Model]) -> Model:
    """Read a small body, all of it at once; `incoming` reads large ones.

    Raises:
        RefusedError: 422, it is not JSON, nested deeper than 200 levels, or not what it must be.
    """
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise RefusedError(422, describe(error)) from error


def describe(error: ValidationError) -> str:
    """The first few things that are wrong, without the values, which may be large or secret."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)[:MESSAGES]
    return said([message_of(each["loc"], each["msg"]) for each in errors], error.error_count())


def message_of(place: tuple[int | str, ...], problem: str) -> str:
    """One thing that is wrong, and where."""
    where = ".".join(map(str, place))
    return f"{where}: {problem}" if where else problem


def said(messages: list[str], count: int) -> str:
    """The first of `count` things that are wrong, and how many there are beside."""
    found = messages[:MESSAGES]
    rest = count - len(found)
    return "; ".join(found)[:2000] + (f"; and {rest} more" if rest > 0 else "")


def body_schemas() -> dict[str, object]:
    """The JSON schemas of the bodies, by name, for OpenAPI."""
    _, schema = models_json_schema(
        [(SamplingRequest, "validation"), (FrameEmbedding, "validation"), (DatasetRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    return dict(schema["$defs"])


@contextmanager
def not_collecting() -> Iterator[None]:
    """Millions of new objects, none of them garbage: the collector would walk them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
