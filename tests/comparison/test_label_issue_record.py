"""The record of label issues: which frames it sends to review, and what it writes."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from labelled_boxes import pool_of

from cval_torch.comparison import LabelIssues, label_issues
from cval_torch.comparison.label_issue_record import KINDS
from cval_torch.errors import InvalidInputError

A, B, C = [0.0, 0.0, 20.0, 20.0], [100.0, 0.0, 130.0, 30.0], [0.0, 100.0, 40.0, 140.0]
MOVED = [12.0, 12.0, 32.0, 32.0]  # overlaps A by 64 of 736


def of(*boxes: list[float]) -> torch.Tensor:
    return torch.tensor(boxes, dtype=torch.float64)


def three_faults() -> LabelIssues:
    """f0 is clean, f1 has a wrong class, f2 a moved box and an object that nobody annotated, f3 is not annotated."""
    scores = torch.tensor([0.97, 0.98], dtype=torch.float64)
    pool = pool_of([(of(A, B), torch.tensor([1, 2]), scores)] * 4)
    targets = [
        {"boxes": of(A, B), "labels": [1, 2]},
        {"boxes": of(C, A, B), "labels": [5, 1, 3], "iscrowd": [1, 0, 0]},
        {"boxes": of(MOVED), "labels": [1]},
        None,
    ]
    return label_issues(pool, targets, high_score=0.95, low_score=0.5)


def test_columns() -> None:
    found = three_faults()
    assert repr(found) == ("LabelIssues(1 overlooked, 1 badly_located, 1 swapped; in 2 of 3 annotated frames)")
    by_kind = {kind: row for row, kind in enumerate(found.kinds)}
    assert set(by_kind) == set(KINDS)
    assert found.scores.tolist() == sorted(found.scores.tolist())
    row = by_kind["overlooked"]
    assert (found.frame_ids[row], found.annotation_rows[row], found.annotated_labels[row]) == ("f2", -1, -1)
    assert found.annotated_boxes[row].isnan().all()
    assert (found.suggested_boxes[row].tolist(), found.suggested_labels[row], found.prediction_rows[row]) == (B, 2, 5)
    assert found.confidences[row] == 0.98
    row = by_kind["badly_located"]
    assert (found.frame_ids[row], found.annotation_rows[row], found.annotated_labels[row]) == ("f2", 0, 1)
    assert (found.annotated_boxes[row].tolist(), found.suggested_boxes[row].tolist()) == (MOVED, A)
    assert (found.suggested_labels[row], found.prediction_rows[row]) == (1, 4)
    assert found.scores[row].item() == pytest.approx(0.9 * 64 / 736 + 0.1 * math.exp(-math.hypot(12, 12) / 10))
    row = by_kind["swapped"]
    assert (found.frame_ids[row], found.annotation_rows[row], found.annotated_labels[row]) == ("f1", 2, 3)
    assert (found.suggested_boxes[row].tolist(), found.suggested_labels[row], found.prediction_rows[row]) == (B, 2, 3)


def test_frames_for_review() -> None:
    found = three_faults()
    assert found.checked_ids[-1] == "f0"
    assert found.checked_scores[-1] == pytest.approx(1, abs=1e-6)
    assert found.for_review() == found.checked_ids[:2]
    assert found.for_review(1) == found.checked_ids[:1]
    assert found.for_review(0) == ()
    assert found.for_review(99) == found.for_review()
    quality = dict(zip(found.checked_ids, found.checked_scores.tolist(), strict=True))
    assert found.frame_scores.tolist() == [quality[frame_id] for frame_id in found.frame_ids]
    with pytest.raises(InvalidInputError, match="`n` must be 0 or more"):
        found.for_review(-1)


def test_pools_for_an_export() -> None:
    found = three_faults()
    annotated, suggested = found.review_pools()
    assert annotated.frame_ids == suggested.frame_ids == found.for_review()
    row = annotated.frame_ids.index("f2")
    assert annotated.part(row, row + 1).boxes.tolist() == [MOVED]
    part = suggested.part(row, row + 1)
    assert part.boxes.tolist() == [B, A]  # what is overlooked has the lower quality
    assert (part.labels.tolist(), part.scores.tolist()) == ([2, 1], [0.98, 0.97])
    row = annotated.frame_ids.index("f1")
    part = suggested.part(row, row + 1)
    assert (part.boxes.tolist(), part.labels.tolist()) == ([B], [2])
    assert annotated.part(row, row + 1).labels.tolist() == [1, 3]  # without the crowd
    annotated, suggested = found.review_pools(1)
    assert annotated.frame_ids == suggested.frame_ids == found.for_review(1)
    assert [len(pool) for pool in found.review_pools(0)] == [0, 0]


def test_the_file_has_a_row_an_issue(tmp_path: Path) -> None:
    found = three_faults()
    assert found.to_csv(tmp_path / "issues.csv") == tmp_path / "issues.csv"
    with (tmp_path / "issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame_id"] for row in rows] == list(found.frame_ids)
    assert [row["kind"] for row in rows] == list(found.kinds)
    assert [float(row["score"]) for row in rows] == found.scores.tolist()
    for place, row in enumerate(rows):
        corners = [row[f"annotated_{corner}"] for corner in ("x0", "y0", "x1", "y1")]
        if row["kind"] == "overlooked":
            assert corners == [""] * 4
        else:
            assert [float(corner) for corner in corners] == found.annotated_boxes[place].tolist()
        suggested = [float(row[f"suggested_{corner}"]) for corner in ("x0", "y0", "x1", "y1")]
        assert suggested == found.suggested_boxes[place].tolist()
        assert int(row["suggested_label"]) == found.suggested_labels[place]
        assert int(row["prediction_row"]) == found.prediction_rows[place]
