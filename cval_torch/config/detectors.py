"""From the `model` of a configuration to a detector and its adapter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cval_torch.config.factories import call_factory
from cval_torch.config.schema import Config, ModelConfig
from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.hooks import DetectorAdapter

_ULTRALYTICS_SUFFIXES = {".pt", ".pth", ".yaml", ".yml"}


@dataclass(frozen=True)
class Detector:
    """A detector that is ready to infer.

    Attributes:
        model: as `select` takes it.
        adapter: with the options of the configuration; None: the family's own.
        class_names: that the model knows, by label; None where it knows none.
    """

    model: nn.Module
    adapter: DetectorAdapter | None
    class_names: dict[int, str] | None


def open_detector(config: Config) -> Detector:
    """Build the detector that a configuration names, with its weights. Nothing is downloaded.

    Raises:
        InvalidInputError: no such file, builder or function; weights of another architecture; an option that the family
            does not have. The message names the key and a remedy.
        MissingExtraError: the package of the family is not installed.
        OSError: a file cannot be read.
    """
    model = config.model
    if model is None:
        raise InvalidInputError(
            "`model` must be given: an Ultralytics .pt file, the folder of a transformers model, or the name of a "
            "torchvision detector, such as fasterrcnn_resnet50_fpn_v2"
        )
    if model.factory is not None:
        _refuse_ultralytics_options(config, "a model of your own")
        found: Any = call_factory(model.factory, model.args, key="model.factory")
        detector = found if isinstance(found, Detector) else Detector(found, None, None)
        if not hasattr(detector.model, "forward") and not hasattr(detector.model, "model"):
            raise InvalidInputError(f"`model.factory` must return a detector; got {type(found).__name__}")
        return detector
    if model.builder is not None:
        _refuse_ultralytics_options(config, "torchvision's detectors")
        return _of_torchvision(model, model.builder)
    path = Path(model.path or "")
    if path.is_dir():
        _refuse_ultralytics_options(config, "transformers' detectors")
        return _of_transformers(path)
    if path.suffix.lower() not in _ULTRALYTICS_SUFFIXES:
        raise InvalidInputError(
            f"`model`: {os.fspath(path)!r} is no folder, and no file of Ultralytics (.pt or .yaml). For weights of a "
            "torchvision detector give `model.builder` and `model.checkpoint`"
        )
    if not path.is_file():
        raise InvalidInputError(
            f"`model`: there is no file {os.fspath(path)!r}. Nothing is downloaded: train one, or fetch it first"
        )
    return _of_ultralytics(path, config)


def _refuse_ultralytics_options(config: Config, family: str) -> None:
    for name in ("imgsz", "conf", "iou", "max_det"):
        if getattr(config, name) is not None:
            raise InvalidInputError(f"`{name}` is for Ultralytics; {family} have their own settings, in `model.args`")


def _of_torchvision(config: ModelConfig, builder: str) -> Detector:
    import torchvision  # noqa: PLC0415, it takes seconds, and most processes need none of it

    names = torchvision.models.list_models(module=torchvision.models.detection)
    if builder not in names:
        raise InvalidInputError(f"`model`: torchvision has no detector {builder!r}; it has {', '.join(names)}")
    classes = 91 if config.num_classes is None else config.num_classes
    try:
        model = torchvision.models.get_model(
            builder, weights=None, weights_backbone=None, num_classes=classes, **config.args
        )
    except TypeError as error:
        raise InvalidInputError(f"`model.args`: {builder} cannot be built with {config.args}: {error}") from error
    if config.checkpoint is None:
        raise InvalidInputError(
            f"`model.checkpoint` must be given: a file with the state dict of your {builder}. Without it, its weights "
            "are random, and so is every choice"
        )
    _load_weights(model, Path(config.checkpoint), f"{builder} with {classes} classes")
    return Detector(model.eval(), None, None)


def _load_weights(model: nn.Module, path: Path, what: str) -> None:
    if not path.is_file():
        raise InvalidInputError(f"`model.checkpoint`: there is no file {os.fspath(path)!r}")
    try:
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InvalidInputError(
            f"`model.checkpoint`: {os.fspath(path)!r} is no file of weights alone, as `torch.save(model.state_dict(), "
            f"...)` writes it: {str(error).splitlines()[0]}"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(saved, dict) and isinstance(saved.get(key), dict):
            saved = saved[key]
    try:
        model.load_state_dict(saved)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        detail = lines[1] if len(lines) > 1 else lines[0]
        raise InvalidInputError(
            f"`model.checkpoint`: the weights in {os.fspath(path)!r} are not of a {what}: {detail[:200]}. Check "
            "`model.builder` and `model.num_classes`"
        ) from error


def _of_transformers(folder: Path) -> Detector:
    try:
        from transformers import AutoImageProcessor, AutoModelForObjectDetection  # noqa: PLC0415, an extra

        from cval_torch.hooks.transformers import TransformersAdapter  # noqa: PLC0415, needs the same extra
    except ImportError as error:
        raise MissingExtraError("transformers", needed_for=f"the model in {os.fspath(folder)!r}") from error
    try:
        model = AutoModelForObjectDetection.from_pretrained(folder, local_files_only=True)
        has_processor = (folder / "preprocessor_config.json").is_file()
        load: Any = AutoImageProcessor.from_pretrained
        processor = load(folder, local_files_only=True) if has_processor else None
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"`model`: {os.fspath(folder)!r} holds no detector of transformers: {str(error).splitlines()[0][:200]}"
        ) from error
    names = {int(label): str(name) for label, name in (model.config.id2label or {}).items()}
    return Detector(model.eval(), TransformersAdapter(processor=processor), names)


def _of_ultralytics(path: Path, config: Config) -> Detector:
    try:
        import ultralytics  # noqa: PLC0415, an extra

        from cval_torch.hooks.ultralytics import UltralyticsAdapter  # noqa: PLC0415, needs the same extra
    except ImportError as error:
        raise MissingExtraError("ultralytics", needed_for=f"the model {os.fspath(path)!r}") from error
    try:
        model = ultralytics.YOLO(path, verbose=False)  # type: ignore[attr-defined]
    except Exception as error:  # whatever is wrong with a file of theirs
        raise InvalidInputError(
            f"`model`: Ultralytics cannot load {os.fspath(path)!r}: {str(error).splitlines()[0][:200]}. For a state "
            "dict of a torchvision detector give `model.builder` and `model.checkpoint`"
        ) from error
    given = {"conf": config.conf, "iou": config.iou, "max_det": config.max_det, "imgsz": config.imgsz}
    adapter = UltralyticsAdapter(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    return Detector(model, adapter, {int(label): str(name) for label, name in model.names.items()})
