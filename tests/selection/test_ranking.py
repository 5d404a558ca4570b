"""Scores and ranks of frames against a naive oracle that reads boxes one by one."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tied_frames import UNCERTAIN, make_tied_pool

from cval_torch.pool.pool import Pool
from cval_torch.selection.ranking import frame_scores, rank_rows
from cval_torch.selection.stage import DetectionSampling

POLICIES = {"min": min, "max": max, "mean": statistics.fmean, "sum": math.fsum}


def stage(strategy: Any = "entropy", n: int = 3, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def naive_uncertainty(row: list[float], name: str) -> float:
    p = sorted((value / sum(row) for value in row), reverse=True)
    n = len(p)
    return {
        "least": lambda: (1 - p[0]) * n / (n - 1),
        "margin": lambda: 1 - (p[0] - p[1]),
        "ratio": lambda: p[1] / p[0],
        "entropy": lambda: -sum(q * math.log2(q) for q in p if q > 0) / math.log2(n),
    }[name]()


def naive_frame_scores(pool: Pool, name: str, policy: str) -> list[float]:
    scores = []
    for begin, end in zip(pool.offsets[:-1].tolist(), pool.offsets[1:].tolist(), strict=True):
        boxes = []
        for box in range(begin, end):
            confidence = pool.scores[box].item()
            if name == "probability":
                boxes.append(confidence)
            elif pool.probabilities is None:
                boxes.append(naive_uncertainty([confidence, 1 - confidence], name))
            else:
                row = pool.probabilities[box].double().tolist()
                if pool.activation == "sigmoid":
                    row = [p / (1 - p) for p in row] + [1.0]
                boxes.append(naive_uncertainty(row, name))
        if not boxes:
            boxes = [0.0 if name == "probability" else 1.0]
        scores.append(POLICIES[policy](boxes))
    return scores


@pytest.mark.parametrize("name", [*UNCERTAIN, "probability"])
@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid"])
def test_frame_scores_against_a_loop(name: str, policy: str, activation: str | None) -> None:
    pool = make_tied_pool([3, 0, 1, 7, 20, 0, 2, 2], activation=activation)
    got = frame_scores(pool, stage(name, bbox_selection_policy=policy))
    assert got.dtype == torch.float64
    assert got.tolist() == pytest.approx(naive_frame_scores(pool, name, policy), abs=2e-6)


@given(data=st.data(), n=st.integers(1, 12), descending=st.booleans())
@settings(max_examples=80, deadline=None)
def test_ranking_is_a_sort_by_score_and_id(data: st.DataObject, n: int, descending: bool) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.0, -0.0, 0.25, 0.5, -1.0]), min_size=n, max_size=20))
    ids = data.draw(st.permutations([f"{row}" for row in range(len(scores))]))
    got = rank_rows(torch.tensor(scores, dtype=torch.float64), ids, n, descending=descending)
    sign = -1 if descending else 1
    assert got == sorted(range(len(scores)), key=lambda row: (sign * scores[row], ids[row]))[:n]


def test_class_weights_of_sigmoids_may_leave_out_none() -> None:
    pool = make_tied_pool([2] * 5, activation="sigmoid")
    short = frame_scores(pool, stage(probs_weights=[1, 2, 3, 4]))
    assert torch.equal(short, frame_scores(pool, stage(probs_weights=[1, 2, 3, 4, 1])))
