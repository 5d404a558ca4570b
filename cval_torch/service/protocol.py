"""The payloads of the REST protocol, as pydantic models.

The request for a selection is a stage, `DetectionSampling`, with the fields that only the wire has.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, FiniteFloat, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.selection.stage import CategoryId, DetectionSampling, Payload

DatasetPart = Literal["training", "test", "validation"]

FrameId = Annotated[str, Field(min_length=1, max_length=MAX_FRAME_ID_LENGTH)]


class BBoxScores(Payload):
    """One detected box.

    Attributes:
        category_id: class index; -1 means "no detection". A string of digits, which old clients send, is accepted.
        score: confidence, strictly between 0 and 1.
        embedding_id: names the box's embedding among those uploaded to the dataset.
        probabilities: one non-negative number a class; the distribution that uncertainty is computed from.
    """

    category_id: CategoryId | None = None
    score: Annotated[float, Field(gt=0, lt=1)] | None = None
    embedding_id: str | None = None
    probabilities: list[Annotated[FiniteFloat, Field(ge=0)]] | None = None


class FramePrediction(Payload):
    """The boxes of one frame; no boxes (an empty list or None) is a "null detection"."""

    frame_id: FrameId
    predictions: list[BBoxScores] | None = None


class SampledFrame(FramePrediction):
    """A frame as a server of one's own takes it: with fields beyond the protocol.

    Attributes:
        embedding_id: names the embedding of the whole frame, beside those of its boxes.
        labeled: whether it is annotated already: it is known, and not chosen.
    """

    embedding_id: str | None = None
    labeled: bool = False


_NULL_MEANS_DEFAULT = frozenset({"use_null_detections", "null_policy", "num_of_clusters", "seed"})


class NullsAreDefaults(Payload):
    """On the wire a null stands for a field that is missing: it leaves the default."""

    @field_validator(*_NULL_MEANS_DEFAULT, mode="before", check_fields=False)
    @classmethod
    def _null_is_the_default(cls, value: object, info: ValidationInfo) -> object:
        return cls.model_fields[str(info.field_name)].default if value is None else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        properties = handler.resolve_ref_schema(described).get("properties", {})
        for name in _NULL_MEANS_DEFAULT.intersection(properties):
            default = properties[name].pop("default", None)
            properties[name] = {"anyOf": [properties[name], {"type": "null"}], "default": default}
        return described


class DetectionSamplingRequest(NullsAreDefaults, DetectionSampling):
    """One stage as a request: `DetectionSampling`, and what it is to be run on.

    Attributes:
        dataset_id: the dataset that holds the embeddings, at most 128 characters.
        frames: what to choose from.
    """

    model_config = ConfigDict(extra="ignore")

    dataset_id: Annotated[str, Field(max_length=MAX_FRAME_ID_LENGTH)] | None = None
    frames: list[FramePrediction] | None = None


class Embedding(Payload):
    """One vector and its name."""

    embedding_id: str
    embedding: list[FiniteFloat]


class FrameEmbedding(Payload):
    """The named vectors of one frame."""

    frame_id: FrameId
    embeddings: list[Embedding]


class Dataset(Payload):
    """A dataset of the service: a named place for embeddings."""

    dataset_id: str | None = None
    dataset_name: Annotated[str, Field(max_length=32)] | None = None
    dataset_description: Annotated[str, Field(max_length=256)] | None = None


class StorageConfig(Payload):
    """Where a dataset's images lie in a cloud storage that the service knows."""

    cloud_storage_id: str | None = None
    dataset_name_in_storage: str | None = None


class DatasetRequest(Payload):
    """What creates or updates a dataset; on update a null field leaves its value."""

    dataset_name: Annotated[str, Field(max_length=32)] | None = None
    dataset_description: Annotated[str, Field(max_length=256)] | None = None
    storage_config: StorageConfig | None = None


class FrameEmbeddingMeta(Payload):
    """The names of a frame's stored vectors."""

    frame_id: str
    embeddings_quantity: int
    embeddings: list[str]


class EmbeddingsMeta(Payload):
    """What an upload of embeddings stored."""

    frames_quantity: int
    frames: list[FrameEmbeddingMeta]


class Result(Payload):
    """A task of the service, finished or not.

    Attributes:
        time_start: unix seconds; `time_end` the same, None while the task runs.
        result: the chosen frame ids, in order; None, or an object with progress, while the task runs.
    """

    task_id: str
    dataset_id: str | None = None
    time_start: float
    time_end: float | None = None
    type_of_task: str = "detection"
    action: str = "sampling"
    weights: Any = None
    result: list[str] | dict[str, Any] | None = None
    queue_info: Any = None
