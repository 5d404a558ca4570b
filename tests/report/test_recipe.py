"""The lines of Python that make a choice again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reported import stage
from tiny_rcnn import Frames, loader_of, make_faster_rcnn

from cval_torch import LocalBackend, SelectedFrames, extract
from cval_torch.errors import dotted_name
from cval_torch.report.recipe import snippet, stage_rows, versions
from cval_torch.selection.stage import DetectionSampling


def run(code: str, **names: Any) -> SelectedFrames:
    exec(compile(code, "snippet", "exec"), names)
    found: SelectedFrames = names["selected"]
    return found


@pytest.mark.parametrize(
    "stages",
    [
        [stage("entropy", 4, bbox_selection_policy="mean", class_weights={1: 2.0}, null_policy="last")],
        [stage("margin", 6), stage("k_center", 3, seed=4)],
        [stage("random", 3, seed=11)],
        [DetectionSampling(selection_strategy="auto", num_of_boxes=4.0, min_distance=0.001)],
    ],
    ids=["entropy", "two", "random", "auto"],
)
@pytest.mark.parametrize("labeled", [False, True])
def test_the_snippet_makes_the_same_choice(stages, labeled: bool) -> None:
    model, loader = make_faster_rcnn(), loader_of(Frames(8))
    pool = extract(model, loader, progress=False)
    known = [f"known-{row}" for row in range(3)]
    labeled_loader = loader_of(Frames(3, size=60))
    annotated = extract(model, labeled_loader, progress=False, frame_id=lambda index, _: known[index])
    backend = LocalBackend(labeled=annotated) if labeled else LocalBackend()
    expected = backend.select(pool, stages)
    code = snippet(stages, labeled=labeled, num_annotated=3)
    code = code.replace("(model, labeled_loader)", "(model, labeled_loader, frame_id=name)")
    names = {"model": model, "unlabeled_loader": loader, "labeled_loader": labeled_loader}
    found = run(code, name=lambda index, _: known[index], **names)
    assert found.frame_ids == expected.frame_ids
    assert torch.equal(found.scores.nan_to_num(-1), expected.scores.nan_to_num(-1))


def by_count(pool: Any) -> Any:
    return pool.counts.double()


def test_functions_of_ones_own_are_named() -> None:
    code = snippet([stage(by_count)], labeled=False, num_annotated=None)
    assert f"# by_count is your own {dotted_name(by_count)}: import it" in code
    assert "selection_strategy=by_count," in code
    code = snippet([stage(lambda pool: pool.counts)], labeled=False, num_annotated=None)
    assert "selection_strategy=your_function," in code
    compile(code, "snippet", "exec")


def test_stages_say_what_is_set_and_their_seed() -> None:
    rows = stage_rows([stage("entropy", 4, class_weights={1: 2.0}), stage(by_count, 3, seed=9)])
    assert rows == [
        ("entropy", [("class_weights", "{1: 2.0}"), ("num_of_samples", "4"), ("seed", "0")]),
        ("by_count", [("num_of_samples", "3"), ("seed", "9")]),
    ]


def test_versions_are_those_that_run() -> None:
    found = dict(versions())
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(found) >= {"Python", "torchvision", "numpy"}
