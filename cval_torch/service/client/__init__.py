"""A client of the cval.ai protocol: `CVALConnection`, and the models that it sends and reads."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.service.client.connection": ["CVALConnection"],
            "cval_torch.service.client.models": [
                "BBoxScores",
                "Dataset",
                "DetectionSamplingOnPremise",
                "EmbeddingModel",
                "EmbeddingsMeta",
                "FrameEmbeddingModel",
                "FramePrediction",
                "Result",
            ],
        },
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
