"""What exports are made of: chosen frames with a detector's boxes, or annotations, and the files of their images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset
from tqdm import tqdm

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.listing import path_of
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.class_names import ClassNames, as_names, names_for
from cval_torch.formats.export_folder import export_folder, write_frames
from cval_torch.formats.file_names import file_names_for
from cval_torch.formats.upright import upright_boxes, upright_size
from cval_torch.pool.offsets import offsets_of
from cval_torch.report.frames import ChosenFrames
from cval_torch.report.pixels import as_rgb, image_in
from cval_torch.selection.stage import DetectionSampling, describe_stage

Images = Literal["leave", "copy", "symlink", "hardlink", "pixels"]
ImageRoot = str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]]
IMAGES_FOLDER = "images"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What all exports can be told.

    Attributes:
        class_names: names of the classes by label, or a list of names. None writes the numbers.
        min_score: the detector's boxes with this score or a higher one become pre-labels, which people correct. In
            [0, 1]. None writes no boxes. Annotations are written with all of their boxes.
        images: what happens to the image files. `leave`: nothing; the export names them where they are. `copy`,
            `symlink` or `hardlink` puts them below `images/` in the folder. `pixels` writes what the dataset gives as
            PNG files there, as `copy`, `symlink` and `hardlink` do for frames without a file.
        image_root: the folder that ids (or the file names of annotations) are paths below, or a file for each id.
            None: the files that the dataset names.
        round: the number of the round, from 0, to travel along. None: annotations keep theirs.
        exist_ok: whether an export that is in the folder already is replaced.
        progress: whether to show a bar.
    """

    class_names: ClassNames | None = None
    min_score: float | None = 0.3
    images: Images = "leave"
    image_root: ImageRoot | None = None
    round: int | None = None
    exist_ok: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        if self.images not in get_args(Images):
            raise InvalidInputError(f"`images` must be one of {', '.join(get_args(Images))}; got {self.images!r}")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise InvalidInputError(f"`min_score` must be in [0, 1], or None; got {self.min_score!r}")
        if self.round is not None and (isinstance(self.round, bool) or self.round < 0):
            raise InvalidInputError(f"`round` must be 0 or more; got {self.round!r}")
        as_names(self.class_names)


@dataclass(frozen=True)
class Prepared:
    """What is written.

    Attributes:
        annotations: the frames, with file names as the export has them: below `images/` in its folder, or where they
            are.
        sources: F files of the images; None where there is none.
        stages: what chose the frames, as plain values.
    """

    annotations: Annotations
    sources: tuple[Path | None, ...]
    stages: list[dict[str, Any]]


def prepare(frames: ChosenFrames | Annotations, folder: Path, options: ExportOptions) -> Prepared:
    """Gather what an export is made of, and put the images into its folder.

    Args:
        frames: what `select` returned, or annotations.
        folder: where the export is written; images go below `images/` there.
        options: see there.

    Raises:
        InvalidInputError: no frames; a frame without a file; a file that is no image; boxes that do not fit their
            file. The message names the frame.
        OSError: an image cannot be read, copied or linked.
    """
    if len(frames) == 0:
        raise InvalidInputError("`frames` must hold at least one frame; got none")
    if isinstance(frames, Annotations):
        return _of_annotations(frames, folder, options)
    return _of_chosen(frames, folder, options)


@contextmanager
def exporting(
    frames: ChosenFrames | Annotations, folder: str | os.PathLike[str], options: ExportOptions
) -> Iterator[tuple[Path, Prepared]]:
    """What every export does: gather it, let the format write its files, add `frames.json`, and move all into place.

    Args:
        frames: what `select` returned, or annotations.
        folder: the new folder.
        options: see there.

    Yields:
        A new folder to write to, which becomes `folder` at the end (see `export_folder`), and what is to be written.

    Raises:
        InvalidInputError: see `export_folder` and `prepare`.
        OSError: something cannot be read or written.
    """
    with export_folder(folder, exist_ok=options.exist_ok) as staging:
        prepared = prepare(frames, staging, options)
        yield staging, prepared
        write_frames(staging, prepared.annotations, stages=prepared.stages)


def _of_annotations(given: Annotations, folder: Path, options: ExportOptions) -> Prepared:
    names = [frame_id or name for frame_id, name in zip(given.frame_ids, given.file_names, strict=True)]
    sources = [
        _below(options.image_root, frame_id, name)
        for frame_id, name in zip(given.frame_ids, given.file_names, strict=True)
    ]
    if options.images == "pixels":
        raise InvalidInputError("annotations have no pixels: `images='pixels'` is for chosen frames of a dataset")
    placer = _Placer(folder, options, names, sources)
    file_names, sizes = [], []
    for row in tqdm(range(len(given)), desc="export", unit="frame", disable=not options.progress):
        file_names.append(placer.place(row, None, given.file_names[row]))
        source, size = sources[row], given.sizes[row].tolist()
        sizes.append(size if min(size) > 0 or source is None else list(upright_size(source)))
    class_names = given.class_names if options.class_names is None else _renamed(given, options.class_names)
    changed = given.replace(
        file_names=file_names,
        sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        class_names=class_names,
        rounds=given.rounds if options.round is None else torch.full((len(given),), options.round),
    )
    return Prepared(changed, tuple(sources), [])


def _renamed(given: Annotations, class_names: ClassNames) -> dict[int, str]:
    return names_for(given.labels.tolist(), class_names)


def _of_chosen(frames: ChosenFrames, folder: Path, options: ExportOptions) -> Prepared:
    sources = [_source(frames, row, options) for row in range(len(frames))]
    placer = _Placer(folder, options, frames.frame_ids, sources)
    boxes, rows_kept = _pre_labels(frames, options.min_score)
    file_names, sizes, moved = [], [], []
    for row in tqdm(range(len(frames)), desc="export", unit="frame", disable=not options.progress):
        source, frame_id = sources[row], frames.frame_ids[row]
        mine = boxes[row]
        picture = _picture(frames, row) if source is None or len(mine) else None
        file_names.append(placer.place(row, picture, None))
        if source is None or options.images == "pixels":
            sizes.append((picture or as_rgb(image_in(frames[row]), frame_id)).size)
        else:
            sizes.append(upright_size(source))
            mine = mine if picture is None else upright_boxes(mine, source, picture, frame_id)
        limit = torch.tensor([*sizes[-1], *sizes[-1]])
        moved.append(torch.minimum(mine.clamp_min(0), limit))
    kept = torch.cat(rows_kept) if rows_kept else torch.empty(0, dtype=torch.int64)
    pool = frames.predictions
    labels = torch.zeros(len(kept), dtype=torch.int64) if pool.labels is None else pool.labels.cpu()[kept]
    scores = torch.ones(len(kept)) if pool.scores is None else pool.scores.cpu()[kept].float()
    size_column = torch.tensor(sizes, dtype=torch.int64)
    count = len(frames)
    annotations = Annotations(
        file_names,
        offsets_of(torch.tensor([len(each) for each in moved], dtype=torch.int64)),
        boxes=torch.cat(moved),
        labels=labels,
        class_names=names_for(labels.tolist(), options.class_names),
        frame_ids=frames.frame_ids,
        is_annotated=torch.zeros(count, dtype=torch.bool),
        sizes=size_column,
        scores=scores,
        ranks=torch.arange(1, count + 1),
        uncertainties=frames.scores.detach().cpu().double(),
        rounds=torch.full((count,), -1 if options.round is None else options.round),
        source="the chosen frames",
    )
    return Prepared(annotations, tuple(sources), _stages(frames))


def _pre_labels(frames: ChosenFrames, min_score: float | None) -> tuple[list[Tensor], list[Tensor]]:
    """For each frame its boxes, in pixels of what the dataset gives, and their rows; the surest first."""
    pool = frames.predictions
    if len(pool) != len(frames):
        raise InvalidInputError(f"`predictions` must be of the {len(frames)} frames; got those of {len(pool)}")
    if min_score is None:
        return [torch.empty(0, 4)] * len(frames), []
    if pool.boxes is None:
        raise InvalidInputError(
            "pre-labels need predictions with the column `boxes`; this pool has none. Leave them out by "
            "`min_score=None`"
        )
    columns, scores = pool.boxes.detach().cpu().float(), None if pool.scores is None else pool.scores.cpu()
    boxes, rows = [], []
    for begin, end in zip(pool.offsets[:-1].tolist(), pool.offsets[1:].tolist(), strict=True):
        mine = torch.arange(begin, end)
        if scores is not None:
            mine = mine[scores[begin:end].argsort(descending=True, stable=True)]
            mine = mine[scores[mine] >= min_score]
        boxes.append(columns[mine])
        rows.append(mine)
    return boxes, rows


def _source(frames: ChosenFrames, row: int, options: ExportOptions) -> Path | None:
    if options.images == "pixels":
        return None
    if options.image_root is not None:
        return _below(options.image_root, frames.frame_ids[row], frames.frame_ids[row])
    name = path_of(frames, row) if isinstance(frames, Subset) else None
    path = None if name is None else Path(name)
    if path is not None and path.is_file():
        return path
    if options.images == "leave":
        why = "the dataset names no file for it" if path is None else f"there is no file {str(path)!r}"
        raise InvalidInputError(
            f"frame {frames.frame_ids[row]!r} must have a file; {why}. Give the folder that ids are paths below by "
            "`image_root`, or write what the dataset gives by `images='pixels'`"
        )
    return None


def _below(root: ImageRoot | None, frame_id: str | None, name: str) -> Path | None:
    """The file of a frame below a folder, or as a mapping has it."""
    if root is None:
        return None
    if isinstance(root, Mapping):
        found = root.get(name) if frame_id is None else root.get(frame_id, root.get(name))
        if found is None:
            raise InvalidInputError(f"`image_root` must have a file for every frame; it has none for {name!r}")
        candidates = [Path(found)]
    else:
        candidates = [Path(root, each) for each in (name, frame_id) if each]
    for path in candidates:
        try:
            if path.is_file():
                return path
        except ValueError:  # a NUL in a name
            continue
    raise InvalidInputError(f"there is no file {str(candidates[0])!r} for frame {frame_id or name!r}; see `image_root`")


class _Placer:
    """Puts images into the folder of an export, and tells what they are called there."""

    def __init__(self, folder: Path, options: ExportOptions, frame_ids: Any, sources: list[Path | None]) -> None:
        self._folder, self._how, self._root = folder, options.images, options.image_root
        self._ids, self._sources = list(frame_ids), sources
        suffixes = [".png" if source is None else source.suffix.lower() or ".jpg" for source in sources]
        self._names = [f"{IMAGES_FOLDER}/{name}" for name in file_names_for(self._ids, suffixes)]

    def place(self, row: int, picture: Image.Image | None, own_name: str | None) -> str:
        """Put the image of frame `row` there, and give its name."""
        source = self._sources[row]
        if self._how == "leave":
            return self._name_as_it_is(row) if own_name is None else own_name
        target = self._folder / self._names[row]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source is None:
            if picture is None:
                raise InvalidInputError(
                    f"frame {self._ids[row]!r} has no file to be put into the folder. Give the folder that file names "
                    "are paths below by `image_root`, or leave images where they are by `images='leave'`"
                )
            picture.save(target)
        elif self._how == "symlink":
            target.symlink_to(source.resolve())
        elif self._how == "hardlink":
            try:
                os.link(source.resolve(), target)
            except OSError as error:
                raise OSError(
                    f"{str(source)!r} cannot be linked into {str(self._folder.parent)!r}: {error}. Use `images='copy'` "
                    "or 'symlink'"
                ) from error
        else:
            shutil.copyfile(source, target)
        return self._names[row]

    def _name_as_it_is(self, row: int) -> str:
        """The id, if it is the end of the path; the path below the root; or the whole path."""
        source = self._sources[row]
        if source is None:
            return str(self._ids[row])
        path = PurePosixPath(source.absolute().as_posix())
        own = PurePosixPath(self._ids[row])
        if own.parts and path.parts[-len(own.parts) :] == own.parts and not own.is_absolute():
            return str(own)
        root = None if self._root is None or isinstance(self._root, Mapping) else Path(self._root).absolute().as_posix()
        return str(path.relative_to(root)) if root is not None and path.is_relative_to(root) else str(path)


def _picture(frames: ChosenFrames, row: int) -> Image.Image | None:
    """What the dataset gives for a frame; None if it is no image, as where datasets give dicts."""
    image = image_in(frames[row])
    if not isinstance(image, (Tensor, Image.Image)):
        return None
    return as_rgb(image, frames.frame_ids[row])


def _stages(frames: ChosenFrames) -> list[dict[str, Any]]:
    stages = getattr(frames, "stages", ())
    return [dict(describe_stage(stage)) for stage in stages if isinstance(stage, DetectionSampling)]
