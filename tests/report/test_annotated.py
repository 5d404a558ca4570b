"""The ways to say what was annotated."""

from __future__ import annotations

import pytest
from reported import described

from cval_torch.errors import InvalidInputError
from cval_torch.report.annotated import Annotated, KnowsLabeled, expected_gains, part_pool
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import LearningCurve

POOL = described(6)
IDS = POOL.frame_ids


def test_nobody_said() -> None:
    annotated, pool = part_pool(POOL, None, IDS[:2])
    assert annotated == Annotated(None, None)
    assert pool is POOL
    assert not annotated.is_described


def test_there_are_none() -> None:
    for given in ([], POOL.take([]), LabelPool(list(range(3)))):
        annotated, _ = part_pool(POOL, given, IDS[:2])
        assert annotated.is_none
        assert annotated.is_described


def test_a_pool_of_other_frames() -> None:
    others = described(3, seed=1, prefix="other")
    annotated, pool = part_pool(POOL, others, IDS[:2])
    assert annotated.pool is others
    assert annotated.frame_ids == others.frame_ids
    assert pool is POOL


def test_ids_of_the_same_pool_are_parted_from_it() -> None:
    annotated, pool = part_pool(POOL, [IDS[3], IDS[5]], IDS[:2])
    assert annotated.pool is not None
    assert annotated.pool.frame_ids == (IDS[3], IDS[5])
    assert pool is not None
    assert pool.frame_ids == (*IDS[:3], IDS[4])


def test_ids_alone_say_how_many() -> None:
    annotated, pool = part_pool(POOL, ["x", "y", "x"], IDS[:2])
    assert annotated == Annotated(("x", "y"), None)
    assert pool is POOL
    assert not annotated.is_described


def test_some_ids_of_the_pool_leave_it_and_describe_nothing() -> None:
    annotated, pool = part_pool(POOL, ["x", IDS[5]], IDS[:2])
    assert annotated == Annotated(("x", IDS[5]), None)
    assert pool is not None
    assert IDS[5] not in pool.frame_ids


def test_chosen_frames_that_are_labelled_by_now_do_not_count() -> None:
    labels = LabelPool(list(range(6)), labeled=[IDS[0], IDS[4]], frame_ids=IDS)
    assert isinstance(labels, KnowsLabeled)
    annotated, pool = part_pool(POOL, labels, IDS[:2])
    assert annotated.frame_ids == (IDS[4],)
    assert pool is not None
    assert pool.frame_ids == (*IDS[:4], IDS[5])
    assert part_pool(None, POOL.take([0, 4]), IDS[:2])[0].frame_ids == (IDS[4],)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="`pool` must hold the frames that were chosen; 'y' is not in it"):
        part_pool(POOL, None, ["y", IDS[0]])
    with pytest.raises(InvalidInputError, match="cannot be chosen again"):
        part_pool(POOL, described(6, seed=1).take([4]), IDS[:2])
    for given in ("frame", [3], b"x"):
        with pytest.raises(InvalidInputError, match="`labeled` must be a Pool, a LabelPool or ids"):
            part_pool(POOL, given, IDS[:2])  # type: ignore[arg-type]


def test_what_may_be_gained_is_said_where_two_rounds_were_measured() -> None:
    labels = LabelPool(list(range(9)), labeled=["0"])  # type: ignore[arg-type]
    labels.measured({"map": 0.3, "new\x00": 0.1})
    assert expected_gains(labels, None, 5) == []
    labels.label(["1", "2"])
    labels.measured({"map": 0.4})
    assert expected_gains(labels, None, 5) == [str(labels.learning_curve.forecast("map", 5))]
    assert expected_gains(["0"], labels.learning_curve, 5) == expected_gains(labels, None, 5)
    assert expected_gains(labels, LearningCurve(), 5) == [], "what is passed counts"
    assert expected_gains(["0"], None, 5) == []
    labels.measured({"new\x00": 0.2})
    assert "\x00" not in expected_gains(labels, None, 5)[1]
