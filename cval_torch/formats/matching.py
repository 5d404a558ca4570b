"""Which frame an annotation file means by a path: matching by the end of the path, and only where it is unambiguous."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cval_torch.errors import InvalidInputError

_SHOWN = 3  # candidates that a message names


@dataclass(frozen=True)
class PathMatches:
    """What `match_paths` found.

    Attributes:
        entries: the N paths of the annotation file, as they stand in it.
        frame_ids: N; for each entry the id of its frame, or None where no frame matches.
        unmatched: the entries that match no frame, in the order of the file.
        name_only: the entries whose file name alone agrees: both paths have a folder, and the folders differ. They may
            mean another file of the same name.
        source: what to call the entries in a message.
    """

    entries: tuple[str, ...]
    frame_ids: tuple[str | None, ...]
    unmatched: tuple[str, ...]
    name_only: tuple[str, ...]
    source: str
    _other_case: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def matched(self) -> frozenset[str]:
        """The ids of the frames that an entry matches."""
        return frozenset(frame_id for frame_id in self.frame_ids if frame_id is not None)

    def remarks(self) -> list[str]:
        """What a user should be told: how many entries match no image, and how many match by file name only."""
        said = []
        of = f"of {len(self.entries)} entries of {self.source}"
        if self.unmatched:
            said.append(f"{len(self.unmatched)} {of} match no image, the first is {self.unmatched[0]!r}")
        if self._other_case is not None:
            entry, image = self._other_case
            said.append(f"{entry!r} and the image {image!r} differ only in upper and lower case, so they do not match")
        if self.name_only:
            frame_id = self.frame_ids[self.entries.index(self.name_only[0])]
            said.append(
                f"{len(self.name_only)} {of} match an image in another folder, by the file name only, "
                f"the first is {self.name_only[0]!r} for {frame_id!r}"
            )
        return said


def match_paths(
    entries: Iterable[str], frame_ids: Iterable[str], *, source: str = "the annotation file"
) -> PathMatches:
    r"""Find the frame that each path of an annotation file means.

    Paths are compared from their ends, by whole components: the more components agree, the better the match. At least
    the file name must agree. Before that, backslashes become slashes, `.` and `..` are resolved, and the characters
    are brought to one Unicode normal form (NFC). So `images/cam1/0001.jpg`, `.\cam1\0001.jpg` and
    `/home/someone/data/cam1/0001.jpg` all match the frame `cam1/0001.jpg`. Upper and lower case are distinct, and
    nothing is URL-unquoted.

    A frame whose whole path is the end of the entry is a better match than one in a folder that the entry does not
    name: beside a frame `cam1/0001.jpg`, the entries `0001.jpg` and `images/0001.jpg` match a frame `0001.jpg`.

    Args:
        entries: paths as they stand in the annotation file, such as `file_name` in COCO. The same path may come
            several times.
        frame_ids: distinct paths of the frames below their root, such as `cam1/0001.jpg`.
        source: what to call the entries in messages, such as the name of the annotation file.

    Raises:
        InvalidInputError: an entry or a frame id that is not a path; a frame id twice; an entry that matches two
            frames equally well; two entries with different paths that match the same frame.

    >>> matches = match_paths(["images/cam1/0001.jpg", "gone.jpg"], ["cam1/0001.jpg", "cam2/0001.jpg"])
    >>> matches.frame_ids, matches.unmatched
    (('cam1/0001.jpg', None), ('gone.jpg',))
    """
    entries, frame_ids = tuple(entries), tuple(frame_ids)
    index = _PathIndex(frame_ids)
    found: list[str | None] = []
    unmatched, name_only = [], []
    owners: dict[int, tuple[str, tuple[str, ...]]] = {}
    for number, entry in enumerate(entries):
        parts = _components(entry, f"entry {number} of {source}")
        row, depth = index.find(entry, parts, source)
        if row is None:
            unmatched.append(entry)
            found.append(None)
            continue
        owner = owners.setdefault(row, (entry, parts))
        if owner[1] != parts:
            raise InvalidInputError(
                f"{owner[0]!r} and {entry!r} of {source} both match the image {frame_ids[row]!r}. "
                "Remove the entry that means another image, or give the folder that the paths of both begin in"
            )
        if depth == 1 and len(parts) > 1 and len(index.parts[row]) > 1:
            name_only.append(entry)
        found.append(frame_ids[row])
    other_case = _in_other_case(unmatched, frame_ids) if unmatched else None
    return PathMatches(entries, tuple(found), tuple(unmatched), tuple(name_only), source, other_case)


class _PathIndex:
    """The frames by the components of their paths, from the file name upward: a tree with one node for each end.

    An entry goes down the tree as far as its components lead. The frames below that node agree with it best.
    """

    def __init__(self, frame_ids: Sequence[str]) -> None:
        self._frame_ids = frame_ids
        self._rows: dict[str, int] = {}
        self.parts: list[tuple[str, ...]] = []
        self._children: dict[tuple[int, str], int] = {}  # (node, next component) -> node; node 0 is the root
        self._counts = [0]  # frames below a node, itself included
        self._firsts: list[list[int]] = [[]]  # rows of the first of them
        self._ends: dict[int, list[int]] = {}  # rows whose whole path this is
        for row, frame_id in enumerate(frame_ids):
            if self._rows.setdefault(frame_id, row) != row:
                raise InvalidInputError(f"frame ids must be distinct; got {frame_id!r} twice")
            self._add(row, _components(frame_id, f"frame id {row}"))

    def _add(self, row: int, parts: tuple[str, ...]) -> None:
        self.parts.append(parts)
        node = 0
        for part in reversed(parts):
            node = self._children.setdefault((node, part), len(self._counts))
            if node == len(self._counts):
                self._counts.append(0)
                self._firsts.append([])
            self._counts[node] += 1
            if self._counts[node] <= _SHOWN:
                self._firsts[node].append(row)
        self._ends.setdefault(node, []).append(row)

    def find(self, entry: str, parts: tuple[str, ...], source: str) -> tuple[int | None, int]:
        """The row of the frame that matches best, and how many components agree."""
        node = depth = 0
        for part in reversed(parts):
            below = self._children.get((node, part))
            if below is None:
                break
            node, depth = below, depth + 1
        if depth == 0:
            return None, 0
        if self._counts[node] == 1:
            return self._firsts[node][0], depth
        whole = self._ends.get(node, [])
        if len(whole) == 1:
            return whole[0], depth
        exact = self._rows.get(entry)  # frames that differ only in their normal form
        if exact in whole:
            return exact, depth
        rows = whole or self._firsts[node]
        count = len(whole) or self._counts[node]
        named = ", ".join(repr(self._frame_ids[row]) for row in rows[:_SHOWN])
        more = f" and {count - _SHOWN} more" if count > _SHOWN else ""
        raise InvalidInputError(
            f"{entry!r} of {source} matches {count} images equally well: {named}{more}. "
            f"Write more of its path there, such as {self._frame_ids[rows[0]]!r}, or give the folder of one of them"
        )


def _components(path: str, name: str) -> tuple[str, ...]:
    """The components of a path: without `.` and empty ones, `..` resolved, in the normal form NFC."""
    if not isinstance(path, str):
        raise InvalidInputError(f"{name} must be a path; got {path!r}")
    plain = path if path.isascii() else unicodedata.normalize("NFC", path)
    parts: list[str] = []
    for part in plain.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise InvalidInputError(f"{name} must be a path that ends in a file name; got {path!r}")
    return tuple(parts)


def _in_other_case(unmatched: Sequence[str], frame_ids: Sequence[str]) -> tuple[str, str] | None:
    """The first unmatched entry whose file name some frame has in other case, and that frame."""
    folded = {_components(frame_id, "")[-1].casefold(): frame_id for frame_id in reversed(frame_ids)}
    for entry in unmatched:
        frame_id = folded.get(_components(entry, "")[-1].casefold())
        if frame_id is not None:
            return entry, frame_id
    return None
