"""Video files as datasets of frames, read at a stated rate, without those that look like the one before."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.formats.images import check_path_below, files_below
from cval_torch.formats.video_clip import ClipFrames, ClipReader, list_frames, upright_pixels, video_library
from cval_torch.formats.video_thinning import without_near_duplicates

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm"}
    | {".wmv"}
)
"""Suffixes of the files of a folder that are taken for videos, in lower case."""

_TIME = "#t="
_SHOWN_NOTES = 3


class VideoFrames(Dataset[tuple[Tensor, dict[str, str]]]):
    """The frames of a video file, or of all videos below a folder, in the order of their paths and times.

    An item is a frame, (3, H, W) float32 in [0, 1], and a target whose `image_id` is the frame's id. The id is the path
    of the video below the folder and the frame's own timestamp in the file, in seconds: `cam1/a.mp4#t=12.480`. It
    depends on no other file, rate or frame. Frames are upright, as the file's display matrix says; pixels that are not
    square stay as they are. Videos may differ in size, so a `DataLoader` needs `collate_fn=collate_images`.

    Making the dataset reads through the files for the times of their frames, and decodes nothing unless `thin` is
    given. A frame is decoded from the key frame before it on, so it is the same in any order of reading. Each process
    opens files of its own.

    A folder may have damaged videos. Those that are no videos are left out, of truncated ones there are the frames that
    are left, and a warning and `notes` tell so. A frame whose data are damaged raises an `InvalidInputError` that names
    the video and the time; `extract(..., on_error="skip")` leaves it out.

    Attributes:
        path: the file or folder.
        strict: as given.
        frame_ids: the ids, in order.
        notes: what cannot be read, in words, each with the name of the video.

    Args:
        path: a file of any format that FFmpeg reads, or a folder, in which videos are found by `VIDEO_SUFFIXES` as
            `list_images` finds images.
        rate: frames a second, in (0, 1000]: the first frame of each interval of 1 / `rate` seconds, counted from the
            first frame of the video. None: every frame.
        thin: drops near-duplicates, in (0, 1]. A frame is kept if the mean brightness of at least one of 16 x 16 equal
            cells of it differs by `thin` or more from that of the last frame of the same video that was kept; 1 is
            black against white. 0.05 is a start. All frames at `rate` are decoded for that.
        frame_ids: the frames to hold, in this order, such as those of a saved choice; `rate` and `thin` then choose
            nothing.
        strict: whether damaged data are an error. False: a frame is what the decoder makes of them.
        progress: whether to show a bar.

    Raises:
        MissingExtraError: PyAV is not installed (extra `video`).
        InvalidInputError: an argument out of range; no frame can be read; a path too long for a frame id; an id that no
            frame has.
        FileNotFoundError: there is no such file or folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rate: float | None = 1.0,
        thin: float | None = None,
        frame_ids: Iterable[str] | None = None,
        strict: bool = True,
        progress: bool = True,
    ) -> None:
        video_library()
        if frame_ids is None:
            _check_options(rate, thin)
        elif thin is not None:
            raise InvalidInputError("`thin` chooses frames, and `frame_ids` names them: give one of them")
        self.path, self.strict = Path(path), strict
        is_folder = self.path.is_dir()
        notes: list[str] = []
        self._root = self.path if is_folder else self.path.parent
        if frame_ids is not None:
            asked = list(frame_ids)
            chosen = _named(self._root, asked, progress)
        elif is_folder:
            chosen, notes = _Choosing(rate, thin, strict, progress).among(
                self._root, files_below(self.path, VIDEO_SUFFIXES), leave_out=True
            )
        else:
            chosen, notes = _Choosing(rate, thin, strict, progress).among(self._root, [self.path.name], leave_out=False)
        if not chosen and frame_ids is None:
            raise InvalidInputError(_nothing_in(self.path, is_folder, notes))
        self.notes = tuple(notes)
        self.frame_ids = [each.frame_id for each in chosen]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(each.clip for each in chosen))}
        self._clips = {number: name for name, number in numbers.items()}
        self._clip_of = np.array([numbers[each.clip] for each in chosen], dtype=np.int32)
        self._times = np.array([each.time for each in chosen], dtype=np.int64)
        self._starts = np.array([each.start for each in chosen], dtype=np.int64)
        self._open = threading.local()  # a reader belongs to one thread of one process
        if notes:
            more = f", and {len(notes) - _SHOWN_NOTES} more in `notes`" if len(notes) > _SHOWN_NOTES else ""
            warn_user(f"not all of the videos can be read: {'; '.join(notes[:_SHOWN_NOTES])}{more}")

    def __len__(self) -> int:
        return len(self.frame_ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, str]]:
        frame_id = self.frame_ids[index]
        reader = self._reader(self._clips[int(self._clip_of[index])])
        frame = reader.read(int(self._times[index]), int(self._starts[index]))
        return upright_pixels(frame), {"image_id": frame_id}

    def __getstate__(self) -> dict[str, Any]:
        """Without open files."""
        return {name: value for name, value in self.__dict__.items() if name != "_open"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open = threading.local()

    def _reader(self, clip: str) -> ClipReader:
        """The reader of a video, in this thread and process; the one of another video is closed."""
        held: tuple[int, str, ClipReader] | None = getattr(self._open, "held", None)
        if held is not None:
            process, name, reader = held
            if (process, name) == (os.getpid(), clip):
                return reader
            reader.close()  # a forked process closes its copy: the place in the file would be shared
            self._open.held = None
        reader = ClipReader(self._root / clip, clip, strict=self.strict)
        self._open.held = (os.getpid(), clip, reader)
        return reader


class _Frame(NamedTuple):
    """Where a frame is: the video, and its timestamp and that of its key frame there."""

    frame_id: str
    clip: str
    time: int
    start: int


class _Choosing(NamedTuple):
    """How frames are chosen; see `VideoFrames`."""

    rate: float | None
    thin: float | None
    strict: bool
    progress: bool

    def among(self, root: Path, clips: list[str], *, leave_out: bool) -> tuple[list[_Frame], list[str]]:
        """Frames of these videos, and notes. `leave_out`: what is no video; otherwise it is an error."""
        chosen: list[_Frame] = []
        notes: list[str] = []
        with tqdm(total=0, desc="videos", unit="frame", disable=not self.progress) as bar:
            for number, clip in enumerate(clips):
                bar.set_postfix_str(f"video {number + 1} of {len(clips)}")
                try:
                    frames = list_frames(root / clip, clip)
                except InvalidInputError as error:
                    if not leave_out:
                        raise
                    notes.append(str(error))
                    continue
                kept, unread = self._kept(root / clip, clip, frames, bar)
                notes += [f"{clip!r}: {note}" for note in frames.notes] + unread
                chosen += _frames_of(root, clip, frames, kept)
        return chosen, notes

    def _kept(self, path: Path, clip: str, frames: ClipFrames, bar: Any) -> tuple[list[int], list[str]]:
        at_rate = frames.at_rate(self.rate)
        bar.total = (bar.total or 0) + len(at_rate)
        if self.thin is None:
            bar.update(len(at_rate))
            return at_rate, []
        with closing(ClipReader(path, clip, strict=self.strict)) as reader:
            return without_near_duplicates(reader, frames, _counted(at_rate, bar), self.thin)


def _counted(indices: list[int], bar: Any) -> Iterator[int]:
    for index in indices:
        yield index
        bar.update()


def _frames_of(root: Path, clip: str, frames: ClipFrames, indices: Iterable[int]) -> list[_Frame]:
    found = [
        _Frame(f"{clip}{_TIME}{frames.milliseconds(index) / 1000:.3f}", clip, frames.times[index], frames.starts[index])
        for index in indices
    ]
    if found:
        check_path_below(max((each.frame_id for each in found), key=len), os.fspath(root))
    return found


def _named(root: Path, frame_ids: list[str], progress: bool) -> list[_Frame]:
    """The frames of these ids.

    Raises:
        InvalidInputError: one that is no id of a frame, or that no frame has.
    """
    known: dict[str, dict[str, _Frame]] = {}
    chosen: list[_Frame] = []
    for frame_id in tqdm(frame_ids, desc="videos", unit="frame", disable=not progress):
        clip, sign, _ = frame_id.rpartition(_TIME)
        if not sign:
            raise InvalidInputError(
                f"the id of a frame must be the path of a video and a time, such as 'clip.mp4{_TIME}12.480'; "
                f"got {frame_id!r}"
            )
        if clip not in known:
            frames = list_frames(root / clip, clip)
            known[clip] = {each.frame_id: each for each in _frames_of(root, clip, frames, frames.at_rate(None))}
        if frame_id not in known[clip]:
            times = [each.rpartition(_TIME)[2] for each in known[clip]]
            span = f"from {times[0]} to {times[-1]} s" if times else "none"
            raise InvalidInputError(f"{str(root / clip)!r} has no frame {frame_id!r}; it has frames {span}")
        chosen.append(known[clip][frame_id])
    return chosen


def _check_options(rate: float | None, thin: float | None) -> None:
    if rate is not None and not 0 < rate <= 1000:
        raise InvalidInputError(f"`rate` must be in (0, 1000] frames a second, or None for every frame; got {rate!r}")
    if thin is not None and not 0 < thin <= 1:
        raise InvalidInputError(f"`thin` must be in (0, 1], or None to keep near-duplicates; got {thin!r}")


def _nothing_in(path: Path, is_folder: bool, notes: list[str]) -> str:
    if notes:
        return f"no frame of {os.fspath(path)!r} can be read: {'; '.join(notes[:_SHOWN_NOTES])}"
    if is_folder:
        return f"there is no video below {os.fspath(path)!r}, by the suffixes {', '.join(sorted(VIDEO_SUFFIXES))}"
    return f"{os.fspath(path)!r} has no frames"
