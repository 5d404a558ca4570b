"""Columns that grow batch by batch, against `torch.cat`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.pool import growing
from cval_torch.pool.growing import GrowingColumn

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool]


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    width=st.sampled_from([None, 0, 1, 7]),
    dtype=st.sampled_from(DTYPES),
    block=st.sampled_from([8, 64, 2**20]),
)
@settings(max_examples=80, deadline=None)
def test_against_cat(sizes: list[int], width: int | None, dtype: torch.dtype, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growing, "_BLOCK", block)
        parts = [(10 * torch.randn(size if width is None else (size, width))).to(dtype) for size in sizes]
        column = GrowingColumn()
        for part in parts:
            column.append(part)
        assert len(column) == sum(sizes)
        joined = column.join()
    assert joined.dtype == dtype
    assert torch.equal(joined, torch.cat(parts))


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_a_file(tmp_path: Path, dtype: torch.dtype) -> None:
    parts = [torch.randn(5, 3).to(dtype), torch.randn(2, 3).to(dtype)]
    column = GrowingColumn(tmp_path / "rows")
    for part in parts:
        column.append(part)
    assert torch.equal(column.join(), torch.cat(parts))
    assert (tmp_path / "rows").stat().st_size == torch.cat(parts).nbytes


def test_no_rows(tmp_path: Path) -> None:
    for path in (None, tmp_path / "rows"):
        column = GrowingColumn(path)
        column.append(torch.empty(0, 4))
        assert column.join().shape == (0, 4)
    with pytest.raises(ValueError, match="nothing is known"):
        GrowingColumn().join()


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("mine")
    with pytest.raises(FileExistsError):
        GrowingColumn(tmp_path / "rows").append(torch.ones(1))
    assert (tmp_path / "rows").read_text() == "mine"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_number_that_stands_for_many(count: int) -> None:
    column = GrowingColumn()
    column.append(torch.tensor(2.5).expand(count))
    assert column.join().tolist() == [2.5] * count


def test_strided_rows_are_taken_as_they_read() -> None:
    rows = torch.arange(12).view(3, 4).T
    column = GrowingColumn()
    column.append(rows)
    assert torch.equal(column.join(), rows)
