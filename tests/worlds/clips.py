"""Small videos, made by PyAV, in which each frame shows its own number beside a real picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from skimage.data import chelsea
from torch import Tensor

BITS = 8
SIDE = 16
WIDTH, HEIGHT = 160, 96
X264 = {"bf": "2", "g": "10", "preset": "ultrafast"}

CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "mp4": ("libx264", {**X264, "preset": "veryfast"}),
    "open-group.mkv": ("libx264", {**X264, "preset": "veryfast", "x264-params": "open-gop=1:bframes=3:keyint=10"}),
    "hevc.mkv": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:bframes=2:keyint=10"}),
    "ts": ("libx264", X264),
    "mpg": ("mpeg2video", {"bf": "2", "g": "10"}),
    "webm": ("libvpx-vp9", {"deadline": "realtime", "g": "10", "auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp8.webm": ("libvpx", {"deadline": "realtime", "g": "10"}),
    "avi": ("mpeg4", {"bf": "0", "g": "10"}),
    "mjpeg.avi": ("mjpeg", {}),
}
"""Encoders by the ends of file names."""


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8: a cat, a little further to the left in each frame, above the frame's number in binary."""
    pixels = np.ascontiguousarray(chelsea()[100 : 100 + height, number * 2 : number * 2 + width])
    for bit in range(BITS):
        pixels[height - SIDE :, bit * SIDE : (bit + 1) * SIDE] = 255 if number >> bit & 1 else 0
    return pixels


def number_in(image: Tensor) -> int:
    """The number that a frame shows."""
    assert image.dtype == torch.float32
    cells = image[:, -SIDE:, : BITS * SIDE].mean(dim=(0, 1)).reshape(BITS, SIDE).mean(dim=1)
    return sum(1 << bit for bit in range(BITS) if cells[bit] > 0.5)


def write_clip(
    path: Path,
    pictures: Iterable[np.ndarray[Any, Any]] | int = 30,
    *,
    times: Sequence[int] | None = None,
    unit: Fraction = Fraction(1, 25),
    codec: str | None = None,
    options: dict[str, str] | None = None,
    rotation: int | None = None,
) -> Path:
    """Encode pictures, or so many of `picture`; shown at `times` in `unit`s of seconds, or one a unit."""
    shown = [picture(number) for number in range(pictures)] if isinstance(pictures, int) else list(pictures)
    end = next((end for end in sorted(CODECS, key=len, reverse=True) if path.name.endswith(end)), "mp4")
    name, usual = CODECS[end]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec or name, rate=25, options=usual if options is None else options)
        stream.height, stream.width = shown[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if name == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = unit
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for place, pixels in enumerate(shown):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = (place if times is None else times[place]), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    """Leave the first part of a file."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    return path


def damage(path: Path, share: float, count: int = 400) -> Path:
    """Overwrite bytes from a place in a file on."""
    data = bytearray(path.read_bytes())
    begin = int(len(data) * share)
    data[begin : begin + count] = np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8).tobytes()
    path.write_bytes(bytes(data))
    return path
