"""`PassOptions`: how an inference pass is made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.batches import Split
from cval_torch.extraction.ids import FrameIdOf
from cval_torch.hooks.base import DetectorAdapter

OnError = Literal["raise", "skip"]
"""What to do with a frame that cannot be loaded."""

OPTIONAL_COLUMNS = ("probabilities", "box_embeddings", "frame_embeddings")


@dataclass(frozen=True, kw_only=True)
class PassOptions:
    """How an inference pass is made.

    `extract` and `select` take these options as keywords; `compare` and `SamplerCallback` take `options=`. The
    defaults stand here.

    Attributes:
        adapter: reads a model of a family that is not known; see `cval_torch.hooks.DetectorAdapter`.
        frame_id: `(row of loader.dataset, target) -> str`, to name frames yourself.
        split: takes a batch of another kind apart.
        device: where to run; the model is moved there for the pass and back after it. None: where it is.
        autocast: a dtype to run under `torch.autocast` with. None: as the caller's context is.
        embedding_dtype: what embeddings are kept as, such as `torch.float16` for half the memory. None: float32.
        top_boxes: of how many boxes of a frame embeddings are kept: of those with the highest scores, and of equal
            scores of the earlier box, so that `Pool.box_embeddings` is (K, E). All else of all boxes stays. None: all.
        probabilities: whether to keep them: (B, C) float32.
        box_embeddings: whether to keep them: (B, E).
        frame_embeddings: whether to keep them: (F, D).
        on_error: what to do with a frame that the dataset cannot load, or whose image has NaN: "raise" an error that
            names it, or "skip" it and list it in `Pool.skipped`.
        progress: whether to show a bar; on rank 0 only.
        frames_per_shard: with `cache_dir`, how many frames are written at a time.
        memory_limit: the most bytes that may be kept of all frames in memory; None: what is available. A pass that is
            going to need more ends within its first frames, with an error that names the remedies.

    Raises:
        InvalidInputError: `embedding_dtype` is no floating point dtype, `top_boxes` no integer from 1, or given with
            `box_embeddings=False`, `on_error` neither "raise" nor "skip", or `memory_limit` below 1.

    >>> PassOptions(device="cpu", probabilities=False).dropped
    ('probabilities',)
    """

    adapter: DetectorAdapter | None = None
    frame_id: FrameIdOf | None = None
    split: Split | None = None
    device: torch.device | str | None = None
    autocast: torch.dtype | None = None
    embedding_dtype: torch.dtype | None = None
    top_boxes: int | None = None
    probabilities: bool = True
    box_embeddings: bool = True
    frame_embeddings: bool = True
    on_error: OnError = "raise"
    progress: bool = True
    frames_per_shard: int = 512
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.embedding_dtype is not None and not self.embedding_dtype.is_floating_point:
            raise InvalidInputError(f"`embedding_dtype` must be a floating point dtype; got {self.embedding_dtype}")
        if self.top_boxes is not None:
            self._check_top_boxes(self.top_boxes)
        if self.on_error not in ("raise", "skip"):
            raise InvalidInputError(f"`on_error` must be 'raise' or 'skip'; got {self.on_error!r}")
        if self.memory_limit is not None and self.memory_limit < 1:
            raise InvalidInputError(f"`memory_limit` must be at least 1 byte; got {self.memory_limit}")

    def _check_top_boxes(self, top_boxes: Any) -> None:
        if isinstance(top_boxes, bool) or not isinstance(top_boxes, int) or top_boxes < 1:
            raise InvalidInputError(f"`top_boxes` must be an integer of at least 1, or None; got {top_boxes!r}")
        if not self.box_embeddings:
            raise InvalidInputError(
                f"`top_boxes` says of which boxes embeddings are kept, and `box_embeddings=False` keeps none; got "
                f"top_boxes={top_boxes}. Leave out one of the two"
            )

    def keeping(self, columns: Collection[str]) -> PassOptions:
        """The same, with no other of the optional columns than these.

        >>> PassOptions(box_embeddings=False).keeping(["box_embeddings", "probabilities"]).dropped
        ('box_embeddings', 'frame_embeddings')
        """
        kept: dict[str, Any] = {name: name in columns and getattr(self, name) for name in OPTIONAL_COLUMNS}
        return replace(self, **kept, top_boxes=self.top_boxes if kept["box_embeddings"] else None)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The columns that are not kept."""
        return tuple(name for name in OPTIONAL_COLUMNS if not getattr(self, name))
