"""The form of columns, one by one; `test_pool.py` has what a whole pool says of them."""

from __future__ import annotations

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.pool.column_checks import as_rows, check_column, check_frame_ids, check_offsets

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", ""], "got '' in row 1"),
        (["a", "b", "a"], "got 'a' again in row 2"),
        ([3], "strings of 1 to 128"),
        (["x" * 129], "in row 0"),
    ],
)
def test_ids(ids: list[str], message: str) -> None:
    check_frame_ids(["a", "x" * 128])
    with pytest.raises(InvalidInputError, match=message):
        check_frame_ids(ids)


@pytest.mark.parametrize("offsets", [[0, 2], [1, 2, 3], [0, 2, 1]])
def test_offsets(offsets: list[int]) -> None:
    check_offsets(torch.tensor([0, 0, 3]), 2)
    with pytest.raises(InvalidInputError, match="`offsets` must"):
        check_offsets(torch.tensor(offsets), 2)
    with pytest.raises(InvalidInputError, match="int64"):
        check_offsets(torch.tensor([0.0, 1.0]), 1)


@pytest.mark.parametrize(
    ("name", "column", "message"),
    [
        ("scores", torch.ones(3, 1), r"\(B,\) with B=3 boxes"),
        ("boxes", torch.ones(3, 5), r"\(B, 4\)"),
        ("labels", torch.ones(3), "must be int64"),
        ("scores", torch.ones(3, dtype=torch.int64), "floating point"),
        ("frame_embeddings", torch.ones(2, 5), r"\(F, D\) with F=3"),
        ("scores", [1.0], "must be a tensor"),
        ("scores", torch.ones(3, device="meta"), "must be on cpu"),
    ],
)
def test_columns(name: str, column: torch.Tensor, message: str) -> None:
    check_column("probabilities", torch.ones(3, 7), rows=3, device=CPU)
    with pytest.raises(InvalidInputError, match=message):
        check_column(name, column, rows=3, device=CPU)


def test_rows() -> None:
    assert as_rows([2, 0], 3, CPU).tolist() == [2, 0]
    assert as_rows([], 3, CPU).dtype == torch.int64
    for wrong in ([0, 0], [3], [-1], [0.5], [[0]], [True]):
        with pytest.raises(InvalidInputError, match="`rows` must"):
            as_rows(wrong, 3, CPU)  # type: ignore[arg-type]
