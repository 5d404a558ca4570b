"""A clock of its own for every test of the client."""

from __future__ import annotations

import pytest
from client_calls import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
