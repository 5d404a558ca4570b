"""Batches gathered one by one give the pool that one joins at once; what differs is named."""

from __future__ import annotations

import json
import re
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.column_checks import FRAME_COLUMNS
from cval_torch.pool.layout import Gathered, Layout
from cval_torch.pool.pool import Pool

NAMES = ("scores", "labels", "boxes", "probabilities", "box_embeddings", "frame_embeddings", "indices")


def batch(counts: list[int], *, start: int = 0, names: tuple[str, ...] = NAMES, width: int = 3) -> Pool:
    """Frames `start`, `start + 1` ... with these columns, whose numbers say which box they are of."""
    boxes, frames = sum(counts), len(counts)
    of_boxes = torch.arange(boxes).float() / 1000 + start / 100
    columns: dict[str, Any] = {
        "scores": of_boxes,
        "labels": torch.arange(boxes) + start,
        "boxes": of_boxes[:, None].expand(boxes, 4),
        "probabilities": of_boxes[:, None].expand(boxes, 2),
        "box_embeddings": of_boxes[:, None].expand(boxes, width).half(),
        "frame_embeddings": torch.arange(frames)[:, None].expand(frames, 5).float() + start,
        "indices": torch.arange(frames) + start,
    }
    return Pool(
        [f"f{start + row}" for row in range(frames)],
        torch.tensor([0, *counts]).cumsum(0),
        activation="sigmoid" if "probabilities" in names else None,
        **{name: columns[name] for name in names},
    )


@given(
    batches=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4),
    names=st.sets(st.sampled_from(NAMES)),
)
@settings(deadline=None)
def test_what_was_gathered_is_what_is_joined(batches: list[list[int]], names: set[str]) -> None:
    pools, start = [], 0
    for counts in batches:
        pools.append(batch(counts, start=start, names=tuple(sorted(names))))
        start += len(counts)
    gathered = Gathered()
    for pool in pools:
        gathered.add(pool)
    assert len(gathered) == start
    assert gathered.layout == Layout.of(pools[0])
    whole = gathered.pool()
    assert whole.frame_ids == tuple(f"f{row}" for row in range(start))
    assert whole.counts.tolist() == [count for counts in batches for count in counts]
    assert whole.activation == pools[0].activation
    for name in names:
        joined = torch.cat([getattr(pool, name) for pool in pools])
        assert torch.equal(getattr(whole, name), joined)
        assert getattr(whole, name).dtype == joined.dtype


def test_columns_are_let_go_as_they_are_joined() -> None:
    gathered = Gathered()
    parts = []
    for start in range(3):
        pool = batch([2], start=start)
        parts.append(weakref.ref(pool.frame_embeddings))
        gathered.add(pool)
        del pool
    kept = gathered.pool()
    assert gathered.join()[1] == {}
    assert [part() for part in parts] == [None] * 3
    assert len(kept) == 3


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"width": 4}, "`box_embeddings` had 3 numbers a row, of torch.float16; now it has 4, of torch.float16"),
        (
            {"names": ("scores", "labels")},
            {"names": ("scores",)},
            "the columns were labels, scores (None); now they are scores (None)",
        ),
        (
            {"names": ("probabilities",)},
            {"names": ()},
            "the columns were probabilities (sigmoid); now they are  (None)",
        ),
    ],
)
def test_another_layout_is_refused_by_name(first: dict[str, Any], second: dict[str, Any], message: str) -> None:
    gathered = Gathered()
    gathered.add(batch([1], **first))
    with pytest.raises(InvalidInputError) as caught:
        gathered.add(batch([1], start=1, **second))
    assert set(re.findall(r"[\w`.()]+", str(caught.value))) == set(re.findall(r"[\w`.()]+", message))
    assert len(gathered) == 1


def test_another_precision_and_another_activation_are_other_layouts() -> None:
    pool = batch([2])
    layout = Layout.of(pool)
    layout.check_same(Layout.of(batch([5], start=1)))
    with pytest.raises(InvalidInputError, match=r"`scores` had None numbers a row, of torch.float32; now .*float64"):
        layout.check_same(Layout.of(pool.replace(scores=pool.scores.double())))  # type: ignore[union-attr]
    with pytest.raises(InvalidInputError, match=r"\(sigmoid\); now they are .*\(softmax\)"):
        layout.check_same(Layout.of(pool.replace(activation="softmax")))


def test_nothing_and_an_id_twice() -> None:
    with pytest.raises(InvalidInputError, match="must yield at least one frame; got none"):
        Gathered().pool()
    with pytest.raises(InvalidInputError, match="must yield at least one frame; got none"):
        Gathered(Layout.of(batch([1]))).pool()
    gathered = Gathered()
    for _ in range(2):
        gathered.add(batch([1], start=7))
    with pytest.raises(InvalidInputError, match="must be distinct; got 'f7' again in row 1"):
        gathered.pool()


@given(names=st.sets(st.sampled_from(NAMES)), width=st.integers(0, 9))
@settings(deadline=None)
def test_a_layout_goes_through_json(names: set[str], width: int) -> None:
    layout = Layout.of(batch([2, 0], names=tuple(sorted(names)), width=width))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    assert {name for name, _, _ in layout.columns} == names
    assert "offsets" not in json.dumps(layout.to_json())
    widths = {name: width for name, _, width in layout.columns}
    expected = {"box_embeddings": width, "frame_embeddings": 5, "probabilities": 2, "boxes": 4}
    assert widths == {name: expected.get(name) for name in names}


def test_the_columns_with_a_row_a_frame() -> None:
    pool = batch([4, 3])
    assert {name for name, column in pool.columns() if len(column) == 2} == set(FRAME_COLUMNS)
