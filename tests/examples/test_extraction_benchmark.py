"""The benchmark of extraction: what it makes of the times that it reads, and that it runs."""

from __future__ import annotations

import pytest
import torch

import extraction


def test_the_numbers_of_a_pass() -> None:
    """Plain inference from 1 to 2, 5 to 7 and 9 to 10, and between these the pass, from 0 to 15."""
    pairs = extraction.Pairs()
    pairs.add(0.0, [(1.0, 2.0), (5.0, 7.0), (9.0, 10.0)], 15.0, 5.0)
    assert pairs.ratios == [3 / 1.5, 2 / 1.5]
    assert pairs.noise == [2.0, 0.5]
    assert pairs.beside == pytest.approx([100 * (3 + 2 + 6 - 5) / 5])


def test_a_line_a_mode(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    options = ["--models", "fasterrcnn-mobilenet-320", "--passes", "1", "--batches", "3", "--batch-size", "1"]
    extraction.main([*options, "--threads", str(threads), "--clock", "cpu"])
    header, *_, first, second, third = capsys.readouterr().out.splitlines()
    assert f"{threads} thread(s), batches of 1, 1 passes, cpu clock" in header
    for line, mode in zip((first, second, third), extraction.MODES, strict=True):
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        assert cells[:3] == ["fasterrcnn-mobilenet-320", mode, str(extraction.DETECTIONS)]
        assert cells[4] == "2"
        assert len(cells) == 8
