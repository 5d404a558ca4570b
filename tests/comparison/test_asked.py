"""What a comparison is asked for, and what is refused before anything is inferred."""

from __future__ import annotations

from typing import Any

import pytest
from quick_comparison import Known, loader_of, quick, same
from shades import OneBox, Tiny
from torch import Tensor

from cval_torch import DetectionSampling, LabelPool, PassOptions, compare
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
