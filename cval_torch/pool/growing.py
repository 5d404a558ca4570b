"""`GrowingColumn`: rows that come batch by batch, and are in memory once, or in a file."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

_BLOCK = 2**23  # bytes of memory taken at a time


class GrowingColumn:
    """Takes rows in, and gives all of them as one tensor at the end.

    `torch.cat` of all batches would hold every number twice for a moment. Here the rows lie in blocks, each of which is
    given back to the system as it is copied. So there are never more than the rows and one block.

    Args:
        path: a file to keep the rows in, which must not exist; None: memory.

    >>> column = GrowingColumn()
    >>> column.append(torch.tensor([[1, 2]]))
    >>> column.append(torch.tensor([[3, 4], [5, 6]]))
    >>> column.join().tolist(), len(column)
    ([[1, 2], [3, 4], [5, 6]], 3)
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._blocks: list[mmap.mmap] = []
        self._used = 0  # bytes of the last block
        self._like: Tensor | None = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the rows take; 0 for rows in a file."""
        if self._like is None or self._path is not None:
            return 0
        return self._rows * self._like.element_size() * math.prod(self._like.shape[1:])

    def append(self, rows: Tensor) -> None:
        """Take (n, ...) rows in, of the shape and dtype of those before. Raises OSError if the disk is full."""
        rows = rows.detach().cpu().contiguous()
        if self._like is None:
            self._like = rows[:0].clone()
        self._rows += len(rows)
        flat = rows.reshape(-1)
        if flat.stride(0) != 1:  # as of one number that stands for many
            flat = flat.clone(memory_format=torch.contiguous_format)
        content = flat.view(torch.uint8).numpy().data
        if self._path is not None:
            self._file = self._file or self._path.open("xb")
            self._file.write(content)
            return
        while content:
            if not self._blocks or self._used == len(self._blocks[-1]):
                self._blocks.append(mmap.mmap(-1, max(_BLOCK, len(content))))
                self._used = 0
            room = min(len(self._blocks[-1]) - self._used, len(content))
            self._blocks[-1][self._used : self._used + room] = content[:room]
            self._used += room
            content = content[room:]

    def join(self) -> Tensor:
        """All rows, (N, ...); of a column in a file, mapped from there. Nothing can be taken in after that.

        Raises:
            ValueError: no rows were taken in, not even none of a known shape.
            OSError: the disk is full.
        """
        if self._like is None:
            raise ValueError("a column of which nothing is known")
        shape = (self._rows, *self._like.shape[1:])
        numbers = math.prod(shape)
        if self._file is not None:
            self._file.close()
            if not numbers:
                return self._like
            return torch.from_file(str(self._path), shared=False, size=numbers, dtype=self._like.dtype).view(shape)
        whole = torch.empty(shape, dtype=self._like.dtype)
        target = whole.reshape(-1).view(torch.uint8).numpy().data
        filled = 0
        for number, block in enumerate(self._blocks):
            size = self._used if number == len(self._blocks) - 1 else len(block)
            target[filled : filled + size] = memoryview(block)[:size]
            filled += size
            block.close()
        self._blocks = []
        return whole
