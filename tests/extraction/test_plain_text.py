"""Values as text: the same for the same value, in every process; another for another."""

from __future__ import annotations

import enum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cval_torch.extraction.plain_text import SHOWN, array_text, plain_text, shortened, tensor_text

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


class Colour(enum.Enum):
    RED = 1


def lists_as_tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(lists_as_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: lists_as_tuples(item) for key, item in reversed(value.items())}
    return value


@given(one=PLAIN, other=PLAIN)
def test_texts_are_equal_exactly_if_the_values_are(one: Any, other: Any) -> None:
    assert plain_text(one) is not None
    assert plain_text(one) == plain_text(lists_as_tuples(one))
    if repr(lists_as_tuples(one)) == repr(lists_as_tuples(other)):
        assert plain_text(one) == plain_text(other)
    elif one != other and not any(isinstance(value, str) for value in (one, other)):
        paths = any(mark in repr((one, other)) for mark in "/\\")  # files of other folders read alike
        assert paths or plain_text(one) != plain_text(other)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (True, "True"),
        (0.1, "0.1"),
        ("a", "'a'"),
        (b"ab", "2 bytes fb8e20fc2e4c3f24"),
        ([1], "(1,)"),
        ((), "()"),
        (set(), "{}"),
        ({"b", "a"}, "{'a', 'b'}"),
        (frozenset({2, 1}), "{1, 2}"),
        ({"b": [1, 2], "a": None}, "{'a': None, 'b': (1, 2)}"),
        (Colour.RED, "Colour.RED"),
        (torch.float16, "torch.float16"),
        (torch.Size([1, 2]), "(1, 2)"),
        (np.float32(0.5), "0.5"),
        (range(3), "range(0, 3)"),
        (slice(1, 5), "(1, 5, None)"),
        (nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (torch.device("cuda:1"), "a device"),
        ("cuda:0", "a device"),
        ("cudas", "'cudas'"),
        ("/a/weights/best.pt", "the file 'best.pt'"),
        ("C:\\weights\\best.pt", "the file 'best.pt'"),
        ("weights/best.pt", "'weights/best.pt'"),
        (PurePosixPath("/a/b"), "the file 'b'"),
    ],
)
def test_each_kind_of_plain_value(value: Any, text: str) -> None:
    assert plain_text(value) == text


@pytest.mark.parametrize(
    "value", [object(), slice(object()), torch.zeros(1), np.zeros(1), nn.ReLU(), len, [object()], {"a": lambda: 0}]
)
def test_other_values_are_not_plain(value: Any) -> None:
    assert plain_text(value) is None


def test_a_container_within_itself_is_not_plain() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert plain_text(loop) is None


def test_long_texts_are_cut_and_still_told_apart() -> None:
    one, other = "a" * 500, "a" * 499 + "b"
    assert shortened("short") == "short"
    assert len(shortened(one)) < SHOWN + 30
    assert shortened(one) != shortened(other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_tensors_are_dtype_shape_and_numbers(dtype: torch.dtype) -> None:
    few, many = torch.arange(3).to(dtype), torch.arange(20).to(dtype)
    assert tensor_text(few).startswith(f"{dtype}".removeprefix("torch."))
    changed = many.clone()
    changed[3] = 0
    texts = {tensor_text(each) for each in (few, many, changed, many.reshape(4, 5), many.reshape(5, 4))}
    assert len(texts) == 5
    assert tensor_text(many.reshape(4, 5).T.contiguous().T) == tensor_text(many.reshape(4, 5))
    assert tensor_text(nn.Parameter(few, requires_grad=False)) == tensor_text(few)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
def test_tensors_of_other_kinds() -> None:
    dense = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    for made in (
        lambda value: value.to_sparse(),
        lambda value: value.to_sparse_csr(),
        lambda value: torch.view_as_complex(torch.stack([value, -value], -1)).conj(),
        lambda value: value.expand(3, 2, 2),
    ):
        assert tensor_text(made(dense)) == tensor_text(made(dense.clone()))
        assert tensor_text(made(dense)) != tensor_text(made(dense * 3))
    assert tensor_text(torch.empty(2, 3, device="meta")) == tensor_text(torch.empty(2, 3, device="meta"))
    assert tensor_text(nn.LazyLinear(2).weight) == "float32 uninitialized"
    assert tensor_text(torch.zeros(0, 4)) != tensor_text(torch.zeros(4, 0))


def test_arrays() -> None:
    assert array_text(np.arange(6).reshape(2, 3)) == array_text(np.asfortranarray(np.arange(6).reshape(2, 3)))
    others = [np.arange(6), np.arange(6.0), np.arange(6)[::-1], np.arange(6).reshape(2, 3), np.array(["a", None])]
    assert len({array_text(array) for array in others}) == len(others)
    assert array_text(np.array([Path("/a/b"), None])) == array_text(np.array([Path("/c/b"), None]))
