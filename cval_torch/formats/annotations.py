"""`Annotations`: what people marked in frames, whatever file it came from and whatever file it goes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import offsets_of, places_of

_FRAME_COLUMNS = {"sizes": torch.int64, "is_annotated": torch.bool, "ranks": torch.int64, "rounds": torch.int64}
_BOX_COLUMNS = {"labels": torch.int64, "scores": torch.float32, "is_crowd": torch.bool}


@dataclass(frozen=True, eq=False)
class Annotations:
    """The boxes marked in F frames, B in all; frame `i` owns boxes `offsets[i]:offsets[i+1]`.

    A frame without boxes is one of two things: annotated, and nothing is in it; or not annotated yet. `is_annotated`
    tells them apart.

    Attributes:
        file_names: F paths of images, with slashes, as they stand in the file.
        offsets: (F+1,) int64, from 0 to B, never falling.
        boxes: (B, 4) float32, xyxy in pixels of the upright image.
        labels: (B,) int64, the class of each box, a key of `class_names`.
        class_names: distinct names of the classes by label.
        frame_ids: F ids that travelled along; None where the file has none. Those that are there are distinct.
        is_annotated: (F,) bool, whether somebody looked at the frame. True where nothing else is given.
        sizes: (F, 2) int64, width and height of each image in pixels; 0 where the file does not tell.
        scores: (B,) float32 in [0, 1], the confidences of boxes that a detector marked; NaN for boxes that people drew.
        is_crowd: (B,) bool, whether a box holds a crowd and not one object.
        ranks: (F,) int64, the place of the frame in its choice, from 1; 0 where the file does not tell.
        uncertainties: (F,) float64, the frame score that it was chosen by; NaN where the file does not tell.
        rounds: (F,) int64, the number of the round that chose the frame, from 0; -1 where the file does not tell.
        source: what to call the file in messages.
        skipped: file names of frames that the file has and that were left out, such as cancelled tasks.
        notes: what a user should know of how the file was read, each a sentence.

    Raises:
        InvalidInputError: a column of another length, shape or type; a label without a name; a box that is not finite,
            or whose right or lower side is before the other; the same frame id twice. The message names the frame.

    >>> marked = Annotations(
    ...     ["a.jpg", "b.jpg"],
    ...     torch.tensor([0, 1, 1]),
    ...     boxes=torch.tensor([[10.0, 20.0, 40.0, 60.0]]),
    ...     labels=torch.tensor([1]),
    ...     class_names={1: "bolt"},
    ... )
    >>> marked
    Annotations(2 frames, 2 annotated, 1 boxes, 1 classes)
    >>> marked.target(1)
    {'boxes': tensor([], size=(0, 4)), 'labels': tensor([], dtype=torch.int64)}
    """

    file_names: Sequence[str]
    offsets: Tensor
    boxes: Tensor
    labels: Tensor
    class_names: Mapping[int, str]
    frame_ids: Sequence[str | None] = ()
    is_annotated: Tensor = field(default=None)  # type: ignore[assignment]
    sizes: Tensor = field(default=None)  # type: ignore[assignment]
    scores: Tensor = field(default=None)  # type: ignore[assignment]
    is_crowd: Tensor = field(default=None)  # type: ignore[assignment]
    ranks: Tensor = field(default=None)  # type: ignore[assignment]
    uncertainties: Tensor = field(default=None)  # type: ignore[assignment]
    rounds: Tensor = field(default=None)  # type: ignore[assignment]
    source: str = "the annotations"
    skipped: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._fill()
        frames, boxes = len(self), len(self.labels)
        if self.offsets.shape != (frames + 1,) or int(self.offsets[0]) != 0 or bool((self.offsets.diff() < 0).any()):
            raise InvalidInputError(
                f"`offsets` must be ({frames + 1},), start at 0 and never fall, for {frames} `file_names`; got "
                f"{tuple(self.offsets.shape)}"
            )
        if int(self.offsets[-1]) != boxes:
            raise InvalidInputError(f"`labels` must be ({int(self.offsets[-1])},), as `offsets` says; got ({boxes},)")
        shapes: dict[str, tuple[int, ...]] = {"boxes": (boxes, 4), "sizes": (frames, 2)}
        for name in ("labels", "scores", "is_crowd"):
            shapes[name] = (boxes,)
        for name in ("is_annotated", "ranks", "uncertainties", "rounds"):
            shapes[name] = (frames,)
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InvalidInputError(f"`{name}` must be {shape}; got {tuple(getattr(self, name).shape)}")
        if len(self.frame_ids) != frames:
            raise InvalidInputError(f"`frame_ids` must be {frames}, one a file name; got {len(self.frame_ids)}")
        self._check_ids()
        self._check_boxes()

    def _fill(self) -> None:
        frames, boxes = len(self.file_names), len(self.labels)
        columns: dict[str, Any] = {
            "file_names": tuple(self.file_names),
            "frame_ids": tuple(self.frame_ids) or (None,) * frames,
            "class_names": dict(self.class_names),
            "skipped": tuple(self.skipped),
            "notes": tuple(self.notes),
            "boxes": self.boxes.detach().cpu().float(),
        }
        defaults: dict[str, Tensor] = {
            "is_annotated": torch.ones(frames, dtype=torch.bool),
            "sizes": torch.zeros(frames, 2, dtype=torch.int64),
            "scores": torch.full((boxes,), torch.nan),
            "is_crowd": torch.zeros(boxes, dtype=torch.bool),
            "ranks": torch.zeros(frames, dtype=torch.int64),
            "uncertainties": torch.full((frames,), torch.nan, dtype=torch.float64),
            "rounds": torch.full((frames,), -1, dtype=torch.int64),
        }
        for name, default in defaults.items():
            if getattr(self, name) is None:
                columns[name] = default
        for name, value in columns.items():
            object.__setattr__(self, name, value)
        for name, dtype in {**_FRAME_COLUMNS, **_BOX_COLUMNS, "uncertainties": torch.float64}.items():
            object.__setattr__(self, name, getattr(self, name).detach().cpu().to(dtype))

    def _check_ids(self) -> None:
        seen: set[str] = set()
        for frame_id in self.frame_ids:
            if frame_id is not None and frame_id in seen:
                raise InvalidInputError(f"the frame {frame_id!r} stands twice in {self.source}")
            if frame_id is not None:
                seen.add(frame_id)
        if len(set(self.class_names.values())) != len(self.class_names):
            raise InvalidInputError(f"the names of classes must be distinct; got {list(self.class_names.values())}")

    def _check_boxes(self) -> None:
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        wrong = ~(self.boxes.isfinite().all(1) & (high >= low).all(1))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise InvalidInputError(
                f"boxes must be finite, xyxy, with the left upper corner first; got {self.boxes[row].tolist()} in "
                f"{self.name_of_box(row)}"
            )
        known = torch.tensor(list(self.class_names), dtype=torch.int64)
        unnamed = ~torch.isin(self.labels, known)
        if bool(unnamed.any()):
            row = int(unnamed.nonzero()[0])
            raise InvalidInputError(
                f"`class_names` must name every label; got the label {int(self.labels[row])} in "
                f"{self.name_of_box(row)}, and names for {sorted(self.class_names)}"
            )

    def __len__(self) -> int:
        return len(self.file_names)

    def __repr__(self) -> str:
        return (
            f"Annotations({len(self)} frames, {int(self.is_annotated.sum())} annotated, {len(self.labels)} boxes, "
            f"{len(self.class_names)} classes)"
        )

    @property
    def counts(self) -> Tensor:
        """(F,) int64, the boxes of each frame."""
        return self.offsets.diff()

    def name_of_box(self, row: int) -> str:
        """What to call the frame of box `row` in a message."""
        frame = int(torch.searchsorted(self.offsets, row, right=True)) - 1
        return f"{self.file_names[frame]!r} of {self.source}"

    def take(self, rows: Sequence[int] | Tensor) -> Annotations:
        """The frames at `rows`, in that order."""
        picked = torch.as_tensor(rows, dtype=torch.int64)
        within, offsets = places_of(self.offsets, picked)
        columns: dict[str, Any] = {name: getattr(self, name)[within] for name in ("boxes", *_BOX_COLUMNS)}
        columns |= {name: getattr(self, name)[picked] for name in (*_FRAME_COLUMNS, "uncertainties")}
        places = picked.tolist()
        return dataclasses.replace(
            self,
            file_names=[self.file_names[row] for row in places],
            frame_ids=[self.frame_ids[row] for row in places],
            offsets=offsets,
            **columns,
        )

    @classmethod
    def cat(cls, parts: Sequence[Annotations]) -> Annotations:
        """One after another.

        Raises:
            InvalidInputError: no parts; a frame id in two of them; a label with two names, or a name with two labels.
        """
        if not parts:
            raise InvalidInputError("`parts` must hold at least one Annotations; got none")
        if len(parts) == 1:
            return parts[0]
        class_names: dict[int, str] = {}
        for part in parts:
            for label, name in part.class_names.items():
                if class_names.setdefault(label, name) != name:
                    raise InvalidInputError(
                        f"the label {label} is {class_names[label]!r} in {parts[0].source} and {name!r} in "
                        f"{part.source}. Read both with the same `class_names`"
                    )
        columns = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in ("boxes", *_BOX_COLUMNS, *_FRAME_COLUMNS, "uncertainties")
        }
        sources = dict.fromkeys(part.source for part in parts)
        return cls(
            file_names=[name for part in parts for name in part.file_names],
            frame_ids=[frame_id for part in parts for frame_id in part.frame_ids],
            offsets=offsets_of(torch.cat([part.counts for part in parts])),
            class_names=class_names,
            source=", ".join(sources),
            skipped=[name for part in parts for name in part.skipped],
            notes=[note for part in parts for note in part.notes],
            **columns,
        )

    def target(self, row: int) -> dict[str, Tensor]:
        """What a torchvision detector trains on for frame `row`: `boxes` (n, 4) float32 xyxy and `labels` (n,) int64.

        Crowds, which hold several objects, and boxes without an area are left out: a detector cannot train on them.
        """
        part = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        boxes = self.boxes[part]
        usable = ~self.is_crowd[part] & (boxes[:, 2:] > boxes[:, :2]).all(1)
        return {"boxes": boxes[usable], "labels": self.labels[part][usable]}

    def by_name(self, names: Sequence[str]) -> Tensor:
        """(n,) int64: the labels of classes with these names."""
        label_of = {name: label for label, name in self.class_names.items()}
        return torch.tensor([label_of[name] for name in names], dtype=torch.int64)

    def replace(self, **columns: Any) -> Annotations:
        """The same annotations with some columns exchanged, and checked again."""
        return dataclasses.replace(self, **columns)
