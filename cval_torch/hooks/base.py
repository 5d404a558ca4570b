"""The protocol between a family of detectors and the extraction: what an adapter must answer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from cval_torch.pool.pool import Activation


@dataclass
class Call:
    """One recorded forward of one module: its positional and keyword inputs, and its output."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


Size = tuple[int, int]
"""(height, width) in pixels."""


class Recording(dict[str, Sequence[Call]]):
    """The calls of one batch, by the names that `DetectorAdapter.modules` gave, in the order they ran.

    Attributes:
        images: what `DetectorAdapter.forward` was given: the images as the loader gave them, on the model's device.

    >>> import torch
    >>> Recording({}, images=[torch.zeros(3, 40, 60)]).sizes
    [(40, 60)]
    """

    def __init__(self, calls: Mapping[str, Sequence[Call]], *, images: Any = None) -> None:
        super().__init__(calls)
        self.images = images

    @property
    def sizes(self) -> list[Size] | None:
        """(height, width) of each plain image; None for a batch of a host's own kind."""
        return sizes_of(self.images)


def sizes_of(images: Any) -> list[Size] | None:
    """(height, width) of N plain images; None for images in any other form."""
    if not isinstance(images, (list, tuple)) or not all(isinstance(image, Tensor) for image in images):
        return None
    return [(int(image.shape[-2]), int(image.shape[-1])) for image in images]


class Later:
    """A column of a `FrameBatch` that is computed when it is first looked at, and not at all if nobody looks.

    A pass lets the columns go that it does not keep. So an adapter may give `Later(function)` in place of a tensor
    that takes time, such as the embeddings of boxes.

    Args:
        compute: gives the tensor. What the recording held may be used, not the recording itself.

    >>> import torch
    >>> frames = FrameBatch(torch.ones(1).long(), torch.zeros(1, 4), torch.ones(1).long(), torch.ones(1),
    ...                     box_embeddings=Later(lambda: torch.zeros(1, 8)).column)
    >>> frames.box_embeddings.shape
    torch.Size([1, 8])
    """

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        self.compute = compute

    @property
    def column(self) -> Any:
        """Itself, for a field of a `FrameBatch`, which will say that it is a tensor."""
        return self


class LaterRows(Later):
    """A `Later` of which single rows can be computed, for embeddings of boxes that are kept of some boxes only.

    Args:
        of_rows: from distinct rows, (K,) int64 on the CPU or where the scores are, to (K, ...); from `slice(None)` to
            all of them. What it gives of a row must not depend on the others that are asked for.

    >>> import torch
    >>> features = torch.tensor([[1.0], [2.0], [3.0]])
    >>> LaterRows(lambda rows: 10 * features[rows]).of_rows(torch.tensor([2]))
    tensor([[30.]])
    """

    def __init__(self, of_rows: Callable[[Tensor | slice], Tensor]) -> None:
        super().__init__(lambda: of_rows(slice(None)))
        self.of_rows = of_rows


@dataclass
class FrameBatch:
    """What one forward pass said of its frames: the rows of a `Pool`, before ids are attached.

    `probabilities`, `box_embeddings` and `frame_embeddings` may each be a `Later`, and `box_embeddings` a `LaterRows`.

    Attributes:
        counts: (N,) int64, boxes of each of the N frames.
        boxes: (B, 4) float32 xyxy in pixels of the image as the loader gave it; B = counts.sum().
        labels: (B,) int64.
        scores: (B,) float32 in [0, 1].
        probabilities: (B, C) float32, or None if the family has none.
        activation: how `probabilities` came to be: `softmax` (rows sum to 1, background column
            included) or `sigmoid` (independent columns).
        box_embeddings: (B, E), or None.
        frame_embeddings: (N, D), or None.
        embedded: (B,) bool, the K boxes that `box_embeddings` (K, E) are left of; None: all. Only a pass sets it.
    """

    counts: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    probabilities: Tensor | None = None
    activation: Activation | None = None
    box_embeddings: Tensor | None = None
    frame_embeddings: Tensor | None = None
    embedded: Tensor | None = field(default=None, init=False)

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if isinstance(value, Later):
            value = value.compute()
            object.__setattr__(self, name, value)
        return value

    def let_go(self, names: Collection[str]) -> None:
        """Forget those of some columns that are a `Later` nobody has looked at."""
        for name in names:
            if isinstance(vars(self)[name], Later):
                setattr(self, name, None)
                if name == "probabilities":
                    self.activation = None

    def embeddings_at(self, rows: Tensor) -> Tensor | None:
        """(K, E), the embeddings of the boxes at (K,) int64 distinct rows; no others are computed if that can be."""
        column = vars(self)["box_embeddings"]
        if isinstance(column, LaterRows):
            return column.of_rows(rows)
        whole = self.box_embeddings
        return None if whole is None else whole[rows.to(whole.device)]

    def embed_only(self, marks: Tensor) -> None:
        """Let the embeddings go of all boxes but those that (B,) bool `marks` say."""
        column = vars(self)["box_embeddings"]
        if column is None:
            return
        if not isinstance(column, LaterRows):
            whole: Any = self.box_embeddings
            if not isinstance(whole, Tensor) or whole.shape[:1] != marks.shape:
                return  # it is no column of these boxes, which is said when it is checked
        self.box_embeddings, self.embedded = self.embeddings_at(marks.nonzero().squeeze(1)), marks

    def settle(self) -> FrameBatch:
        """Compute every `Later` that is left. It is due before the recording is forgotten. Raises what they raise."""
        for name in ("probabilities", "box_embeddings", "frame_embeddings"):
            getattr(self, name)
        return self


@dataclass
class BatchParts:
    """A loader's batch, taken apart.

    Attributes:
        images: what the adapter's `forward` takes; tensors anywhere in it are moved to the model's device.
        count: N, the number of frames.
        targets: N targets, one a frame, or None if the batch has none. Only their ids are read.
    """

    images: Any
    count: int
    targets: Sequence[Any] | None = None


@runtime_checkable
class DetectorAdapter(Protocol):
    """One family of detectors. Pass an instance as `extract(..., adapter=...)` for a model of your own.

    The extraction calls, in this order: `matches`, to find the detector in what it was given, `modules` once,
    and then a batch at a time `forward` and `read`. With `cache_dir`, what an adapter holds and the code of its methods
    tell one pass from another, and a copy of it reads two images of noise first.
    """

    name: str
    """Shown in errors and tables, such as `"Faster R-CNN"`."""

    def matches(self, model: nn.Module) -> bool:
        """Whether this adapter knows `model` (already unwrapped from DDP, DataParallel, torch.compile)."""
        ...

    def modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """The modules to record, each under a name of the adapter's choice. Each must run once a batch or more."""
        ...

    def forward(self, model: nn.Module, images: Any) -> Any:
        """Run the model's own, ordinary inference.

        Args:
            model: the user's detector, in eval mode.
            images: a list of (C, H, W) tensors on the model's device, or `BatchParts.images` of one's own `split`.
        """
        ...

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        """Turn what was recorded, and what `forward` returned, into rows.

        Args:
            model: as `forward` got it.
            recording: the calls of the modules; `recording.images` and `recording.sizes` are of the loader's images.
            output: what `forward` returned.

        Raises:
            HookError: it cannot.
        """
        ...


@runtime_checkable
class SplitsBatches(Protocol):
    """What an adapter may also have: a reading of its host's own kind of batch, such as a dict of tensors."""

    def split(self, batch: Any) -> BatchParts | None:
        """Take the batch of a loader apart, or return None: it is an ordinary one (images, perhaps with targets).

        Raises:
            InvalidInputError: the batch is of the host's kind, but not as this family takes it.
        """
        ...


@runtime_checkable
class OpensHolders(Protocol):
    """What an adapter may also have: knowledge of the objects in which its host keeps a network, which are not it."""

    def open(self, holder: Any) -> tuple[nn.Module, DetectorAdapter] | None:
        """The network in `holder`, and an adapter that reads it as the holder would; None: it is no such object.

        Args:
            holder: anything, such as a host's own predictor, a wrapper for training, or a network.
        """
        ...
