"""One call to the service: a total deadline, retries where they are safe, strict JSON, typed errors."""

from __future__ import annotations

import http.client
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, BinaryIO, TypeVar

import requests
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from requests.exceptions import ChunkedEncodingError, ConnectionError, ConnectTimeout, RequestException  # noqa: A004
from urllib3.exceptions import NewConnectionError

from cval_torch.errors import (
    AuthenticationError,
    DeadlineExceededError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestRejectedError,
    ResponseError,
    ServerFaultError,
    ServiceError,
    ServiceUnreachableError,
)
from cval_torch.service.client.deadline import Backoff, Clock, Deadline, Watchdog, WatchedAdapter, retry_after
from cval_torch.service.client.key import ApiKey, KeyAuth

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Body = bytes | BinaryIO
MAX_ANSWER_BYTES = 1 << 30
MAX_ATTEMPTS = 6
CONNECT_SECONDS = 10.0
DISTRUSTED = "`verify` takes the file of the authority that signed the service's certificate, `cert` one's own"

_KINDS: dict[int, type[ResponseError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: NotFoundError,
    429: RateLimitedError,
}


@dataclass(frozen=True)
class Trust:
    """Whose certificates count.

    Attributes:
        verify: True for the authorities that `requests` knows, or a file or folder of those that sign the service's
            certificate.
        cert: what the client shows of itself: a file with certificate and key, or both files.
    """

    verify: bool | str = True
    cert: str | tuple[str, str] | None = None


@dataclass(frozen=True)
class _Call:
    """What is asked, until when, and whether it may be asked twice."""

    method: str
    path: str
    deadline: Deadline
    query: Mapping[str, str | int | None] | None
    body: Body | None
    repeatable: bool

    @property
    def what(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}"


@dataclass
class _Reply:
    """What came back from one attempt: an answer, or the way in which there was none."""

    status: int = 0
    headers: Mapping[str, str] | None = None
    body: bytes = b""
    trouble: str | None = None
    sent: bool = True
    late: bool = False
    truncated: bool = False
    too_long: bool = False
    distrusted: bool = False

    def header(self, name: str) -> str | None:
        return self.headers.get(name) if self.headers else None


class Transport:
    """Speaks JSON with one service.

    Args:
        base_url: such as `https://cval.ai/api`.
        key: sent to that host only. Redirects are not followed.
        trust: the certificates on both sides; see `Trust`.
        clock: monotonic seconds.
        wall_clock: unix seconds, for a `Retry-After` that is a date.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        base_url: str,
        key: ApiKey,
        trust: Trust = Trust(),
        *,
        clock: Clock = time.monotonic,
        wall_clock: Clock = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url
        self.clock, self.sleep = clock, sleep
        self._key, self._wall_clock = key, wall_clock
        self._auth, self._trust = KeyAuth(key, base_url), trust
        self._session, self._process = self._new_session(), os.getpid()

    def close(self) -> None:
        """Close the kept connections."""
        self._session.close()

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self._auth
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # none is kept, so none is sent
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter())
        return session

    def _own_session(self) -> requests.Session:
        """That of this process: on connections that a fork shares, one process reads what another one asked for."""
        if self._process != os.getpid():
            self._session, self._process = self._new_session(), os.getpid()
        return self._session

    def call(
        self,
        method: str,
        path: str,
        answer: TypeAdapter[Answer],
        *,
        deadline: Deadline,
        query: Mapping[str, str | int | None] | None = None,
        body: Body | None = None,
        repeatable: bool = True,
    ) -> Answer:
        """Send a request, and read its answer.

        Args:
            method: of HTTP.
            path: after the base URL, its parts already quoted.
            answer: what the JSON must be.
            deadline: of the whole call, waits and repeats included.
            query: None values are left out.
            body: JSON.
            repeatable: whether doing it twice is the same as once. If not, it is repeated only where the service
                surely did nothing: no connection was made, or it said 429 or 503.

        Raises:
            ServiceUnreachableError, DeadlineExceededError, ProtocolError, ResponseError: see `errors`.
        """
        request = _Call(method, path, deadline, query, body, repeatable)
        value, error = self._settled(request, answer)
        if error is not None:
            raise error  # from here, where no frame of the traceback holds what the service sent, which may be the key
        result: Answer = value
        return result

    def _settled(self, call: _Call, answer: TypeAdapter[Answer]) -> tuple[Any, ServiceError | None]:
        """The answer, or the error, after as many attempts as it takes."""
        backoff = Backoff(0.25, 30.0)
        deadline = call.deadline
        for attempt in range(1, MAX_ATTEMPTS + 1):
            if deadline.remaining() <= 0:
                break
            reply = self._attempt(call)
            wait = self._wait_before_repeating(reply, backoff, repeatable=call.repeatable)
            if wait is None or attempt == MAX_ATTEMPTS or wait >= deadline.remaining():
                try:
                    return self._read(reply, call.what, answer, deadline), None
                except ServiceError as error:
                    error.__traceback__ = error.__context__ = None
                    return None, error
            logger.info(
                "%s: %s; again in %.1f s", call.what, self._key.redact(reply.trouble or str(reply.status)), wait
            )
            self.sleep(wait)
        return None, DeadlineExceededError(f"{call.what} had no answer within {deadline.seconds:.3g} s")

    def _attempt(self, call: _Call) -> _Reply:
        """One request. Failures are returned, so that no traceback holds frames that know the key."""
        if call.body is not None and not isinstance(call.body, bytes):
            call.body.seek(0)
        seconds = call.deadline.remaining()
        with Watchdog(seconds) as watchdog:
            try:
                with self._own_session().request(
                    call.method,
                    self.base_url + call.path,
                    params=call.query,
                    data=call.body,
                    headers={"Content-Type": "application/json", "Accept": "application/json"},
                    timeout=(min(CONNECT_SECONDS, seconds), seconds),
                    allow_redirects=False,
                    verify=self._trust.verify,
                    cert=self._trust.cert,
                    stream=True,
                ) as response:
                    content, too_long = _content(response)
                    # a socket shut in the middle of the headers, or of a body without a length, looks like its end
                    late = watchdog.expired
                    return _Reply(response.status_code, response.headers, content, late=late, too_long=too_long)
            except (RequestException, OSError, ValueError) as error:
                return _Reply(
                    trouble=_describe(error),
                    sent=not _never_sent(error),
                    late=watchdog.expired or call.deadline.remaining() <= 0,
                    truncated=_is_truncated(error),
                    distrusted=_is_distrust(error),
                )

    def _wait_before_repeating(self, reply: _Reply, backoff: Backoff, *, repeatable: bool) -> float | None:
        """Seconds to wait before the request is sent again; None if it is not."""
        if reply.late or reply.distrusted:
            return None
        if reply.trouble is not None:
            return backoff.next() if repeatable or not reply.sent else None
        if reply.status in (429, 503) or (repeatable and reply.status in (502, 504)):
            asked = retry_after(reply.header("Retry-After"), now=self._wall_clock())
            return backoff.next() if asked is None else asked
        return None

    def _read(self, reply: _Reply, what: str, answer: TypeAdapter[Answer], deadline: Deadline) -> Answer:
        if reply.late:
            raise DeadlineExceededError(f"{what} had no answer within {deadline.seconds:.3g} s")
        if reply.truncated:
            raise ProtocolError(f"{what}: the answer ended before its end")
        if reply.trouble is not None:
            remedy = f"; {DISTRUSTED}" if reply.distrusted else ""
            raise ServiceUnreachableError(f"{what}: {self._key.redact(reply.trouble)}{remedy}")
        if reply.too_long:
            raise ProtocolError(f"{what}: the answer is longer than {MAX_ANSWER_BYTES} bytes")
        if 300 <= reply.status < 400:
            target = self._key.redact(str(reply.header("Location")))[:200]
            raise ProtocolError(
                f"{what} was answered with a redirect ({reply.status}) to {target!r}; it is not followed, "
                "for the key would go along: set `base_url` to where the service is"
            )
        try:
            parsed = from_json(reply.body, allow_inf_nan=False) if reply.body else None
        except ValueError:
            parsed = None
            if reply.status < 400:
                kind = str(reply.header("Content-Type"))[:60]
                raise ProtocolError(f"{what}: the answer is not JSON but {kind}, {len(reply.body)} bytes") from None
        if not 200 <= reply.status < 300:
            raise self._error(reply.status, what, parsed)
        return self._validated(parsed, what, answer)

    def _validated(self, parsed: Any, what: str, answer: TypeAdapter[Answer]) -> Answer:
        try:
            return answer.validate_python(parsed)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "all of it"
            message = self._key.redact(f"{what}: the answer is not what the protocol has; {where}: {first['msg']}")
        raise ProtocolError(message)

    def _error(self, status: int, what: str, parsed: Any) -> ResponseError:
        detail = parsed.get("detail") if isinstance(parsed, dict) else None
        said = f": {self._key.redact(str(detail))[:500]}" if detail else ""
        kind = _KINDS.get(status) or (ServerFaultError if status >= 500 else RequestRejectedError)
        return kind(f"{what} was answered {status}{said}", status=status)


def _content(response: requests.Response) -> tuple[bytes, bool]:
    """The body, and whether it was cut because it is too long."""
    pieces, size = [], 0
    for piece in response.iter_content(1 << 16):
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            return b"", True
        pieces.append(piece)
    return b"".join(pieces), False


def _never_sent(error: Exception) -> bool:
    """Whether the connection was not even made, so that the service cannot have done anything."""
    if isinstance(error, ConnectTimeout):
        return True
    reason = getattr(error.args[0], "reason", None) if isinstance(error, ConnectionError) and error.args else None
    return isinstance(reason, NewConnectionError)


def _is_distrust(error: Exception) -> bool:
    """Whether one side refuses the certificate of the other, which no repetition mends."""
    found: BaseException | None = error
    seen = set[int]()
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, ssl.SSLError) and (
            "CERTIFICATE" in str(found.reason) or "UNKNOWN_CA" in str(found.reason)
        ):
            return True
        inner = [getattr(found, "reason", None), *found.args]
        found = next((each for each in inner if isinstance(each, BaseException)), found.__cause__ or found.__context__)
    return False


def _is_truncated(error: Exception) -> bool:
    if not isinstance(error, ChunkedEncodingError) or not error.args:
        return False
    causes = [error.args[0], *getattr(error.args[0], "args", ())]
    return any(isinstance(cause, http.client.IncompleteRead) for cause in causes)


def _describe(error: Exception) -> str:
    """In words, without the request that the error of `requests` carries."""
    reason = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return f"{type(error).__name__}: {reason}"[:300]
