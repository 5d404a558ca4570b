"""The comparison of strategies on frames that are labelled already."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import digits_on_photos as digits
from study import compare_strategies


def test_compare_strategies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"frames": 5, "rounds": 1, "random-draws": 2, "start": 12, "pool": 90, "test-frames": 6}
    small |= {"steps": 2, "out": tmp_path}
    found = compare_strategies.main([f"--{name}={value}" for name, value in small.items()])
    assert (found.candidates, found.start, len(found.random), len(found.random_curves)) == (78, 12, 100, 2)
    pool = digits.pool_frames(digits.PoolSettings(frames=90), seed=0)
    started_from = torch.randperm(90, generator=torch.Generator().manual_seed(0)).tolist()[:12]
    started_ids = {pool.frame_ids[row] for row in started_from}
    for choice in (*found.strategies.values(), *found.random):
        assert not started_ids & set(choice.frame_ids)
        rows = [pool.frame_ids.index(frame_id) for frame_id in choice.frame_ids]
        assert choice.values["objects"] == sum(len(pool.labels[row]) for row in rows)
    printed = capsys.readouterr().out
    assert found.table() in printed
    with Image.open(tmp_path / "comparison.png") as picture:
        assert picture.width > 1000
    assert (tmp_path / "comparison.csv").exists()


def test_compare_null_policies(tmp_path: Path) -> None:
    small = {"what": "null_policies", "frames": 5, "start": 12, "pool": 90, "steps": 2}
    found = compare_strategies.main([f"--{name}={value}" for name, value in (small | {"out": tmp_path}).items()])
    assert list(found.strategies) == [
        f"{policy}, {boxes}" for boxes in ("max", "sum") for policy in ("protocol", "skip", "last", "sample")
    ]
