"""Images on their way into a forward pass of a host's, and batches that need several passes put in order again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import Call, FrameBatch, Later, LaterRows, Recording
from cval_torch.pool.offsets import rows_in_parts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels: what most hosts normalize by."""


def unit_range(image: Tensor) -> Tensor:
    """An image as float32 in [0, 1]: integers are taken to be 0 to 255, floating point numbers to be in [0, 1]."""
    return image.float() if image.is_floating_point() else image.float() / 255


def stretched(images: Sequence[Tensor], size: int | tuple[int, int]) -> Tensor:
    """(N, C, height, width) float32 in [0, 1], each image scaled to one size, whatever its shape; no antialiasing."""
    parts = [
        functional.interpolate(unit_range(image)[None], size, mode="bilinear", align_corners=False) for image in images
    ]
    return torch.cat(parts)


def normalized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., C, H, W), less the mean of each channel and over its deviation.

    Raises:
        InvalidInputError: the images have another number of channels.
    """
    if images.shape[-3] != len(mean):
        raise InvalidInputError(f"images must have {len(mean)} channels; got {images.shape[-3]}")
    centre, spread = (
        torch.tensor(each, dtype=images.dtype, device=images.device)[:, None, None] for each in (mean, std)
    )
    return (images - centre) / spread


def calls_of_passes(recording: Recording, passes: int) -> list[Mapping[str, Call]]:
    """The recorded calls of each of a batch's passes, by module name. Of several calls in a pass, the last.

    Raises:
        HookError: a module ran in some of the passes only, so it cannot be told in which.
    """
    for name, calls in recording.items():
        if not calls or len(calls) % passes:
            raise HookError(
                f"`{name}` must run as often in each of the {passes} forward passes; it ran {len(calls)} times"
            )
    steps = {name: len(calls) // passes for name, calls in recording.items()}
    return [
        {name: calls[(number + 1) * steps[name] - 1] for name, calls in recording.items()} for number in range(passes)
    ]


def in_order(parts: Sequence[tuple[Sequence[int], FrameBatch]]) -> FrameBatch:
    """One batch out of the passes that its images ran in, because their sizes differ.

    Args:
        parts: of each pass the positions of its frames in the batch, and what was read of them. Together the
            positions are 0, 1, ... N - 1; all parts have the same columns.

    Returns:
        The N frames by position, each with its boxes in the order they had.
    """
    if len(parts) == 1:
        return parts[0][1]
    batches = [batch for _, batch in parts]
    positions = torch.tensor([position for rows, _ in parts for position in rows])
    counts = torch.cat([batch.counts.cpu() for batch in batches])
    frame_order = positions.argsort()
    box_order = positions.repeat_interleave(counts).argsort(stable=True)

    def joined(name: str, order: Tensor) -> Any:
        if vars(batches[0])[name] is None:
            return None

        def join() -> Tensor:
            column = torch.cat([getattr(batch, name) for batch in batches])
            return column[order.to(column.device)]

        return Later(join).column

    def box_embeddings(picked: Tensor | slice) -> Tensor:
        rows = box_order[picked if isinstance(picked, slice) else picked.cpu()]
        by_part = rows.argsort(stable=True)
        of_parts = rows_in_parts(rows[by_part], [len(batch.scores) for batch in batches])
        found = [batch.embeddings_at(mine) for batch, mine in zip(batches, of_parts, strict=True)]
        column = torch.cat([part for part in found if part is not None])
        return column[by_part.argsort().to(column.device)]

    embedded_nowhere = vars(batches[0])["box_embeddings"] is None
    boxes = torch.cat([batch.boxes for batch in batches])
    on_device = box_order.to(boxes.device)
    return FrameBatch(
        counts=counts[frame_order],
        boxes=boxes[on_device],
        labels=torch.cat([batch.labels for batch in batches])[on_device],
        scores=torch.cat([batch.scores for batch in batches])[on_device],
        probabilities=joined("probabilities", box_order),
        activation=batches[0].activation,
        box_embeddings=None if embedded_nowhere else LaterRows(box_embeddings).column,
        frame_embeddings=joined("frame_embeddings", frame_order),
    )
