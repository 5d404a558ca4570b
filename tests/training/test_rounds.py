"""What is kept of a round."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from chosen_frames import Chosen, by_size

from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.labels import LabelPool
from cval_torch.training.rounds import Round


def make(n: int = 6, **options: Any) -> LabelPool:
    """Frames "f0" ... whose items are their rows."""
    return LabelPool(list(range(n)), frame_ids=[f"f{row}" for row in range(n)], **options)


def through_torch(state: dict[str, Any]) -> dict[str, Any]:
    """What is left of a state after a checkpoint that trusts nothing."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_selection_brings_its_scores_and_stages() -> None:
    labels = make(labeled=["f5"])
    stages = [
        DetectionSampling(selection_strategy=by_size, num_of_samples=4),
        DetectionSampling(selection_strategy="entropy", num_of_samples=2, seed=3, probs_weights=[0.5]),
        DetectionSampling(selection_strategy="margin", num_of_samples=2, seed=3, class_weights={7: 0.5}),
    ]
    round_ = labels.label(Chosen(["f3", "f1"], [0.75, 0.5], stages), epoch=2, model_fingerprint="abc")
    assert round_.frame_ids == ("f3", "f1")
    assert round_.scores == (0.75, 0.5)
    assert round_.strategy == f"{by_size.__module__}.by_size, entropy, margin"
    assert round_.seed == 3
    assert round_.stages[1]["probs_weights"] == [0.5]
    assert round_.stages[2]["class_weights"] == {"7": 0.5}, "as JSON gives it back"
    assert "frames" not in round_.stages[0]
    assert (round_.epoch, round_.model_fingerprint) == (2, "abc")
    assert labels.rounds[0] == Round(("f5",))
    assert (labels.rounds[0].strategy, labels.rounds[0].seed) == (None, None)
    again = make()
    again.load_state_dict(through_torch(labels.state_dict()))
    assert again.rounds == labels.rounds


def test_a_round_with_quotas_is_read_back_from_json(tmp_path: Path) -> None:
    stages = [DetectionSampling(selection_strategy="entropy", num_of_boxes=40, class_quotas={7: 2}, min_distance=0.5)]
    labels = make()
    round_ = labels.label(Chosen(["f3", "f1"], [0.75, 0.5], stages))
    assert round_.stages[0]["class_quotas"] == {"7": 2}
    assert "num_of_samples" not in round_.stages[0]
    labels.save(tmp_path / "labels.json")
    again = make()
    again.load(tmp_path / "labels.json")
    assert again.rounds == labels.rounds
    assert DetectionSampling.model_validate(again.rounds[0].stages[0]) == stages[0]
