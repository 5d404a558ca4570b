"""The folder of a pass: who may write to it, and what may lie in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import BOTH, Outcomes, values
from watched_passes import run

from cval_torch.errors import ExtractionError, InvalidInputError


def test_a_shard_has_a_frame_or_more(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`frames_per_shard` must be at least 1; got 0"):
        run(tmp_path, frames_per_shard=0)


@pytest.fixture
def holding(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Another process that holds the lock of `tmp_path`, until called."""
    code = f"""
import fcntl, sys
file = open({str(tmp_path / "lock")!r}, "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield lambda: process.communicate() and None
    process.communicate()


def test_two_processes_do_not_share_a_folder(tmp_path: Path, holding: Callable[[], None]) -> None:
    with pytest.raises(InvalidInputError, match=r"is in use by another process: wait for it, or use another folder"):
        run(tmp_path)
    holding()
    assert len(run(tmp_path)) == 12


def test_who_holds_a_folder_is_said(tmp_path: Path, holding: Callable[[], None]) -> None:
    (tmp_path / "lock").write_text('{"process": 4321, "machine": "elsewhere"}')
    with pytest.raises(InvalidInputError, match="is in use by process 4321 on elsewhere"):
        run(tmp_path)
    holding()


def test_a_finished_pass_is_read_whoever_holds_it(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "lock").unlink()
    assert len(run(tmp_path)) == 12
    assert not (tmp_path / "lock").exists()


def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "another/1"}')
    with pytest.raises(InvalidInputError, match=r"must be the manifest of a pass of 'cval_torch.pass/1'; got 'another"):
        run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InvalidInputError, match="is not the manifest of a pass"):
        run(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error_with_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExtractionError, match=r"`cache_dir` '.*file/below' could not be read or written") as caught:
        run(tmp_path / "file" / "below")
    assert isinstance(caught.value.__cause__, OSError)


def test_several_processes_share_a_folder(two: Outcomes) -> None:
    for pools, names, read in values(two, "a_folder_is_shared"):
        assert pools == [True, True]
        assert names == ["lock", "manifest.", "part-all-"]
        assert read == []


@BOTH
def test_a_pass_goes_on_with_as_many_processes(ranks: Outcomes) -> None:
    """Of 18 frames row 13 broke, of batch 6: at least what came after the break is read again, and nothing twice."""
    outcomes = values(ranks, "a_pass_goes_on_with_as_many")
    assert all(equal for equal, _ in outcomes)
    read = [row for _, rows in outcomes for row in rows]
    assert len(read) == len(set(read)) < 18
    assert {12, 13} <= set(read)


@BOTH
def test_a_pass_of_one_goes_on_with_several(ranks: Outcomes) -> None:
    outcomes = values(ranks, "a_pass_of_one_goes_on_together")
    assert all(equal for equal, _ in outcomes)
    assert sorted(row for _, rows in outcomes for row in rows) == list(range(6, 18))
    assert all(rows for _, rows in outcomes)


def test_a_pass_of_several_goes_on_with_one(two: Outcomes) -> None:
    (equal, read), nobody = values(two, "a_pass_goes_on_alone")
    assert equal
    assert nobody is None
    assert {12, 13} <= set(read)
    assert len(read) == len(set(read)) < 18


def test_a_folder_in_use_is_refused_by_name(two: Outcomes) -> None:
    assert two[0]["a_folder_in_use_is_refused"] == {"value": None}
    kind, message = two[1]["a_folder_in_use_is_refused"]["error"]
    assert kind == "InvalidInputError"
    assert "is in use by process " in message
