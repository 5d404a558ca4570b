"""Deadlines that hold whatever the server does, and waits between attempts."""

from __future__ import annotations

import contextlib
import email.utils
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

Clock = Callable[[], float]

_MAX_DIGITS = 12


class Deadline:
    """A point in time on a monotonic clock.

    Args:
        seconds: from now.
        clock: in seconds.
    """

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    def remaining(self) -> float:
        """Seconds that are left; negative once it has passed."""
        return self._end - self._clock()

    def within(self, seconds: float) -> Deadline:
        """This deadline, or one that many seconds from now if that is earlier."""
        return Deadline(min(seconds, self.remaining()), clock=self._clock)


class Backoff:
    """Waits that double, each cut by a random part so that many clients do not come back at once.

    Args:
        first: seconds, about the first wait.
        ceiling: seconds, the longest wait.
        jitter: gives a number in [0, 1); the wait lies in (half, whole] of its step.
    """

    def __init__(self, first: float, ceiling: float, *, jitter: Callable[[], float] = random.random) -> None:
        self._step, self._ceiling, self._jitter = first, ceiling, jitter

    def next(self) -> float:
        """Seconds to wait now."""
        step = min(self._step, self._ceiling)
        self._step = step * 2
        return step * (1 - self._jitter() / 2)


def retry_after(header: str | None, *, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks to wait; None if it asks nothing that can be understood.

    Args:
        header: whole seconds, or an HTTP date; anything else, a negative number or a past date counts as none.
        now: unix seconds.

    >>> retry_after("120", now=0), retry_after("soon", now=0), retry_after("-5", now=0)
    (120.0, None, None)
    >>> retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=45)
    15.0
    """
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text) if len(text) <= _MAX_DIGITS else float("inf")
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment - now if moment > now else None


class Watchdog:
    """Shuts the socket of the request that runs inside this context once the time is over.

    `requests` takes its timeout for each read, so a server that drips a byte a second is never late; this is.

    Attributes:
        expired: whether the time ran out; the request has then failed with some error of a broken connection.
    """

    def __init__(self, seconds: float) -> None:
        self.expired = False
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(seconds, 0), self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Watchdog:
        self._token = _watchdog.set(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._timer.cancel()
        _watchdog.reset(self._token)
        with self._lock:
            self._let_go()

    def watch(self, connected: socket.socket) -> None:
        """Take over the socket that the request goes through.

        A duplicate is kept: TLS makes another object of a socket, and what is shut by one is shut for all.
        """
        duplicate = socket.socket(fileno=os.dup(connected.fileno()))
        with self._lock:
            self._let_go()
            self._socket = duplicate
            expired = self.expired
        if expired:
            self._shut()

    def leave(self, connected: socket.socket) -> None:
        """Leave the socket to a TLS handshake, whose total time is bounded by the timeout of its socket.

        A socket that is shut while Python wraps it is let go without being closed.

        Raises:
            TimeoutError: the time is over.
        """
        with self._lock:
            self._let_go()
            if self.expired:
                raise TimeoutError("the time was over before the TLS handshake")
        remaining = max(0.001, self._end - time.monotonic())
        timeout = connected.gettimeout()
        connected.settimeout(remaining if timeout is None else min(timeout, remaining))

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
        self._shut()

    def _shut(self) -> None:
        with self._lock:
            if self._socket is not None:
                with contextlib.suppress(OSError):  # it is closed already
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _let_go(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


_watchdog: ContextVar[Watchdog | None] = ContextVar("watchdog", default=None)


def _watch(connected: socket.socket | None) -> None:
    watchdog = _watchdog.get()
    if watchdog is not None and connected is not None:
        watchdog.watch(connected)


def _leave(connected: socket.socket) -> None:
    watchdog = _watchdog.get()
    if watchdog is not None:
        watchdog.leave(connected)


class _Watched(HTTPConnection):
    """Watches a socket from the moment when it is connected: a proxy's answer and a TLS handshake may drip, too."""

    debuglevel = 0  # `http.client.HTTPConnection.debuglevel = 1` prints the headers, and so the key, of all others

    def _new_conn(self) -> socket.socket:
        connected: socket.socket = super()._new_conn()
        _watch(connected)
        return connected

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        _watch(self.sock)  # that of an earlier request may be used again
        super().putrequest(method, url, skip_host, skip_accept_encoding)


class _WatchedTLSConnection(_Watched, HTTPSConnection):
    """Leaves a socket to its handshake. One within the TLS of a proxy wraps no socket, and is watched."""

    _within_tls = False

    def _new_conn(self) -> socket.socket:
        self._within_tls = False
        connected = super()._new_conn()
        if self._tunnel_host is None:
            _leave(connected)
        return connected

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> Any:
        _leave(sock)
        wrapped = super()._connect_tls_proxy(hostname, sock)
        self._within_tls = True
        _watch(wrapped)
        return wrapped

    def _tunnel(self) -> None:
        super()._tunnel()
        if not self._within_tls and self.sock is not None:
            _leave(self.sock)


class _WatchedPool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _WatchedTLSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTLSConnection


_POOLS = {"http": _WatchedPool, "https": _WatchedTLSPool}


class WatchedAdapter(HTTPAdapter):
    """The transport of `requests`, with connections that a `Watchdog` can shut, through a proxy too."""

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        """As of `HTTPAdapter`."""
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """As of `HTTPAdapter`."""
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
