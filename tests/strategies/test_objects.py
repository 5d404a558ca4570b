"""The strategies on objects, against naive implementations that go box by box and know all pairs of frames."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_objects import (
    distance,
    lists_of_boxes,
    make_pool_of_objects,
    naive_objects,
    naive_ppal,
    naive_prototypes,
    pool_of,
)
from strategy_names import ON_OBJECTS, POOL_DIVERSITIES
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch.utils.data import DataLoader

from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from cval_torch.errors import InvalidInputError
from cval_torch.strategies.diverse_prototypes import diverse_prototypes
from cval_torch.strategies.objects import Objects, distances
from cval_torch.strategies.ppal import ppal


@pytest.mark.parametrize("columns", ["all", "no scores", "half", "no frame embeddings"])
@pytest.mark.parametrize("blocks", [2**22, 1])
def test_distances_are_those_of_all_pairs_of_boxes(columns: str, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.strategies.objects._BLOCK_ELEMENTS", blocks)
    pool, other = make_pool_of_objects(20), make_pool_of_objects(9, seed=1)
    if columns == "half":
        pool = pool.replace(box_embeddings=pool.box_embeddings.half(), frame_embeddings=pool.frame_embeddings.half())
    if columns == "no scores":
        pool = pool.replace(scores=None)
    if columns == "no frame embeddings":
        pool, other = pool.replace(frame_embeddings=None), other.replace(frame_embeddings=None)
    expected = torch.tensor([[distance(a, b) for b in naive_objects(other)] for a in naive_objects(pool)])
    found = list(Objects.of(pool).blocks(Objects.of(other)))
    got = torch.cat([block for _, block in found])
    assert [begin for begin, _ in found] == [0, *torch.tensor([len(b) for _, b in found]).cumsum(0).tolist()[:-1]]
    assert torch.allclose(got, expected, atol=2e-5)
    assert bool((got >= 0).all())
    assert bool((got <= 2).all())
    assert torch.equal(got, distances(Objects.of(other), Objects.of(pool)).T)


def test_distances_by_hand() -> None:
    """Class 0 of `a`, at scores 0.6 and 0.2: cosines 1 and 0 to that of `b`; class 1 of `b`, at 0.4, has no match."""
    pool = Pool(
        ["a", "b", "empty", "faint"],
        torch.tensor([0, 2, 4, 4, 6]),
        scores=torch.tensor([0.6, 0.2, 0.6, 0.4, 0.9, 0.05]),
        labels=torch.tensor([0, 0, 0, 1, 2, 0]),
        box_embeddings=torch.tensor([[2.0, 0], [0, 1], [1, 0], [1, 1], [1, 0], [1, 0]]),
    )
    got = distances(Objects.of(pool), Objects.of(pool))
    assert got[0, 1].item() == pytest.approx((0.2 / 0.8 * 1 + 0.4 * 2) / 2, abs=1e-5)
    assert got.diagonal().tolist() == [0, 0, 0, 0]
    assert got[2].tolist() == [2, 2, 0, 2]
    assert got[3].tolist() == [2, 2, 2, 0], "the faint box, of score 0.05, is left out"


@given(frames=lists_of_boxes, known=st.none() | lists_of_boxes, data=st.data(), seed=st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_ties_and_copies(frames: Any, known: Any, data: st.DataObject, seed: int) -> None:
    pool, labeled = pool_of(frames), None if known is None else pool_of(known, prefix="known")
    n = data.draw(st.integers(1, len(pool)))
    assert ppal(pool, n, seed=seed, labeled=labeled).tolist() == naive_ppal(pool, n, seed, labeled)
    assert diverse_prototypes(pool, n, seed=seed, labeled=labeled).tolist() == naive_prototypes(pool, n, labeled)


def shuffled(pool: Pool, seed: int) -> Pool:
    return pool.take(torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
@given(frames=st.integers(1, 40), kind=st.sampled_from(["softmax", "sigmoid", None]), known=st.integers(0, 9),
       seed=st.integers(0, 999), data=st.data())  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_frames_in_any_order_give_n_different_ones_and_the_same(
    strategy: str, frames: int, kind: str | None, known: int, seed: int, data: st.DataObject
) -> None:
    pool = make_pool_of_objects(frames, seed=seed, kind=kind)
    labeled = make_pool_of_objects(known, seed=seed + 1, kind=kind, prefix="known")
    n = data.draw(st.integers(1, frames))
    stage = DetectionSampling(selection_strategy=strategy, num_of_samples=n, seed=seed)
    chosen = LocalBackend(labeled=labeled).select(pool, stage).frame_ids
    assert len(set(chosen)) == n == len(chosen)
    assert LocalBackend(labeled=shuffled(labeled, seed)).select(shuffled(pool, seed), stage).frame_ids == chosen


@pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
def test_copies_of_what_is_labeled_come_last(strategy: str) -> None:
    """Of eight looks, one in each frame, two are labeled; the others come first, whatever their scores."""
    looks = torch.eye(8).repeat(3, 1)
    pool = Pool([f"{row:02}" for row in range(24)], torch.arange(25), labels=torch.zeros(24, dtype=torch.int64),
                scores=torch.linspace(0.5, 0.9, 24), box_embeddings=looks)  # fmt: skip
    labeled = pool.take([0, 9]).replace(frame_ids=["x", "y"])
    rows = POOL_DIVERSITIES[strategy](pool, 6, seed=0, labeled=labeled)
    assert sorted((rows % 8).tolist()) == [2, 3, 4, 5, 6, 7]
    rows = POOL_DIVERSITIES[strategy](pool, 8, seed=0)
    assert sorted((rows % 8).tolist()) == list(range(8)), "with nothing labeled, all eight"


@pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
def test_blocks_do_not_change_the_choice(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, labeled = make_pool_of_objects(60, seed=3), make_pool_of_objects(10, seed=4)
    whole = POOL_DIVERSITIES[strategy](pool, 12, seed=0, labeled=labeled)
    for module in ("objects", "diverse_prototypes"):
        monkeypatch.setattr(sys.modules[f"cval_torch.strategies.{module}"], "_BLOCK_ELEMENTS", 40)
    assert torch.equal(POOL_DIVERSITIES[strategy](pool, 12, seed=0, labeled=labeled), whole)


def test_a_real_detector() -> None:
    """Faster R-CNN over noise: its boxes, classes and features, and all of it as the naive ones choose."""
    model = make_faster_rcnn()
    loader = DataLoader(Frames(14), batch_size=4, collate_fn=pairs)
    pool = extract(model, loader, progress=False)
    assert pool.num_boxes > 50
    by_id = pool.take(sorted(range(len(pool)), key=pool.frame_ids.__getitem__))
    known = by_id.take([2, 7])
    rest = by_id.take([row for row in range(len(pool)) if row not in (2, 7)])
    for labeled, frames in ((None, by_id), (known, rest)):
        backend = LocalBackend(labeled=labeled)
        naive = {"ppal": naive_ppal(frames, 4, 3, labeled), "diverse_prototypes": naive_prototypes(frames, 4, labeled)}
        for strategy, rows in naive.items():
            stage = DetectionSampling(selection_strategy=strategy, num_of_samples=4, seed=3)
            assert backend.select(frames, stage).frame_ids == tuple(frames.frame_ids[row] for row in rows)
    stages = [
        DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=8),
        DetectionSampling(selection_strategy="ppal", num_of_samples=3),
    ]
    chosen = LocalBackend().select(pool, stages)
    assert len(chosen) == 3
    assert bool(chosen.scores.isfinite().all())


class TestRefused:
    """Whatever is missing is named, with the way to have it."""

    @pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
    @pytest.mark.parametrize(
        ("column", "message"),
        [
            ("box_embeddings", r"'{}' needs the column `box_embeddings` of `{}`: extract\(..., box_embeddings=True\)"),
            ("labels", r"'{}' needs the column `labels` of `{}`.*`category_id`"),
        ],
    )
    def test_a_missing_column(self, strategy: str, column: str, message: str) -> None:
        whole, stage = make_pool_of_objects(9), DetectionSampling(selection_strategy=strategy, num_of_samples=2)
        known = make_pool_of_objects(3, seed=1, prefix="known")
        with pytest.raises(InvalidInputError, match=message.format(strategy, "pool")):
            LocalBackend().select(whole.replace(**{column: None}), stage)
        with pytest.raises(InvalidInputError, match=message.format(strategy, "labeled")):
            LocalBackend(labeled=known.replace(**{column: None})).select(whole, stage)

    def test_nothing_to_be_uncertain_by(self) -> None:
        pool = make_pool_of_objects(9, kind=None).replace(scores=None)
        assert len(ppal(pool, 3, seed=0)) == 3
        with pytest.raises(InvalidInputError, match="`probabilities` or `scores` of `pool`"):
            diverse_prototypes(pool, 3, seed=0)

    @pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
    def test_embeddings_of_another_width(self, strategy: str) -> None:
        with pytest.raises(InvalidInputError, match=r"`labeled` must be \(B, 6\).*got \(\d+, 5\)"):
            POOL_DIVERSITIES[strategy](
                make_pool_of_objects(9), 3, seed=0, labeled=make_pool_of_objects(9, seed=1, width=5)
            )
