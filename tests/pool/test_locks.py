"""A lock on a folder, taken by processes that know nothing of each other."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
from forked import beside, in_child

from cval_torch.errors import InvalidInputError
from cval_torch.pool.locks import FolderLock


def alone(path: Path) -> FolderLock:
    lock = FolderLock(path)
    lock.alone()
    return lock


def together(path: Path) -> FolderLock:
    lock = FolderLock(path)
    lock.together()
    return lock


@pytest.mark.parametrize(
    ("there", "here", "free"),
    [(alone, alone, False), (alone, together, False), (together, alone, False), (together, together, True)],
)
def test_who_may_hold_it_beside_whom(tmp_path: Path, there: object, here: object, free: bool) -> None:
    path = tmp_path / "pass" / "lock"
    with beside(lambda: there(path)):  # type: ignore[operator]
        if free:
            here(path).release()  # type: ignore[operator]
        else:
            with pytest.raises(InvalidInputError, match=r"`cache_dir` '.*pass' is in use by .*: wait for it, or"):
                here(path)  # type: ignore[operator]
    here(path).release()  # type: ignore[operator]


def test_the_holder_is_named(tmp_path: Path) -> None:
    """Whoever held it before."""
    in_child(lambda: alone(tmp_path / "lock").release())
    with beside(lambda: alone(tmp_path / "lock")) as holder:
        with pytest.raises(InvalidInputError) as caught:
            alone(tmp_path / "lock")
        assert f"in use by process {holder} on {socket.gethostname()}: " in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"process": 3}'])
def test_a_file_that_names_nobody_is_no_trouble(tmp_path: Path, content: str) -> None:
    with beside(lambda: alone(tmp_path / "lock")):
        (tmp_path / "lock").write_text(content)
        with pytest.raises(InvalidInputError, match="is in use by another process: "):
            alone(tmp_path / "lock")


def test_it_is_let_go_on_release_and_taken_again(tmp_path: Path) -> None:
    lock = alone(tmp_path / "lock")
    assert in_child(lambda: alone(tmp_path / "lock"))[0] == "InvalidInputError"
    lock.release()
    lock.release()
    assert in_child(lambda: alone(tmp_path / "lock").release()) is None
    assert (tmp_path / "lock").exists()


def test_the_system_lets_it_go_when_its_holder_is_killed(tmp_path: Path) -> None:
    with beside(lambda: alone(tmp_path / "lock")) as holder:
        os.kill(holder, signal.SIGKILL)
        os.waitid(os.P_PID, holder, os.WEXITED | os.WNOWAIT)
        alone(tmp_path / "lock").release()


def test_a_child_of_the_holder_does_not_hold_it(tmp_path: Path) -> None:
    """A loader's worker outlives the process that made it for a moment."""
    lock = alone(tmp_path / "lock")
    with beside(lambda: lock):
        lock.release()
        assert in_child(lambda: alone(tmp_path / "lock").release()) is None


def test_from_alone_to_together(tmp_path: Path) -> None:
    lock = alone(tmp_path / "lock")
    lock.together()
    assert in_child(lambda: together(tmp_path / "lock").release()) is None
    assert in_child(lambda: alone(tmp_path / "lock"))[0] == "InvalidInputError"
    lock.release()


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        FolderLock(tmp_path / "file" / "lock")
