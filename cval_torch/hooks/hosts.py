"""What adapters share that look for a host's classes and modules without importing the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import nn

from cval_torch.errors import HookError

Row = TypeVar("Row")


def classes_of(thing: object, package: str) -> list[str]:
    """The names of a package's classes that `thing` is an instance of, its own class first.

    >>> classes_of(nn.Conv2d(1, 1, 1), "torch")
    ['Conv2d', '_ConvNd', 'Module']
    """
    return [kind.__name__ for kind in type(thing).__mro__ if kind.__module__.startswith(f"{package}.")]


def row_of(thing: object, package: str, table: Mapping[str, Row]) -> Row | None:
    """What a table has for the class of `thing`, or for the nearest that it derives from; None: nothing."""
    return next((table[name] for name in classes_of(thing, package) if name in table), None)


def parts_of_network(model: nn.Module, places: Mapping[str, str], *, built_as: str) -> dict[str, nn.Module]:
    """The modules at some places of a host's network.

    Args:
        model: the network.
        places: by the name to give, the dotted name of the module.
        built_as: how such networks are built, for errors, such as "EfficientDet is".

    Raises:
        HookError: the network does not have one of them.
    """
    try:
        return {name: model.get_submodule(place) for name, place in places.items()}
    except AttributeError as error:
        raise HookError(
            f"{type(model).__name__} is not built as {built_as}: {error}. Read it by an adapter of your own "
            "(`adapter=`)"
        ) from None
