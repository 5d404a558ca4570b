"""Request bodies: what they must be, and how they are read."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic.json_schema import models_json_schema

from cval_torch.server.settings import RefusedError
from cval_torch.wire import (
    BboxSelectionPolicy,
    ClassQuotas,
    ClassWeights,
    DatasetRequest,
    DetectionSampling,
    FrameEmbedding,
    FramePrediction,
    MinDistance,
    NullPolicy,
    NumOfBoxes,
    Payload,
    SortStrategy,
)

Model = TypeVar("Model")
Body = bytes | Path
"""A small body as it is, or the file that a large one was written to."""

Weight = Annotated[FiniteFloat, Field(ge=0)]


class Stage(Payload):
    """How frames are scored or spread, by names only; `DetectionSampling` says what each field means."""

    selection_strategy: Annotated[str, Field(max_length=64)]
    bbox_selection_policy: BboxSelectionPolicy | None = None
    sort_strategy: SortStrategy | None = None
    probs_weights: list[Weight] | None = None
    class_weights: ClassWeights | None = None
    use_null_detections: bool | None = True
    null_policy: NullPolicy | None = "protocol"
    num_of_clusters: Annotated[int, Field(ge=-1, lt=2**31)] | None = -1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = 0

    def stage(self, **amounts: Any) -> DetectionSampling:
        """The stage that keeps so many frames: `num_of_samples`, and the constraints.

        Raises:
            RefusedError: 422, a field that does not fit.
        """
        fields = self.model_dump(include=set(Stage.model_fields), exclude_none=True)
        try:
            return DetectionSampling.model_validate({**fields, **amounts})
        except ValidationError as error:
            raise RefusedError(422, describe(error)) from error


class SamplingRequest(Stage):
    """A selection among `frames`; `DetectionSampling` says what the fields mean.

    Attributes:
        scored_by: beyond the protocol: the stage that chose these frames. It scores them again, for diversity
            strategies that weigh frames by how informative they are.
    """

    num_of_samples: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    num_of_boxes: NumOfBoxes | None = None
    min_distance: MinDistance | None = None
    class_quotas: Annotated[ClassQuotas, Field(max_length=10_000)] | None = None
    dataset_id: Annotated[str, Field(max_length=128)] | None = None
    scored_by: Stage | None = None
    frames: list[FramePrediction]


SAMPLING = TypeAdapter(SamplingRequest)
EMBEDDINGS = TypeAdapter(list[FrameEmbedding])
DATASET = TypeAdapter(DatasetRequest)


def parsed(body: Body, adapter: TypeAdapter[Model]) -> Model:
    """Read a body.

    Raises:
        RefusedError: 422, it is not JSON, nested deeper than 200 levels, or not what it must be.
    """
    try:
        if isinstance(body, bytes):
            return adapter.validate_json(body)
        with _no_collecting():
            return adapter.validate_json(body.read_bytes())
    except ValidationError as error:
        raise RefusedError(422, describe(error)) from error


def describe(error: ValidationError) -> str:
    """The first few things that are wrong, without the values, which may be large or secret."""
    found = []
    for each in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        where = ".".join(str(part) for part in each["loc"])
        found.append(f"{where}: {each['msg']}" if where else each["msg"])
    rest = error.error_count() - len(found)
    return "; ".join(found)[:2000] + (f"; and {rest} more" if rest > 0 else "")


def body_schemas() -> dict[str, object]:
    """The JSON schemas of the bodies, by name, for OpenAPI."""
    _, schema = models_json_schema(
        [(SamplingRequest, "validation"), (FrameEmbedding, "validation"), (DatasetRequest, "validation")],
        ref_template="#/components/schemas/{model}",
    )
    return dict(schema["$defs"])


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Millions of new objects, none of them garbage: the collector would walk them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
