"""A folder of real images with COCO annotations, as frames of one size in memory: cut into tiles, or resized."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SHARE_IN_TILE = 0.5  # of a box's area: less of it in a tile is no object there


@dataclass(frozen=True, eq=False)
class RealFrames:
    """N grey frames of S x S pixels, each from one of the images.

    Attributes:
        images: (N, 1, S, S) uint8.
        boxes: N of (n, 4) float32, xyxy in pixels of the frame.
        labels: N of (n,) int64, columns of `classes`.
        frame_ids: N distinct names: the image's, and of a tile `#x,y`.
        sequences: (N,) int64, which image a frame is from.
        groups: (N,) int64, which group its image belongs to: columns of `group_names`.
        classes: the names of the categories, in the order of their ids.
        group_names: the beginnings of the file names, up to the first `_`.
    """

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]
    frame_ids: list[str]
    sequences: Tensor
    groups: Tensor
    classes: tuple[str, ...]
    group_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Sequence[int]) -> RealFrames:
        """The frames at some rows, in that order."""
        return replace(
            self,
            images=self.images[list(rows)],
            boxes=[self.boxes[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            frame_ids=[self.frame_ids[row] for row in rows],
            sequences=self.sequences[list(rows)],
            groups=self.groups[list(rows)],
        )


def read_frames(folder: Path, annotations: str, *, tile: int | None = None, resize: int | None = None) -> RealFrames:
    """Read a COCO instances file and the images it names.

    Args:
        folder: has the file, and the images either beside it or in `images/`.
        annotations: the file's name. Boxes that are crowds are left out.
        tile: the side of square tiles at full resolution, from the upper left corner; what is left at the right and
            lower edges is filled up with black. A box counts in a tile that has half of it.
        resize: or the side to which whole images are stretched.

    Raises:
        ValueError: neither `tile` nor `resize`, or both; a box of a category that the file does not have.
    """
    if (tile is None) == (resize is None):
        raise ValueError("give one of `tile` and `resize`")
    document = json.loads((folder / annotations).read_text())
    categories = sorted(document["categories"], key=lambda each: each["id"])
    columns = {each["id"]: column for column, each in enumerate(categories)}
    found: dict[int, list[tuple[list[float], int]]] = {image["id"]: [] for image in document["images"]}
    for each in document["annotations"]:
        if each["category_id"] not in columns:
            raise ValueError(f"{annotations}: annotation {each['id']} is of category {each['category_id']}, unknown")
        if not each.get("iscrowd", 0):
            left, top, width, height = each["bbox"]
            found[each["image_id"]].append(([left, top, left + width, top + height], columns[each["category_id"]]))
    names = [str(image["file_name"]) for image in document["images"]]
    group_names = tuple(dict.fromkeys(sorted(Path(name).name.split("_")[0] for name in names)))
    images: list[Tensor] = []
    boxes: list[Tensor] = []
    labels: list[Tensor] = []
    frame_ids: list[str] = []
    sequences: list[int] = []
    groups: list[int] = []
    for number, (name, record) in enumerate(zip(names, document["images"], strict=True)):
        path = folder / "images" / name
        with Image.open(path if path.exists() else folder / name) as file:
            grey = file.convert("L")
        corners = torch.tensor([corner for corner, _ in found[record["id"]]]).view(-1, 4)
        kinds = torch.tensor([kind for _, kind in found[record["id"]]], dtype=torch.int64)
        parts = _tiles(grey, corners, tile) if tile is not None else [_stretched(grey, corners, int(resize or 0))]
        for where, pixels, part, kept in parts:
            images.append(pixels)
            boxes.append(part[kept])
            labels.append(kinds[kept])
            frame_ids.append(f"{name}{where}")
            sequences.append(number)
            groups.append(group_names.index(Path(name).name.split("_")[0]))
    classes = tuple(str(each["name"]) for each in categories)
    return RealFrames(
        torch.stack(images)[:, None],
        boxes,
        labels,
        frame_ids,
        torch.tensor(sequences),
        torch.tensor(groups),
        classes,
        group_names,
    )


_Part = tuple[str, Tensor, Tensor, Tensor]
"""Where it is, (S, S) pixels, (n, 4) boxes, and (n,) which of them are in it."""


def _tiles(image: Image.Image, boxes: Tensor, side: int) -> list[_Part]:
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    parts: list[_Part] = []
    for top in range(0, image.height, side):
        for left in range(0, image.width, side):
            pixels = torch.from_numpy(np.array(image.crop((left, top, left + side, top + side))))
            inside = (boxes - torch.tensor([left, top] * 2)).clamp(0, side)
            shares = (inside[:, 2:] - inside[:, :2]).prod(1)
            parts.append((f"#{left},{top}", pixels, inside, (shares > 0) & (shares >= _SHARE_IN_TILE * areas)))
    return parts


def _stretched(image: Image.Image, boxes: Tensor, side: int) -> _Part:
    pixels = torch.from_numpy(np.array(image.resize((side, side), Image.Resampling.BILINEAR)))
    scaled = boxes * torch.tensor([side / image.width, side / image.height] * 2)
    return "", pixels, scaled, (scaled[:, 2:] > scaled[:, :2]).all(1)
