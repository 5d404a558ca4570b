"""Folders of photographs of which some cannot be read: cut short, or so large that Pillow refuses them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset


def write_photos(
    folder: Path, names: Iterable[str], *, truncated: Iterable[str] = (), bombs: Iterable[str] = ()
) -> None:
    """JPEGs of noise, each a function of its name; some without their second half, some with the head of a huge PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name, format="jpeg")
    for name in truncated:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    for name in bombs:
        size = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", size) + _chunk(b"IDAT", b""))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class Photos(Dataset[Any]):
    """The photographs of a folder, as many a dataset reads them: Pillow's errors come out as they are.

    Args:
        folder: where they are.
        targets: whether a target with boxes stands beside each image.
    """

    def __init__(self, folder: Path, *, targets: bool = False) -> None:
        self.paths = sorted(str(path) for path in folder.iterdir())
        self.root, self.targets = str(folder), targets

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        with Image.open(self.paths[row]) as file:
            pixels = torch.from_numpy(np.array(file.convert("RGB")))
        image: Tensor = pixels.permute(2, 0, 1).float() / 255
        target = {"boxes": torch.tensor([[4.0, 4, 20, 20]]), "labels": torch.tensor([1 + row % 3])}
        return (image, target) if self.targets else image
