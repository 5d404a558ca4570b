"""The record of label issues: which frames it sends to review, and what it writes."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from annotated import assert_same
from labelled_boxes import noisy_world, pool_of
from PIL import Image

from cval_torch.comparison import LabelIssues, label_issues
from cval_torch.comparison.label_issue_record import KINDS
from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_coco, load_label_studio, save_coco, save_label_studio

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


CLASSES = {1: "bolt", 2: "nut", 3: "washer", 5: "heap"}


def frame(marked: Annotations, frame_id: str) -> list[tuple[list[float], str, float | None, bool]]:
    """Its boxes: corners, class, score, whether it is a crowd."""
    one = marked.take([marked.frame_ids.index(frame_id)])
    columns = one.boxes.tolist(), one.labels.tolist(), one.scores.tolist(), one.is_crowd.tolist()
    return [
        (box, marked.class_names[label], None if math.isnan(score) else pytest.approx(score), crowd)
        for box, label, score, crowd in zip(*columns, strict=True)
    ]


def test_annotations_for_an_export() -> None:
    found = three_faults()
    heap = (C, "heap", None, True)
    as_they_are = found.annotations(which="annotated", class_names=CLASSES)
    assert frame(as_they_are, "f1") == [(A, "bolt", None, False), (B, "washer", None, False), heap]
    assert frame(as_they_are, "f2") == [(MOVED, "bolt", None, False)]
    assert as_they_are.is_annotated.all()
    suggested = found.annotations(which="suggested", class_names=CLASSES)
    assert frame(suggested, "f1") == [(B, "nut", 0.98, False)]
    assert frame(suggested, "f2") == [(B, "nut", 0.98, False), (A, "bolt", 0.97, False)]
    corrected = found.annotations(class_names=CLASSES)
    assert frame(corrected, "f1") == [(A, "bolt", None, False), (B, "nut", 0.98, False), heap]
    assert frame(corrected, "f2") == [(A, "bolt", 0.97, False), (B, "nut", 0.98, False)]
    for marked in (suggested, corrected):
        assert not marked.is_annotated.any()
    for marked in (as_they_are, suggested, corrected):
        assert marked.frame_ids == marked.file_names == found.for_review()
        assert marked.ranks.tolist() == [1, 2]
        assert marked.uncertainties.tolist() == [1 - score for score in found.checked_scores[:2].tolist()]
        assert marked.uncertainties[0] > marked.uncertainties[1]
        assert marked.class_names == CLASSES
    assert torch.equal(found.annotated.boxes, three_faults().annotated.boxes), "the record stays as it was"


def test_annotations_of_some_frames_with_files_and_numbers() -> None:
    found = three_faults()
    worst = found.for_review(1)[0]
    files = {"f1": "cam/1.png", "f2": "cam/2.png"}
    marked = found.annotations(1, file_names=files)
    assert (marked.frame_ids, marked.file_names) == ((worst,), (files[worst],))
    assert marked.class_names == {label: str(label) for label in (1, 2, 3, 5)}
    assert len(found.annotations(0)) == 0
    nothing = label_issues(pool_of([]), [])
    assert [len(nothing.annotations(which=which)) for which in ("annotated", "suggested", "corrected")] == [0, 0, 0]
    with pytest.raises(InvalidInputError, match="`which` must be one of corrected, annotated, suggested; got 'all'"):
        found.annotations(which="all")
    with pytest.raises(InvalidInputError, match="`file_names` must have a file for every frame; it has none for 'f2'"):
        found.annotations(file_names={"f1": "1.png"})
    with pytest.raises(InvalidInputError, match="label 5 has no name"):
        found.annotations(class_names={1: "a", 2: "b", 3: "c"})
    with pytest.raises(InvalidInputError, match="`n` must be 0 or more"):
        found.annotations(-1)


def test_of_several_issues_of_one_box_the_worst_counts() -> None:
    """One prediction says that the box should be moved, a surer one that it has another class."""
    pool = pool_of([(of(A, MOVED), torch.tensor([1, 2]), torch.tensor([0.97, 0.99], dtype=torch.float64))])
    found = label_issues(pool, [{"boxes": of(MOVED), "labels": [1]}], high_score=0.95, low_score=0.5)
    assert found.kinds[:2] == ("swapped", "badly_located")
    assert found.object_rows.tolist() == [0, 0]
    assert frame(found.annotations(), "f0") == [(MOVED, "2", 0.99, False)]


@pytest.mark.parametrize("seed", range(6))
def test_objects_are_those_of_the_annotations(seed: int) -> None:
    """Each issue's row leads to its box, whatever order frames have, and the corrected boxes are those of a loop."""
    pool, targets = noisy_world(seed, frames=30)
    for number, target in enumerate(targets):
        target["iscrowd"] = (torch.arange(len(target["labels"])) % 3 == number % 3).long()
    found = label_issues(pool, targets, high_score=0.5, low_score=0.2, max_score=0.9)
    assert len(set(found.kinds)) == 3
    for place, row in enumerate(found.object_rows.tolist()):
        assert (row < 0) == (found.kinds[place] == "overlooked")
        if row >= 0:
            assert torch.equal(found.annotated.boxes[row], found.annotated_boxes[place])
            assert found.annotated.labels[row] == found.annotated_labels[place]
            assert found.annotated.frame_ids[int(found.annotated.frame_rows[row])] == found.frame_ids[place]
    corrected = found.annotations()
    for place, frame_id in enumerate(corrected.frame_ids):
        target = targets[int(str(frame_id)[1:])]
        expected = [
            [*box, label] for box, label in zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
        ]
        done: set[int] = set()
        for issue, name in enumerate(found.frame_ids):
            row = int(found.annotation_rows[issue])
            if name != frame_id or row in done:
                continue
            new = [*found.suggested_boxes[issue].tolist(), int(found.suggested_labels[issue])]
            if row < 0:
                expected.append(new)
            else:
                expected[row] = new
                done.add(row)
        part = slice(int(corrected.offsets[place]), int(corrected.offsets[place + 1]))
        got = torch.cat([corrected.boxes[part].double(), corrected.labels[part, None].double()], 1)
        torch.testing.assert_close(got[_order(got)], (made := torch.tensor(expected))[_order(made)].double())


def _order(rows: torch.Tensor) -> list[int]:
    return sorted(range(len(rows)), key=lambda row: rows[row].float().tolist())


@pytest.mark.parametrize("which", ["corrected", "annotated", "suggested"])
def test_a_round_trip_through_label_studio_and_coco(tmp_path: Path, which: str) -> None:
    files = {"f1": tmp_path / "in" / "1.png", "f2": tmp_path / "in" / "2.png"}
    (tmp_path / "in").mkdir()
    for path in files.values():
        Image.new("L", (160, 150)).save(path)
    given = three_faults().annotations(which=which, class_names=CLASSES)
    how = {"image_root": files, "progress": False}
    for save, load in ((save_label_studio, load_label_studio), (save_coco, load_coco)):
        found = load(save(given, tmp_path / save.__name__, **how), class_names=CLASSES)
        assert_same(found, given, within=1e-3)
        assert found.is_crowd.tolist() == given.is_crowd.tolist()


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
