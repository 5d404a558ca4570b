"""Paths of images as annotation tools write them, as plain paths again."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

_LOCAL_FILES = re.compile(r"(?:^|/)data/local-files/?$")
_UPLOAD = re.compile(r"(?:^|/)data/upload/(?:\d+/)?([^/]+)$")
_STORED_UPLOAD = re.compile(r"/upload/\d+/([0-9a-f]{8}-[^/]+)$")
_IN_EXPORT = re.compile(r"^images/([0-9a-f]{8}(?:-|__)[^/]+)$")
_DIGITS = re.compile(r"[0-9a-f]{8}(?:-|__)(?=.)")


def plain_paths(names: Sequence[str]) -> list[str]:
    """The paths that names of images mean, as they stand in the files of annotation tools.

    - `/data/local-files/?d=cam1/0001.jpg`, a local file of Label Studio: `cam1/0001.jpg`.
    - `/data/upload/3/1f0c2a9b-0001.jpg`, an upload to Label Studio: `0001.jpg`. The tool puts eight digits in front of
      the name. They stay where two uploads would have one name otherwise.
    - `https://host/cam1/0001.jpg?token=1`: `host/cam1/0001.jpg`.

    With or without a host in front of the first two. Other names stay as they are.

    Args:
        names: as they stand in the file.

    Returns:
        As many paths, not URL-quoted.

    >>> plain_paths(["/data/local-files/?d=cam%201/a.jpg", "/data/upload/1/1f0c2a9b-a.jpg", "cam2/b.jpg"])
    ['cam 1/a.jpg', 'a.jpg', 'cam2/b.jpg']
    """
    return _shortened(names, _decoded)


def exported_paths(names: Sequence[str]) -> list[str]:
    """The paths that names of images mean in what Label Studio exports for other tools, such as COCO.

    There, an upload is the file that the tool stored, an export with images has them in `images/` with eight digits in
    front of each name, and local files are paths from a temporary folder.

    Args:
        names: as they stand in the file.

    >>> exported_paths(["../srv/upload/2/1f0c2a9b-a.jpg", "images/99d09a77__b.jpg", "../../data/cam 1/c.jpg"])
    ['a.jpg', 'b.jpg', 'data/cam 1/c.jpg']
    """
    return _shortened(names, _decoded_export)


def _shortened(names: Sequence[str], decode: Callable[[str], tuple[str, bool]]) -> list[str]:
    """Paths without the digits in front, where they are not needed to tell two images apart."""
    found = [decode(name) for name in names]
    short = [_DIGITS.sub("", path, count=1) if is_prefixed else path for path, is_prefixed in found]
    owners: dict[str, set[str]] = {}
    for name, path in zip(names, short, strict=True):
        owners.setdefault(path, set()).add(name)
    return [path if len(owners[path]) == 1 else whole for path, (whole, _) in zip(short, found, strict=True)]


def _decoded(name: str) -> tuple[str, bool]:
    """The path, and whether it is a name with digits in front."""
    try:
        parts = urlsplit(name)
        remote = parts.scheme in ("http", "https") and bool(parts.netloc)
        if not remote and not name.startswith("/data/"):
            return name, False
        if _LOCAL_FILES.search(parts.path):
            values = parse_qs(parts.query).get("d", [])
            return (values[0] if len(values) == 1 else name), False
    except ValueError:  # such as an IPv6 address without its end
        return name, False
    upload = _UPLOAD.search(parts.path)
    if upload:
        path = unquote(upload[1])
        return path, _DIGITS.match(path) is not None
    path = unquote(parts.path)
    return (f"{parts.netloc}{path}" if remote and path.strip("/") else name), False


def _decoded_export(name: str) -> tuple[str, bool]:
    if name.startswith(("/data/", "http://", "https://")):
        return _decoded(name)
    match = _STORED_UPLOAD.search(name) or _IN_EXPORT.match(name)
    if match:
        return match[1], True
    path = name
    while path.startswith("../"):
        path = path[3:]
    return path or name, False
