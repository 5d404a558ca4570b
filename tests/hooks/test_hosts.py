"""A host's classes and modules are found by their names."""

from __future__ import annotations

import pytest
from torch import nn

from cval_torch.errors import HookError
from cval_torch.hooks.hosts import classes_of, parts_of_network, row_of


class Own(nn.Conv2d):
    pass


def test_only_the_packages_own_classes_count_the_nearest_first() -> None:
    own = Own(1, 1, 1)
    assert classes_of(own, "torch") == ["Conv2d", "_ConvNd", "Module"], "the user's own class is none of them"
    assert classes_of(own, "torc") == [], "a package is named whole"
    assert row_of(own, "torch", {"Module": 1, "Conv2d": 2}) == 2
    assert row_of(own, "torch", {"Own": 1}) is None


def test_parts_are_found_or_the_missing_one_is_named() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU()))
    assert parts_of_network(model, {"act": "0.0"}, built_as="a tower is") == {"act": model[0][0]}
    with pytest.raises(HookError, match=r"Sequential is not built as a tower is: .*`1`.* Read it by an adapter"):
        parts_of_network(model, {"act": "0.1"}, built_as="a tower is")
