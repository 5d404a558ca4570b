"""`PassOptions`, and the defaults that stand in one place."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import torch

from cval_torch import DetectionSampling, extract, select
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.options import OPTIONAL_COLUMNS, PassOptions


def test_defaults_are_those_of_the_models_that_own_them() -> None:
    """The signatures say the defaults again, for editors to show: they must not drift apart."""
    owners = {
        **{name: field.default for name, field in DetectionSampling.model_fields.items() if not field.is_required()},
        **{field.name: field.default for field in dataclasses.fields(PassOptions)},
    }
    for function in (extract, select):
        for name, parameter in inspect.signature(function).parameters.items():
            if name in owners:
                assert parameter.default == owners[name], f"{function.__name__}: {name}"


@pytest.mark.parametrize("dropped", [(), ("probabilities",), ("box_embeddings", "frame_embeddings"), OPTIONAL_COLUMNS])
def test_the_columns_that_are_left_out(dropped: tuple[str, ...]) -> None:
    assert PassOptions(**dict.fromkeys(dropped, False)).dropped == dropped  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_embeddings_are_floating_point(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidInputError, match=f"`embedding_dtype` must be a floating point dtype; got {dtype}"):
        PassOptions(embedding_dtype=dtype)
    for fine in (None, torch.float16, torch.bfloat16, torch.float64):
        assert PassOptions(embedding_dtype=fine).embedding_dtype is fine


def test_options_are_named_and_do_not_change() -> None:
    with pytest.raises(TypeError, match="positional"):
        PassOptions(None)  # type: ignore[misc]
    with pytest.raises(AttributeError):
        PassOptions().progress = False  # type: ignore[misc]
