"""What stages read, and that they read nothing else."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from tied_frames import UNCERTAIN, make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.columns import columns_read
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.signals import max_zscore
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.columns import COLUMNS, needs
from cval_torch.strategies.registry import STRATEGIES

OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_of_boxes": 4.0},
    {"num_of_minutes": 4.0},
    {"min_distance": 0.3},
    {"class_quotas": {1: 2}},
    {"class_weights": {0: 2.0}},
    {"probs_weights": [1.0, 2.0, 0.5, 1.0]},
]


def test_what_options_add() -> None:
    def read(**options: Any) -> set[str]:
        return set(columns_read(DetectionSampling(num_of_samples=2, **options)))

    assert read(selection_strategy="probability") == {"scores"}
    assert read(selection_strategy="random") == set()
    assert read(selection_strategy="random", num_of_boxes=3) == {"scores"}
    assert read(selection_strategy="random", class_quotas={1: 1}) == {"scores", "labels"}
    assert read(selection_strategy="least", class_weights={1: 2.0}) == {"scores", "probabilities", "labels"}
    assert read(selection_strategy="random", min_distance=1) == {
        "labels",
        "scores",
        "box_embeddings",
        "frame_embeddings",
    }


def has_option(name: str, options: dict[str, Any]) -> bool:
    if "probs_weights" in options:
        return name == "entropy"
    if "class_weights" in options:
        return name in UNCERTAIN
    return "class_quotas" not in options or STRATEGIES[name].keeps_quotas


@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in STRATEGIES for options in OPTIONS if has_option(name, options)]
)
def test_a_choice_without_other_columns_is_the_same(name: str, options: dict[str, Any]) -> None:
    stage = DetectionSampling(selection_strategy=name, num_of_samples=5, **options)
    pool = make_tied_pool([2, 0, 1, 3, 4, 1, 0, 2, 2, 5])
    expected = LocalBackend().select(pool, stage)
    few = LocalBackend().select(pool.only(columns_read(stage)), stage)
    assert few.frame_ids == expected.frame_ids
    assert torch.equal(few.scores.nan_to_num(-1), expected.scores.nan_to_num(-1))


def test_a_callable_is_given_what_it_declares() -> None:
    given: list[set[str]] = []

    def note(pool: Pool) -> torch.Tensor:
        given.append({name for name, _ in pool.columns()})
        return pool.counts.double()

    class Noting:
        needs = ("labels",)

        def __call__(self, pool: Pool) -> torch.Tensor:
            return note(pool)

    pool = make_tied_pool([2, 0, 1, 3])

    def noting(pool: Pool) -> torch.Tensor:
        return note(pool)

    for function in (needs("scores", "probabilities")(partial(note)), Noting(), needs()(noting)):
        LocalBackend().select(pool, DetectionSampling(selection_strategy=function, num_of_samples=1))
    always = {"offsets", "indices"}
    assert given == [{*always, "scores", "probabilities"}, {*always, "labels"}, always]
    LocalBackend().select(pool, DetectionSampling(selection_strategy=note, num_of_samples=1))
    assert given[-1] == {name for name, _ in pool.columns()}


def test_what_a_callable_declares_wrongly_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"needs must be of boxes, labels, .*; got 'score'"):
        needs("score")

    def function(pool: Pool) -> torch.Tensor:
        return pool.counts.double()

    for wrong, message in ((("embeddings",), "got 'embeddings'"), ("scores", "got 'scores'"), (3, "got 3")):
        function.needs = wrong  # type: ignore[attr-defined]
        with pytest.raises(InvalidInputError, match=message):
            columns_read(DetectionSampling(selection_strategy=function, num_of_samples=1))


def test_signals_need_what_their_parts_read() -> None:
    assert max_zscore("probability").needs == ("scores",)
    assert max_zscore("entropy", ("least", "sum")).needs == ("scores", "probabilities")
    assert set(max_zscore("entropy", lambda pool: pool.counts).needs) == set(COLUMNS)
