"""How many requests an owner makes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from cval_torch.service.server.settings import RefusedError


class RequestQuota:
    """So many requests a minute for each owner. Who made none for a while may make all of them at once.

    Args:
        a_minute: how many.
        clock: in seconds.
    """

    def __init__(self, a_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._a_minute, self._clock = a_minute, clock
        self._left: dict[str, tuple[float, float]] = {}  # by owner: how many were left, and when

    def count(self, owner: str) -> None:
        """Count a request.

        Raises:
            RefusedError: 429, there were too many; it says when to come again.
        """
        now = self._clock()
        left, then = self._left.get(owner, (float(self._a_minute), now))
        left = min(float(self._a_minute), left + (now - then) * self._a_minute / 60)
        if left < 1:
            self._left[owner] = (left, now)
            seconds = math.ceil((1 - left) * 60 / self._a_minute)
            raise RefusedError(429, f"a key makes at most {self._a_minute} requests a minute", retry_after=seconds)
        self._left[owner] = (left - 1, now)
