"""From the pixels of an image to those of the padded batch and to the cells of feature maps, and means over these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import roi_align

Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True)
class FrameSizes:
    """What a detector's transform made of N images.

    Attributes:
        original: N sizes, as the images came.
        resized: N sizes, as the detector looks at them.
        padded: the one size that all were padded to.
    """

    original: list[Size]
    resized: list[Size]
    padded: Size

    def ratios(self, device: torch.device) -> Tensor:
        """(N, 2) float32: original over resized, across and down, computed as torchvision's transform does."""
        original = torch.tensor([(width, height) for height, width in self.original], dtype=torch.float32)
        resized = torch.tensor([(width, height) for height, width in self.resized], dtype=torch.float32)
        return (original / resized).to(device, non_blocking=True)

    def clipped(self, boxes: Tensor, frames: Tensor) -> Tensor:
        """Boxes (K, 4) in resized pixels, clipped to the images of their frames (K,)."""
        limits = torch.tensor([(width, height) * 2 for height, width in self.resized])
        limits = limits.to(boxes.device, boxes.dtype, non_blocking=True)
        return boxes.clamp(min=0).minimum(limits[frames])

    def in_original(self, boxes: Tensor, frames: Tensor) -> Tensor:
        """Boxes (K, 4) from resized to original pixels, rounded to the bit as torchvision's transform rounds them."""
        ratios = self.ratios(boxes.device).repeat(1, 2)
        if boxes.dtype == torch.float32:
            return boxes * ratios[frames]
        # How a half-precision tensor times a float32 number is rounded is the device's own affair: do the same.
        scaled = torch.stack([boxes[:, column] * ratio for row in ratios for column, ratio in enumerate(row)])
        scaled = scaled.view(len(ratios), 4, len(boxes)).transpose(1, 2)
        return scaled[frames, torch.arange(len(frames), device=frames.device)]

    def in_padded(self, boxes: Tensor, frames: Tensor) -> Tensor:
        """Boxes (K, 4) from original pixels to those of the padded batch, float32."""
        return boxes.float() / self.ratios(boxes.device).repeat(1, 2)[frames]


def deepest_level(maps: Sequence[Tensor], padded: Size, *, stride: int) -> int:
    """The position of the deepest (N, D, h, w) map with cells of about `stride` pixels or less, else of the finest."""
    heights = [feature_map.shape[-2] for feature_map in maps]
    fine = [level for level, height in enumerate(heights) if padded[0] <= 1.1 * stride * height]
    return fine[-1] if fine else max(range(len(maps)), key=lambda level: heights[level])


def frame_means(feature_map: Tensor, sizes: FrameSizes) -> Tensor:
    """(N, D) float32: the mean of those cells of each frame that its image reaches into; padding is left out.

    Args:
        feature_map: (N, D, h, w) of the padded images.
        sizes: of the N images.
    """
    height, width = feature_map.shape[-2:]
    means = []
    for cells, (rows, columns) in zip(feature_map, sizes.resized, strict=True):
        reached = cells[:, : -(-rows * height // sizes.padded[0]), : -(-columns * width // sizes.padded[1])]
        means.append(reached.mean((1, 2), dtype=torch.float32))
    return torch.stack(means)


def box_means(maps: Sequence[Tensor], levels: Tensor | None, frames: Tensor, boxes: Tensor, padded: Size) -> Tensor:
    """(B, D) float32: the mean of four samples of a feature map within each box.

    Args:
        maps: (N, D, h, w) each.
        levels: (B,) int64, which of the maps each box is read from; None for the first.
        frames: (B,) int64.
        boxes: (B, 4) xyxy in pixels of the padded images.
        padded: the size of those.
    """
    regions = torch.cat([frames[:, None].float(), boxes.float()], 1)
    if levels is None:
        return _pooled(maps[0], regions, padded)
    order = levels.argsort(stable=True)
    counts = torch.bincount(levels, minlength=len(maps)).tolist()  # the one wait for the device here
    parts = zip(maps, torch.split(regions[order], counts), strict=True)
    pooled = torch.cat(
        [_pooled(feature_map, part, padded) for feature_map, part in parts if len(part)]
        or [regions.new_zeros((0, maps[0].shape[1]))]
    )
    return torch.empty_like(pooled).index_copy_(0, order, pooled)


def _pooled(feature_map: Tensor, regions: Tensor, padded: Size) -> Tensor:
    """(K, D) of K regions: (frame, xyxy)."""
    height, width = feature_map.shape[-2:]
    across, down = width / padded[1], height / padded[0]
    regions = regions * regions.new_tensor([1, across, down, across, down])
    means: Tensor = roi_align(feature_map.float(), regions, output_size=1, sampling_ratio=2, aligned=True)
    return means.flatten(1)
