"""Which rows a loader yields, whatever its order, and what the frames are called."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_rows import Rows, Stream
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from tqdm import tqdm

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.batches import split_batch
from cval_torch.extraction.loading import LoadingPlan, plan_loading


class EveryOther(Sampler[list[int]]):
    """A custom batch sampler: odd rows downwards, in batches of 2, the last one short."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([9, 7], [5, 3], [1])

    def __len__(self) -> int:
        return 3


def loaded_rows(loader: Any) -> tuple[list[int], list[int]]:
    """(rows that the plan says, rows that the data are)."""
    plan = plan_loading(loader)
    said: list[int] = []
    held: list[int] = []
    for indices, data in plan.load():
        parts = split_batch(data, single=plan.single)
        said += indices or []
        held += [int(image.flatten()[0]) for image in parts.images]
    return said, held


LOADERS = {
    "plain": lambda rows: DataLoader(rows, batch_size=3),
    "drop_last": lambda rows: DataLoader(rows, batch_size=4, drop_last=True),
    "shuffle": lambda rows: DataLoader(rows, batch_size=3, shuffle=True),
    "shuffle, own generator": lambda rows: DataLoader(
        rows, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "random with replacement": lambda rows: DataLoader(rows, batch_size=3, sampler=RandomSampler(rows, True, 25)),
    "weighted": lambda rows: DataLoader(rows, batch_size=3, sampler=WeightedRandomSampler([1.0] * 10, 25)),
    "subset sampler": lambda rows: DataLoader(rows, batch_size=2, sampler=SubsetRandomSampler([8, 2, 5])),
    "custom batch sampler": lambda rows: DataLoader(rows, batch_sampler=EveryOther()),
    "batch sampler, drop_last": lambda rows: DataLoader(
        rows, batch_sampler=BatchSampler(SequentialSampler(rows), 4, drop_last=True)
    ),
    "one by one": lambda rows: DataLoader(rows, batch_size=None, shuffle=True),
    "lists of rows": lambda rows: DataLoader(
        rows, batch_size=None, sampler=BatchSampler(RandomSampler(rows), 4, drop_last=False)
    ),
    "workers": lambda rows: DataLoader(rows, batch_size=2, num_workers=2, shuffle=True),
    "persistent workers": lambda rows: DataLoader(rows, batch_size=2, num_workers=1, persistent_workers=True),
    "padded shard": lambda rows: DataLoader(
        Subset(rows, range(3)), batch_size=1, sampler=DistributedSampler(Subset(rows, range(3)), 2, 1, shuffle=False)
    ),
}


EXPECTED = {"subset sampler": {2, 5, 8}, "custom batch sampler": {1, 3, 5, 7, 9}, "padded shard": {0, 1}}


@pytest.mark.parametrize("name", LOADERS)
def test_every_row_is_the_one_that_the_data_came_from(name: str) -> None:
    said, held = loaded_rows(LOADERS[name](Rows(10)))
    assert said == held
    assert len(set(said)) == len(said)
    if name not in ("random with replacement", "weighted"):
        assert set(said) == EXPECTED.get(name, set(range(10)))


@given(
    n=st.integers(1, 12),
    batch_size=st.integers(1, 5),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    nested=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_rows_are_right_for_any_loader(n: int, batch_size: int, shuffle: bool, drop_last: bool, nested: bool) -> None:
    rows: Dataset[Tensor] = Rows(n)
    to_base = list(range(n))
    if nested:
        to_base = random.Random(n).sample(range(n), (n + 1) // 2)
        rows = Subset(rows, to_base)
    said, held = loaded_rows(DataLoader(rows, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last))
    assert [to_base[row] for row in said] == held
    assert sorted(held) == sorted(to_base)


def test_the_users_loader_and_random_numbers_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    shuffled = DataLoader(Rows(10), batch_size=3, shuffle=True, generator=generator)
    torch.manual_seed(1)
    before, own_before = torch.get_rng_state(), generator.get_state()
    loaded_rows(shuffled)
    loaded_rows(DataLoader(Rows(10), batch_size=3, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(own_before, generator.get_state())


def test_a_stream_has_no_rows_and_loses_no_frame() -> None:
    said, held = loaded_rows(DataLoader(Stream(7), batch_size=3, drop_last=True))
    assert (said, held) == ([], list(range(7)))
    assert loaded_rows(DataLoader(Stream(3), batch_size=None)) == ([], [0, 1, 2])
    batches = [torch.zeros(2, 1, 2, 2), torch.ones(1, 1, 2, 2)]
    assert loaded_rows(batches) == ([], [0, 0, 1])


class OwnWay(DataLoader[Any]):
    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


class Endless(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(3)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (OwnWay(Rows(4), batch_size=2), "OwnWay, which iterates in a way of its own"),
        (DataLoader(Rows(4), sampler=Endless()), "does not end.*dataset of 4"),
        (DataLoader(Rows(4), sampler=["a", "b"]), "must yield rows of its dataset; got 'a'"),
        (DataLoader(Rows(4), sampler=[0, 4]), "yielded row 4, which a dataset of 4 frames does not have"),
        (DataLoader(Rows(4), sampler=[-1]), "yielded row -1"),
    ],
)
def test_an_order_that_cannot_be_told_is_refused(loader: Any, message: str) -> None:
    with pytest.raises(LoaderOrderError, match=message):
        plan_loading(loader)


@pytest.mark.parametrize("loader", [Rows(3), 5, torch.zeros(2, 1, 4, 4)])
def test_what_is_no_loader_is_refused(loader: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"got {type(loader).__name__}"):
        plan_loading(loader)


def test_what_loads_the_rows_is_a_loader_like_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting that says how samples are loaded is the user's; only the order is ours."""
    made: list[DataLoader[Any]] = []
    monkeypatch.setattr(DataLoader, "__iter__", lambda self: iter(made.append(self) or [None] * 3))  # type: ignore[func-returns-value]
    own: dict[str, Any] = {
        "num_workers": 2,
        "collate_fn": lambda samples: samples,
        "pin_memory": True,
        "timeout": 17.0,
        "worker_init_fn": print,
        "multiprocessing_context": multiprocessing.get_context("spawn"),
        "prefetch_factor": 5,
    }
    dataset = Rows(5)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=2, **own)
    plan = plan_loading(loader)
    list(plan.load())
    (used,) = made
    assert used is not loader
    assert used.dataset is dataset
    for name, value in own.items():
        assert getattr(used, name) is value or getattr(used, name) == value, name
    assert used.batch_sampler == [[0, 1], [2, 3], [4]]
    assert used.generator is not None
    assert used.generator is not loader.generator


@pytest.mark.parametrize("options", [{"batch_size": 4}, {"batch_size": 4, "drop_last": True}, {"batch_size": None}])
def test_a_stream_is_loaded_like_the_users_too(options: dict[str, Any]) -> None:
    loader: DataLoader[Any] = DataLoader(Stream(10), collate_fn=lambda samples: samples, **options)
    found = [data for _, data in plan_loading(loader).load()]
    sizes = [len(data) for data in found] if options["batch_size"] else [1] * len(found)
    assert sizes == ([4, 4, 2] if options["batch_size"] else [1] * 10), "the last batch is not dropped"


class Around:
    """As Fabric wraps a loader."""

    def __init__(self, loader: Any) -> None:
        self._dataloader = loader

    def __iter__(self) -> Any:
        return iter(self._dataloader)


@pytest.mark.parametrize(
    ("wrap", "name"), [(Around, "_dataloader"), (lambda loader: tqdm(loader, disable=True), "iterable")]
)
def test_a_wrapper_around_a_loader_is_refused_by_name(wrap: Any, name: str) -> None:
    loader = DataLoader(Rows(4), shuffle=True)
    with pytest.raises(
        LoaderOrderError, match=f"around a DataLoader.*pass the DataLoader itself, which is its `{name}`"
    ):
        plan_loading(wrap(loader))


def test_the_batches_are_counted_once() -> None:
    """Every batch asks how large the largest is: of a million frames that would be a walk over all batches each."""

    class Counted(list[list[int]]):
        walks = 0

        def __iter__(self) -> Any:
            self.walks += 1
            return super().__iter__()

    batches = Counted([[0, 1, 2], [3]])
    plan = LoadingPlan(None, batches, [])
    assert [plan.largest_batch for _ in range(5)] == [3] * 5
    assert batches.walks == 1
    assert replace(plan, batches=[[0, 1]]).largest_batch == 2
