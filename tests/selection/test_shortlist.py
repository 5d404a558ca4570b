"""The first look at a large pool changes nothing: the choice is that of scoring every frame."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.selection import rough_scores
from cval_torch.selection import shortlist as screening
from cval_torch.selection.ranking import frame_scores, rank_rows
from cval_torch.selection.rough_scores import rough_entropy, rough_radius
from cval_torch.selection.scored import ranked_choice, score_frames
from cval_torch.selection.shortlist import kth_smallest, shortlist
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages


@pytest.fixture(autouse=True)
def _small_pools_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screening, "_FEWEST_FRAMES", 1)
    monkeypatch.setattr(screening, "_ONE_IN", 2)


def stage(strategy: str = "entropy", n: int = 20, **options: Any) -> DetectionSampling:
    return DetectionSampling(selection_strategy=strategy, num_of_samples=n, **options)


def make(kind: str, *, uniform: bool, frames: int = 600, seed: int = 0, dtype: torch.dtype = torch.float32) -> Pool:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.full((frames,), 5) if uniform else torch.randint(0, 9, (frames,), generator=generator)
    boxes = int(counts.sum())
    logits = torch.randn(boxes, 6, generator=generator, dtype=torch.float64) * 4
    columns: dict[str, Any] = {
        "scores": {"scores": torch.rand(boxes, generator=generator, dtype=torch.float64).to(dtype)},
        "softmax": {"probabilities": torch.softmax(logits, 1).to(dtype), "activation": "softmax"},
        "sigmoid": {"probabilities": torch.sigmoid(logits).to(dtype), "activation": "sigmoid"},
        "unscaled": {"probabilities": torch.sigmoid(logits).pow(9).to(dtype), "activation": "softmax"},
    }[kind]
    ids = [f"{row:04d}" for row in torch.randperm(frames, generator=generator).tolist()]
    return Pool(ids, torch.cat([counts.new_zeros(1), counts.cumsum(0)]), **columns)


def best_rows(pool: Pool, one: DetectionSampling) -> tuple[torch.Tensor, torch.Tensor]:
    """What a stage chooses, and the scores of these frames."""
    scored = score_frames(pool, one)
    rows = ranked_choice(scored, one).rows
    return rows, scored.scores[rows]


@pytest.mark.parametrize("kind", ["scores", "softmax", "sigmoid", "unscaled"])
@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@pytest.mark.parametrize("sort", ["ascending", "descending"])
@pytest.mark.parametrize("uniform", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_choice_is_that_of_scoring_every_frame(
    kind: str, policy: str, sort: str, uniform: bool, dtype: torch.dtype
) -> None:
    pool = make(kind, uniform=uniform, dtype=dtype)
    one = stage(bbox_selection_policy=policy, sort_strategy=sort)
    scores = frame_scores(pool, one)
    expected = rank_rows(scores, pool.frame_ids, 20, descending=sort == "descending")
    rows, got = best_rows(pool, one)
    assert rows.tolist() == expected
    assert torch.equal(got, scores[rows])


@pytest.mark.parametrize("kind", ["scores", "softmax", "sigmoid", "unscaled"])
@pytest.mark.parametrize("policy", ["max", "sum"])
def test_it_saves_something(kind: str, policy: str) -> None:
    """Otherwise the test above compares a thing with itself."""
    rows = shortlist(make(kind, uniform=True), stage(n=5, bbox_selection_policy=policy), 5)
    assert rows is not None
    assert 5 <= len(rows) < 200


BOUNDARY = st.sampled_from(
    [0.0, 1.0, 0.5, 0.25, 0.75, 5e-324, 1e-45, 1e-38, 1e-30, 1e-20, 1e-7, 1 - 2**-24, 1 - 2**-53, 0.5 - 2**-25]
    + [0.5 + 2.0**-bits for bits in (9, 12, 24, 30, 53)]
    + [math.nextafter(0.3, 0), 0.3, math.nextafter(0.3, 1)]
)


@pytest.mark.parametrize("strategy", ["least", "margin", "ratio", "entropy", "probability"])
@pytest.mark.parametrize("policy", ["min", "max", "mean", "sum"])
@pytest.mark.parametrize("kind", ["scores", "softmax", "sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_no_frame_among_the_best_is_dropped(
    strategy: str, policy: str, kind: str, dtype: torch.dtype, data: st.DataObject
) -> None:
    """Few different values, so that ties and near ties are everywhere, in frames of no box to thousands."""
    width = data.draw(st.integers(1, 6))
    drawn = st.lists(BOUNDARY | st.floats(0, 1), min_size=width, max_size=width)
    vectors = torch.tensor(data.draw(st.lists(drawn, min_size=1, max_size=6)), dtype=torch.float64)
    counts = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=20, max_size=40)))
    if data.draw(st.booleans()):
        counts[:] = data.draw(st.sampled_from([1, 2, 5]))
    if data.draw(st.booleans()):
        counts[0] = data.draw(st.sampled_from([40, 3000, 5000]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    boxes = vectors[torch.randint(len(vectors), (int(counts.sum()),), generator=generator)]
    columns: dict[str, Any] = {"scores": boxes[:, 0].to(dtype)}
    if kind != "scores":
        columns |= {"probabilities": boxes.to(dtype), "activation": kind}
    pool = Pool([f"{row:03d}" for row in range(len(counts))], offsets_of(counts), **columns)
    one = stage(strategy, n=data.draw(st.integers(1, 9)), bbox_selection_policy=policy,
                sort_strategy=data.draw(st.sampled_from(["ascending", "descending"])))  # fmt: skip
    rows = shortlist(pool, one, one.num_of_samples or 0)
    scores = frame_scores(pool, one)
    best = rank_rows(scores, pool.frame_ids, one.num_of_samples or 0, descending=one.descending)
    assert rows is None or set(best) <= set(rows.tolist())
    ranked, got = best_rows(pool, one)
    assert ranked.tolist() == best
    assert torch.equal(got, scores[best])


@pytest.mark.parametrize("strategy", ["least", "margin", "ratio", "entropy"])
def test_ties_go_by_id_as_ever(strategy: str) -> None:
    scores = torch.tensor([0.5, 0.25, 0.75, 0.5, 0.5, 0.9] * 30)
    pool = Pool([f"{row * 7 % 180:03d}" for row in range(180)], torch.arange(181), scores=scores)
    rows, got = best_rows(pool, stage(strategy, 40))
    assert [pool.frame_ids[row] for row in rows.tolist()] == sorted(
        frame_id for frame_id, score in zip(pool.frame_ids, scores.tolist(), strict=True) if score == 0.5
    )[:40]
    assert got.tolist() == [1] * 40


def test_doubts_with_one_entropy_in_float64_are_a_tie() -> None:
    scores = torch.tensor([0.5 - 1e-10, 0.5, 0.5 + 1e-10, *([0.9] * 20)], dtype=torch.float64)
    pool = Pool([*"cba", *(f"x{row}" for row in range(20))], torch.arange(24), scores=scores)
    rows, got = best_rows(pool, stage(n=2))
    assert got.tolist() == [1, 1]
    assert rows.tolist() == [2, 1], "ids a and b: to the last bit all three are 1"


def test_null_policies_choose_among_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make("softmax", uniform=False)
    for policy in ("protocol", "skip", "last", "sample"):
        one = stage(n=30, null_policy=policy)
        looked = run_stages(pool, one)
        monkeypatch.setattr(screening, "_FEWEST_FRAMES", 10**9)
        plain = run_stages(pool, one)
        monkeypatch.setattr(screening, "_FEWEST_FRAMES", 1)
        assert torch.equal(looked[0], plain[0])
        assert torch.equal(looked[1].nan_to_num(-1), plain[1].nan_to_num(-1))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"probs_weights": [1.0] * 6}, "softmax"),
        ({"class_weights": {1: 2.0}}, "softmax"),
        ({"class_weights": {1: 2.0}}, "scores"),
        ({"bbox_selection_policy": lambda scores, offsets: torch.zeros(len(offsets) - 1)}, "softmax"),
        ({"n": 400}, "softmax"),
    ],
)
def test_what_it_does_not_serve(options: dict[str, Any], kind: str) -> None:
    one = stage(**options)
    assert shortlist(make(kind, uniform=True), one, one.num_of_samples) is None


def test_one_column_leaves_nothing_to_be_uncertain_of() -> None:
    for activation in ("softmax", "sigmoid"):
        pool = Pool([f"{row}" for row in range(40)], torch.arange(41), probabilities=torch.rand(40, 1),
                    activation=activation)  # type: ignore[arg-type]  # fmt: skip
        scores = frame_scores(pool, stage())
        assert best_rows(pool, stage(n=3))[0].tolist() == rank_rows(scores, pool.frame_ids, 3, descending=True)


def test_a_pool_where_all_are_alike_is_scored_as_a_whole() -> None:
    pool = Pool([f"{row}" for row in range(50)], torch.arange(51), scores=torch.full((50,), 0.5))
    assert shortlist(pool, stage(n=3), 3) is None


@given(
    rows=st.lists(
        st.lists(
            st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 1.0, 1e-38, 1e-20, 0.5])), min_size=4, max_size=4
        ),
        min_size=1,
        max_size=9,
    )
)
@settings(max_examples=150, deadline=None)
def test_the_rough_entropy_keeps_its_promise(rows: list[list[float]]) -> None:
    table = torch.tensor(rows)
    for row, rough in zip(table.double().tolist(), rough_entropy(table).tolist(), strict=True):
        total = math.fsum(row)
        exact = -math.fsum(p / total * math.log2(p / total) for p in row if p > 0) / 2 if total > 0 else 1
        assert abs(rough - exact) <= rough_radius(4)


def test_the_radius_is_mitchells() -> None:
    """log2(1 + m) - m is greatest at m = 1 / ln 2 - 1, where it is 0.0860713 (Mitchell 1962)."""
    m = 1 / math.log(2) - 1
    greatest = math.log2(1 + m) - m
    assert greatest == pytest.approx(0.0860713, abs=1e-7)
    assert greatest / 2 == pytest.approx(rough_scores._MITCHELL_MIDDLE, abs=1e-5)
    assert greatest / 2 < rough_radius(2)


@given(values=st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20), data=st.data())
@settings(max_examples=50, deadline=None)
def test_the_kth_smallest(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    column: Tensor = torch.tensor(values)
    assert kth_smallest(column, k).item() == sorted(column.tolist())[k - 1]


@pytest.mark.parametrize("k", [1, 7, 300, 10_000, 99_999])
@pytest.mark.parametrize("kind", ["random", "rising", "falling", "sampled are least", "sampled are greatest", "equal"])
def test_the_kth_smallest_of_many(k: int, kind: str) -> None:
    """A sample tells where to look; it may be as misleading as it likes."""
    values = torch.rand(100_000, generator=torch.Generator().manual_seed(k))
    if kind in ("rising", "falling"):
        values = values.sort(descending=kind == "falling").values
    elif kind.startswith("sampled"):
        values[:: screening._SAMPLED_ONE_IN] += -1 if kind.endswith("least") else 1
    elif kind == "equal":
        values[:] = 0.5
    assert kth_smallest(values, k).item() == values.sort().values[k - 1].item()
