"""The names that `cval-lib` has for the models, so that its scripts change nothing but an import."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from cval_torch.service import protocol
from cval_torch.service.client import models

NAMES_OF_CVAL_LIB = {
    "BBoxScores": "BBoxScores",
    "DatasetModel": "DatasetRequest",
    "DatasetResponse": "Dataset",
    "DetectionSamplingOnPremise": "DetectionSamplingRequest",
    "EmbeddingModel": "Embedding",
    "EmbeddingsMetaResponse": "EmbeddingsMeta",
    "FrameEmbeddingModel": "FrameEmbedding",
    "FrameEmbeddingResponseModel": "FrameEmbeddingMeta",
    "FramePrediction": "FramePrediction",
    "ResultResponse": "Result",
    "StorageConfig": "StorageConfig",
}


@pytest.mark.parametrize(("theirs", "ours"), NAMES_OF_CVAL_LIB.items())
def test_both_names_are_one_model(theirs: str, ours: str) -> None:
    assert getattr(models, theirs) is getattr(models, ours) is getattr(protocol, ours)


def test_what_is_listed_is_there_and_a_model() -> None:
    assert models.__all__ == sorted(models.__all__)
    assert set(models.__all__) == set(NAMES_OF_CVAL_LIB) | set(NAMES_OF_CVAL_LIB.values())
    for name in models.__all__:
        assert issubclass(getattr(models, name), BaseModel)


def test_a_request_of_an_old_script_is_the_request() -> None:
    frame = models.FramePrediction(frame_id="a", predictions=[models.BBoxScores(score=0.5)])
    one = models.DetectionSamplingOnPremise(num_of_samples=1, selection_strategy="margin", frames=[frame])
    assert one.model_dump_json(exclude_none=True, exclude_defaults=True) == (
        '{"selection_strategy":"margin","num_of_samples":1,"frames":[{"frame_id":"a","predictions":[{"score":0.5}]}]}'
    )
