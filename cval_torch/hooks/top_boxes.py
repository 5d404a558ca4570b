"""The best boxes of each frame, of which alone embeddings are kept."""

from __future__ import annotations

import torch
from torch import Tensor


def top_boxes(scores: Tensor, counts: Tensor, k: int) -> Tensor:
    """Mark the boxes with the highest scores of each frame; of equal scores the earlier box comes first.

    Args:
        scores: (B,) float.
        counts: (N,) int64, the boxes of each frame; B = counts.sum().
        k: how many boxes of a frame are marked, or all, if it has fewer.

    Returns:
        (B,) bool, on the device of `scores`.

    >>> top_boxes(torch.tensor([0.2, 0.9, 0.2, 0.1]), torch.tensor([3, 0, 1]), 2)
    tensor([ True,  True, False,  True])
    """
    counts = counts.to(scores.device, torch.int64)
    frames = torch.repeat_interleave(counts)
    # scores as a pool has them, so that those that are equal there are equal here
    order = scores.float().argsort(descending=True, stable=True)
    order = order[frames[order].argsort(stable=True)]
    place = torch.arange(len(order), device=scores.device) - (counts.cumsum(0) - counts)[frames]
    return torch.zeros(len(order), dtype=torch.bool, device=scores.device).scatter_(0, order, place < k)
