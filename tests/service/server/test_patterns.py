"""Regular expressions of strangers."""

from __future__ import annotations

import pytest
from server_calls import Api

from cval_torch.service.server.patterns import matching
from cval_torch.service.server.settings import RefusedError


def test_datasets_are_found_by_regular_expressions(other: Api) -> None:
    for name, description in [("cats-1", "x"), ("cats-2", "y"), ("dogs", None), (None, "x")]:
        other("POST", "/dataset", {"dataset_name": name, "dataset_description": description})

    def found(**query: str) -> list[str | None]:
        return [each["dataset_name"] for each in other("GET", "/datasets/all", params=query).json()]

    assert found() == ["cats-1", "cats-2", "dogs", None]
    assert found(dataset_name="cats") == ["cats-1", "cats-2"]
    assert found(dataset_name="^.*s$") == ["dogs"]
    assert found(dataset_name="cats|dogs", dataset_description="^x") == ["cats-1"]
    assert found(dataset_description="") == ["cats-1", "cats-2", "dogs", None]
    assert found(storage_config="cloud_storage_id") == ["cats-1", "cats-2", "dogs", None]
    for bad in ("(", "(a+)+$" * 50, "a{9999999999}"):
        assert other("GET", "/datasets/all", params={"dataset_name": bad}).status_code == 422


def test_a_regular_expression_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cval_torch.service.server.patterns.SECONDS", 0.3)
    with pytest.raises(RefusedError, match="takes too long"):
        matching("(a+)+$", ["a" * 40 + "b"])
    assert matching("a.c", ["abc", None, "ac"]) == [True, False, False]
