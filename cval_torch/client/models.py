"""The models of requests and answers, also under the names that `cval-lib` has for them."""

from cval_torch.wire import (
    BBoxScores,
    Dataset,
    DatasetRequest,
    DetectionSampling,
    Embedding,
    EmbeddingsMeta,
    FrameEmbedding,
    FrameEmbeddingMeta,
    FramePrediction,
    Result,
    StorageConfig,
)

DetectionSamplingOnPremise = DetectionSampling
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
    "DetectionSampling",
    "DetectionSamplingOnPremise",
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
