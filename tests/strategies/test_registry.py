"""The registry: each record says the truth of its strategy, and a new one needs a row and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from points import noise
from strategy_names import DIVERSITIES
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.columns import COLUMNS
from cval_torch.strategies.registry import STRATEGIES, Strategy, find_strategy, names_served


def make_pool(frames: int = 30, *, seed: int = 0, prefix: str = "f") -> Pool:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, 4, (frames,), generator=generator)
    boxes = int(counts.sum())
    return Pool(
        [f"{prefix}{row:03d}" for row in range(frames)],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 3, (boxes,), generator=generator),
        probabilities=torch.rand(boxes, 4, generator=generator).softmax(1),
        activation="softmax",
        box_embeddings=torch.randn(boxes, 5, generator=generator),
        frame_embeddings=torch.randn(frames, 4, generator=generator),
    )


def choose(pool: Pool, name: str, n: int = 6, *, labeled: Pool | None = None) -> tuple[str, ...]:
    stage = DetectionSampling(selection_strategy=name, num_of_samples=n, seed=3)
    return LocalBackend(labeled=labeled).select(pool, stage).frame_ids


def test_names_are_keys() -> None:
    assert all(record.name == name for name, record in STRATEGIES.items())
    assert names_served("in process") == tuple(STRATEGIES)
    assert set(names_served("cval.ai")) < set(names_served("own server")) == set(STRATEGIES)
    # the protocol's own list
    assert set(names_served("cval.ai")) == {
        *("least", "margin", "ratio", "entropy", "probability"),
        *("clustering", "hierarchical"),
    }


OPTIONAL = ("scores", "labels", "probabilities", "box_embeddings", "frame_embeddings")


def without(pool: Pool, columns: set[str]) -> Pool:
    dropped: dict[str, None] = dict.fromkeys(sorted(columns))
    return pool.replace(**dropped, **({"activation": None} if "probabilities" in columns else {}))


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("taken", [0, -1])
def test_one_column_of_each_need_is_enough(name: str, taken: int) -> None:
    kept = {columns[taken] for columns in STRATEGIES[name].needs}
    assert len(choose(without(make_pool(), set(OPTIONAL) - kept), name)) == 6


@pytest.mark.parametrize(
    ("name", "columns"), [(name, columns) for name, record in STRATEGIES.items() for columns in record.needs]
)
def test_without_a_column_that_is_needed_it_is_named(name: str, columns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInputError, match=" or ".join(f"`{column}`" for column in columns)):
        choose(without(make_pool(), set(columns)), name)


@pytest.mark.parametrize("name", STRATEGIES)
def test_it_reads_all_that_it_needs(name: str) -> None:
    record = STRATEGIES[name]
    assert {column for columns in record.needs for column in columns} <= set(record.reads) <= set(COLUMNS)
    assert record.reads_embeddings == record.is_diversity


@pytest.mark.parametrize("name", [name for name, record in STRATEGIES.items() if record.is_diversity])
def test_whether_labeled_frames_matter_is_as_the_record_says(name: str) -> None:
    pool = make_pool()
    first = choose(pool, name)
    labeled = renamed(pool.take([pool.frame_ids.index(first[0])]))
    assert (choose(pool, name, labeled=labeled) != first) == STRATEGIES[name].knows_labeled


def renamed(pool: Pool) -> Pool:
    """The same frames as other ones."""
    columns = {name: column for name, column in pool.columns() if name != "offsets"}
    return Pool(
        [f"known {frame_id}" for frame_id in pool.frame_ids], pool.offsets, activation=pool.activation, **columns
    )


@pytest.mark.parametrize("name", [name for name, record in STRATEGIES.items() if record.greedy])
def test_a_greedy_choice_begins_with_the_choice_of_fewer(name: str) -> None:
    pool = make_pool()
    assert choose(pool, name, 9)[:4] == choose(pool, name, 4)


@pytest.mark.parametrize("name", [name for name, record in STRATEGIES.items() if record.is_diversity])
def test_clusters_are_for_those_that_take_them(name: str) -> None:
    assert STRATEGIES[name].takes_clusters == (name in {"clustering", "hierarchical"})


def test_a_callable_is_a_strategy_too() -> None:
    def most_boxes(pool: Pool) -> Tensor:
        return pool.counts

    record = find_strategy(most_boxes)
    assert (record.sees, record.served, record.scores_frames) == ("pool", "in process", True)
    assert "most_boxes" in record.name
    with pytest.raises(InvalidInputError, match=r"one of least, .*; got 'entropi'"):
        find_strategy("entropi")


def test_one_row_makes_a_strategy_of_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a function, and a row: stages, checks and budgets have it then."""

    def first_rows(embeddings: Tensor, n: int, *, seed: int, labeled: Tensor | None, weights: Tensor | None) -> Tensor:
        return torch.arange(n)

    monkeypatch.setitem(
        STRATEGIES, "first_rows", Strategy(name="first_rows", sees="vectors", function=first_rows, greedy=True)
    )
    pool = make_pool()
    assert choose(pool, "first_rows", 3) == ("f000", "f001", "f002")
    assert "first_rows" in names_served("own server")
    with pytest.raises(InvalidInputError, match="`class_quotas` are for stages that rank"):
        LocalBackend().select(
            pool, DetectionSampling(selection_strategy="first_rows", num_of_samples=3, class_quotas={1: 1})
        )
    budget = DetectionSampling(selection_strategy="first_rows", num_of_boxes=4.0)
    assert LocalBackend().select(pool, budget).num_of_boxes <= 4

    def doubt(values: Tensor) -> Tensor:
        return 1 - (values if values.ndim == 1 else values.amax(1))

    monkeypatch.setitem(STRATEGIES, "doubt", replace(STRATEGIES["least"], name="doubt", function=doubt))
    assert choose(pool, "doubt", 5) == choose(pool, "least", 5)


@pytest.mark.parametrize("name", sorted(DIVERSITIES))
@pytest.mark.parametrize("n", [1, 4, 12])
@pytest.mark.parametrize(
    "make", [lambda: noise(12), lambda: torch.zeros(12, 3), lambda: torch.eye(3).repeat(4, 1), lambda: noise(12).half()]
)
@pytest.mark.parametrize("labeled", [0, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_are_distinct_and_the_same_again(
    name: str, n: int, make: Callable[[], Tensor], labeled: int, weighted: bool
) -> None:
    points = make()
    known = points[:labeled] if labeled else None
    weights = torch.arange(12).double() if weighted else None
    rows = DIVERSITIES[name](points, n, seed=5, labeled=known, weights=weights)
    assert rows.dtype == torch.int64
    assert len(set(rows.tolist())) == n == len(rows)
    assert torch.equal(rows, DIVERSITIES[name](points, n, seed=5, labeled=known, weights=weights))
