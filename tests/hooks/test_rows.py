"""Row recovery on made-up rows, where scores and boxes are few, so that ties are many."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import HookError
from cval_torch.hooks import rows as subject
from cval_torch.hooks.rows import CLOSE_ULPS, Candidates, Detections, pairs_above, recover_rows, spread

SCORES = [1e-30, 0.1, 0.5, 0.9, 1.0]


def made(choices, frames, labels):
    """R rows of (frame, score, box number), each offered under every label, and where their boxes are."""
    row_frames = torch.tensor([frame for frame, _, _ in choices])
    order = row_frames.argsort(stable=True)
    row_frames = row_frames[order]
    scores = torch.tensor([SCORES[score] for _, score, _ in choices])[order]
    corners = torch.tensor([float(box) for _, _, box in choices])[order]
    boxes = torch.stack([corners, corners, corners + 5, corners + 7], 1)
    rows = torch.arange(len(choices)).repeat_interleave(labels)
    each = torch.arange(labels).repeat(len(choices))
    return boxes, Candidates(rows, each, row_frames[rows], scores[rows])


def detected(candidates, boxes, picked, frames):
    """The picked candidates as detections, by frame and then by falling score."""
    picked = torch.tensor(
        sorted(picked, key=lambda k: (candidates.frames[k], -candidates.scores[k])), dtype=torch.int64
    )
    own = candidates.frames[picked]
    return picked, Detections(
        torch.bincount(own, minlength=frames).tolist(),
        own,
        boxes[candidates.rows[picked]],
        candidates.labels[picked],
        candidates.scores[picked],
    )


def decoder(boxes):
    return lambda rows, labels: (boxes[rows], torch.full((len(rows),), 20.0))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_every_detection_gets_a_row_of_its_own_that_fits(data):
    frames, labels = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    row = st.tuples(st.integers(0, frames - 1), st.integers(0, 4), st.integers(0, 2))
    boxes, candidates = made(data.draw(st.lists(row, min_size=1, max_size=12)), frames, labels)
    picked = data.draw(st.sets(st.integers(0, len(candidates.rows) - 1)))
    picked, detections = detected(candidates, boxes, picked, frames)
    off = data.draw(st.sampled_from([-2, 0, 2])) * (candidates.scores < 1)
    scores = (candidates.scores.view(torch.int32) + off).to(torch.int32).view(torch.float32)
    shaken = Candidates(candidates.rows, candidates.labels, candidates.frames, scores)
    found = recover_rows(detections, shaken, decoder(boxes), ulps=CLOSE_ULPS)
    row_scores, row_frames = candidates.scores[::labels], candidates.frames[::labels]
    assert torch.equal(row_frames[found], detections.frames)
    assert torch.equal(row_scores[found], detections.scores)
    assert torch.equal(boxes[found], detections.boxes)
    taken = torch.stack([found, detections.labels], 1)
    assert len(taken.unique(dim=0)) == len(taken)


def few(**changes):
    boxes = torch.tensor([[0.0, 0, 5, 5], [1, 1, 6, 6], [1, 1, 6, 6], [2, 2, 7, 7]])
    scores = torch.tensor([0.5, 0.5, 0.25, 0.75])
    zeros = torch.zeros(4, dtype=torch.int64)
    candidates = Candidates(torch.arange(4), zeros, zeros, scores)
    columns = {"frames": zeros[:2], "boxes": boxes[[3, 1]], "labels": zeros[:2], "scores": scores[[3, 1]]} | changes
    detections = Detections([len(columns["scores"])], **columns)
    return recover_rows(detections, candidates, decoder(boxes), ulps=0)


def test_equal_scores_go_by_the_box_and_equal_boxes_by_the_score():
    assert few().tolist() == [3, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": torch.tensor([0.75, 0.5000001])},
        {"boxes": torch.tensor([[2.0, 2, 7, 7], [1, 1, 6, 6.001]])},
        {"boxes": torch.tensor([[2.0, 2, 7, 7], [1, 1, 6, torch.nan]])},
        {"labels": torch.tensor([0, 1])},
        {"frames": torch.tensor([0, 1])},
    ],
    ids=["score", "box", "nan", "label", "frame"],
)
def test_a_detection_without_a_row_is_an_error(changes):
    with pytest.raises(HookError, match=r"^1 of 2 detections are no row of the recorded logits; the first is in frame"):
        few(**changes)


def test_two_detections_of_one_row_are_an_error():
    twice = torch.tensor([3, 3])
    boxes = torch.tensor([[2.0, 2, 7, 7]] * 2)
    with pytest.raises(HookError, match="1 of 2 detections"):
        few(boxes=boxes, scores=torch.tensor([0.75, 0.75]), labels=twice * 0)


def test_of_equal_boxes_the_nearer_score_is_taken():
    zeros = torch.zeros(2, dtype=torch.int64)
    scores = torch.tensor([0.5, 0.5000001])  # within reach of each other
    candidates = Candidates(torch.arange(2), zeros, zeros, scores)
    boxes = torch.tensor([[1.0, 1, 6, 6]] * 2)
    for row in range(2):
        detections = Detections([1], zeros[:1], boxes[:1], zeros[:1], scores[row : row + 1])
        assert recover_rows(detections, candidates, decoder(boxes), ulps=CLOSE_ULPS).tolist() == [row]


def test_a_twin_does_not_take_the_row_of_another_detection():
    """Two equal detections, one row of theirs, and a row beside it that belongs to a third."""
    boxes = torch.tensor([[1.0, 1, 6, 6], [1, 1, 6, 6.00001]])
    zeros = torch.zeros(3, dtype=torch.int64)
    candidates = Candidates(torch.arange(2), zeros[:2], zeros[:2], torch.full((2,), 0.5))
    detections = Detections([3], zeros, boxes[[0, 0, 1]], zeros, torch.full((3,), 0.5))
    with pytest.raises(HookError, match="1 of 3 detections"):
        recover_rows(detections, candidates, decoder(boxes), ulps=0)


def test_no_candidates_and_no_detections():
    nothing = torch.zeros(0, dtype=torch.int64)
    none = Candidates(nothing, nothing, nothing, torch.zeros(0))
    detections = Detections([0, 0], nothing, torch.zeros(0, 4), nothing, torch.zeros(0))
    assert recover_rows(detections, none, decoder(torch.zeros(1, 4)), ulps=0).tolist() == []
    one = Detections([1], torch.tensor([0]), torch.zeros(1, 4), torch.tensor([0]), torch.tensor([0.5]))
    with pytest.raises(HookError, match=r"label 0, score 0\.5"):
        recover_rows(one, none, decoder(torch.zeros(1, 4)), ulps=0)


def test_a_box_that_is_nan_is_found_for_the_pool_to_name():
    boxes = torch.tensor([[0.0, 0, 5, 5], [torch.nan, 1, 6, 6]])
    zeros = torch.zeros(2, dtype=torch.int64)
    candidates = Candidates(torch.arange(2), zeros, zeros, torch.tensor([0.5, 0.5]))
    detections = Detections([1], zeros[:1], boxes[1:], zeros[:1], torch.tensor([0.5]))
    assert recover_rows(detections, candidates, decoder(boxes), ulps=0).tolist() == [1]


@pytest.mark.parametrize("most", [1, 7, 64])
def test_many_pairs_are_gone_through_in_parts(monkeypatch, most):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.rand(40, 4, generator=generator)
    zeros = torch.zeros(40, dtype=torch.int64)
    candidates = Candidates(torch.arange(40), zeros, zeros, torch.full((40,), 0.5))
    picked = torch.randperm(40, generator=generator)[:15]
    detections = Detections([15], zeros[:15], boxes[picked], zeros[:15], candidates.scores[:15])
    sizes = []

    def decode(rows, labels):
        sizes.append(len(rows))
        return boxes[rows], torch.ones(len(rows))

    monkeypatch.setattr(subject, "_MOST_PAIRS", most)
    assert torch.equal(recover_rows(detections, candidates, decode, ulps=0), picked)
    assert sum(sizes) == 40 * 15
    assert max(sizes) <= most + 15


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 6), st.integers(1, 4), st.integers(0, 1000))
def test_pairs_above_beside_a_loop(height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 4, (height, width), generator=generator).float()
    floors = torch.randint(0, 5, (height,), generator=generator).float()
    expected = [(r, c) for r in range(height) for c in range(width) if values[r, c] >= floors[r]]
    rows, columns = pairs_above(values, floors)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_lowest_scores_beside_a_loop(dtype):
    scores = torch.tensor([0.9, 0.3, 0.7, 0.1234567890123], dtype=dtype)
    detections = Detections([2, 0, 2], torch.tensor([0, 0, 2, 2]), torch.zeros(4, 4), torch.zeros(4).long(), scores)
    exact = detections.lowest_scores(ulps=0)
    assert exact.tolist() == [scores[1].item(), float("inf"), scores[3].item()]
    lowered = detections.lowest_scores(ulps=4)
    assert lowered[0] < exact[0]
    assert lowered[0] > exact[0] * (1 - 2e-5 - 5 * torch.finfo(dtype).eps)


def test_spread():
    assert spread([2, 0, 1], torch.device("cpu")).tolist() == [0, 0, 2]
    assert spread([], torch.device("cpu")).tolist() == []
