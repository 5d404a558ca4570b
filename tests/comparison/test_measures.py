"""The measures of a choice, each against a naive loop."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.comparison import measures
from cval_torch.comparison.measures import MEASURES, Ruler, class_balance, jaccard, missed_boxes, near_duplicates
from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool

Box = tuple[float, float, float, float]


def pool_of(frames: list[list[tuple[Box, int, float]]], **columns: object) -> Pool:
    """Frames "f0", ... of (box, label, score)."""
    found = [each for frame in frames for each in frame]
    offsets = torch.tensor([0, *(len(frame) for frame in frames)]).cumsum(0)
    return Pool(
        [f"f{number}" for number in range(len(frames))],
        offsets,
        boxes=torch.tensor([box for box, _, _ in found]).reshape(-1, 4).float(),
        labels=torch.tensor([label for _, label, _ in found], dtype=torch.int64),
        scores=torch.tensor([score for _, _, score in found], dtype=torch.float32),
        **columns,
    )


def naive_iou(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common) if sum(areas) > common else 0.0


corner = st.integers(0, 8)
boxes = st.tuples(corner, corner, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
objects = st.tuples(boxes, st.integers(0, 4), st.sampled_from([0.0, 0.25, 0.3125, 0.5, 1.0]))
frames = st.lists(st.lists(objects, max_size=4), min_size=2, max_size=8)


@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=8))
@settings(deadline=None)
def test_class_balance(counts: list[int]) -> None:
    total = sum(counts)
    expected = 0.0
    for count in counts:
        if count:
            expected -= count / total * math.log2(count / total) / math.log2(len(counts))
    assert class_balance(torch.tensor(counts)) == pytest.approx(expected, abs=1e-12)


def test_class_balance_of_extremes() -> None:
    assert class_balance(torch.tensor([4, 4, 4])) == pytest.approx(1)
    assert class_balance(torch.tensor([4, 0, 0])) == 0
    assert class_balance(torch.tensor([0, 0])) == 0


@given(totals=st.lists(st.integers(1, 5), min_size=1, max_size=13))
@settings(deadline=None)
def test_rarest_quarter(totals: list[int]) -> None:
    ranked = sorted(range(len(totals)), key=lambda label: (totals[label], label))
    expected = set(ranked[: -(-len(totals) // 4)])
    assert set(measures.rarest_quarter(torch.tensor(totals)).nonzero().flatten().tolist()) == expected


@given(
    places=st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=1, max_size=12),
    radius=st.sampled_from([0.0, 1.0, 1.5, 2.0, 5.0]),
    chunk=st.sampled_from([1, 7, 2**22]),
)
@settings(deadline=None)
def test_near_duplicates(places: list[tuple[int, int]], radius: float, chunk: int) -> None:
    expected = [
        any(math.dist(one, other) <= radius for j, other in enumerate(places) if j != i) for i, one in enumerate(places)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "_CHUNK_ELEMENTS", chunk)
        assert near_duplicates(torch.tensor(places).float(), radius).tolist() == expected


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=2, max_size=9), st.randoms())
@settings(deadline=None)
def test_median_distance_whatever_the_order(places: list[tuple[float, float]], random) -> None:
    tensor = torch.tensor(places, dtype=torch.float64)
    distances = [math.dist(places[i], places[j]) for i in range(len(places)) for j in range(i)]
    names = [f"f{row}" for row in range(len(places))]
    found = measures.median_distance(tensor, names)
    assert found in [pytest.approx(d, abs=1e-9) for d in distances]
    assert found <= median(distances) + 1e-9  # torch's median is the lower of two middles
    order = list(range(len(places)))
    random.shuffle(order)
    assert measures.median_distance(tensor[order], [names[row] for row in order]) == pytest.approx(found, abs=1e-12)


def test_median_distance_of_many_frames_is_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_MEDIAN_FRAMES", 50)
    places = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    names = [f"f{row:03d}" for row in range(400)]
    whole = float(torch.pdist(places).median())
    found = measures.median_distance(places, names)
    assert found == pytest.approx(whole, rel=0.15)
    assert measures.median_distance(places.flip(0), names[::-1]) == found


@given(true=frames, data=st.data(), least=st.sampled_from([0.0, 0.3125, 0.6]))
@settings(deadline=None)
def test_missed_boxes(true, data: st.DataObject, least: float) -> None:
    found = data.draw(st.lists(st.lists(objects, max_size=4), min_size=len(true), max_size=len(true)))
    expected = [
        not any(score >= least and naive_iou(box, other) >= 0.5 for other, _, score in detections)
        for frame, detections in zip(true, found, strict=True)
        for box, _, _ in frame
    ]
    assert missed_boxes(pool_of(true), pool_of(found), min_score=least).tolist() == expected


def test_every_detection_counts_where_none_has_a_score() -> None:
    box = (0.0, 0.0, 4.0, 4.0)
    truth, found = pool_of([[(box, 1, 0.0)]]), pool_of([[(box, 1, 0.0)]])
    assert missed_boxes(truth, found, min_score=0.5).tolist() == [True]
    assert missed_boxes(truth, found.replace(scores=None), min_score=0.5).tolist() == [False]
    for score, missed in ((0.5, False), (0.49, True)):
        assert missed_boxes(truth, pool_of([[(box, 1, score)]]), min_score=0.5).tolist() == [missed]
    with pytest.raises(InvalidInputError, match="the same frames in the same order"):
        missed_boxes(truth, found.replace(frame_ids=["other"]), min_score=0.5)


@given(true=frames, data=st.data())
@settings(deadline=None, max_examples=60)
def test_a_whole_ruler(true, data: st.DataObject) -> None:
    found = data.draw(st.lists(st.lists(objects, max_size=3), min_size=len(true), max_size=len(true)))
    rows = data.draw(st.lists(st.integers(0, len(true) - 1), min_size=1, unique=True))
    angles = data.draw(st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.0]), min_size=len(true), max_size=len(true)))
    embeddings = torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles], dtype=torch.float32) * 3
    pool = pool_of(found, frame_embeddings=embeddings)
    counts = {0: 3, 2: 1, 9: 5}
    ruler = Ruler(pool, pool_of(true), counts=counts, min_score=0.3, duplicate_radius=0.5)
    values = ruler.measure(torch.tensor(rows))

    totals = Counter(label for frame in true for _, label, _ in frame)
    chosen = Counter(label for row in rows for _, label, _ in true[row])
    assert values["frames"] == len(rows)
    have, worth = dict(counts), 0.0
    for label in (label for row in rows for _, label, _ in true[row]):
        have[label] = have.get(label, 0) + 1
        worth += 1 / have[label]
    assert values["scarce_objects"] == pytest.approx(worth)
    assert values["objects"] == sum(len(true[row]) for row in rows)
    assert values["empty_share"] == pytest.approx(sum(not true[row] for row in rows) / len(rows))
    assert values["misses"] == sum(
        all(score < 0.3 or naive_iou(box, other) < 0.5 for other, _, score in found[row])
        for row in rows
        for box, _, _ in true[row]
    )
    points = [(math.cos(angle), math.sin(angle)) for angle in angles]
    distances = sorted(math.dist(points[i], points[j]) for i in range(len(points)) for j in range(i))
    radius = 0.5 * distances[(len(distances) - 1) // 2]
    near = [any(math.dist(points[i], points[j]) <= radius + 1e-6 for j in rows if j != i) for i in rows]
    assert values["duplicate_share"] == pytest.approx(sum(near) / len(rows))
    if len(totals) < 2:
        assert set(ruler.missing) == {"classes", "rare_objects", "class_balance"}
        return
    rare = sorted(totals, key=lambda label: (totals[label], label))[: -(-len(totals) // 4)]
    assert set(ruler.classes[ruler.rare].tolist()) == set(rare)
    assert values["classes"] == len(chosen)
    assert values["rare_objects"] == sum(chosen[label] for label in rare)
    assert list(values) == list(MEASURES)


def test_measures_without_their_columns() -> None:
    box = (0.0, 0.0, 4.0, 4.0)
    truth = pool_of([[(box, 1, 0.0)], [(box, 2, 0.0)]])
    bare = Pool(["f0", "f1"], torch.tensor([0, 0, 0]))
    ruler = Ruler(bare, truth, min_score=0.3, duplicate_radius=0.25)
    assert ruler.missing == {
        "misses": "the detections have no boxes",
        "duplicate_share": "the detector gives no embeddings",
    }
    assert list(ruler.measure(torch.tensor([1]))) == list(ruler.measures)
    nothing = pool_of([[], []], box_embeddings=torch.zeros(0, 4))
    assert "duplicate_share" in Ruler(nothing, truth, min_score=0.3, duplicate_radius=0.25).missing
    ruler = Ruler(pool_of([[], []]), truth.replace(boxes=None), min_score=0.3, duplicate_radius=0.25)
    assert ruler.missing["misses"] == "the targets have no boxes"


def test_near_by_boxes_where_frames_have_no_embedding() -> None:
    box = (0.0, 0.0, 4.0, 4.0)
    found = [[(box, 1, 0.9)], [(box, 1, 0.9)], [(box, 1, 0.9)]]
    pool = pool_of(found, box_embeddings=torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
    ruler = Ruler(pool, pool_of(found), min_score=0.3, duplicate_radius=0.1)
    assert ruler.measure(torch.tensor([0, 1, 2]))["duplicate_share"] == pytest.approx(2 / 3)
    assert ruler.measure(torch.tensor([0, 2]))["duplicate_share"] == 0


@given(st.sets(st.integers(0, 6)), st.sets(st.integers(0, 6)))
def test_jaccard(one: set[int], other: set[int]) -> None:
    names = [{str(value) for value in values} for values in (one, other)]
    common, all_ = sum(value in other for value in one), len({*one, *other})
    assert jaccard(*names) == pytest.approx(common / all_ if all_ else 1)
