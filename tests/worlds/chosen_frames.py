"""Choices as a backend or `select` gives them, made by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Subset

from cval_torch.selection.stage import DetectionSampling


class Chosen:
    """A selection, as far as `label` looks."""

    def __init__(self, frame_ids: list[str], scores: list[float], stages: list[DetectionSampling]) -> None:
        self.frame_ids, self.scores, self.stages = frame_ids, torch.tensor(scores, dtype=torch.float64), stages


class ChosenSubset(Subset[Any]):
    """`SelectedFrames`, as far as `label` looks."""

    scores = torch.tensor([float("nan")] * 2)
    stages = (DetectionSampling(selection_strategy="random", num_of_samples=2, seed=5),)

    def __init__(self, dataset: Any, indices: list[int], frame_ids: tuple[str, ...]) -> None:
        super().__init__(dataset, indices)
        self.frame_ids = frame_ids


def by_size(pool: Any) -> torch.Tensor:
    return pool.counts
