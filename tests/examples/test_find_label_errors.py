"""The search for spoilt labels."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

import digits_on_photos as digits
from cval_torch import Pool, label_issues
from cval_torch.pool.offsets import offsets_of
from study import find_label_errors


def spoilt_frames(frames: int = 60, share: float = 0.2) -> find_label_errors.Spoilt:
    settings = digits.PoolSettings(frames=frames, long_tail=False, empties=False, duplicates=False)
    return find_label_errors.Spoilt(digits.pool_frames(settings, seed=1), share=share, seed=1)


def test_what_is_spoilt_is_written_down() -> None:
    spoilt = spoilt_frames()
    total = sum(len(labels) for labels in spoilt.frames.labels)
    assert len(spoilt.faults) == round(0.2 * total)
    kinds = [fault.kind for fault in spoilt.faults]
    assert max(kinds.count(kind) for kind in find_label_errors.KINDS) - kinds.count("swapped") <= 1
    assert sum(len(labels) for labels in spoilt.labels) == total - kinds.count("overlooked")
    for fault in spoilt.faults:
        right = zip(spoilt.frames.boxes[fault.row].tolist(), spoilt.frames.labels[fault.row].tolist(), strict=True)
        given = zip(spoilt.boxes[fault.row].tolist(), spoilt.labels[fault.row].tolist(), strict=True)
        assert (fault.box.tolist(), fault.label) in list(right)
        assert (fault.box.tolist(), fault.label) not in list(given)
    untouched = set(range(60)) - {fault.row for fault in spoilt.faults}
    assert untouched
    for row in untouched:
        assert torch.equal(spoilt.boxes[row], spoilt.frames.boxes[row])
        assert torch.equal(spoilt.labels[row], spoilt.frames.labels[row])
    assert all(boxes.min() >= 0 and boxes.max() <= 96 for boxes in spoilt.boxes if len(boxes))


def test_a_detector_that_knows_the_truth_tells_nearly_all() -> None:
    """An object that touches another one is not overlooked by the paper's definition: nearly, not all."""
    spoilt = spoilt_frames()
    clean = spoilt.frames
    truth = Pool(
        clean.frame_ids,
        offsets_of(torch.tensor([len(labels) for labels in clean.labels])),
        boxes=torch.cat(clean.boxes),
        labels=torch.cat(clean.labels),
        scores=torch.full((sum(map(len, clean.labels)),), 0.99),
    )
    issues = label_issues(truth, [spoilt[row][1] for row in range(len(spoilt))])
    found = find_label_errors.measured(issues, spoilt)
    assert set(found.frames.values()) == {1.0}
    assert sum(told for told, _ in found.kinds.values()) >= 0.85 * len(spoilt.faults)
    assert found.random == len({fault.row for fault in spoilt.faults}) / 60


def test_the_script_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = find_label_errors.main(["--pool=40", "--steps=30", "--share=0.3", f"--out={tmp_path}"])
    printed = capsys.readouterr().out
    assert f"in {found.random:.1%} of frames" in printed
    with (tmp_path / "issues.csv").open() as file:
        assert sum(1 for _ in csv.DictReader(file)) == sum(listed for _, listed in found.kinds.values())
    assert found.frames
    with Image.open(tmp_path / "issues.png") as picture:
        assert picture.width > 200
