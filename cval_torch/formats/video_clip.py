"""One video file: which frames it has and when, and the pixels of the frame of a given time.

Files are decoded by PyAV (extra `video`). Its wheels bring FFmpeg along and do not depend on torch. torchcodec, the
alternative, loads the FFmpeg libraries of the system, which pip does not install, and each of its releases is built for
one release of torch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_STRICT = {"err_detect": "explode"}  # damaged data are an error, not a guess at what they may have shown
_INSTANT_REFRESH = 5  # the type of a unit of H.264
_SECONDS_BACK = (0, 1, 10, 100)  # containers without an index may jump to a place behind the one asked for
_SHORT_BY = Fraction(1, 2)  # seconds by which a clip may end before the time that its header says


class _UnreadableError(Exception):
    """Why a frame cannot be read."""


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, in the order in which they are shown.

    Attributes:
        times: T timestamps of the stream, strictly increasing, in units of `time_base`.
        starts: T timestamps of key frames. A frame is exact if decoding begins there.
        time_base: in seconds.
        notes: what cannot be read, in words.
    """

    times: list[int]
    starts: list[int]
    time_base: Fraction
    notes: tuple[str, ...] = ()

    def milliseconds(self, index: int) -> int:
        """The time of a frame, rounded."""
        return round(self.times[index] * self.time_base * 1000)

    def at_rate(self, rate: float | None) -> list[int]:
        """The first frame of each interval of 1 / `rate` seconds, counted from the first frame; None: every frame.

        A timestamp was rounded to a multiple of `time_base` when it was written, so a frame may come half of that
        before its interval. Of frames whose times are the same to a millisecond, the first counts.

        Returns:
            Increasing indices into `times`.
        """
        steps = None if rate is None else Fraction(rate).limit_denominator(1_000_000)
        chosen: list[int] = []
        last_interval, last_time = -1, None
        for index, time in enumerate(self.times):
            passed = (time - self.times[0] + Fraction(1, 2)) * self.time_base
            interval = index if steps is None else int(passed * steps)
            if interval > last_interval and self.milliseconds(index) != last_time:
                chosen.append(index)
                last_interval, last_time = interval, self.milliseconds(index)
        return chosen


def video_library() -> ModuleType:
    """PyAV. Raises a `MissingExtraError` if it is not installed."""
    try:
        import av  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError("video", needed_for="reading videos") from error
    return av


def list_frames(path: Path, name: str) -> ClipFrames:
    """The frames of a video file, as its packets tell them; nothing is decoded.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        MissingExtraError: PyAV is not installed.
        InvalidInputError: the file is no video, or does not tell when its frames are shown.
        FileNotFoundError, PermissionError: the file cannot be opened.
    """
    av = video_library()
    packets: list[tuple[int, bool]] = []
    notes: list[str] = []
    count = 0
    with _opened(path, name) as container:
        stream = _stream_of(container, name)
        time_base = stream.time_base
        try:
            for packet in container.demux(stream):
                count += packet.size > 0 and not packet.is_corrupt
                if packet.is_corrupt:
                    notes.append(f"the data {_at(packet.pts, time_base)} are damaged")
                elif packet.pts is not None and not packet.is_discard:
                    packets.append((packet.pts, packet.is_keyframe))
                elif packet.pts is None and packet.size:
                    raise InvalidInputError(
                        f"{name!r} does not tell when its frames are shown. Convert it, for example by "
                        f"`{_conversion(name)}`"
                    )
        except av.FFmpegError as error:
            notes.append(
                f"the data {_at(packets[-1][0] if packets else None, time_base)} are damaged: {error.strerror}"
            )
        starts, undecodable = _starts_of(packets)
        if undecodable:
            notes.append(f"{undecodable} frames come before the first key frame")
        times = sorted(starts)
        notes += _missing_end(stream, times, count)
    return ClipFrames(times, [starts[time] for time in times], time_base, tuple(dict.fromkeys(notes)))


class ClipReader:
    """An open video file, which gives frames by their times.

    It decodes on from where it is if the frame lies ahead in the same group of pictures; else it jumps to a key frame.
    It starts no threads: a forked process would wait for them forever when it frees its copy of the decoder.

    Args:
        path: the file.
        name: what messages call it.
        strict: whether damaged data are an error. False: a frame is what the decoder makes of them.
    """

    def __init__(self, path: Path, name: str, *, strict: bool = True) -> None:
        self._path, self._name, self._strict = path, name, strict
        self._open(strict)

    def read(self, time: int, start: int) -> VideoFrame:
        """The frame whose timestamp is `time`, decoded from the key frame at `start` on; see `ClipFrames`.

        Raises:
            InvalidInputError: the file is damaged between the two, or has no such frame.
        """
        try:
            return self._read(time, start)
        except _UnreadableError as error:
            reason = str(error)
        except video_library().FFmpegError as error:
            reason = str(error.strerror)
        self.close()
        remedy = ". Pass `strict=False` for what the decoder makes of it" if self._strict else ""
        raise InvalidInputError(f"{self._name!r} cannot be read {_at(time, self._time_base)}: {reason}{remedy}")

    def close(self) -> None:
        """Close the file; the next `read` opens it again."""
        self._container.close()
        self._is_open = False

    def _open(self, strict: bool) -> None:
        self._container = _opened(self._path, self._name)
        self._is_open = True
        self._stream = _stream_of(self._container, self._name)
        self._time_base: Fraction = self._stream.time_base
        self._stream.codec_context.options = _STRICT if strict else {}
        self._stream.codec_context.thread_count = 1
        self._is_strict = strict
        self._packets: Iterator[Any] = iter(())
        self._waiting: deque[VideoFrame] = deque()
        self._fed: set[int] = set()  # timestamps of the packets that the decoder has taken since the jump
        self._last_key: int | None = None
        self._last_read = 0

    def _read(self, time: int, start: int) -> VideoFrame:
        if not self._is_open:
            self._open(self._strict)
        if self._last_key is None or start > self._last_key or time <= self._last_read:
            key = self._jump(start)
            if (strict := self._strict and _is_independent(key)) != self._is_strict:
                self.close()
                self._open(strict)
                self._jump(start)
        return self._decode_to(time)

    def _jump(self, start: int) -> Any:
        """Go to the packet of the key frame at `start`, and return it."""
        self._waiting.clear()
        self._fed.clear()
        self._last_key = None
        for packets in self._places_before(start):
            for packet in packets:
                if packet.pts == start and packet.is_keyframe:
                    self._packets = itertools.chain([packet], (each for each in packets if not _is_before(each, start)))
                    self._last_key = self._last_read = start - 1  # nothing is read yet
                    return packet
                if packet.is_keyframe and packet.pts is not None and packet.pts > start:
                    break
        raise _UnreadableError(f"there is no key frame {_at(start, self._time_base)}")

    def _places_before(self, start: int) -> Iterator[Iterator[Any]]:
        """The packets from places before a key frame on, each earlier than the last; at last all packets."""
        for seconds in _SECONDS_BACK:
            try:
                self._container.seek(start - int(seconds / self._time_base), stream=self._stream, backward=True)
            except video_library().FFmpegError:  # such as a time before the first, or a file that cannot jump
                continue
            yield self._container.demux(self._stream)
        self._container.close()
        self._open(self._is_strict)
        yield self._container.demux(self._stream)

    def _decode_to(self, time: int) -> VideoFrame:
        """Decode on until the frame of this time comes."""
        av = video_library()
        failure: Exception | None = None
        while True:
            while self._waiting:
                frame = self._waiting.popleft()
                if frame.pts == time and not (self._strict and frame.is_corrupt):
                    self._last_read = time
                    return frame
                if frame.pts is not None and frame.pts >= time:
                    raise failure or _UnreadableError("the data are damaged")
            packet = None if failure else next(self._packets, None)
            if packet is None:
                raise failure or _UnreadableError("the file ends before this frame")
            if packet.is_corrupt and self._strict and time not in self._fed:
                raise _UnreadableError("the data are damaged")
            try:
                self._waiting.extend(packet.decode())
            except av.FFmpegError as error:
                if not self._strict:
                    continue
                if time not in self._fed:
                    raise
                failure = error  # of a later packet; the frame itself still is in the decoder
                self._waiting.extend(self._stream.codec_context.decode(None))
                self._last_key = None
            if packet.pts is not None:
                self._fed.add(packet.pts)
                if packet.is_keyframe and self._last_key is not None:
                    self._last_key = max(self._last_key, packet.pts)


def upright_pixels(frame: VideoFrame) -> Tensor:
    """(3, H, W) float32 in [0, 1], turned and mirrored by right angles as the display matrix of the file says."""
    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1)
    side_data: Any = frame.side_data
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is not None:
        # x' = a x + c y and y' = b x + d y, of coordinates that grow to the right and downwards
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32, count=5).tolist()
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 2), c, b
        pixels = pixels.flip([axis for axis, sign in ((2, a), (1, d)) if sign < 0])
    return pixels.contiguous().float().div_(255)


def _opened(path: Path, name: str) -> InputContainer:
    with path.open("rb"):
        pass  # errors of the system are of the usual kinds
    av = video_library()
    try:
        container: InputContainer = av.open(str(path.absolute()), metadata_errors="ignore")
    except av.FFmpegError as error:
        raise InvalidInputError(f"{name!r} cannot be read as a video: {error.strerror}") from error
    return container


def _stream_of(container: InputContainer, name: str) -> Any:
    """The main video stream of a file, with its times."""
    stream: Any = container.streams.best("video")
    if stream is None or stream.codec_context is None or stream.time_base is None:
        raise InvalidInputError(f"{name!r} has no video that FFmpeg can decode")
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise InvalidInputError(
            f"{name!r} is an AVI file with B-frames, and such a file does not tell when its frames are shown. Convert "
            f"it, for example by `{_conversion(name)}`"
        )
    return stream


def _starts_of(packets: Sequence[tuple[int, bool]]) -> tuple[dict[int, int], int]:
    """By the time of each frame that of the key frame to begin at; and the number of frames that have none.

    Packets come in the order of decoding. Frames that are shown before a key frame and stored behind it may refer to
    frames before it, so decoding must begin at the key frame before.
    """
    if packets and not any(is_key for _, is_key in packets):
        packets = [(packets[0][0], True), *packets[1:]]
    starts: dict[int, int] = {}
    keys: list[int] = []
    missing = 0
    for time, is_key in packets:
        if is_key:
            keys.append(time)
        start = next((key for key in reversed(keys) if key <= time), None)
        if start is None:
            missing += 1
        else:
            starts.setdefault(time, start)
    return starts, missing


def _missing_end(stream: Any, times: Sequence[int], count: int) -> list[str]:
    """A note if the header tells of more than there is."""
    if stream.frames > count:
        return [f"the file ends after {count} of {stream.frames} frames"]
    said = _seconds(stream.metadata.get("DURATION", ""))  # of Matroska
    last = times[-1] * stream.time_base if times else Fraction(0)
    usual = (times[-1] - times[-2]) * stream.time_base if len(times) > 1 else Fraction(0)
    return [f"the file ends {_at(last, 1)} of {float(said):.3f} s"] if said - last > max(_SHORT_BY, 2 * usual) else []


def _seconds(text: str) -> Fraction:
    """Of hours, minutes and seconds with colons; 0 if it is no such text."""
    try:
        hours, minutes, seconds = map(Fraction, text.split(":"))
    except ValueError:
        return Fraction(0)
    return hours * 3600 + minutes * 60 + seconds


def _is_independent(packet: Any) -> bool:
    """Whether a key frame makes the decoder forget what came before; H.264 has others, and later frames name the lost.

    Those names are errors to a strict decoder, though no picture depends on them.
    """
    if packet.stream.codec_context.name != "h264":
        return True
    data, units = bytes(packet), []
    if data.startswith((b"\x00\x00\x01", b"\x00\x00\x00\x01")):
        units = [unit[0] for unit in data.split(b"\x00\x00\x01")[1:] if unit]
    else:  # units behind their lengths
        place = 0
        while place + 4 < len(data):
            units.append(data[place + 4])
            place += 4 + int.from_bytes(data[place : place + 4], "big")
    return any(unit & 0x1F == _INSTANT_REFRESH for unit in units)


def _is_before(packet: Any, start: int) -> bool:
    """Whether a frame is shown before the key frame that it is stored behind: it refers to frames before that."""
    return packet.pts is not None and bool(packet.pts < start)


def _at(time: Fraction | int | None, time_base: Fraction | int) -> str:
    return "at its beginning" if time is None else f"at {float(time * time_base):.3f} s"


def _conversion(name: str) -> str:
    """A command that gives each frame a time; a new file, so that the old one stays."""
    path = Path(name)
    return f"ffmpeg -i '{path.name}' '{path.stem}-converted.mp4'"
