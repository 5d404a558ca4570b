"""The strategies on objects, against naive implementations that go box by box and know all pairs of frames."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategy_names import ON_OBJECTS, POOL_DIVERSITIES
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch import Tensor
from torch.utils.data import DataLoader

from cval_torch import DetectionSampling, LocalBackend, Pool, extract
from cval_torch.errors import InvalidInputError
from cval_torch.strategies.diverse_prototypes import diverse_prototypes
from cval_torch.strategies.objects import Objects, distances
from cval_torch.strategies.ppal import ppal

Vector = list[float]


def unit(vector: Vector) -> Vector:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def cosine(one: Vector, other: Vector) -> float:
    return math.fsum(a * b for a, b in zip(unit(one), unit(other), strict=True))


def boxes_of(pool: Pool, frame: int) -> range:
    return range(int(pool.offsets[frame]), int(pool.offsets[frame + 1]))


def naive_objects(pool: Pool) -> list[list[tuple[object, float, Vector]]]:
    """Of each frame the class, the score and the embedding of each of its objects."""
    frames = []
    for frame in range(len(pool)):
        rows = list(boxes_of(pool, frame))
        scores = {row: 1.0 if pool.scores is None else pool.scores[row].item() for row in rows}
        kept = [row for row in rows if scores[row] > 0.05] or rows
        if not sum(scores[row] for row in kept):
            scores = dict.fromkeys(rows, 1.0)
        objects = [(int(pool.labels[row]), scores[row], pool.box_embeddings[row].double().tolist()) for row in kept]
        if not rows:
            whole = [1.0] if pool.frame_embeddings is None else pool.frame_embeddings[frame].double().tolist()
            objects = [("no boxes", 1.0, whole)]
        frames.append(objects)
    return frames


def one_way(frame: list[Any], other: list[Any]) -> float:
    total = 0.0
    for label, score, vector in frame:
        same = [1 - cosine(vector, theirs) for theirs_label, _, theirs in other if theirs_label == label]
        total += score * min(same, default=2.0)
    return total / sum(score for _, score, _ in frame)


def distance(frame: list[Any], other: list[Any]) -> float:
    return round((one_way(frame, other) + one_way(other, frame)) / 2 * 2**16) / 2**16


def naive_ppal(pool: Pool, n: int, seed: int, labeled: Pool | None = None) -> list[int]:
    frames, known = naive_objects(pool), [] if labeled is None else naive_objects(labeled)
    every = range(len(frames))
    between = [[0.0 if a == b else distance(frames[a], frames[b]) for b in every] for a in every]
    far = [min((distance(frame, other) for other in known), default=math.inf) for frame in frames]
    if known:
        chosen = [max(every, key=lambda row: far[row])]
    else:
        chosen = [int(torch.randint(len(pool), (1,), generator=torch.Generator().manual_seed(seed)))]
    while len(chosen) < n:
        left = [row for row in every if row not in chosen]
        chosen.append(max(left, key=lambda row: min([far[row], *(between[row][c] for c in chosen)])))
    while True:
        clusters: list[list[int]] = [[] for _ in chosen]
        for row in every:
            nearest = min(range(n), key=lambda number: between[row][chosen[number]])
            nearest = chosen.index(row) if row in chosen else nearest
            if row in chosen or between[row][chosen[nearest]] <= far[row]:
                clusters[nearest].append(row)
        sums = [{row: sum(between[row][other] for other in cluster) for row in cluster} for cluster in clusters]
        moved = [
            medoid if sums[number][medoid] <= min(sums[number].values()) else min(sums[number], key=sums[number].get)  # type: ignore[arg-type]
            for number, medoid in enumerate(chosen)
        ]
        if moved == chosen:
            return chosen
        chosen = moved


def naive_entropy(pool: Pool, row: int) -> float:
    if pool.probabilities is None:
        doubt = min(pool.scores[row].item(), 1 - pool.scores[row].item())
        shares = [doubt, 1 - doubt]
    else:
        shares = pool.probabilities[row].double().tolist()
        if pool.activation == "sigmoid":
            shares = [share / (1 - share) for share in shares] + [1.0]
        shares = [share / sum(shares) for share in shares]
    return -math.fsum(p * math.log2(p) for p in shares if p > 0) / math.log2(len(shares))


class NaiveFrame:
    def __init__(self, pool: Pool, frame: int) -> None:
        rows = boxes_of(pool, frame)
        vectors = {row: unit(pool.box_embeddings[row].double().tolist()) for row in rows}
        doubts = {row: naive_entropy(pool, row) for row in rows}
        labels = {row: int(pool.labels[row]) for row in rows}
        scores = {row: 1.0 if pool.scores is None else pool.scores[row].item() for row in rows}
        waiting, kept = sorted(rows, key=lambda row: -doubts[row]), []
        while waiting:
            kept.append(first := waiting.pop(0))
            waiting = [
                row for row in waiting if labels[row] != labels[first] or cosine(vectors[row], vectors[first]) <= 0.5
            ]
        self.uncertainty = math.fsum(doubts[row] for row in kept)
        self.empty = not rows
        self.prototypes, self.held = {}, set()
        for label in set(labels.values()):
            mine = [row for row in rows if labels[row] == label]
            pull = {row: doubts[row] if sum(doubts[row] for row in mine) else 1.0 for row in mine}
            columns = zip(*([pull[row] * value for value in vectors[row]] for row in mine), strict=True)
            self.prototypes[label] = [math.fsum(column) for column in columns]
            if max(scores[row] for row in mine) > 0.3:
                self.held.add(label)

    def is_new(self, chosen: list[NaiveFrame]) -> bool:
        least = math.inf
        for label, prototype in self.prototypes.items():
            others = [frame.prototypes[label] for frame in chosen if label in frame.prototypes]
            least = min(least, max((cosine(prototype, other) for other in others), default=-1.0))
        return least < 0.7


def naive_prototypes(pool: Pool, n: int, labeled: Pool | None = None) -> list[int]:
    frames = [NaiveFrame(pool, frame) for frame in range(len(pool))]
    known = [] if labeled is None else [NaiveFrame(labeled, frame) for frame in range(len(labeled))]
    order = sorted(range(len(frames)), key=lambda row: (-frames[row].uncertainty, frames[row].empty, row))
    classes = sorted(set().union(*(frame.held for frame in frames)))
    counts = {label: sum(label in frame.held for frame in known or frames) for label in classes}
    minority = sorted(classes, key=lambda label: (counts[label], label))[: len(classes) // 2]
    quota = {label: math.ceil(0.75 * n / len(minority)) for label in minority}
    chosen: list[int] = []
    for row in order:
        due = [label for label in frames[row].held if quota.get(label, 0) > 0]
        if due and len(chosen) < math.ceil(0.75 * n) and frames[row].is_new(known + [frames[c] for c in chosen]):
            chosen.append(row)
            for label in due:
                quota[label] -= 1
    for row in order:
        if row not in chosen and len(chosen) < n and frames[row].is_new(known + [frames[c] for c in chosen]):
            chosen.append(row)
    return (chosen + [row for row in order if row not in chosen])[:n]


def make_pool(
    frames: int, *, seed: int = 0, kind: str | None = "softmax", classes: int = 4, width: int = 6, prefix: str = "f"
) -> Pool:
    """Boxes of a few looks, frames of none to six of them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 7, (frames,), generator=generator)
    boxes = int(counts.sum())
    looks = torch.randn(8, width, generator=generator)[torch.randint(0, 8, (boxes,), generator=generator)]
    numbers = torch.randn(boxes, classes, generator=generator) * 2
    return Pool(
        [f"{prefix}{row:04}" for row in range(frames)],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator) ** 2,
        labels=torch.randint(0, classes, (boxes,), generator=generator) * 5 - 1,
        probabilities={"softmax": numbers.softmax(1), "sigmoid": numbers.sigmoid()}.get(str(kind)),
        activation=kind,  # type: ignore[arg-type]
        box_embeddings=looks + torch.randn(boxes, width, generator=generator),
        frame_embeddings=torch.randn(frames, 3, generator=generator),
    )


AXES = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0], [-1.0, 0, 0], [0.0, 0, 0]]
box = st.tuples(st.integers(0, 2), st.integers(0, 8), st.integers(0, len(AXES) - 1))
lists_of_boxes = st.lists(st.lists(box, max_size=4), min_size=1, max_size=9)


def pool_of(frames: list[list[tuple[int, int, int]]], *, prefix: str = "f") -> Pool:
    """Frames of few different boxes, with cosines of -1, 0 and 1 and scores in eighths: full of ties, and exact."""
    boxes = [each for frame in frames for each in frame]
    return Pool(
        [f"{prefix}{row}" for row in range(len(frames))],
        torch.tensor([0, *(len(frame) for frame in frames)]).cumsum(0),
        scores=torch.tensor([score / 8 for _, score, _ in boxes]),
        labels=torch.tensor([label for label, _, _ in boxes], dtype=torch.int64),
        box_embeddings=torch.tensor([AXES[look] for _, _, look in boxes]).reshape(-1, 3),
    )


@pytest.mark.parametrize("columns", ["all", "no scores", "half", "no frame embeddings"])
@pytest.mark.parametrize("blocks", [2**22, 1])
def test_distances_are_those_of_all_pairs_of_boxes(columns: str, blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.strategies.objects._BLOCK_ELEMENTS", blocks)
    pool, other = make_pool(20), make_pool(9, seed=1)
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


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("labeled", [0, 1, 12])
def test_ppal(seed: int, labeled: int) -> None:
    pool = make_pool(50, seed=seed)
    known = make_pool(labeled, seed=seed + 50, prefix="known") if labeled else None
    for n in (1, 8):
        assert ppal(pool, n, seed=seed, labeled=known).tolist() == naive_ppal(pool, n, seed, known)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", None])
@pytest.mark.parametrize("labeled", [0, 1, 12])
def test_diverse_prototypes(kind: str | None, labeled: int) -> None:
    for seed in range(5):
        pool = make_pool(60, seed=seed, kind=kind)
        known = make_pool(labeled, seed=seed + 50, kind=kind, prefix="known") if labeled else None
        for n in (1, 9, 50):
            got = diverse_prototypes(pool, n, seed=0, labeled=known).tolist()
            assert got == naive_prototypes(pool, n, known)


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
    pool = make_pool(frames, seed=seed, kind=kind)
    labeled = make_pool(known, seed=seed + 1, kind=kind, prefix="known")
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


def test_minority_classes_are_served_first_and_up_to_their_quota() -> None:
    """Class 1 is in four frames, class 0 in sixteen that are more uncertain; every object looks different."""
    labels = torch.tensor([0] * 16 + [1] * 4)
    scores = torch.cat([torch.linspace(0.5, 0.6, 16), torch.tensor([0.8, 0.85, 0.9, 0.2])])
    pool = Pool([f"{row:02}" for row in range(20)], torch.arange(21), labels=labels, scores=scores,
                box_embeddings=torch.eye(20))  # fmt: skip
    assert diverse_prototypes(pool, 1, seed=0).tolist() == [16]
    assert diverse_prototypes(pool, 2, seed=0).tolist() == [16, 17]
    assert diverse_prototypes(pool, 8, seed=0).tolist() == [16, 17, 18, 0, 1, 2, 3, 4], "a score of 0.2 is not there"
    many = pool.take([16, 17, 18]).replace(frame_ids=list("abc"), box_embeddings=-torch.eye(20)[16:19])
    assert diverse_prototypes(pool, 4, seed=0, labeled=many).tolist() == [0, 1, 2, 3], "of what is labeled, 0 is rarer"


def test_rejected_frames_fill_up() -> None:
    pool = Pool(list("abcd"), torch.arange(5), labels=torch.zeros(4, dtype=torch.int64),
                scores=torch.tensor([0.9, 0.5, 0.6, 0.99]), box_embeddings=torch.eye(2)[[0, 0, 0, 1]])  # fmt: skip
    assert diverse_prototypes(pool, 4, seed=0).tolist() == [1, 3, 2, 0]


@pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
def test_blocks_do_not_change_the_choice(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, labeled = make_pool(60, seed=3), make_pool(10, seed=4)
    whole = POOL_DIVERSITIES[strategy](pool, 12, seed=0, labeled=labeled)
    for module in ("objects", "diverse_prototypes"):
        monkeypatch.setattr(sys.modules[f"cval_torch.strategies.{module}"], "_BLOCK_ELEMENTS", 40)
    assert torch.equal(POOL_DIVERSITIES[strategy](pool, 12, seed=0, labeled=labeled), whole)


def test_ppal_makes_no_matrix_of_all_frames_or_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    module = sys.modules["cval_torch.strategies.objects"]
    nearness = module._nearness

    def watching(mine: Any, theirs: Any) -> Tensor:
        sizes.append(len(mine.vectors) * len(theirs.vectors))
        return nearness(mine, theirs)

    monkeypatch.setattr(module, "_nearness", watching)
    monkeypatch.setattr(module, "_BLOCK_ELEMENTS", 4000)
    pool = make_pool(300, classes=1)
    ppal(pool, 3, seed=0)
    assert len(sizes) > 100
    assert max(sizes) < 8000 < len(pool) ** 2 / 10


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
        whole, stage = make_pool(9), DetectionSampling(selection_strategy=strategy, num_of_samples=2)
        known = make_pool(3, seed=1, prefix="known")
        with pytest.raises(InvalidInputError, match=message.format(strategy, "pool")):
            LocalBackend().select(whole.replace(**{column: None}), stage)
        with pytest.raises(InvalidInputError, match=message.format(strategy, "labeled")):
            LocalBackend(labeled=known.replace(**{column: None})).select(whole, stage)

    def test_nothing_to_be_uncertain_by(self) -> None:
        pool = make_pool(9, kind=None).replace(scores=None)
        assert len(ppal(pool, 3, seed=0)) == 3
        with pytest.raises(InvalidInputError, match="`probabilities` or `scores` of `pool`"):
            diverse_prototypes(pool, 3, seed=0)

    @pytest.mark.parametrize("strategy", sorted(ON_OBJECTS))
    def test_embeddings_of_another_width(self, strategy: str) -> None:
        with pytest.raises(InvalidInputError, match=r"`labeled` must be \(B, 6\).*got \(\d+, 5\)"):
            POOL_DIVERSITIES[strategy](make_pool(9), 3, seed=0, labeled=make_pool(9, seed=1, width=5))


def test_frames_of_another_kind_of_embedding_are_compared_by_boxes_alone() -> None:
    """Labeled frames without a comparable whole-frame embedding: frames without boxes are all alike then."""
    pool, labeled = make_pool(30), make_pool(9, seed=1, prefix="known")
    bare = labeled.replace(frame_embeddings=None)
    expected = naive_ppal(pool.replace(frame_embeddings=None), 6, 0, bare)
    for known in (bare, labeled.replace(frame_embeddings=torch.rand(9, 7))):
        assert ppal(pool, 6, seed=0, labeled=known).tolist() == expected
