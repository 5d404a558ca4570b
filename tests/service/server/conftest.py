"""One server for the tests of a file, and a session for each of two keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import KEY, serving_here
from server_calls import LIMITS, OTHER, Api


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def url(data: Path) -> Iterator[str]:
    with serving_here(data, LIMITS, keys=[(None, KEY), ("second", OTHER)]) as url:
        yield url


@pytest.fixture(scope="module")
def api(url: str) -> Iterator[Api]:
    api = Api(url)
    yield api
    api.session.close()


@pytest.fixture(scope="module")
def other(url: str) -> Iterator[Api]:
    other = Api(url, OTHER)
    yield other
    other.session.close()
