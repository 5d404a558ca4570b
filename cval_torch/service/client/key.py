"""The API key: carried to the service, and nowhere else."""

from __future__ import annotations

import os
from typing import NoReturn
from urllib.parse import urlsplit

from requests import PreparedRequest, Request
from requests.auth import AuthBase

from cval_torch.errors import InvalidInputError

MAX_KEY_LENGTH = 512
KEY_VARIABLE = "CVAL_API_KEY"
SHORTEST_SECRET = 4  # what is shorter is no secret, and is in many a word


class ApiKey:
    """A key that does not show itself: not in a `repr`, a `str`, a pickle or an error.

    Args:
        key: 1 to 512 printable ASCII characters without spaces. None reads the environment's `CVAL_API_KEY`.

    Raises:
        InvalidInputError: no key, or one that no HTTP header may carry. The message does not hold it.
    """

    __slots__ = ("_value",)

    def __init__(self, key: str | None = None) -> None:
        value = os.environ.get(KEY_VARIABLE) if key is None else key
        if not value:
            raise InvalidInputError(f"`user_api_key` must be given, or {KEY_VARIABLE} set; got neither")
        check_key(value, "`user_api_key`")
        self._value = value

    def header(self) -> str:
        """The value of the `Authorization` header."""
        return f"user_api_key:{self._value}"

    def redact(self, text: str) -> str:
        """`text`, as a service said it, with the key blotted out."""
        return text.replace(self._value, "***") if len(self._value) >= SHORTEST_SECRET else text

    def __repr__(self) -> str:
        return "ApiKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"an API key is not pickled or copied: set {KEY_VARIABLE} where the connection is made instead")


class KeyAuth(AuthBase):
    """Puts the key on requests to one host only. Being an `auth`, it also keeps `~/.netrc` from replacing the key."""

    def __init__(self, key: ApiKey, base_url: str) -> None:
        self._key = key
        self._origin = _origin(Request("GET", base_url).prepare().url or "")  # an international host name in ASCII

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """The request, with the key if it goes to the host that the key is for."""
        if _origin(request.url or "") == self._origin:
            request.headers["Authorization"] = self._key.header()
        return request


def check_key(value: object, name: str) -> None:
    """Refuse what no header may carry, without saying what it is.

    Raises:
        InvalidInputError: not a string of 1 to 512 printable ASCII characters without spaces.
    """
    expected = f"{name} must be 1 to {MAX_KEY_LENGTH} printable ASCII characters without spaces"
    if not isinstance(value, str):
        raise InvalidInputError(f"{expected}; got {type(value).__name__}")
    if not 1 <= len(value) <= MAX_KEY_LENGTH:
        raise InvalidInputError(f"{expected}; got {len(value)}")
    for position, character in enumerate(value):
        if not "!" <= character <= "~":
            raise InvalidInputError(f"{expected}; character {position + 1} of {len(value)} is not one")


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default
