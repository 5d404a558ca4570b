"""`TrainingSet`: images of a dataset with the annotations that people made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.report.pixels import image_in

Transforms = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]


class TrainingSet(Dataset[tuple[Any, dict[str, Any]]]):
    """Frames with their annotations, as torchvision's detectors train on them.

    An item is `(image, target)`. The target has `boxes`, (n, 4) float32 xyxy in pixels of that image, as
    `tv_tensors.BoundingBoxes`; `labels`, (n,) int64; and `image_id`, the frame's id. Where the dataset makes an image
    larger or smaller than it was annotated, boxes follow. A frame in which nothing was annotated has n = 0. Crowds and
    boxes without an area are left out.

    Attributes:
        frame_ids: the n ids, in order.

    Args:
        dataset: which gives an image, or a tuple that begins with one, a row.
        rows: of the dataset.
        frame_ids: of these rows.
        annotations: with these ids, in any order.
        transforms: called with image and target, such as a transform of `torchvision.transforms.v2`.

    Raises:
        InvalidInputError: a frame without annotations.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        rows: Sequence[int],
        frame_ids: Sequence[str],
        annotations: Annotations,
        *,
        transforms: Transforms | None = None,
    ) -> None:
        places = {frame_id: place for place, frame_id in enumerate(annotations.frame_ids)}
        for frame_id in frame_ids:
            if frame_id not in places:
                raise InvalidInputError(f"frame {frame_id!r} has no annotations")
        self.frame_ids = tuple(frame_ids)
        self._dataset, self._rows, self._transforms = dataset, list(rows), transforms
        self._annotations = annotations.take([places[frame_id] for frame_id in frame_ids])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        from torchvision import tv_tensors  # noqa: PLC0415, it takes seconds, and most processes need none of it

        image = image_in(self._dataset[self._rows[index]])
        if not isinstance(image, (Tensor, Image.Image)):
            raise InvalidInputError(
                f"an item of the dataset must be an image, or begin with one; frame {self.frame_ids[index]!r} is a "
                f"{type(image).__name__}"
            )
        target: dict[str, Any] = self._annotations.target(index)
        height, width = _height_and_width(image)
        boxes = self._boxes_in(target["boxes"], index, (width, height))
        target["boxes"] = tv_tensors.BoundingBoxes(
            boxes, format=tv_tensors.BoundingBoxFormat.XYXY, canvas_size=(height, width)
        )
        target["image_id"] = self.frame_ids[index]
        return (image, target) if self._transforms is None else self._transforms(image, target)

    def _boxes_in(self, boxes: Tensor, index: int, size: tuple[int, int]) -> Tensor:
        """The boxes in pixels of an image of this size."""
        was = self._annotations.sizes[index].tolist()
        if min(was) == 0 or tuple(was) == size:
            return boxes
        if abs(was[0] * size[1] - was[1] * size[0]) > max(*was, *size):  # more than a pixel of rounding
            raise InvalidInputError(
                f"frame {self.frame_ids[index]!r} was annotated with {was[0]} x {was[1]} pixels, and the dataset gives "
                f"{size[0]} x {size[1]}: it crops, pads or turns the image. Let it give the whole image, upright, and "
                "transform image and boxes together, by `transforms=`"
            )
        return boxes * torch.tensor([size[0] / was[0], size[1] / was[1]] * 2)


def _height_and_width(image: Tensor | Image.Image) -> tuple[int, int]:
    if isinstance(image, Tensor):
        return int(image.shape[-2]), int(image.shape[-1])
    return image.height, image.width
