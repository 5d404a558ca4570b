"""The file of a pool: what was written comes back, and what is no such file, or another, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool_file import FILE_FORMAT, check_bytes, read_pool_file, write_pool_file

NAMED = {"frame_ids": '["a"]', "activation": None, "ids_from": "row", "skipped": "[]"}


@pytest.mark.parametrize("mmap", [True, False])
def test_columns_and_names_come_back(tmp_path: Path, mmap: bool) -> None:
    columns = {
        "offsets": torch.tensor([0, 2]),
        "embedded": torch.tensor([True, False]),
        "half": torch.rand(2, 3).half(),
    }
    write_pool_file(tmp_path / "file", columns, NAMED)
    payload = read_pool_file(tmp_path / "file", mmap=mmap)
    assert {name: payload[name] for name in NAMED} == NAMED
    assert payload["columns"].keys() == columns.keys()
    assert all(torch.equal(payload["columns"][name], column) for name, column in columns.items())
    check_bytes(payload)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["offsets", "frame_ids"])
def test_what_was_changed_is_found_out(tmp_path: Path, name: str) -> None:
    write_pool_file(tmp_path / "file", {"offsets": torch.tensor([0, 2])}, NAMED)
    payload = read_pool_file(tmp_path / "file", mmap=False)
    if name == "offsets":
        payload["columns"]["offsets"][1] = 3
    else:
        payload[name] = '["b"]'
    with pytest.raises(InvalidInputError, match="its numbers or ids are not those that were written"):
        check_bytes(payload)


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no pool")
    with pytest.raises(InvalidInputError, match="is not a saved Pool"):
        read_pool_file(tmp_path / "text", mmap=True)
    torch.save({"format": "another"}, tmp_path / "other")
    with pytest.raises(InvalidInputError, match=f"is not a saved Pool of format '{FILE_FORMAT}'; got 'another'"):
        read_pool_file(tmp_path / "other", mmap=False)
    with pytest.raises(FileNotFoundError):
        read_pool_file(tmp_path / "missing", mmap=False)
