"""Whose data a path is about; `test_keys` tries them with the keys of others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from server_calls import Api

from cval_torch.service.protocol import Dataset
from cval_torch.service.server.callers import Caller, Place
from cval_torch.service.server.settings import Limits, RefusedError


def test_a_caller_has_datasets_and_slices_within_bounds() -> None:
    asked: list[Any] = []
    store = SimpleNamespace(
        dataset=lambda owner, dataset_id: Dataset(dataset_id="d") if (owner, dataset_id) == ("me", "d") else None,
        frames=lambda *given: asked.append(given) or [(1, "f")],
    )
    service: Any = SimpleNamespace(kept=SimpleNamespace(store=store), limits=Limits(page=5))
    caller = Caller(service, "me")
    assert caller.dataset("d").dataset_id == "d"
    with pytest.raises(RefusedError, match="there is no dataset 'e'"):
        caller.dataset("e")
    place = Place(caller, "d", "test")
    assert place.slice(3, 8) == [(1, "f")]
    assert asked == [("d", "test", 3, 8)]
    with pytest.raises(RefusedError, match="a slice has at most 5 frames; got 6"):
        place.slice(3, 9)


@pytest.mark.parametrize("path", ["/dataset/none/test/embeddings", "/dataset/none/part/embeddings"])
def test_a_place_that_is_none(api: Api, path: str) -> None:
    assert api("GET", path).status_code == (422 if "part" in path else 404)
