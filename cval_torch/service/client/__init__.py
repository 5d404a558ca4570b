"""A client of the cval.ai protocol: `CVALConnection`, and the models that it sends and reads."""

from cval_torch.service.client.connection import CVALConnection
from cval_torch.service.client.models import (
    BBoxScores,
    Dataset,
    DetectionSamplingOnPremise,
    EmbeddingModel,
    EmbeddingsMeta,
    FrameEmbeddingModel,
    FramePrediction,
    Result,
)

__all__ = [
    "BBoxScores",
    "CVALConnection",
    "Dataset",
    "DetectionSamplingOnPremise",
    "EmbeddingModel",
    "EmbeddingsMeta",
    "FrameEmbeddingModel",
    "FramePrediction",
    "Result",
]
