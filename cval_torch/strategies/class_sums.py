"""`ClassSums`: numbers of boxes, added up by frame and class, with no room for classes that a frame does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cval_torch.pool.offsets import chunks, offsets_of, places_of

_CHUNK_BOXES = 2**18


@dataclass(frozen=True, eq=False)
class ClassSums:
    """The sums of V numbers over the boxes of each class in each of F frames; M pairs of a frame and a class in all.

    A dense table of a million frames and 1,203 classes would take 4.8 GB, though a frame shows a handful.

    Attributes:
        offsets: (F+1,) int64, where the pairs of each frame begin.
        labels: (M,) int64, the classes, rising within a frame.
        sums: (M, V) float32.

    >>> found = ClassSums.of(torch.tensor([0, 3]), torch.tensor([7, 2, 7]), torch.tensor([[1.0], [2.0], [4.0]]))
    >>> found.labels.tolist(), found.sums.tolist()
    ([2, 7], [[2.0], [5.0]])
    """

    offsets: Tensor
    labels: Tensor
    sums: Tensor

    @classmethod
    def of(cls, offsets: Tensor, labels: Tensor, values: Tensor) -> ClassSums:
        """Add up in float64, in the order of the boxes: a frame's sums do not depend on other frames.

        Args:
            offsets: (F+1,) int64, where the boxes of each frame begin.
            labels: (B,) int64, of boxes.
            values: (B, V) float, of boxes.
        """
        sizes, found, sums = [], [], []
        for begin, end in chunks(offsets, boxes=_CHUNK_BOXES):
            first, last = int(offsets[begin]), int(offsets[end])
            owners = torch.arange(end - begin, device=labels.device)
            owners = owners.repeat_interleave(offsets[begin : end + 1].diff())
            classes, columns = torch.unique(labels[first:last], sorted=True, return_inverse=True)
            keys, order = (owners * len(classes) + columns).sort(stable=True)
            pairs, counts = torch.unique_consecutive(keys, return_counts=True)
            sizes.append(torch.bincount(pairs // max(len(classes), 1), minlength=end - begin))
            found.append(classes[pairs % max(len(classes), 1)])
            rows = values[first:last][order].double()
            sums.append(
                torch.segment_reduce(rows, "sum", lengths=counts, axis=0).float() if len(order) else rows.float()
            )
        if not sizes:
            return cls(offsets[:1], labels[:0], values[:0].float())
        return cls(offsets_of(torch.cat(sizes)), torch.cat(found), torch.cat(sums))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> ClassSums:
        """The frames at (n,) int64 `rows`, in that order."""
        places, offsets = places_of(self.offsets, rows)
        return ClassSums(offsets, self.labels[places], self.sums[places])

    @classmethod
    def cat(cls, parts: Sequence[ClassSums]) -> ClassSums:
        """One after another, the frames of one or more parts."""
        counts = torch.cat([part.offsets.diff() for part in parts])
        return cls(
            offsets_of(counts), torch.cat([part.labels for part in parts]), torch.cat([part.sums for part in parts])
        )

    def by_frame(self, factors: Tensor) -> Tensor:
        """(F,) float64, for each frame the sum over its classes of the first number times (M,) `factors`."""
        products = self.sums[:, 0].double() * factors
        if len(products) == 0:
            return products.new_zeros(len(self))
        added: Tensor = torch.segment_reduce(products, "sum", lengths=self.offsets.diff(), axis=0)
        return added
