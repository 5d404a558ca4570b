"""The payloads: names as the protocol has them, and every bound of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from cval_torch.selection.stage import CONSTRAINTS, DetectionSampling
from cval_torch.service.protocol import BBoxScores, DetectionSamplingRequest, FrameEmbedding, FramePrediction, Result

PROTOCOL_FIELDS = {
    "num_of_samples",
    "dataset_id",
    "num_of_clusters",
    "use_null_detections",
    "bbox_selection_policy",
    "selection_strategy",
    "sort_strategy",
    "probs_weights",
    "frames",
}


def test_a_request_has_the_fields_of_the_protocol_and_those_of_our_own() -> None:
    own = {"seed", "null_policy", "class_weights", *CONSTRAINTS}
    assert set(DetectionSamplingRequest.model_fields) == PROTOCOL_FIELDS | own
    assert set(DetectionSampling.model_fields) == PROTOCOL_FIELDS - {"frames", "dataset_id"} | own
    assert set(BBoxScores.model_fields) == {"category_id", "score", "embedding_id", "probabilities"}
    assert set(FramePrediction.model_fields) == {"frame_id", "predictions"}
    assert set(FrameEmbedding.model_fields) == {"frame_id", "embeddings"}


def test_defaults_are_those_of_the_protocol() -> None:
    stage = DetectionSamplingRequest(num_of_samples=1, selection_strategy="margin")
    assert stage.num_of_clusters == -1
    assert stage.use_null_detections is True
    assert stage.dataset_id is None
    assert stage.probs_weights is None


@pytest.mark.parametrize("score", [0.0, 1.0, -0.1, 1.1, float("nan"), float("inf"), "high"])
def test_a_score_lies_strictly_between_0_and_1(score: object) -> None:
    with pytest.raises(ValidationError, match="score"):
        BBoxScores.model_validate({"score": score})


@pytest.mark.parametrize("value", [[float("nan")], [-0.1], [float("inf")], "ab"])
def test_probabilities_are_finite_and_not_negative(value: object) -> None:
    with pytest.raises(ValidationError, match="probabilities"):
        BBoxScores.model_validate({"probabilities": value})


def test_json_nan_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        FrameEmbedding.model_validate_json(
            '{"frame_id": "a", "embeddings": [{"embedding_id": "0", "embedding": [NaN]}]}'
        )


@pytest.mark.parametrize(("value", "expected"), [("7", 7), ("-1", -1), (3, 3), (None, None)])
def test_a_category_may_be_a_string_of_digits(value: object, expected: int | None) -> None:
    assert BBoxScores.model_validate({"category_id": value}).category_id == expected


@pytest.mark.parametrize("value", ["dog", "1.5", 1.5, "9" * 5000])
def test_a_category_is_a_whole_number(value: object) -> None:
    with pytest.raises(ValidationError, match="category_id"):
        BBoxScores.model_validate({"category_id": value})


@pytest.mark.parametrize("frame_id", ["", "x" * 129, 5, None])
def test_a_frame_id_has_1_to_128_characters(frame_id: object) -> None:
    with pytest.raises(ValidationError, match="frame_id"):
        FramePrediction.model_validate({"frame_id": frame_id})
    assert FramePrediction(frame_id="x" * 128).predictions is None


def test_a_result_of_the_live_service_is_read() -> None:
    """As printed in the public cval-lib notebook, with its running and finished forms."""
    running = Result.model_validate(
        {
            "task_id": "3cc10a61-c03a-478d-be03-3d06cf30bed5",
            "dataset_id": None,
            "time_start": 1690494445.4152808,
            "time_end": None,
            "type_of_task": "detection",
            "action": "sampling",
            "weights": None,
            "result": None,
        }
    )
    assert running.result is None
    finished = running.model_copy(update={"result": ["a"]})
    assert Result.model_validate_json(finished.model_dump_json()).result == ["a"]


def test_the_payloads_import_no_torch() -> None:
    """A server's front process or a script that only speaks the protocol does not wait for torch."""
    code = (
        "import importlib, importlib.util, sys, types; sys.modules['torch'] = None\n"
        "spec = importlib.util.find_spec('cval_torch'); root = spec.submodule_search_locations[0]\n"
        "for package in ('', '.pool', '.selection', '.service'):\n"  # without what their `__init__` imports
        "    module = types.ModuleType('cval_torch' + package)\n"
        "    module.__path__ = [root + package.replace('.', '/')]; sys.modules[module.__name__] = module\n"
        "for name in ('errors', 'selection.stage', 'service.protocol'):\n"
        "    importlib.import_module(f'cval_torch.{name}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
