"""One video file: every frame is the one of its time, in any order of reading, or an error names clip and time."""

from __future__ import annotations

import random
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.formats.video_clip import ClipFrames, ClipReader, list_frames, upright_pixels

pytest.importorskip("av")
from clips import CODECS, HEIGHT, SIDE, WIDTH, cut, damage, number_in, picture, write_clip


def orders(count: int) -> dict[str, list[int]]:
    shuffled = random.Random(0).sample(range(count), count)
    return {"forwards": list(range(count)), "backwards": list(range(count))[::-1], "shuffled": shuffled}


@pytest.mark.parametrize("end", CODECS)
def test_every_frame_is_that_of_its_time_in_any_order(end: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{end}", 35)
    frames = list_frames(path, "a")
    assert frames.notes == ()
    begin = frames.milliseconds(0)
    assert [frames.milliseconds(index) - begin for index in range(35)] == [40 * number for number in range(35)]
    reader = ClipReader(path, "a")
    for order in orders(35).values():
        shown = [number_in(upright_pixels(reader.read(frames.times[at], frames.starts[at]))) for at in order]
        assert shown == order
    reader.close()


def test_pixels_are_those_of_the_picture(tmp_path: Path) -> None:
    """Within what compression changes, and not with red and blue exchanged, say."""
    options = {"crf": "1", "preset": "ultrafast"}
    path = write_clip(tmp_path / "a.mp4", 3, options=options)
    frames = list_frames(path, "a")
    pixels = upright_pixels(ClipReader(path, "a").read(frames.times[2], frames.starts[2]))
    assert (pixels.shape, pixels.dtype) == ((3, HEIGHT, WIDTH), torch.float32)
    expected = torch.from_numpy(picture(2)).permute(2, 0, 1) / 255
    assert (pixels - expected).abs().mean() < 0.02


def test_frames_stored_behind_a_key_frame_and_shown_before_it_begin_at_the_key_frame_before(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.open-group.mkv", 35)
    frames = list_frames(path, "a")
    keys = sorted(set(frames.starts))
    assert len(keys) > 2
    assert all(start <= time for start, time in zip(frames.starts, frames.times, strict=True))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_frames_of_variable_rate_and_odd_start(name: str, tmp_path: Path) -> None:
    times = [37_013, 37_020, 37_500, 37_501, 40_000, 40_040, 40_999, 55_001]
    path = write_clip(tmp_path / name, 8, times=times, unit=Fraction(1, 1000))
    frames = list_frames(path, name)
    assert [frames.milliseconds(at) for at in range(8)] == times
    reader = ClipReader(path, name)
    for at in (7, 2, 3, 0, 6):
        assert number_in(upright_pixels(reader.read(frames.times[at], frames.starts[at]))) == at


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_frames_are_upright(turns: int, tmp_path: Path) -> None:
    """A file with a display matrix is shown turned counterclockwise by its angle."""
    path = write_clip(tmp_path / "a.mp4", 2, rotation={1: 90, 2: 180, 3: -90}[turns])
    frames = list_frames(path, "a")
    pixels = upright_pixels(ClipReader(path, "a").read(frames.times[1], frames.starts[1]))
    stored = torch.from_numpy(np.rot90(picture(1), turns).copy()).permute(2, 0, 1) / 255
    assert pixels.shape == stored.shape
    assert (pixels - stored).abs().mean() < 0.06
    assert pixels.is_contiguous()


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [((-1, 0, 0, 1), np.fliplr), ((1, 0, 0, -1), np.flipud), ((0, 1, 1, 0), lambda pixels: np.swapaxes(pixels, 0, 1))],
    ids=["mirrored", "upside down", "transposed"],
)
def test_frames_are_mirrored_as_the_file_says(matrix: tuple[int, ...], expected, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 2)
    data = path.read_bytes()
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    a, b, c, d = (65536 * value for value in matrix)
    place = data.index(identity, data.index(b"tkhd"))
    path.write_bytes(data[:place] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[place + 36 :])
    frames = list_frames(path, "a")
    pixels = upright_pixels(ClipReader(path, "a").read(frames.times[1], frames.starts[1]))
    shown = torch.from_numpy(expected(picture(1)).copy()).permute(2, 0, 1) / 255
    assert pixels.shape == shown.shape
    assert (pixels - shown).abs().mean() < 0.06


def listed(milliseconds: list[int], time_base: Fraction = Fraction(1, 1000)) -> ClipFrames:
    return ClipFrames(milliseconds, milliseconds, time_base)


@pytest.mark.parametrize(
    ("frames", "rate", "chosen"),
    [
        (listed(list(range(0, 4000, 40))), 1, [0, 25, 50, 75]),
        (listed(list(range(13, 4013, 40))), 1, [0, 25, 50, 75]),
        (listed([0, 40, 2500, 2540, 2580, 3010]), 1, [0, 2, 5]),  # nothing is repeated where frames are rare
        (listed([round(number * 1000 / 30) for number in range(9)]), 15, [0, 2, 4, 6, 8]),  # times are rounded
        (listed([0, 40, 80]), 100, [0, 1, 2]),
        (listed([0, 40, 80]), None, [0, 1, 2]),
        (listed(list(range(0, 40_000, 2500))), 0.1, [0, 4, 8, 12]),
        (listed(list(range(110)), Fraction(1, 10)), 0.3, [0, 33, 67, 100]),
        (listed([0, 4, 9, 10, 19, 20], Fraction(1, 10_000)), None, [0, 2, 4]),  # one a millisecond, as ids are
        (listed([]), 1, []),
    ],
)
def test_frames_at_a_rate(frames: ClipFrames, rate: float | None, chosen: list[int]) -> None:
    assert frames.at_rate(rate) == chosen


def test_a_damaged_picture_spoils_only_those_that_are_made_from_it(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", 40), 0.6, 300)
    frames = list_frames(path, "a.mp4")
    reader = ClipReader(path, "a.mp4")
    found: dict[str, list[int]] = {}
    for order, indices in orders(40).items():
        found[order] = []
        for at in indices:
            try:
                assert number_in(upright_pixels(reader.read(frames.times[at], frames.starts[at]))) == at
                found[order].append(at)
            except InvalidInputError as error:
                assert str(error).startswith(f"'a.mp4' cannot be read at {at / 25:.3f} s: ")  # noqa: PT017
    good = sorted(found["forwards"])
    assert 10 <= len(good) < 40
    assert set(range(10)) <= set(good)  # the first group of pictures lies before the damage
    assert sorted(found["backwards"]) == sorted(found["shuffled"]) == good


def test_on_request_a_damaged_frame_is_what_the_decoder_makes_of_it(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", 40), 0.6, 100)
    frames = list_frames(path, "a.mp4")
    strict, lenient = (ClipReader(path, "a.mp4", strict=each) for each in (True, False))
    differ = 0
    for time, start in zip(frames.times, frames.starts, strict=True):
        try:
            expected = upright_pixels(strict.read(time, start))
        except InvalidInputError as error:
            assert str(error).endswith("Pass `strict=False` for what the decoder makes of it")  # noqa: PT017
            differ += upright_pixels(lenient.read(time, start)).shape == (3, HEIGHT, WIDTH)
        else:
            assert torch.equal(upright_pixels(lenient.read(time, start)), expected)
    assert differ > 3


@pytest.mark.parametrize("end", ["mp4", "mkv", "ts", "avi"])
def test_of_a_truncated_clip_the_first_frames_are_there(end: str, tmp_path: Path) -> None:
    path = write_clip(tmp_path / f"a.{end}", 40)
    if end == "mp4":  # its table of contents stands at the end, so the whole is lost
        cut(path, 0.6)
        with pytest.raises(InvalidInputError, match=r"^'a.mp4' cannot be read as a video: "):
            list_frames(path, "a.mp4")
        return
    cut(path, 0.8 if end == "avi" else 0.6)  # an AVI file begins with a long header
    frames = list_frames(path, "a")
    count = len(frames.times)
    assert 10 < count < 40
    assert bool(frames.notes) == (end != "ts")  # a transport stream does not tell how long it was going to be
    reader = ClipReader(path, "a")
    for at in range(count - 3):
        assert number_in(upright_pixels(reader.read(frames.times[at], frames.starts[at]))) == at


def test_a_note_says_how_much_is_missing(tmp_path: Path) -> None:
    frames = list_frames(cut(write_clip(tmp_path / "a.mkv", 40), 0.6), "a")
    last = frames.milliseconds(len(frames.times) - 1) / 1000
    assert frames.notes[-1] == f"the file ends at {last:.3f} s of 1.600 s"


def test_a_frame_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Such as after the file was replaced by another."""
    path = write_clip(tmp_path / "a.mp4", 10)
    frames = list_frames(path, "a.mp4")
    reader = ClipReader(path, "a.mp4")
    with pytest.raises(InvalidInputError, match=r"^'a.mp4' cannot be read at 0.040 s: "):
        reader.read(frames.times[1] + 1, frames.starts[1])
    with pytest.raises(InvalidInputError, match=r"there is no key frame at 0.040 s"):
        reader.read(frames.times[1], frames.starts[1] + 513)
    assert number_in(upright_pixels(reader.read(frames.times[3], frames.starts[3]))) == 3


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("hello")
    with pytest.raises(InvalidInputError, match=r"^'a.mp4' cannot be read as a video: "):
        list_frames(path, "a.mp4")
    with pytest.raises(FileNotFoundError):
        list_frames(tmp_path / "b.mp4", "b.mp4")


def test_a_file_without_times_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", codec="libx264", options={"bf": "2"})
    with pytest.raises(InvalidInputError, match=r"AVI file with B-frames.*`ffmpeg -i 'a.avi' 'a-converted.mp4'`"):
        list_frames(path, "a.avi")


def test_a_recording_that_begins_between_key_frames_begins_at_the_next(tmp_path: Path) -> None:
    data = write_clip(tmp_path / "a.ts", 40).read_bytes()
    packets = [data[place : place + 188] for place in range(0, len(data), 188)]
    (tmp_path / "b.ts").write_bytes(b"".join(packets[:3] + packets[len(packets) // 3 :]))
    frames = list_frames(tmp_path / "b.ts", "b")
    assert any("before the first key frame" in note for note in frames.notes)
    first = ClipReader(tmp_path / "b.ts", "b").read(frames.times[0], frames.starts[0])
    assert number_in(upright_pixels(first)) % 10 == 0


def test_the_number_is_read_from_what_is_shown() -> None:
    for number in (0, 1, 5, 34):
        assert number_in(torch.from_numpy(picture(number)).permute(2, 0, 1).float() / 255) == number
    assert SIDE * 8 <= WIDTH
