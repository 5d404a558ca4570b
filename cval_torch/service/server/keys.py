"""API keys: read once, held and compared only as digests."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from cval_torch.errors import InvalidInputError
from cval_torch.service.client.key import check_key

SECONDS_BETWEEN_LOOKS = 1.0
"""At the file of keys."""

logger = logging.getLogger(__name__)

_PREFIX = b"user_api_key:"


class KeyRing:
    """Who may do what: each key owns its own datasets and tasks.

    Args:
        keys: (owner, key) pairs. An owner of None is named after the key's digest, so its data go with the key; a
            named owner keeps its data when its key is exchanged.
        salt: secret bytes of this server; digests are keyed by it.

    Raises:
        InvalidInputError: no key, a key twice, or one that no header can carry. No message holds a key.
    """

    def __init__(self, keys: Sequence[tuple[str | None, str]], *, salt: bytes) -> None:
        if not keys:
            raise InvalidInputError("there must be at least one API key: set CVAL_API_KEY or give --api-key-file")
        self._salt = salt
        self._owners: list[tuple[bytes, str]] = []
        for number, (owner, key) in enumerate(keys):
            check_key(key, f"API key number {number + 1}")
            digest = self._digest(key.encode())
            if any(known == digest for known, _ in self._owners):
                raise InvalidInputError(f"API keys must be distinct; number {number + 1} is there twice")
            self._owners.append((digest, owner or f"key-{digest.hex()[:16]}"))

    def owner_of(self, authorization: bytes | None) -> str | None:
        """The owner that an `Authorization` header speaks for; None for nobody.

        Every digest is compared, in constant time, whichever matches.
        """
        header = authorization or b""
        presented = self._digest(header.removeprefix(_PREFIX))
        found = None
        for digest, owner in self._owners:
            if hmac.compare_digest(digest, presented):
                found = owner
        return found if header.startswith(_PREFIX) else None

    def _digest(self, key: bytes) -> bytes:
        return hmac.new(self._salt, key, hashlib.sha256).digest()

    def __repr__(self) -> str:
        return f"KeyRing({len(self._owners)} keys)"


class KeyFile:
    """The keys of a file, which is read again within a second after it changed: keys come and go without a restart.

    A file that cannot be used any more leaves the keys as they were. One without keys, which can, lets nobody in.

    Args:
        path: see `read_key_file`.
        salt: as of `KeyRing`.

    Raises:
        InvalidInputError: the file has no usable keys.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path, *, salt: bytes) -> None:
        self._path, self._salt = path, salt
        self._ring: KeyRing | None = KeyRing(read_key_file(path), salt=salt)
        self._seen, self._looked = self._state(), time.monotonic()

    def owner_of(self, authorization: bytes | None) -> str | None:
        """As of `KeyRing`."""
        if time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._look()
        return None if self._ring is None else self._ring.owner_of(authorization)

    def _look(self) -> None:
        self._looked = time.monotonic()
        seen = self._state()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            keys = read_key_file(self._path)
            self._ring = KeyRing(keys, salt=self._salt) if keys else None
            logger.info("%s was read again: it has %d keys", self._path, len(keys))
        except (InvalidInputError, OSError, UnicodeDecodeError) as error:
            said = type(error).__name__ if isinstance(error, UnicodeDecodeError) else error
            logger.error("the keys stay as they were: %s", said)  # noqa: TRY400 - a traceback may show a key

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read_key_file(path: Path) -> list[tuple[str | None, str]]:
    """Keys of a file, one a line: `KEY`, or `OWNER KEY`. Empty lines and lines that begin with `#` are passed over.

    Raises:
        InvalidInputError: a line with more than two words.
        OSError: it cannot be read.
    """
    keys: list[tuple[str | None, str]] = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) > 2:
            raise InvalidInputError(f"line {number} of {path} must be `KEY` or `OWNER KEY`; it has {len(words)} words")
        keys.append((words[0] if len(words) == 2 else None, words[-1]))
    return keys
