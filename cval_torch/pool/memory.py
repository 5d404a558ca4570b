"""How much memory there is, and whether what a pass keeps of its frames is going to fit."""

from __future__ import annotations

import os
from pathlib import Path

from cval_torch.errors import NotEnoughMemoryError, warn_user

# What is kept is joined, checked and chosen from, which takes some more for a while.
_MARGIN = 1.1
_LARGE_SHARE = 0.5
_FEWEST_FRAMES = 32
_UNLIMITED = 2**60  # what an operating system says where nothing is limited is above this


def available_memory() -> int | None:
    """The bytes that this process can still take; None where the system does not say.

    The least of what is free, what the process's control group leaves (containers), and what its limit of address
    space leaves (`ulimit -v`).
    """
    found = [_free(), _left_in_group(), _left_of_address_space()]
    known = [size for size in found if size is not None]
    return max(min(known), 0) if known else None


class Forecast:
    """Says early if what a pass keeps will not fit into memory.

    Args:
        total: how many frames there will be; None: nobody knows, and nothing is said.
        limit: the most bytes to keep; None: what is available now.
        what: what is kept, for the message.
        remedy: what to do, for the message.
    """

    def __init__(self, total: int | None, *, limit: int | None, what: str, remedy: str) -> None:
        self._total, self._given = total, limit is not None
        self._limit = available_memory() if limit is None else limit
        self._what, self._remedy = what, remedy
        self._next, self._warned = _FEWEST_FRAMES, False

    def is_due(self, frames: int) -> bool:
        """Whether to look now, when so many frames have come: after a few, and then at twice as many, and so on."""
        return self._total is not None and self._limit is not None and frames >= min(self._next, self._total)

    def look(self, frames: int, *, each: int, once: float = 0.0) -> None:
        """Compare with what there is.

        Args:
            frames: that have come.
            each: the bytes that are kept of these, which grow with every frame.
            once: bytes that do not grow with the number of frames.

        Raises:
            NotEnoughMemoryError: it is not going to fit.
        """
        if self._total is None or self._limit is None:
            return
        self._next = 2 * frames
        expected = _MARGIN * (each / frames * self._total + once)
        room = f"`memory_limit` is {_size(self._limit)}" if self._given else f"{_size(self._limit)} are available"
        said = (
            f"{self._what} takes about {each / frames / 1024:.3g} KB a frame, and about {_size(expected)} for "
            f"{self._total} frames; {room}"
        )
        if expected > self._limit:
            raise NotEnoughMemoryError(f"{said}. {self._remedy}")
        if expected > _LARGE_SHARE * self._limit and not self._given and not self._warned:
            self._warned = True
            warn_user(f"{said}. If that is too much: {self._remedy[0].lower()}{self._remedy[1:]}")


def check_fits(needed: float, *, what: str, remedy: str) -> None:
    """Raise a `NotEnoughMemoryError` if so many bytes more are not available.

    Args:
        needed: bytes.
        what: takes them, for the message.
        remedy: what to do, for the message.
    """
    available = available_memory()
    if available is not None and needed > available:
        raise NotEnoughMemoryError(f"{what} takes about {_size(needed)}; {_size(available)} are available. {remedy}")


def _size(count: float) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"


def _free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _free_pages()
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    return 1024 * int(named["MemAvailable"].split()[0]) if "MemAvailable" in named else _free_pages()


def _free_pages() -> int | None:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_group() -> int | None:
    """What the control group leaves; pages of files do not count, since the system can let go of them."""
    root = Path("/sys/fs/cgroup")
    try:
        most = (root / "memory.max").read_text().strip()
        if most == "max" or int(most) > _UNLIMITED:
            return None
        used = int((root / "memory.current").read_text())
        named = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
        return int(most) - used + int(named.get("inactive_file", 0))
    except (OSError, ValueError):
        return None


def _left_of_address_space() -> int | None:
    try:
        import resource  # not on Windows  # noqa: PLC0415

        most, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most in (-1, resource.RLIM_INFINITY) or most > _UNLIMITED:
            return None
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (ImportError, OSError, ValueError):
        return None
    return int(most) - used
