"""Bounds of a server, and refusals on their way between processes."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH
from cval_torch.service.server.settings import Limits, RefusedError


def test_every_limit_is_a_positive_number_and_explained() -> None:
    for field in dataclasses.fields(Limits):
        value = getattr(Limits(), field.name)
        assert value > 0
        assert type(value) in (int, float)
        assert f"        {field.name}: " in str(Limits.__doc__)


def test_defaults_take_what_the_protocol_allows() -> None:
    limits = Limits()
    assert limits.id_length == MAX_FRAME_ID_LENGTH
    assert limits.answer_at_once == 10_000, "the predictions that cval.ai answers at once"
    assert limits.frames >= limits.page
    assert limits.body_bytes == 2**30


def test_limits_do_not_change() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Limits().frames = 3  # type: ignore[misc]
    assert Limits(frames=3) == Limits(frames=3) != Limits()


@pytest.mark.parametrize(("status", "detail"), [(422, "it is no JSON"), (413, "é" * 300)])
def test_a_refusal_survives_the_way_between_processes(status: int, detail: str) -> None:
    arrived = pickle.loads(pickle.dumps(RefusedError(status, detail)))
    assert isinstance(arrived, RefusedError)
    assert (arrived.status, arrived.detail) == (status, detail)
    assert detail in str(arrived)
