"""Frames without boxes: which are set apart, and how they come back, counted by hand."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from cval_torch.errors import InvalidInputError
from cval_torch.selection.null_policy import SetApart, remark_on_number, sets_apart
from cval_torch.selection.stage import DetectionSampling

EMPTY = torch.tensor([True, False, True, False, True])
IDS = ["e", "d", "c", "b", "a"]


def stage(policy: str = "protocol", **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy="entropy", num_of_samples=2, null_policy=policy, **options)


def test_by_the_protocol_nothing_is_set_apart() -> None:
    apart = SetApart.of(EMPTY, IDS, stage())
    assert (apart.rows.tolist(), apart.competing) == ([], None)
    assert (apart.num_competing, apart.num_choosable, apart.split(4)) == (5, 5, (4, 0))
    assert not sets_apart(stage())


def test_without_empty_frames_nothing_is_set_apart() -> None:
    apart = SetApart.of(torch.zeros(3, dtype=torch.bool), IDS[:3], stage("skip"))
    assert (apart.competing, apart.num_choosable) == (None, 3)


def test_skipped_frames_never_join() -> None:
    apart = SetApart.of(EMPTY, IDS, stage("skip"))
    assert apart.competing is not None
    assert apart.competing.tolist() == [1, 3]
    assert apart.num_choosable == 2
    assert [apart.split(n) for n in (0, 1, 2, 5)] == [(0, 0), (1, 0), (2, 0), (2, 0)]


def test_the_last_join_by_id_when_the_others_run_out() -> None:
    apart = SetApart.of(EMPTY, IDS, stage("last"))
    assert [IDS[row] for row in apart.rows.tolist()] == ["a", "c", "e"]
    assert [apart.split(n) for n in (1, 2, 3, 5)] == [(1, 0), (2, 0), (2, 1), (2, 3)]
    assert apart.num_choosable == 5


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.integers(0, 30))
def test_a_sample_has_the_share_of_the_pool(empty: list[bool], n: int) -> None:
    n = min(n, len(empty))
    apart = SetApart.of(torch.tensor(empty), [str(row) for row in range(len(empty))], stage("sample"))
    competing, following = apart.split(n)
    assert following == int(n * sum(empty) / len(empty) + 0.5)
    assert competing == min(n - following, len(empty) - sum(empty))
    assert sorted(apart.rows.tolist()) == [row for row, is_empty in enumerate(empty) if is_empty]


def test_a_sample_is_drawn_by_the_seed_whatever_the_order_of_the_frames() -> None:
    ids = [f"{row:03d}" for row in range(60)]
    empty = torch.ones(60, dtype=torch.bool)
    drawn = {
        seed: [ids[row] for row in SetApart.of(empty, ids, stage("sample", seed=seed)).rows.tolist()] for seed in (1, 2)
    }
    assert drawn[1] != drawn[2]
    backwards = ids[::-1]
    again = SetApart.of(empty, backwards, stage("sample", seed=1))
    assert [backwards[row] for row in again.rows.tolist()] == drawn[1]


def test_none_are_allowed_and_none_are_left() -> None:
    with pytest.raises(InvalidInputError, match="frame 'e' has no boxes"):
        SetApart.of(EMPTY, IDS, stage(use_null_detections=False))
    with pytest.raises(InvalidInputError, match="none of the 2 frames has boxes"):
        SetApart.of(torch.ones(2, dtype=torch.bool), ["a", "b"], stage("skip"))


def test_the_remark_names_what_is_left() -> None:
    one = stage("skip")
    assert remark_on_number(SetApart.of(EMPTY, IDS, one), one, 2) == []
    (remark,) = remark_on_number(SetApart.of(EMPTY, IDS, one), one, 3)
    assert remark == "keeps all 2 frames with boxes, which null_policy='skip' leaves: fewer than num_of_samples=3"
    (remark,) = remark_on_number(SetApart.of(EMPTY, IDS, stage()), stage(), 6)
    assert remark == "keeps all 5 frames there are: fewer than num_of_samples=6"
    assert remark_on_number(SetApart.of(EMPTY, IDS, stage()), stage(), None) == []
