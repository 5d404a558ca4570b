"""Frames that keep a distance, against a loop over all pairs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool.pool import Pool
from cval_torch.selection import spacing
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages


def stage(strategy: Any = "entropy", n: int | None = None, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def test_copies_are_near_however_small_the_distance() -> None:
    vectors = torch.randn(1, 300).repeat(50, 1)
    pool = Pool([f"{row:02d}" for row in range(50)], torch.zeros(51, dtype=torch.int64), frame_embeddings=vectors)
    assert list(Spacing.of(pool, 1e-6).pass_over(torch.arange(50))) == [0]


def test_a_large_pool_is_walked_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of all pairs, though most frames are copies and so all are looked at."""
    frames, generator = 20_000, torch.Generator().manual_seed(0)
    looks = torch.randn(900, 32, generator=generator)
    vectors = looks[torch.randint(0, 900, (frames,), generator=generator)]
    pool = Pool([f"{row:06d}" for row in range(frames)], torch.arange(frames + 1),
                scores=torch.rand(frames, generator=generator), box_embeddings=vectors)  # fmt: skip
    pairs: list[int] = []
    near = Spacing._near

    def counting(self: Spacing, points: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        pairs.append(len(points) * len(others))
        return near(self, points, others)

    monkeypatch.setattr(Spacing, "_near", counting)
    with pytest.warns(UserWarning, match="fills up"):
        rows, _, _ = run_stages(pool, stage(n=1000, min_distance=0.2))
    assert len(torch.unique(vectors[rows[:900]], dim=0)) == 900
    assert max(pairs) <= 2 * 1024**2
    assert sum(pairs) <= 2 * frames * 1024


# Unit vectors in a plane, so that a distance is told by an angle; none of them is at the limit of 1 from another.
ANGLES = (0.0, 0.3, 0.7, 1.5, 2.0, 3.0, 4.4)
LIMIT = 1.0


def frames_at(places: list[int], prefix: str = "f") -> Pool:
    points = [[4 * math.cos(ANGLES[place]), 4 * math.sin(ANGLES[place])] for place in places]
    ids = [f"{prefix}{row}" for row in range(len(places))]
    offsets = torch.zeros(len(places) + 1, dtype=torch.int64)
    return Pool(ids, offsets, frame_embeddings=torch.tensor(points).reshape(-1, 2))


def chord(place: int, other: int) -> float:
    return 2 * abs(math.sin((ANGLES[place] - ANGLES[other]) / 2))


def naive_pass(taken: list[int], asked: list[int], places: list[int]) -> list[int]:
    """Rows that are kept, by a loop over all before them; `taken` are places."""
    kept: list[int] = []
    for row in asked:
        before = [*taken, *(places[each] for each in kept)]
        if all(chord(places[row], other) >= LIMIT for other in before):
            kept.append(row)
    return kept


@given(
    places=st.lists(st.sampled_from(range(len(ANGLES))), min_size=1, max_size=12),
    known=st.lists(st.sampled_from(range(len(ANGLES))), max_size=3),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_who_is_passed_over_against_a_loop(places: list[int], known: list[int], data: st.DataObject) -> None:
    """In blocks of three: first what is labeled, then what is taken whatever is near it, then two walks."""
    rows = data.draw(st.permutations(range(len(places))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), min_size=2, max_size=2)))
    forced, first, second = rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(spacing, "_BLOCK_FRAMES", 3)
        apart = Spacing.of(frames_at(places), LIMIT, labeled=frames_at(known, "k") if known else None)
        apart.take(torch.tensor(forced, dtype=torch.int64))
        taken = known + [places[row] for row in forced]
        got = list(apart.pass_over(torch.tensor(first, dtype=torch.int64)))
        assert got == naive_pass(taken, list(first), places)
        taken += [places[row] for row in got]
        assert list(apart.pass_over(torch.tensor(second, dtype=torch.int64))) == naive_pass(taken, list(second), places)


def test_only_what_was_drawn_is_taken() -> None:
    apart = Spacing.of(frames_at([0, 3, 5]), LIMIT)
    assert list(itertools.islice(apart.pass_over(torch.tensor([0, 1])), 1)) == [0]
    assert list(apart.pass_over(torch.tensor([1, 2]))) == [1, 2]


@pytest.mark.parametrize(("distance", "kept"), [(math.sqrt(2), [0, 1]), (math.sqrt(2) + 1e-6, [0])])
def test_just_the_distance_is_not_too_near(distance: float, kept: list[int]) -> None:
    pool = Pool(["a", "b"], torch.zeros(3, dtype=torch.int64), frame_embeddings=torch.eye(2))
    assert list(Spacing.of(pool, distance).pass_over(torch.arange(2))) == kept


def test_frames_of_other_classes_are_apart() -> None:
    """One look, one box each: of two classes they are 0.5 * sqrt(2) apart, also beside labeled frames."""
    pool = Pool(["a", "b"], torch.arange(3), labels=torch.tensor([3, 7]), box_embeddings=torch.ones(2, 4))
    assert list(Spacing.of(pool, 0.70).pass_over(torch.arange(2))) == [0, 1]
    assert list(Spacing.of(pool, 0.71).pass_over(torch.arange(2))) == [0]
    labeled = pool.take([1]).replace(frame_ids=["c"])
    assert list(Spacing.of(pool, 0.70, labeled=labeled).pass_over(torch.arange(2))) == [0]
