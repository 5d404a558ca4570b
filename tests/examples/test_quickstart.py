"""The quickstart: what it chooses, writes and prints."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from PIL import Image

import digits_on_photos as digits
import quickstart


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"frames": 5, "start": 20, "pool": 90, "test-frames": 10, "random-draws": 1}
    small |= {"steps": 4, "out": tmp_path}
    results = quickstart.main([f"--{name}={value}" for name, value in small.items()])
    assert [result.name for result in results] == ["chosen", "random 1"]
    with (tmp_path / "selected.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    pool = digits.pool_frames(digits.PoolSettings(frames=90), seed=0)
    ids = [row["frame_id"] for row in rows]
    assert [row["rank"] for row in rows] == list("12345")
    assert len(set(ids)) == 5
    started_from = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()[:20]
    assert set(ids) <= set(pool.frame_ids) - {pool.frame_ids[row] for row in started_from}
    chosen = [pool.frame_ids.index(frame_id) for frame_id in ids]
    assert results[0].boxes == sum(len(pool.labels[row]) for row in chosen)
    assert results[0].sequences == len({frame_id.split("/")[0] for frame_id in ids})
    with Image.open(tmp_path / "selected.png") as picture:
        assert picture.width > 5 * 176
    page = (tmp_path / "report.html").read_text()
    assert all(f">{frame_id}</bdi>" in page for frame_id in ids)
    assert "Pass `" not in page, "nothing is missing that could be passed"
    printed = capsys.readouterr().out
    assert all(frame_id in printed for frame_id in ids)
    assert "noise" in printed
    assert "pre-training" not in printed
    assert printed.index("The list is in") < printed.index("mAP@50")


def test_from_scratch_learns_the_letters_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quickstart, "letters_as_shipped", lambda: pytest.fail("read the shipped weights"))
    small = {"frames": 5, "start": 20, "pool": 90, "test-frames": 10, "random-draws": 1}
    small |= {"steps": 4, "pretrain-steps": 4, "out": tmp_path}
    results = quickstart.main(["--from-scratch", *(f"--{name}={value}" for name, value in small.items())])
    assert [result.name for result in results] == ["chosen", "random 1"]
    assert "pre-training on letters" in capsys.readouterr().err
