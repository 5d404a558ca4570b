"""How many requests a key makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_server import KEY, serving_here
from server_calls import OTHER, Api

from cval_torch.service.server.quotas import RequestQuota
from cval_torch.service.server.settings import Limits, RefusedError


def test_too_many_requests_of_a_key_are_answered_429(tmp_path: Path) -> None:
    with serving_here(tmp_path, Limits(requests_a_minute=3), keys=[(None, KEY), ("second", OTHER)]) as url:
        api, other = Api(url), Api(url, OTHER)
        answers = [api("GET", "/strategies") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert answers[-1].json() == {"detail": "a key makes at most 3 requests a minute"}
        assert 1 <= int(answers[-1].headers["Retry-After"]) <= 20
        assert other("GET", "/strategies").status_code == 200
        api.session.close()
        other.session.close()


def test_requests_come_back_with_time() -> None:
    now = 0.0
    quota = RequestQuota(60, clock=lambda: now)
    for _ in range(60):
        quota.count("a")
    with pytest.raises(RefusedError) as caught:
        quota.count("a")
    assert caught.value.retry_after == 1
    now = 2.5
    for _ in range(2):
        quota.count("a")
    with pytest.raises(RefusedError):
        quota.count("a")
    now = 1e6
    for _ in range(60):
        quota.count("a")
    with pytest.raises(RefusedError):
        quota.count("a")
