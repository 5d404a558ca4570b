"""What a comparison is asked for, and what is refused before anything is inferred."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quick_comparison import Known, loader_of, quick, same
from shades import OneBox, Tiny
from torch import Tensor

from cval_torch import DetectionSampling, LabelPool, PassOptions, compare
from cval_torch.comparison.asked import check_numbers, check_ranges, frames_of, plans_of, random_stage
from cval_torch.errors import InvalidInputError


def test_a_list_of_names_and_a_callable() -> None:
    def lightest(pool: Any) -> Tensor:
        return pool.scores

    found = quick(strategies={"lightest": lightest, "sure": "probability"})
    plain = quick(strategies=["probability"])
    assert found.strategies["sure"] == plain.strategies["probability"]
    shades = Known().shades
    best = sorted(range(30), key=lambda row: float(-shades[row]))[:4]
    assert set(found.strategies["lightest"].frame_ids) == {str(row) for row in best}


def test_balanced_classes_with_and_without_labelled_frames() -> None:
    """Where nothing is labelled, every class counts alike."""
    stages = {
        name: DetectionSampling(selection_strategy="least", num_of_samples=4, class_weights=weights)
        for name, weights in (("balanced", "balanced"), ("alike", {}))
    }
    found = quick(strategies=stages).strategies
    assert found["balanced"].frame_ids == found["alike"].frame_ids
    assert len(quick(strategies=stages, labeled=["2", "3"]).strategies["balanced"].frame_ids) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_of_samples": 0}, "`num_of_samples` must be at least 1; got 0"),
        ({"num_of_samples": 2.5}, "`num_of_samples` must be an integer; got 2.5"),
        ({"num_of_samples": 30}, "less than the 30 candidates, or all choices are the same; got 30"),
        ({"draws": 1}, "`draws` must be at least 2; got 1"),
        ({"seed": -1}, "`seed` must be at least 0; got -1"),
        ({"rounds": 2}, "pass `train` and `evaluate`; got rounds=2 alone"),
        ({"train": lambda frames: Tiny()}, "`train` and `evaluate` must be given together"),
        ({"min_score": 1.5}, r"`min_score` must be in \[0, 1\]; got 1.5"),
        ({"duplicate_radius": float("nan")}, "`duplicate_radius` must be at least 0; got nan"),
        ({"labeled": ["2", "no such frame"]}, "`labeled` must be frames of the loader, which has no 'no such frame'"),
        ({"labeled": "2"}, "`labeled` must be several frame ids; got '2'"),
        ({"make_loader": loader_of}, "`make_loader` is for a LabelPool"),
        ({"strategies": []}, "`strategies` must be one or more, of different names; got none"),
        ({"strategies": ["least", "least"]}, "of different names; got 'least', 'least'"),
        ({"strategies": "least"}, "`strategies` must be a dict of stages by name, or names; got 'least'"),
        ({"strategies": ["random"]}, "'random' is always beside them"),
        ({"strategies": {"": "least"}}, "must have names that are strings; got ''"),
        ({"strategies": ["smallest"]}, "strategy 'smallest': `selection_strategy` must be a callable or one of"),
        ({"strategies": {"one": []}}, "strategy 'one': `stages` must hold at least one"),
        ({"strategies": {"one": 3}}, "strategy 'one': 'int' object is not iterable"),
        (
            {"strategies": {"one": DetectionSampling(selection_strategy="least", num_of_samples=5)}},
            "strategy 'one': its last stage must keep num_of_samples=4 frames, as the others do; got 5",
        ),
        (
            {"strategies": {"one": DetectionSampling(selection_strategy="least", num_of_samples=4, num_of_boxes=9)}},
            "strategy 'one': its last stage must not have `num_of_boxes`",
        ),
        (
            {"strategies": {"one": DetectionSampling(selection_strategy="least", num_of_samples=4, num_of_minutes=9)}},
            "strategy 'one': its last stage must not have `num_of_minutes`",
        ),
        ({"train": Tiny, "evaluate": Tiny, "trained_draws": 7}, "`trained_draws` must be at most draws=6; got 7"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        quick(**options)


def test_options_are_refused_before_the_pass() -> None:
    dataset = Known()
    with pytest.raises(InvalidInputError, match="smallest"):
        quick(dataset, ["smallest"])
    assert dataset.reads == 0


def test_a_label_pool_is_replayed() -> None:
    dataset = Known()
    labels = LabelPool(dataset, labeled=["4", "1"])
    labels.label([str(row) for row in range(6, 20)])
    labels.label(["25", "26"], stages=[DetectionSampling(selection_strategy="entropy", num_of_samples=2)])
    how = PassOptions(adapter=OneBox(), progress=False)
    options: dict[str, Any] = {"num_of_samples": 4, "draws": 6, "options": how}
    found = compare(Tiny(), labels, ["least", "k_center"], make_loader=loader_of, **options)
    assert (found.start, found.candidates) == (2, 16)
    assert len(found.notes) == 1
    assert "some were chosen by entropy" in found.notes[0]
    part = loader_of(labels.labeled)
    same(quick(part, labeled=["1", "4"]), found)
    asked = compare(Tiny(), labels, ["least"], make_loader=loader_of, targets=lambda row: dataset[row][1], **options)
    assert asked.strategies["least"] == found.strategies["least"]

    none_before = compare(Tiny(), labels, ["least"], make_loader=loader_of, labeled=[], **options)
    assert (none_before.start, none_before.candidates) == (0, 18)
    once = LabelPool(dataset, labeled=[str(row) for row in range(9)])
    whole = compare(Tiny(), once, ["least"], make_loader=loader_of, **options)
    assert (whole.start, whole.candidates, whole.notes) == (0, 9, ())
    with pytest.raises(InvalidInputError, match="a LabelPool needs `make_loader=`"):
        compare(Tiny(), once, ["least"], **options)
    with pytest.raises(InvalidInputError, match="no labelled frames to replay"):
        compare(Tiny(), LabelPool(dataset), ["least"], make_loader=loader_of, **options)


def test_a_name_or_a_callable_is_one_stage_with_defaults() -> None:
    def by_size(pool: Any) -> Tensor:
        return pool.counts

    two = [DetectionSampling(selection_strategy="least", num_of_samples=9), random_stage(4, 3)]
    plans = plans_of({"a": "least", "b": by_size, "c": two, "d": two[1]}, 4, 7)
    assert plans["a"] == (DetectionSampling(selection_strategy="least", num_of_samples=4, seed=7),)
    assert plans["b"][0].selection_strategy is by_size
    assert (plans["c"], plans["d"]) == (tuple(two), (two[1],))
    assert list(plans_of(["least", "margin"], 4, 0)) == ["least", "margin"]


@given(seed=st.integers(0, 2**70))
def test_random_stages_take_any_seed(seed: int) -> None:
    one = random_stage(3, seed)
    assert (one.selection_strategy, one.num_of_samples, one.seed) == ("random", 3, seed % 2**63)


@given(value=st.integers(-5, 5) | st.floats(-5, 5) | st.text(max_size=2), least=st.integers(-2, 2))
def test_numbers_are_integers_that_are_large_enough(value: Any, least: int) -> None:
    if isinstance(value, int) and value >= least:
        check_numbers(rounds=(value, least))
        return
    expected = f"at least {least}; got {value}" if isinstance(value, int) else f"an integer; got {value!r}"
    with pytest.raises(InvalidInputError, match=re.escape(f"`rounds` must be {expected}")):
        check_numbers(draws=(9, 1), rounds=(value, least))


@given(value=st.floats(), most=st.sampled_from([1.0, 2.5, math.inf]))
def test_ranges_begin_at_0_and_are_finite(value: float, most: float) -> None:
    if math.isfinite(value) and 0 <= value <= most:
        check_ranges(min_score=(value, most))
        return
    span = "at least 0" if most == math.inf else f"in [0, {most:g}]"
    with pytest.raises(InvalidInputError, match=re.escape(f"`min_score` must be {span}; got {value}")):
        check_ranges(min_score=(value, most))


def test_frames_of_a_loader_and_of_labels() -> None:
    loader = loader_of(Known())
    frames = frames_of(loader, None, ["3", "1", "3"], None)
    assert (frames.loader, frames.start, frames.notes) == (loader, ("1", "3"), ())
    labels = LabelPool(Known(), labeled=["4", "1"])
    assert frames_of(labels, loader_of, None, None).start == (), "of one round all are candidates"
    labels.label(["7"])
    frames = frames_of(labels, loader_of, None, lambda row: [row])
    assert frames.start == ("1", "4")
    frames.reader.watch(["7"], [2], None)
    assert frames.reader._known["7"][0].tolist() == [7], "the row of the labels' dataset, not of the loader's"
    labels.label(["9"], stages=[DetectionSampling(selection_strategy="least", num_of_samples=1)])
    (note,) = frames_of(labels, loader_of, None, None).notes
    assert "some were chosen by least" in note
