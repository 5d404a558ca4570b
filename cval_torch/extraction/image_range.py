"""Float images of 0 to 255, which detectors that expect [0, 1] take without a word and find nothing sensible in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import warn_user
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import is_built_in
from cval_torch.hooks.tiles import TiledAdapter

LARGEST = 10.0
"""No image is brighter that is in [0, 1], or that the image processor of transformers has normalised."""


class RangeCheck:
    """Warns once a pass of float images that are not in the detector's range.

    Args:
        model: the detector.
        adapter: runs it. Only what the `forward` of an adapter of this library runs is known to expect [0, 1], or what
            its image processor gives. A detector that subtracts means above 1 from its images expects 0 to 255.
    """

    def __init__(self, model: nn.Module, adapter: DetectorAdapter) -> None:
        means = getattr(getattr(model, "transform", None), "image_mean", None)
        of_bytes = means is not None and float(torch.as_tensor(means).max()) > 1
        reader = adapter.adapter if isinstance(adapter, TiledAdapter) and adapter.adapter is not None else adapter
        self._looks = is_built_in(reader.forward) and not of_bytes

    def look(self, images: Any, frame_ids: Sequence[str]) -> None:
        """Look at the maximum of each image of a batch, until one was warned of.

        Args:
            images: `BatchParts.images`: N images; or a dict with tensors, of which those of four axes and N rows count.
            frame_ids: N ids.
        """
        for place, image in _float_images(images, len(frame_ids)) if self._looks else ():
            largest = float(image.max())
            if largest > LARGEST:
                self._looks = False
                warn_user(
                    f"the image of frame {frame_ids[place]!r} has values up to {largest:g}, and the detector expects "
                    "floats in [0, 1] (or normalised by its own image processor). Its predictions are wrong if the "
                    "images are of 0 to 255. Scale them from uint8 by "
                    "`torchvision.transforms.v2.ToDtype(torch.float32, scale=True)`, or divide them by 255"
                )
                return


def _float_images(images: Any, count: int) -> Iterator[tuple[int, Tensor]]:
    """Each image of floats that has any, with its place."""
    if isinstance(images, Mapping):
        columns = [value for value in images.values() if isinstance(value, Tensor) and value.ndim == 4]
        placed = [(place, image) for column in columns if len(column) == count for place, image in enumerate(column)]
    else:
        placed = [(place, image) for place, image in enumerate(images) if isinstance(image, Tensor)]
    for place, image in placed:
        if image.is_floating_point() and image.numel():
            yield place, image
