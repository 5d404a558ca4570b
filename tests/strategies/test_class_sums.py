"""Sums by frame and class, against loops."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool.offsets import offsets_of
from cval_torch.strategies import class_sums
from cval_torch.strategies.class_sums import ClassSums


def boxes_of(counts: list[int], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    boxes = sum(counts)
    labels = torch.randint(-3, 4, (boxes,), generator=generator) * 10**12
    return offsets_of(torch.tensor(counts, dtype=torch.int64)), labels, torch.rand(boxes, 2, generator=generator)


def naive(offsets: torch.Tensor, labels: torch.Tensor, values: torch.Tensor) -> list[dict[int, list[float]]]:
    frames = []
    for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        found: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for box in range(begin, end):
            for number in range(2):
                found[int(labels[box])][number] += float(values[box, number])
        frames.append(dict(found))
    return frames


def as_loops_have_it(sums: ClassSums) -> list[dict[int, list[float]]]:
    frames = []
    for begin, end in zip(sums.offsets[:-1].tolist(), sums.offsets[1:].tolist(), strict=True):
        labels = sums.labels[begin:end].tolist()
        assert labels == sorted(set(labels))
        frames.append(dict(zip(labels, sums.sums[begin:end].tolist(), strict=True)))
    return frames


@given(counts=st.lists(st.integers(0, 6), max_size=12), seed=st.integers(0, 99), chunk=st.sampled_from([1, 3, 2**18]))
@settings(max_examples=60, deadline=None)
def test_against_a_loop(counts: list[int], seed: int, chunk: int) -> None:
    offsets, labels, values = boxes_of(counts, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(class_sums, "_CHUNK_BOXES", chunk)
        found = ClassSums.of(offsets, labels, values)
    expected = naive(offsets, labels, values)
    assert len(found) == len(counts)
    for mine, theirs in zip(as_loops_have_it(found), expected, strict=True):
        assert mine.keys() == theirs.keys()
        for label, numbers in mine.items():
            assert numbers == pytest.approx(theirs[label], abs=1e-6)


@given(counts=st.lists(st.integers(0, 6), min_size=2, max_size=12), seed=st.integers(0, 99), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_frame_does_not_depend_on_the_others(counts: list[int], seed: int, data: st.DataObject) -> None:
    offsets, labels, values = boxes_of(counts, seed)
    whole = ClassSums.of(offsets, labels, values)
    cut = data.draw(st.integers(1, len(counts) - 1))
    box = int(offsets[cut])
    apart = [
        ClassSums.of(offsets[: cut + 1], labels[:box], values[:box]),
        ClassSums.of(offsets[cut:] - box, labels[box:], values[box:]),
    ]
    joined = ClassSums.cat(apart)
    rows = torch.tensor(data.draw(st.permutations(range(len(counts)))))
    for mine, theirs in ((joined, whole), (joined.take(rows), whole.take(rows))):
        assert torch.equal(mine.offsets, theirs.offsets)
        assert torch.equal(mine.labels, theirs.labels)
        assert torch.equal(mine.sums, theirs.sums)
    assert as_loops_have_it(whole.take(rows)) == [as_loops_have_it(whole)[row] for row in rows.tolist()]


def test_by_frame_weighs_the_first_number() -> None:
    found = ClassSums.of(torch.tensor([0, 2, 2, 3]), torch.tensor([1, 5, 5]), torch.tensor([[1.0], [2.0], [4.0]]))
    assert found.by_frame(torch.tensor([10.0, 1.0, 0.5], dtype=torch.float64)).tolist() == [12.0, 0.0, 2.0]
