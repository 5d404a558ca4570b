"""`PassOptions`, and the defaults that stand in one place."""

from __future__ import annotations

import dataclasses
import inspect

from cval_torch import DetectionSampling, extract, select
from cval_torch.extraction.options import PassOptions


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
