"""Points that are no tensor: every vector strategy takes them, holds few of them at a time, and chooses the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from strategy_names import DIVERSITIES
from torch import Tensor

from cval_torch.strategies import kmeans, points
from cval_torch.strategies.points import Joined, Points, blocks_of


class Counting:
    """Some vectors, and the most that were asked for at a time."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors, self.most = vectors, 0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.vectors.shape)

    @property
    def device(self) -> torch.device:
        return self.vectors.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        found = self.vectors[rows]
        self.most = max(self.most, len(found))
        return found


def vectors_of(rows: int, *, seed: int = 0) -> Tensor:
    """Values that half precision has."""
    return torch.randn(rows, 12, generator=torch.Generator().manual_seed(seed)).half().float()


@pytest.mark.parametrize("name", DIVERSITIES)
@pytest.mark.parametrize("labeled", [None, 9])
def test_a_choice_from_points_is_that_from_a_tensor(
    name: str, labeled: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(points, "_BLOCK_ELEMENTS", 12 * 100)
    monkeypatch.setattr(kmeans, "_BLOCK_ELEMENTS", 12 * 100)
    monkeypatch.setattr("cval_torch.strategies.kmeans_plus_plus._BLOCK", 100)
    vectors, choose = vectors_of(3000), DIVERSITIES[name]
    known = None if labeled is None else vectors_of(labeled, seed=1)
    expected = choose(vectors, 20, seed=3, labeled=known)
    vectors.half().numpy().tofile(tmp_path / "vectors")
    mapped = torch.from_file(str(tmp_path / "vectors"), size=vectors.numel(), dtype=torch.float16).view(3000, 12)
    for given in (Counting(vectors), Counting(mapped)):
        assert isinstance(given, Points)
        assert torch.equal(choose(given, 20, seed=3, labeled=known), expected)
        if name != "hierarchical":  # which joins up to `MOST_POINTS` one by one
            assert given.most < 3000


def test_blocks() -> None:
    vectors = vectors_of(10)
    assert torch.equal(torch.cat([block for _, block in blocks_of(vectors, 3)]), vectors)
    assert [rows.stop - rows.start for rows, _ in blocks_of(vectors, 3)] == [3, 3, 3, 1]
    assert sum(len(block) for _, block in blocks_of(vectors)) == 10
    assert list(blocks_of(vectors[:0])) == []


def test_joined_points_are_one_after_another() -> None:
    first, second = vectors_of(5), vectors_of(3, seed=1)
    both, joined = torch.cat([first, second]), Joined(first.half(), second)
    assert joined.shape == tuple(both.shape)
    for rows in (slice(0, 8), slice(0, 4), slice(3, 7), slice(6, 100), slice(1, 8, 3), torch.tensor([7, 0, 5, 4])):
        assert torch.equal(joined[rows], both[rows])
