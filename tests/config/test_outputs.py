"""What a run leaves behind: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.config.outputs import OutputFolder, versions
from cval_torch.errors import InvalidInputError


def folder(tmp_path: Path, *, resume: bool = False) -> OutputFolder:
    return OutputFolder(tmp_path / "out", exist_ok=False, resume=resume)


def test_the_pass_lies_beside_and_goes_at_the_end(tmp_path: Path) -> None:
    output = folder(tmp_path)
    with output.pass_kept(on_disk=True) as place:
        assert place == tmp_path / ".out.pass"
        place.mkdir()
    assert list(tmp_path.iterdir()) == []
    with output.pass_kept(on_disk=False) as place:
        assert place is None


@pytest.mark.parametrize("resume", [False, True])
def test_after_an_error_the_pass_stays_only_to_be_resumed(tmp_path: Path, resume: bool) -> None:
    output = folder(tmp_path, resume=resume)
    with pytest.raises(KeyboardInterrupt):
        stop(output)
    assert (tmp_path / ".out.pass").exists() == resume
    with folder(tmp_path, resume=True).pass_kept(on_disk=False) as place:
        assert place is not None
        assert (place / "shard").exists() == resume


def stop(output: OutputFolder) -> None:
    with output.pass_kept(on_disk=True) as place:
        assert place is not None
        place.mkdir()
        (place / "shard").touch()
        raise KeyboardInterrupt


def test_the_pass_of_an_earlier_run_is_not_taken_unasked(tmp_path: Path) -> None:
    (tmp_path / ".out.pass").mkdir()
    with folder(tmp_path).pass_kept(on_disk=True) as place:
        assert place is not None
        assert not place.exists()


def test_other_ranks_leave_it_alone(tmp_path: Path) -> None:
    with folder(tmp_path).pass_kept(on_disk=True, rank=1) as place:
        assert place is not None
        place.mkdir()
    assert (tmp_path / ".out.pass").exists()


def test_what_cannot_be_written_is_known_before_anything_is_inferred(tmp_path: Path) -> None:
    folder(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(InvalidInputError, match="is not empty"):
        folder(tmp_path).check()


def test_versions() -> None:
    assert {"python", "cval_torch", "torch", "torchvision"} <= set(versions())
