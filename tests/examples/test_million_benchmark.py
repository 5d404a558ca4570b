"""The benchmark of a million frames, with a few: every task runs under the limit and says what it took."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import million
from cval_torch import LocalBackend, Pool


def test_every_task(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "SHARD", 200)
    arguments = ["--frames", "500", "--center", "20", "--clusters", "20", "--auto", "20", "--folder", str(tmp_path)]
    tasks = ["vectors", "entropy", "clustering"]
    million.main([*arguments, "--facilities", "20", "--clock", "cpu", "--tasks", *tasks])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in lines]
    assert re.fullmatch(r"clustering, [2-9]\d* assignments", names.pop(3))
    assert names == ["task", *(task for task in tasks if task != "clustering")]
    assert len(list(tmp_path.glob("*.pool"))) == 3
    million.write_shards(tmp_path, 500)  # which are there


def test_its_shards_are_one_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million, "SHARD", 200)
    million.write_shards(tmp_path, 450)
    shards = million.Shards(tmp_path)
    whole = Pool.cat(list(shards))
    assert len(whole) == 450
    options = type("Options", (), {"center": 9, "clusters": 9, "facilities": 9, "auto": 9})()
    stages = million.stages_of(options)["auto"]
    chosen = million.choose_from_parts(shards, stages)
    assert chosen.frame_ids == LocalBackend().select(whole, stages).frame_ids


def test_floors_count_what_is_read() -> None:
    options = type("Options", (), {"frames": 10, "center": 2000, "clusters": 5, "facilities": 300, "auto": 7})()
    speeds = {"bandwidth": 2.0, "rate": 3.0}
    column, embeddings, vectors = 10 * 20 * 20 * 4, 10 * 20 * 256 * 2, 10 * 277 * 4
    assert million.floor_of("entropy, mean", options, speeds) == column / 2
    assert million.floor_of("k_center", options, speeds) == (embeddings + 2 * vectors) / 2
    assert million.floor_of("auto", options, speeds) == (embeddings + column + vectors) / 2
    assert million.floor_of("clustering", options, speeds, 3) == embeddings / 2 + 3 * 2 * 10 * 277 * 5 / 3
    assert million.floor_of("facility_location", options, speeds) == (embeddings + 3 * vectors) / 2
