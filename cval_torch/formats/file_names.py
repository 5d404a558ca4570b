"""Names of files for frames: the ids where they can be names, and names that are safe everywhere where they cannot."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

from cval_torch.formats.images import IMAGE_SUFFIXES

_LONGEST = 200  # bytes of one component: file systems take 255, and suffixes and temporary names need some
_RESERVED = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(1, 10))}
_FORBIDDEN = re.compile(r'[<>:"|?*\\%#\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]')


def file_names_for(frame_ids: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """A relative path with slashes for each frame, for all file systems and annotation tools; all are distinct.

    An id that is such a path stays one, folders included. Of others the offending characters become `_`, and a digest
    of the id is added. So is one where two names would differ in upper and lower case alone, or, without their
    suffixes, not at all: label files are named after images.

    Args:
        frame_ids: distinct ids.
        suffixes: of each file, with the dot.

    >>> file_names_for(["cam1/0001.jpg", "../../etc/passwd"], [".jpg", ".png"])
    ['cam1/0001.jpg', 'etc_passwd-3754d6cb.png']
    """
    names = [_plain(frame_id, suffix) for frame_id, suffix in zip(frame_ids, suffixes, strict=True)]
    owners: dict[str, int] = {}
    for stem in map(_key, names):
        owners[stem] = owners.get(stem, 0) + 1
    folders = {_fold(str(parent)) for name in names for parent in PurePosixPath(name).parents}
    return [
        _with_digest(name, frame_id) if owners[_key(name)] > 1 or _fold(name) in folders else name
        for name, frame_id in zip(names, frame_ids, strict=True)
    ]


def _plain(frame_id: str, suffix: str) -> str:
    path = PurePosixPath(frame_id)
    name = frame_id[: -len(path.suffix)] if path.suffix.lower() in IMAGE_SUFFIXES else frame_id
    parts = unicodedata.normalize("NFC", name).split("/")
    if all(map(_is_safe, parts)):
        return "/".join(parts) + suffix
    kept = [_FORBIDDEN.sub("_", part).strip(". ") for part in re.split(r"[/\\]", name)]
    text = "_".join(part for part in kept if part) or "frame"
    return _with_digest(_cut(text, _LONGEST - 40) + suffix, frame_id)


def _is_safe(part: str) -> bool:
    return (
        bool(part)
        and part == part.strip(". ")
        and not part.startswith("-")
        and not _FORBIDDEN.search(part)
        and part.split(".", maxsplit=1)[0].lower() not in _RESERVED
        and len(part.encode()) <= _LONGEST - 20
    )


def _with_digest(name: str, frame_id: str) -> str:
    digest = hashlib.sha256(frame_id.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    path = PurePosixPath(name)
    return str(path.with_name(f"{_cut(path.stem, _LONGEST - 20)}-{digest}{path.suffix}"))


def _key(name: str) -> str:
    return _fold(str(PurePosixPath(name).with_suffix("")))


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(text: str, most: int) -> str:
    """At most so many bytes of UTF-8."""
    return text.encode("utf-8", "ignore")[:most].decode("utf-8", "ignore")
