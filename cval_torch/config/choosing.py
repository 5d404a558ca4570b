"""A selection as a configuration describes it: from images and weights to chosen frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from cval_torch.config.detectors import Detector, open_detector
from cval_torch.config.labels_file import load_labels
from cval_torch.config.schema import Config
from cval_torch.config.sources import open_source
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.formats.class_names import as_names
from cval_torch.formats.images import collate_images
from cval_torch.hooks import TiledAdapter
from cval_torch.pipeline import SelectedFrames, select_frames
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Backend
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.rest import RestBackend
from cval_torch.training.annotate import Annotated
from cval_torch.training.annotated import backend_for
from cval_torch.training.labels import LabelPool

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Work:
    """What a configuration leads to, before anything is inferred.

    Attributes:
        config: the configuration.
        dataset: all images.
        labels: which of them are annotated.
        annotated: the annotations; None where none were given, or only a record of which frames are labelled.
        detector: the model.
        class_names: names of the classes by label, of the configuration, the model or the annotations.
    """

    config: Config
    dataset: Dataset[Any]
    labels: LabelPool
    annotated: Annotated | None
    detector: Detector
    class_names: dict[int, str] | None

    def loader(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        """A loader over the dataset, or a part of it."""
        workers = self.config.workers
        return DataLoader(
            dataset,
            batch_size=self.config.batch,
            num_workers=workers,
            collate_fn=getattr(self.dataset, "collate_fn", collate_images),
        )

    def options(self, *, progress: bool) -> PassOptions:
        """How images are inferred."""
        return pass_options(self.config, self.detector, progress=progress)


def open_work(config: Config) -> Work:
    """Open the images, the annotations and the detector; what is wrong is found before anything is inferred.

    Raises:
        InvalidInputError: see `open_source`, `open_detector` and `LabelPool.annotate_from`.
        OSError: a file cannot be read.
    """
    if config.source is None:
        raise InvalidInputError("`source` must be given: a folder of images, a COCO file, or a list of paths")
    dataset = open_source(config.source)
    labels, annotated = open_labels(config, dataset)
    detector = open_detector(config)
    names = _class_names(config, detector, annotated)
    return Work(config, dataset, labels, annotated, detector, names)


def open_labels(config: Config, dataset: Dataset[Any]) -> tuple[LabelPool, Annotated | None]:
    """Which images of a dataset are annotated already."""
    labels = LabelPool(dataset)
    if config.labeled is None:
        return labels, None
    if is_record(Path(config.labeled.path)):
        load_labels(config.labeled.path, labels)
        return labels, None
    names = config.class_names
    return labels, labels.annotate_from(
        config.labeled.path, format=config.labeled.format, class_names=names, empty=config.labeled.empty
    )


def choose(
    work: Work, *, progress: bool = True, cache_dir: Path | None = None, keep: bool = False
) -> tuple[SelectedFrames, Pool | None, Pool | None]:
    """Infer the images that are not annotated, and choose among them.

    Args:
        work: what `open_work` found.
        progress: whether to show bars.
        cache_dir: a folder that keeps the pass if the process is killed.
        keep: whether to keep all predictions, to report on.

    Returns:
        The chosen frames; with `keep`, the predictions of all frames that were chosen from, and of the annotated ones
        where a stage looked at them. Else None.

    Raises:
        InvalidInputError: no stage; no image is left to choose.
        CvalError: see `select`.
    """
    stages = work.config.sampling()
    if not stages:
        raise InvalidInputError(
            "`stages` must say how many frames to choose: `--num-of-samples 200`, or `stages: [{num_of_samples: 200}]`"
        )
    left = work.labels.unlabeled
    if len(left) == 0:
        raise InvalidInputError(f"all {len(work.labels)} images are annotated already: there is nothing to choose")
    options = work.options(progress=progress)
    backend = _backend(work, stages, options, keep=keep)
    loader = work.loader(left)
    if not keep:
        chosen = select_frames(
            work.detector.model, loader, stages, backend=backend, options=options, cache_dir=cache_dir, distributed=None
        )
        return chosen, None, None
    pool = InferencePass(work.detector.model, loader, options).pool(cache_dir)
    found = (backend or LocalBackend()).select(pool, stages)
    labeled = backend.labeled if isinstance(backend, LocalBackend) else None
    return SelectedFrames(left, found, pool), pool, labeled if isinstance(labeled, Pool) else None


def pass_options(config: Config, detector: Detector, *, progress: bool) -> PassOptions:
    """How images are inferred, as a configuration says."""
    device = config.device or (f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu")
    limit = None if config.memory_limit_gb is None else int(config.memory_limit_gb * 1e9)
    source, adapter = config.source, detector.adapter
    if source is not None and source.tile is not None:
        adapter = TiledAdapter(adapter, tile=source.tile, overlap=source.overlap, batch=config.batch)
    return PassOptions(
        adapter=adapter,
        device=device,
        autocast=None if config.autocast is None else _DTYPES[config.autocast],
        embedding_dtype=None if config.embedding_dtype is None else _DTYPES[config.embedding_dtype],
        top_boxes=config.top_boxes,
        on_error=config.on_error,
        progress=progress,
        memory_limit=limit,
    )


def is_record(path: Path) -> bool:
    """Whether a file is a record of which frames are labelled, and no annotations."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"cval_torch.' in file.read(4096)


def _backend(work: Work, stages: list[DetectionSampling], options: PassOptions, *, keep: bool) -> Backend | None:
    if work.config.service is not None:
        return RestBackend(url=work.config.service.url)
    labels = work.labels

    def make_pass() -> InferencePass:
        return InferencePass(work.detector.model, work.loader(labels.labeled), options)

    return backend_for(stages, labels.labeled_ids, make_pass, counts=_counts(work), keep=keep)


def _counts(work: Work) -> dict[int, int] | None:
    """The annotated objects by the detector's labels; None where it is not known which class is which."""
    if work.annotated is None:
        return None
    label_of = {name: label for label, name in _own_names(work.config, work.detector).items()}
    annotations = work.annotated.annotations
    drawn = Counter(annotations.labels[~annotations.is_crowd].tolist())
    by_name = {annotations.class_names[label]: count for label, count in drawn.items()}
    if not by_name.keys() <= label_of.keys():
        return None
    return {label: by_name.get(name, 0) for name, label in label_of.items()}


def _class_names(config: Config, detector: Detector, annotated: Annotated | None) -> dict[int, str] | None:
    own = _own_names(config, detector)
    if own or config.class_names is not None:
        return own
    return None if annotated is None else dict(annotated.annotations.class_names)


def _own_names(config: Config, detector: Detector) -> dict[int, str]:
    """Names of the classes by the detector's labels, as the configuration or the model says; empty if neither does."""
    return as_names(config.class_names) if config.class_names is not None else dict(detector.class_names or {})
