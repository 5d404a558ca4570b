"""The models of requests and answers, also under the names that `cval-lib` has for them."""

from cval_torch.service.protocol import (
    BBoxScores,
    Dataset,
    DatasetRequest,
    DetectionSamplingRequest,
    Embedding,
    EmbeddingsMeta,
    FrameEmbedding,
    FrameEmbeddingMeta,
    FramePrediction,
    Result,
    StorageConfig,
)

DetectionSamplingOnPremise = DetectionSamplingRequest
EmbeddingModel = Embedding
FrameEmbeddingModel = FrameEmbedding
FrameEmbeddingResponseModel = FrameEmbeddingMeta
EmbeddingsMetaResponse = EmbeddingsMeta
ResultResponse = Result
DatasetModel = DatasetRequest
DatasetResponse = Dataset

__all__ = [
    "BBoxScores",
    "Dataset",
    "DatasetModel",
    "DatasetRequest",
    "DatasetResponse",
    "DetectionSamplingOnPremise",
    "DetectionSamplingRequest",
    "Embedding",
    "EmbeddingModel",
    "EmbeddingsMeta",
    "EmbeddingsMetaResponse",
    "FrameEmbedding",
    "FrameEmbeddingMeta",
    "FrameEmbeddingModel",
    "FrameEmbeddingResponseModel",
    "FramePrediction",
    "Result",
    "ResultResponse",
    "StorageConfig",
]
