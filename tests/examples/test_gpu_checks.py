"""The checks for a machine with a GPU: their arithmetic, and that they run, and tell a failure, on a CPU."""

from __future__ import annotations

import re

import pytest

import gpu_checks


def test_a_pass_is_compared_with_the_plain_ones_around_it() -> None:
    times = [("plain", 1.0), ("bare", 0.9), ("plain", 2.0), ("scores only", 3.0), ("plain", 4.0)]
    assert gpu_checks.ratios(times) == {"plain": [2.0, 2.0], "bare": [0.9 / 1.5], "scores only": [1.0]}


def test_tables_of_a_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tiny", "--device", "cpu", "--parts", "waits", "strategies", "--batch-size", "1"]
    gpu_checks.main([*options, "--models", "fasterrcnn-mobilenet-320"])
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    counts = {row[1]: [float(cell) for cell in row[2:]] for row in rows if row[0] == "fasterrcnn-mobilenet-320"}
    assert set(counts) == {"bare", "plain", *gpu_checks.MODES}
    assert counts["plain"][-1] >= 1  # torchvision looks for boxes above a threshold
    same = [row[-1] for row in rows if re.search("k_center|k-means|auto|entropy", row[0]) and "%" in row[-1]]
    assert same == ["100.0 %"] * 6


def test_a_check_that_fails_is_named_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no memory | left")

    monkeypatch.setattr(gpu_checks, "k_center", fail)
    with pytest.raises(SystemExit, match=r"^failed: k_center to 20, 256 wide; "):
        gpu_checks.main(["--tiny", "--device", "cpu", "--parts", "strategies"])
    said = capsys.readouterr().out
    assert "| k_center to 20, 256 wide | FAILED: RuntimeError: no memory / left |" in said
    assert "| k-means to 20, 5 iterations, 256 wide |" in said
