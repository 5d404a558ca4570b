"""`TiledAdapter`: large images are inferred in overlapping tiles, and remain one frame each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import DetectorAdapter, FrameBatch, Later, LaterRows, OpensHolders, Recording
from cval_torch.hooks.checking import check_form, faults_of
from cval_torch.hooks.finding import find_adapter, is_built_in
from cval_torch.hooks.finite import NotFiniteError
from cval_torch.hooks.recorder import Recorder
from cval_torch.hooks.registry import adapters_known
from cval_torch.hooks.regrouping import in_order
from cval_torch.hooks.tile_grid import TileGrid


@dataclass(frozen=True)
class _Tiled:
    """What `forward` found: the tiles of each image, and the rows of all tiles, in pixels of the tiles."""

    grids: list[TileGrid]
    tiles: FrameBatch


class TiledAdapter:
    """Cuts large images into overlapping tiles, has another adapter read each, and joins what it read.

    Detectors scale images down to the size they were trained on, so small objects of a large image vanish. In tiles
    they keep their size. `extract` and `select` still give one frame an image, with the image's id.

    - Tiles of a row or column overlap by `overlap` pixels. The last one is moved inwards, so that all have full size.
      An image, or a side of one, that is smaller than a tile is taken whole.
    - Boxes are in pixels of the image. Of boxes of one class from different tiles that overlap by more than `iou`, the
      one with the highest score stays; boxes that are cut by the edge of a tile come last, and vanish in a whole one.
      Boxes of one tile never suppress each other: the detector has done that. They are sorted by score.
    - A box keeps the label, score, `probabilities` and `box_embeddings` of its own row. `frame_embeddings` are the mean
      over tiles, weighted by the area that each stands for; a pixel in several tiles counts once.
    - An image of one tile gives what `adapter` gives.

    Objects should be smaller than `overlap`: of a larger one no tile at a seam may have the whole.

    Args:
        adapter: reads a tile; None: the adapter that knows the model.
        tile: side of a tile in pixels.
        overlap: pixels that neighboring tiles share, at least; less than `tile`.
        iou: in (0, 1].
        batch: how many tiles are inferred at a time. Their number does not depend on the loader's batches.

    Raises:
        InvalidInputError: an argument out of its range.
    """

    def __init__(
        self,
        adapter: DetectorAdapter | None = None,
        *,
        tile: int = 1024,
        overlap: int = 128,
        iou: float = 0.5,
        batch: int = 8,
    ) -> None:
        if tile < 1:
            raise InvalidInputError(f"`tile` must be at least 1 pixel; got {tile}")
        if not 0 <= overlap < tile:
            raise InvalidInputError(f"`overlap` must be from 0 to less than `tile`, which is {tile}; got {overlap}")
        if not 0 < iou <= 1:
            raise InvalidInputError(f"`iou` must be in (0, 1]; got {iou}")
        if batch < 1:
            raise InvalidInputError(f"`batch` must be at least 1; got {batch}")
        if isinstance(adapter, TiledAdapter):
            raise InvalidInputError("`adapter` must read a tile whole; got another TiledAdapter")
        self.adapter, self.tile, self.overlap, self.iou, self.batch = adapter, tile, overlap, iou, batch
        self.name = "a detector in tiles" if adapter is None else f"{adapter.name} in tiles"

    def matches(self, model: nn.Module) -> bool:
        """Whether `adapter` knows `model`, or any adapter does."""
        adapters = adapters_known() if self.adapter is None else [self.adapter]
        return any(adapter.matches(model) for adapter in adapters)

    def refusal(self, model: nn.Module) -> str | None:
        """Why `adapter` does not read a model, if it says so."""
        asked = (each for each in ([self.adapter] if self.adapter else adapters_known()) if hasattr(each, "refusal"))
        return next((reason for reason in (each.refusal(model) for each in asked) if reason), None)

    def open(self, holder: Any) -> tuple[nn.Module, TiledAdapter] | None:
        """What `adapter` opens, or any adapter does; tiles are then read as the holder would read an image."""
        for adapter in adapters_known() if self.adapter is None else [self.adapter]:
            found = adapter.open(holder) if isinstance(adapter, OpensHolders) else None
            if found is not None:
                tiled = TiledAdapter(found[1], tile=self.tile, overlap=self.overlap, iou=self.iou, batch=self.batch)
                return found[0], tiled
        return None

    def modules(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """None: `forward` records tiles itself, and forgets some before it runs the next."""
        return {}

    def forward(self, model: nn.Module, images: Any) -> _Tiled:
        """Infer all tiles, those of one size together.

        Raises:
            InvalidInputError: images that are no list of (C, H, W) tensors, such as a batch of a host's own.
        """
        if not isinstance(images, (list, tuple, Tensor)) or any(getattr(image, "ndim", 0) != 3 for image in images):
            raise InvalidInputError(
                f"a TiledAdapter takes a list of images (C, H, W); got {type(images).__name__}. Batches of a host's "
                "own are scaled already: load the images themselves, for example by `cval_torch.formats.ImageFolder`"
            )
        grids = [TileGrid.over(image.shape[-2], image.shape[-1], self.tile, self.overlap) for image in images]
        places = [(number, corner) for number, grid in enumerate(grids) for corner in grid.corners]
        by_size: dict[tuple[int, int], list[int]] = {}
        for position, (number, _) in enumerate(places):
            by_size.setdefault(grids[number].tile, []).append(position)
        chunks = [
            (size, positions[begin : begin + self.batch])
            for size, positions in by_size.items()
            for begin in range(0, len(positions), self.batch)
        ]
        adapter = find_adapter(model, self.adapter)
        parts: list[tuple[list[int], FrameBatch]] = []
        with Recorder(dict(adapter.modules(model)), within=model) as recorder:
            for (height, width), positions in chunks:
                tiles = []
                for number, (top, left) in (places[position] for position in positions):
                    tiles.append(images[number][:, top : top + height, left : left + width])
                try:
                    read = _read(adapter, model, tiles, recorder)
                except NotFiniteError as error:
                    raise NotFiniteError(places[positions[error.place]][0], error.what) from error
                if len(chunks) > 1:  # what is left for later holds the maps of all tiles
                    read.settle()
                parts.append((positions, read))
            recorder.clear()
        return _Tiled(grids, in_order(parts))

    def read(self, model: nn.Module, recording: Recording, output: _Tiled) -> FrameBatch:
        """The boxes of all tiles of an image, in its pixels, each object once."""
        found, grids = output.tiles, output.grids
        counts = found.counts.cpu()
        rows, boxes, boxes_of_images = [], found.boxes.clone(), []
        tile = begin = 0
        for grid in grids:
            of_tiles = counts[tile : tile + len(grid)]
            mine = slice(begin, begin + int(of_tiles.sum()))
            kept = torch.arange(mine.stop - mine.start)
            if len(grid) > 1:
                tiles = torch.repeat_interleave(of_tiles)
                shifts = torch.tensor([(left, top, left, top) for top, left in grid.corners], dtype=boxes.dtype)
                boxes[mine] += shifts[tiles].to(boxes.device)
                kept = grid.kept_rows(boxes[mine], found.labels[mine], found.scores[mine], tiles, self.iou)
            rows.append(kept + begin)
            boxes_of_images.append(len(kept))
            tile, begin = tile + len(grid), mine.stop
        picked = torch.cat(rows)
        return _joined(found, boxes, picked.to(boxes.device), torch.tensor(boxes_of_images), grids)


def _read(adapter: DetectorAdapter, model: nn.Module, tiles: list[Tensor], recorder: Recorder) -> FrameBatch:
    """What an adapter reads of tiles of one size; that of the user's own is checked, as in a pass."""
    recorder.clear(tiles)
    output = adapter.forward(model, tiles)
    recorder.check()
    frames = adapter.read(model, recorder.recording, output)
    if not is_built_in(adapter.read):
        check_form(frames, len(tiles), adapter.name)
        faults = faults_of(frames, [(tile.shape[-2], tile.shape[-1]) for tile in tiles])
        if faults:
            raise HookError(f"what {adapter.name} read is wrong: {'; '.join(faults)}")
    return frames


def _joined(found: FrameBatch, boxes: Tensor, rows: Tensor, counts: Tensor, grids: Sequence[TileGrid]) -> FrameBatch:
    """The rows of images out of those of tiles, every column by the same rows."""

    def has(name: str) -> bool:
        return vars(found)[name] is not None

    def probabilities() -> Any:
        column: Any = found.probabilities
        return column[rows]

    def box_embeddings(picked: Tensor | slice) -> Any:
        return found.embeddings_at(rows[picked if isinstance(picked, slice) else picked.to(rows.device)])

    def frame_embeddings() -> Tensor:
        column: Any = found.frame_embeddings
        means, begin = [], 0
        for grid in grids:
            mine = column[begin : begin + len(grid)]
            weights = grid.shares().float().to(mine.device)
            means.append(mine[0] if len(grid) == 1 else (mine.float() * weights[:, None]).sum(0).to(mine.dtype))
            begin += len(grid)
        return torch.stack(means)

    return FrameBatch(
        counts=counts,
        boxes=boxes[rows],
        labels=found.labels[rows],
        scores=found.scores[rows],
        probabilities=Later(probabilities).column if has("probabilities") else None,
        activation=found.activation,
        box_embeddings=LaterRows(box_embeddings).column if has("box_embeddings") else None,
        frame_embeddings=Later(frame_embeddings).column if has("frame_embeddings") else None,
    )
