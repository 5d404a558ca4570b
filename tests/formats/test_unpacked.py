"""Zip files of annotation tools: nothing is written outside their folder, and none fills the disk."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from cval_torch.errors import InvalidInputError
from cval_torch.formats.unpacked import unpacked


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_what_is_in_it_is_there_until_the_end(tmp_path: Path) -> None:
    with unpacked(zipped(tmp_path / "a.zip", {"labels/a.txt": b"text"})) as folder:
        assert (folder / "labels" / "a.txt").read_bytes() == b"text"
    assert not folder.exists()


def test_files_that_nobody_wants_stay_packed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a/Labels.XML": b"text", "a/image.jpg": bytes(50 << 20), "frames.json": b"{}"})
    with unpacked(path, suffixes=(".xml", "frames.json")) as folder:
        found = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
    assert found == ["a/Labels.XML", "frames.json"]


def test_folders_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    for path in (tmp_path, tmp_path / "a.json"):
        with unpacked(path) as same:
            assert same == path
        assert path.exists()


@pytest.mark.parametrize("name", ["../up.txt", "/etc/cron.d/x", "a/../../up.txt", "..\\up.txt"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(InvalidInputError, match="leads out of its folder"),
        unpacked(zipped(tmp_path / "a.zip", {name: b""})),
    ):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["a.zip"]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"bomb": bytes(50 << 20)})
    with pytest.raises(InvalidInputError, match="would unpack to 52428800 bytes"), unpacked(path):
        pass


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"a": bytes(range(256)) * 40})
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"a.zip' cannot be unpacked"), unpacked(path):
        pass
