"""What a frame is to the diversity strategies, against loops."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_descriptors import CLASS_SCALE, naive_descriptors

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.strategies.descriptor import classes_of, frame_descriptors, unit_rows


def make(counts: list[int], *, width: int = 5, frame_width: int = 5, dtype: torch.dtype = torch.float32) -> Pool:
    generator = torch.Generator().manual_seed(0)
    boxes = sum(counts)
    return Pool(
        [f"{row:02d}" for row in range(len(counts))],
        torch.tensor([0, *counts]).cumsum(0),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 3, (boxes,), generator=generator) * 7,
        box_embeddings=torch.randn(boxes, width, generator=generator).to(dtype),
        frame_embeddings=torch.randn(len(counts), frame_width, generator=generator).to(dtype),
    )


@pytest.mark.parametrize("frame_width", [5, 3, 8])
@pytest.mark.parametrize("chunk", [2**22, 1])
def test_against_a_loop(frame_width: int, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.strategies.descriptor._CHUNK_ELEMENTS", chunk)
    pool = make([2, 0, 1, 9, 0, 0, 4], frame_width=frame_width)
    assert torch.allclose(frame_descriptors(pool), torch.tensor(naive_descriptors(pool)), atol=1e-6)


def test_a_frame_does_not_depend_on_the_others() -> None:
    pool = make([2, 0, 1, 9, 0, 0, 4])
    whole, classes = frame_descriptors(pool), classes_of(pool)
    for row in range(len(pool)):
        assert torch.equal(frame_descriptors(pool.take([row]), classes=classes)[0], whole[row]) or pool.counts[row] == 0


def test_scores_of_zero_weigh_alike() -> None:
    pool = make([2, 3])
    silent = pool.replace(scores=torch.cat([torch.zeros(2), pool.scores[2:]]))
    assert torch.allclose(frame_descriptors(silent), torch.tensor(naive_descriptors(silent)), atol=1e-6)
    assert torch.allclose(frame_descriptors(pool.replace(scores=None))[0], frame_descriptors(silent)[0])


def test_the_number_of_boxes_and_the_strength_of_features_do_not_matter() -> None:
    pool = Pool(
        ["one", "three"],
        torch.tensor([0, 1, 4]),
        scores=torch.tensor([0.5, 0.9, 0.9, 0.9]),
        labels=torch.ones(4, dtype=torch.int64),
        box_embeddings=torch.tensor([[1.0, 2.0], [10, 20], [0.1, 0.2], [3, 6]]),
    )
    one, three = frame_descriptors(pool)
    assert torch.allclose(one, three)


def test_distances_are_as_the_documentation_has_them() -> None:
    """No class in common is as far as a cosine of 0.75; frames without boxes are far from all, and alike."""
    embedding = torch.tensor([[1.0, 0], [1, 0], [0.75, math.sqrt(1 - 0.75**2)]])
    pool = Pool(list("abcde"), torch.tensor([0, 1, 2, 3, 3, 3]), labels=torch.tensor([0, 1, 0]),
                box_embeddings=embedding, frame_embeddings=torch.ones(5, 3))  # fmt: skip
    distances = torch.cdist(*[frame_descriptors(pool).double()] * 2)
    assert distances[0, 1].item() == pytest.approx(distances[0, 2].item(), abs=1e-6)
    assert distances[3, 4] == 0
    assert bool((distances[3, :3] > 1.4).all())


def test_frames_without_boxes_or_embeddings_are_all_alike() -> None:
    pool = make([2, 0, 0]).replace(frame_embeddings=None)
    rows = frame_descriptors(pool)
    assert torch.equal(rows[1], rows[2])
    assert rows[1].tolist() == [0] * 5 + [CLASS_SCALE] + [0] * (rows.shape[1] - 6)


@pytest.mark.parametrize("columns", [{}, {"box_embeddings": torch.empty(0, 0)}])
def test_frame_embeddings_alone(columns: dict[str, Any]) -> None:
    pool = Pool(
        ["a", "b"], torch.zeros(3, dtype=torch.int64), frame_embeddings=torch.tensor([[3.0, 4], [0, 2]]), **columns
    )
    assert torch.allclose(frame_descriptors(pool), torch.tensor([[0.6, 0.8], [0, 1]]))


def test_boxes_without_their_embeddings_leave_the_frame_embeddings() -> None:
    pool = make([2, 0, 1]).replace(box_embeddings=None)
    assert torch.equal(frame_descriptors(pool), unit_rows(pool.frame_embeddings))


def test_two_pools_in_one_space() -> None:
    pool = make([2, 1, 0, 3])
    first, second = pool.take([0, 2]), pool.take([1, 3])
    classes = classes_of(first, second)
    apart = torch.cat([frame_descriptors(first, classes=classes), frame_descriptors(second, classes=classes)])
    assert torch.equal(apart, frame_descriptors(pool)[[0, 2, 1, 3]])


def test_half_precision_is_worked_on_in_float32() -> None:
    pool = make([2, 0, 3], dtype=torch.float16)
    got = frame_descriptors(pool)
    assert got.dtype == torch.float32
    assert torch.allclose(got, torch.tensor(naive_descriptors(pool)), atol=1e-6)


SIZES = {torch.float16: 6e4, torch.bfloat16: 1e38, torch.float32: 1e38, torch.float64: 1e300}


@pytest.mark.parametrize("dtype", SIZES)
@pytest.mark.parametrize("large", [False, True])
def test_rows_of_any_size_become_units(dtype: torch.dtype, large: bool) -> None:
    """Squares of the large ones overflow, those of the small ones vanish."""
    size = SIZES[dtype] if large else max(1 / SIZES[dtype], 1e-36)
    rows = torch.tensor([[0.75, 1.0], [0.0, 0.0]], dtype=torch.float64) * size
    assert torch.allclose(unit_rows(rows.to(dtype)), torch.tensor([[0.6, 0.8], [0, 0]]), atol=2e-2)


def test_nothing_to_describe_by() -> None:
    nothing = Pool(["a"], torch.tensor([0, 1]), scores=torch.rand(1))
    with pytest.raises(InvalidInputError, match="`box_embeddings` or `frame_embeddings`"):
        frame_descriptors(nothing)
    no_boxes = Pool(["a"], torch.tensor([0, 0]), box_embeddings=torch.empty(0, 3))
    with pytest.raises(InvalidInputError, match="`frame_embeddings`"):
        frame_descriptors(no_boxes)
