"""The labelled pass of a training: it computes and keeps no more than the stages look at."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shades import OneBox, Shades, Tiny, make, make_loader
from torch.utils.data import Dataset

from cval_torch.errors import NotEnoughMemoryError
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import FrameBatch, Later
from cval_torch.pool.pool import Pool
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.registry import STRATEGIES
from cval_torch.training.annotated import backend_knowing


class ThreeBoxes(OneBox):
    """Three boxes a frame with every column, each computed only if somebody looks at it, and counted."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    def read(self, model: Any, recording: Any, output: torch.Tensor) -> FrameBatch:
        n = len(output)
        shades = recording["linear"][0].args[0]

        def later(name: str, column: torch.Tensor) -> Any:
            def compute() -> torch.Tensor:
                self.computed.append(name)
                return column

            return Later(compute).column

        boxes = shades.repeat_interleave(3, 0) + torch.tensor([0.0, 0.3, 0.6]).repeat(n)[:, None]
        second = boxes.remainder(1)
        labels = (boxes[:, 0] * 7).long().abs() % 2
        probabilities = torch.cat([1 - second, second], 1)
        return FrameBatch(
            counts=torch.full((n,), 3),
            boxes=torch.zeros(3 * n, 4),
            labels=labels,
            scores=probabilities.gather(1, labels[:, None])[:, 0],
            probabilities=later("probabilities", probabilities),
            activation="softmax",
            box_embeddings=later("box_embeddings", torch.cat([boxes.cos(), boxes.sin()], 1)),
            frame_embeddings=later("frame_embeddings", torch.cat([shades.cos(), shades.sin()], 1)),
        )


def one(strategy: str, n: int = 4, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


STAGES = {
    **{name: [one(name)] for name, record in STRATEGIES.items() if record.knows_labeled},
    "a distance": [one("entropy", min_distance=0.2)],
    "two stages": [one("entropy", 9), one("k_center")],
    "balanced": [one("entropy", 9, class_weights="balanced"), one("auto")],
    "balanced alone": [one("entropy", class_weights="balanced")],
    "balanced, and boxes": [one("entropy", 9, class_weights="balanced"), one("ppal")],
}


@pytest.mark.parametrize("k", [None, 2])
@pytest.mark.parametrize("name", STAGES)
def test_the_callback_chooses_as_beside_a_whole_pool(name: str, k: int | None) -> None:
    """Also where embeddings are kept of two of three boxes of each frame."""
    dataset, model, stages = Shades(30), Tiny(), STAGES[name]
    callback = make(
        dataset=dataset, stages=stages, options=PassOptions(adapter=ThreeBoxes(), top_boxes=k, progress=False)
    )

    def pool_of(part: Dataset[Any]) -> Pool:
        return extract(model, make_loader(part), adapter=ThreeBoxes(), top_boxes=k, progress=False)

    known = pool_of(callback.labels.labeled)
    expected = LocalBackend(labeled=known).select(pool_of(callback.labels.unlabeled), stages)
    found = callback.choose(model)
    assert found is not None
    assert found.frame_ids == expected.frame_ids
    assert found.scores.nan_to_num(-1).tolist() == expected.scores.nan_to_num(-1).tolist()


@pytest.mark.parametrize(
    ("name", "computed", "kept"),
    [
        ("balanced alone", set(), {"labels", "scores"}),
        ("two stages", {"box_embeddings", "frame_embeddings"}, None),
        ("a distance", {"box_embeddings", "frame_embeddings"}, None),
        ("auto", {"probabilities", "box_embeddings", "frame_embeddings"}, None),
        ("balanced", {"probabilities", "box_embeddings", "frame_embeddings"}, {"labels", "scores"}),
        ("ppal", {"box_embeddings", "frame_embeddings"}, {"labels", "scores", "box_embeddings", "frame_embeddings"}),
    ],
)
def test_no_other_columns_are_computed_or_kept(name: str, computed: set[str], kept: set[str] | None) -> None:
    adapter, stages = ThreeBoxes(), STAGES[name]
    run = InferencePass(Tiny().eval(), make_loader(Shades(9)), PassOptions(adapter=adapter, progress=False))
    balanced, away = "balanced" in name, name != "balanced alone"
    backend = backend_knowing(run, stages, away=away, balanced=balanced)
    assert set(adapter.computed) == computed
    if not away:
        assert backend.labeled is None
        whole = extract(Tiny().eval(), make_loader(Shades(9)), adapter=adapter, progress=False)
        assert backend.labeled_counts == class_counts(whole)
        return
    assert backend.labeled is not None
    assert (backend.labeled_counts is not None) == balanced
    pool = None if isinstance(backend.labeled, Pool) else backend.labeled.pool
    columns = None if pool is None else {column for column, _ in pool.columns()} - {"offsets", "indices"}
    assert columns == kept


def test_what_is_going_to_be_too_much_is_said_early() -> None:
    how = PassOptions(adapter=ThreeBoxes(), progress=False, memory_limit=1000)
    run = InferencePass(Tiny().eval(), make_loader(Shades(200)), how)
    with pytest.raises(NotEnoughMemoryError, match="what the stages look at of labelled frames takes about"):
        backend_knowing(run, STAGES["ppal"], away=True, balanced=False)
