"""Zip files that annotation tools export, as folders."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from cval_torch.errors import InvalidInputError

_MOST = 64 << 30  # bytes, unpacked
_MOST_TIMES = 200  # larger than packed; text of annotations is 10 to 50 times


@contextmanager
def unpacked(path: str | os.PathLike[str], *, suffixes: tuple[str, ...] = ("",)) -> Iterator[Path]:
    """The path itself, or, of a zip file, a folder with what is in it, which is gone afterwards.

    Nothing is written outside that folder, whatever names the zip file has.

    Args:
        path: a file or folder.
        suffixes: of the files to unpack, in lower case. Formats that do not look at images leave them packed.

    Raises:
        InvalidInputError: the zip file is damaged; a name in it leads out of the folder; it would become too large.
        OSError: it cannot be read, or the disk is full.
    """
    file = Path(path)
    if file.is_dir() or not zipfile.is_zipfile(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="cval_torch-") as folder:
        try:
            with zipfile.ZipFile(file) as archive:
                members = [each for each in archive.infolist() if each.filename.lower().endswith(suffixes)]
                for member in members:
                    _check_member(member, os.fspath(path))
                if sum(member.file_size for member in members) > _MOST:
                    raise InvalidInputError(f"{os.fspath(path)!r} would unpack to more than {_MOST >> 30} GiB")
                archive.extractall(folder, members)
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, ValueError) as error:
            raise InvalidInputError(f"{os.fspath(path)!r} cannot be unpacked: {error}") from error
        yield Path(folder)


def _check_member(member: zipfile.ZipInfo, name: str) -> None:
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    if ".." in parts or member.filename.startswith("/"):
        raise InvalidInputError(f"{name!r} holds the name {member.filename!r}, which leads out of its folder")
    if member.file_size > max(1 << 20, _MOST_TIMES * member.compress_size):
        raise InvalidInputError(
            f"{member.filename!r} in {name!r} would unpack to {member.file_size} bytes of {member.compress_size}. If "
            "that is right, unpack it yourself, and pass the folder"
        )
