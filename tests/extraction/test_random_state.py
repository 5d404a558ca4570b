"""The user's random numbers are those that there would have been without us."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch.utils.data import DataLoader, Dataset, Sampler

from cval_torch import DetectionSampling, LabelPool, PassOptions, SamplerCallback, extract, select
from cval_torch.errors import ExtractionError
from cval_torch.extraction.random_state import random_state_kept


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


class Augmented(Dataset[Any]):
    """Frames that are changed at random, by all three sources, as they are loaded."""

    def __init__(self, n: int, *, breaks: int | None = None) -> None:
        self.frames, self.breaks = Frames(n), breaks

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, row: int) -> Any:
        if row == self.breaks:
            raise OSError("unreadable")
        image, target = self.frames[row]
        return (image + 0.01 * sum(draw())).clamp(0, 1), target


class Shuffled(Sampler[int]):
    """Draws its order from Python's and numpy's own state."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.n))
        random.shuffle(order)
        return iter(np.random.permutation(order).tolist())

    def __len__(self) -> int:
        return self.n


def loader(dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=2, collate_fn=pairs, **options)


def extracted() -> None:
    extract(make_faster_rcnn(), loader(Augmented(5), sampler=Shuffled(5)), progress=False)


def cached() -> None:
    with tempfile.TemporaryDirectory() as folder:
        extract(make_faster_rcnn(), loader(Augmented(5), sampler=Shuffled(5)), cache_dir=folder, progress=False)


def broken() -> None:
    with pytest.raises(ExtractionError, match="unreadable"):
        extract(make_faster_rcnn(), loader(Augmented(5, breaks=3)), progress=False)


def selected() -> None:
    select(make_faster_rcnn(), loader(Augmented(5), shuffle=True), num_of_samples=2, progress=False)


def chosen() -> None:
    sampler = SamplerCallback(
        LabelPool(Augmented(6), labeled=["0"]),
        loader,
        DetectionSampling(selection_strategy="k_center", num_of_samples=2),
        options=PassOptions(progress=False),
    )
    sampler.choose(make_faster_rcnn())


@pytest.mark.parametrize("work", [extracted, cached, broken, selected, chosen])
def test_the_next_numbers_are_those_that_there_would_have_been(work: Any) -> None:
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draw()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    work()
    assert draw() == expected


def test_states_come_back_after_an_error() -> None:
    random.seed(1)
    before = random.getstate()
    with pytest.raises(ZeroDivisionError), random_state_kept():
        random.choice([0]) / 0
    assert random.getstate() == before
