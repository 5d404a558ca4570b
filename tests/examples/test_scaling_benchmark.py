"""One process against two, with a few frames: they choose the same, and a table says what it took."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scaling


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two processes need two cores")
def test_a_line_a_task() -> None:
    few = ["--frames", "400", "--repeats", "1", "--tasks", "k_center"]
    done = subprocess.run(
        [sys.executable, Path(scaling.__file__), *few], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| k_center"]
    assert {line.count("|") for line in lines} == {11}


def test_shares_are_of_the_same_frames() -> None:
    whole, _ = scaling.make_share(50, 0, 1)
    halves = [scaling.make_share(50, rank, 2) for rank in (0, 1)]
    for pool, rows in halves:
        assert pool.frame_ids == whole.take(rows).frame_ids
        assert bool((pool.box_embeddings == whole.take(rows).box_embeddings).all())


def test_what_the_model_says_by_hand() -> None:
    one, two = {"seconds": 10.0}, {"alone": 2.0, "orders": 100, "bytes": 6e6}
    assert scaling.model_of(one, two, 2, 0.01, 3e6) == pytest.approx(2 + 8 / 2 + 1 + 2)
    assert scaling.model_of(one, two, 8, 0.01, 3e6) == pytest.approx(2 + 8 / 8 + 3 + 2)
