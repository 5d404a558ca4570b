"""What is kept of a round."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from chosen_frames import Chosen, by_size
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.labels import LabelPool
from cval_torch.training.rounds import Round, as_scores


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


rounds = st.builds(
    lambda scored, stages, epoch, fingerprint, drawn: Round(
        tuple(f"f{row}" for row in range(len(scored))),
        None if all(score is None for score in scored) else tuple(scored),
        stages,
        epoch,
        fingerprint,
        tuple(f"f{row}" for row, score in enumerate(scored) if score is None or row in drawn),
    ),
    st.lists(st.none() | st.floats(-9, 9), min_size=1, max_size=5),
    st.lists(
        st.fixed_dictionaries({"selection_strategy": st.sampled_from(["a", "b"]), "seed": st.integers(0, 9)}),
        max_size=3,
    ).map(tuple),
    st.none() | st.integers(0, 99),
    st.none() | st.text(max_size=4),
    st.sets(st.integers(0, 4)),
)


@given(one=rounds, wanted=st.sets(st.sampled_from([f"f{row}" for row in range(6)])))
def test_states_come_back_and_parts_keep_their_order(one: Round, wanted: set[str]) -> None:
    assert Round.from_state(json.loads(json.dumps(one.state_dict()))) == one
    assert not any(value is None for value in one.state_dict().values())
    assert one.part(wanted).random_ids == tuple(each for each in one.random_ids if each in wanted)
    part = one.part(wanted)
    rows = [row for row, frame_id in enumerate(one.frame_ids) if frame_id in wanted]
    assert part.frame_ids == tuple(f"f{row}" for row in rows)
    scores = tuple(None if one.scores is None else one.scores[row] for row in rows)
    assert part.scores == (scores if any(score is not None for score in scores) else None)
    assert (part.stages, part.epoch, part.model_fingerprint) == (one.stages, one.epoch, one.model_fingerprint)
    assert one.strategy == (", ".join(stage["selection_strategy"] for stage in one.stages) or None)
    assert one.seed == (one.stages[-1]["seed"] if one.stages else None)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], r"`scores` must be one a frame, of which there are 2; got 1"),
        ([1.0, math.nan], "`scores` must be finite, or all NaN; got nan for frame 'b'"),
        ([-math.inf, 1.0], "got -inf for frame 'a'"),
    ],
)
def test_scores_that_are_none(scores: list[float], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        as_scores(scores, ["a", "b"])
    with pytest.raises(InvalidInputError, match=message):
        Round.from_state({"frame_ids": ["a", "b"], "stages": [], "scores": scores})


def test_scores_are_floats_or_none_at_all() -> None:
    assert as_scores([1, 0], ["a", "b"]) == (1.0, 0.0)
    assert as_scores([math.nan, math.nan], ["a", "b"]) is None
    for damaged in ({}, {"frame_ids": ["a"]}, {"frame_ids": ["a"], "stages": [3]}, {"frame_ids": 3, "stages": []}):
        with pytest.raises((KeyError, TypeError, AttributeError, InvalidInputError)):
            Round.from_state(damaged)
