"""The best boxes of each frame, and that detectors' embeddings of these are those of a pass that keeps all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from best_boxes import best_rows, embedding_best, marks_of
from hypothesis import given
from hypothesis import strategies as st
from one_box import OneBox
from tiny_torchvision import FAMILIES, images, tiny
from torch import Tensor, nn
from torchvision.ops import roi_align

from cval_torch.errors import ExtractionError, HookError
from cval_torch.extraction.passes import extract
from cval_torch.hooks import regions
from cval_torch.hooks.base import FrameBatch, Later, LaterRows
from cval_torch.hooks.checking import check_boxes, check_form, check_optional
from cval_torch.hooks.regrouping import in_order
from cval_torch.hooks.top_boxes import top_boxes
from cval_torch.pool.pool import Pool

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75]), max_size=7)


@given(frames=st.lists(SCORES, max_size=6), k=st.integers(1, 8), wide=st.booleans())
def test_the_best_of_each_frame_are_marked_as_a_loop_finds_them(frames: list[list[float]], k: int, wide: bool) -> None:
    scores = torch.tensor(
        [score for frame in frames for score in frame], dtype=torch.float64 if wide else torch.float32
    )
    counts = torch.tensor([len(frame) for frame in frames], dtype=torch.int64)
    pool = Pool([str(row) for row in range(len(frames))], torch.tensor([0, *counts]).cumsum(0), scores=scores)
    assert torch.equal(top_boxes(scores, counts, k), marks_of(pool, best_rows(pool, k)))


def test_scores_that_a_pool_cannot_tell_apart_are_equal() -> None:
    scores = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    assert top_boxes(scores, torch.tensor([2]), 1).tolist() == [True, False]


@pytest.mark.parametrize("k", [1, 3, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_what_a_pass_that_keeps_all_has(family: str, k: int) -> None:
    """Bit for bit, of every family of torchvision."""
    model, loader = tiny(family), [images(4), images(2)]
    options: dict[str, Any] = {"frame_id": lambda row, _: f"f{row}", "progress": False}
    full, some = extract(model, loader, **options), extract(model, loader, top_boxes=k, **options)
    assert full.num_boxes > 3 * len(full)
    expected = embedding_best(full, k)
    for (name, column), (other_name, other) in zip(some.columns(), expected.columns(), strict=True):
        assert name == other_name
        assert torch.equal(column, other), name
    assert some.box_embeddings is not None
    assert len(some.box_embeddings) == sum(min(k, count) for count in full.counts.tolist())


@pytest.mark.parametrize("family", ["retinanet", "ssd"])
def test_no_other_box_is_pooled(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled: list[int] = []

    def counting(maps: Tensor, boxes: Tensor, *args: Any, **options: Any) -> Tensor:
        pooled.append(len(boxes))
        result: Tensor = roi_align(maps, boxes, *args, **options)
        return result

    monkeypatch.setattr(regions, "roi_align", counting)
    pool = extract(tiny(family), [images(3)], top_boxes=2, progress=False)
    assert sum(pooled) == 6 < pool.num_boxes


def test_halves_and_frames_without_boxes() -> None:
    model = tiny("rcnn")
    model.roi_heads.score_thresh = 0.99  # type: ignore[union-attr]
    pool = extract(model, [images(3)], top_boxes=1, embedding_dtype=torch.float16, progress=False)
    assert bool(pool.is_empty.any())
    assert pool.embedded is not None
    assert pool.box_embeddings is not None
    assert len(pool.box_embeddings) == int(pool.embedded.sum()) == int((~pool.is_empty).sum())
    assert pool.box_embeddings.dtype is torch.float16


def test_rows_of_detectors_that_run_once_a_size() -> None:
    """The embeddings of some boxes, of batches that ran in two passes; each pass computes its own only."""
    asked: list[list[int]] = []

    def part(rows: list[int], counts: list[int]) -> tuple[list[int], FrameBatch]:
        marks = torch.tensor([[row, box] for row, count in zip(rows, counts, strict=True) for box in range(count)])

        def of_rows(picked: Tensor | slice) -> Tensor:
            asked.append(marks[picked].tolist())
            return marks[picked].float()

        batch = FrameBatch(
            torch.tensor(counts), torch.zeros(len(marks), 4), marks[:, 0], marks[:, 1] / 10,
            box_embeddings=LaterRows(of_rows).column,
        )  # fmt: skip
        return rows, batch

    frames = in_order([part([0, 3], [2, 3]), part([2, 1], [1, 4])])
    marks = top_boxes(frames.scores, frames.counts, 2)
    frames.embed_only(marks)
    expected = [[0, 0], [0, 1], [1, 2], [1, 3], [2, 0], [3, 1], [3, 2]]
    assert frames.box_embeddings is not None
    assert frames.box_embeddings.tolist() == expected
    assert sorted(row for rows in asked for row in rows) == expected
    whole = in_order([part([0, 3], [2, 3]), part([2, 1], [1, 4])]).box_embeddings
    assert whole is not None
    assert whole.tolist() == [[row, box] for row, count in enumerate([2, 4, 1, 3]) for box in range(count)]


def column(kind: str, values: Tensor, computed: list[str]) -> Any:
    def compute() -> Tensor:
        computed.append("all")
        return values

    def of_rows(rows: Tensor | slice) -> Tensor:
        computed.append("all" if isinstance(rows, slice) else "some")
        return values[rows]

    return {"tensor": values, "later": Later(compute).column, "rows": LaterRows(of_rows).column}[kind]


@pytest.mark.parametrize(("kind", "expected"), [("tensor", []), ("later", ["all"]), ("rows", ["some"])])
def test_a_column_of_any_kind_is_cut_and_only_one_of_rows_saves_work(kind: str, expected: list[str]) -> None:
    computed: list[str] = []
    values = torch.arange(8.0).reshape(4, 2)
    frames = FrameBatch(
        torch.tensor([3, 1]), torch.zeros(4, 4), torch.zeros(4).long(), torch.tensor([0.1, 0.3, 0.2, 0.4]),
        box_embeddings=column(kind, values, computed),
    )  # fmt: skip
    check_boxes(frames, 2, "mine")
    assert computed == []
    frames.embed_only(torch.tensor([False, True, False, True]))
    check_optional(frames, "mine")
    assert torch.equal(frames.box_embeddings, values[[1, 3]])  # type: ignore[arg-type]
    assert computed == expected


@pytest.mark.parametrize("kind", ["tensor", "later"])
@pytest.mark.parametrize("rows", [3, 5])
def test_a_column_of_another_number_of_rows_is_no_less_an_error(kind: str, rows: int) -> None:
    frames = FrameBatch(
        torch.tensor([4]), torch.zeros(4, 4), torch.zeros(4).long(), torch.rand(4),
        box_embeddings=column(kind, torch.zeros(rows, 2), []),
    )  # fmt: skip
    frames.embed_only(torch.tensor([True, False, False, False]))
    with pytest.raises(HookError, match=rf"`box_embeddings` of mine must be \(B, E\) with B=4; got \({rows}, 2\)"):
        check_form(frames, 1, "mine")


def reading(make: Callable[[int], Any]) -> Any:
    """An adapter of one box a frame, with a column of embeddings."""

    class Reading(OneBox):
        def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
            frames = super().read(model, recording, output)
            frames.box_embeddings = make(len(frames.scores))
            return frames

    return Reading()


def extracted(adapter: Any, k: int | None) -> Pool:
    return extract(nn.Linear(1, 1), [[torch.rand(1, 2, 2)] * 3], adapter=adapter, top_boxes=k, progress=False)


def test_an_adapter_of_ones_own_may_give_all_or_only_what_is_asked() -> None:
    assert extracted(reading(lambda boxes: None), 1).embedded is None
    pool = extracted(reading(lambda boxes: torch.ones(boxes, 2)), 1)
    assert pool.embedded is not None
    assert bool(pool.embedded.all())
    ignoring = reading(lambda boxes: LaterRows(lambda rows: torch.ones(boxes + 1, 2)).column)
    with pytest.raises(HookError, match=r"`box_embeddings` of .* must be \(K, E\) with K=3; got \(4, 2\)"):
        extracted(ignoring, 1)


def test_an_error_of_the_adapters_is_told_as_ever() -> None:
    def fail(rows: Tensor | slice) -> Tensor:
        raise KeyError("gone")

    with pytest.raises(ExtractionError, match="KeyError: 'gone'"):
        extracted(reading(lambda boxes: LaterRows(fail).column), 1)
