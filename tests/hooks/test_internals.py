"""What each adapter leans on of its host, by name. No version is pinned: where a release moves one, this says which.

Adapters look at more than these: at what modules are called with, and what they return. Their own tests see that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

Place = tuple[Any, str]
"""An object of the host, and a dotted path in it; numbers are positions."""


def gone(places: list[Place]) -> list[str]:
    """Those that are not there, by the object's class and the path."""
    return [f"{type(thing).__name__}.{path}" for thing, path in places if not reaches(thing, path)]


def reaches(thing: Any, path: str) -> bool:
    for part in path.split("."):
        try:
            thing = thing[int(part)] if part.lstrip("-").isdigit() else getattr(thing, part)
        except (AttributeError, IndexError, KeyError, TypeError):
            return False
    return True


def classes_gone(module: str, names: list[str]) -> list[str]:
    found = importlib.import_module(module)
    return [f"{module}.{name}" for name in names if not hasattr(found, name)]


def torchvision() -> list[str]:
    from tiny_torchvision import tiny

    rcnn, anchored = tiny("rcnn"), [tiny(family) for family in ("retinanet", "fcos", "ssd")]
    of_rcnn = ["transform", "rpn.head", "roi_heads.box_predictor", "roi_heads.box_coder.decode_single"]
    of_anchored = ["transform", "head", "anchor_generator", "box_coder"]
    return gone([(rcnn, path) for path in of_rcnn] + [(each, path) for each in anchored for path in of_anchored])


def ultralytics() -> list[str]:
    import tiny_yolo

    names = ["Detect", "OBB", "WorldDetect", "YOLOEDetect", "RTDETRDecoder"]
    missing = classes_gone("ultralytics.nn.modules.head", names)
    missing += classes_gone("ultralytics.nn.tasks", ["BaseModel"])
    missing += classes_gone("ultralytics.engine.model", ["Model"])
    missing += classes_gone("ultralytics.utils.torch_utils", ["ModelEMA"])
    plain, free = tiny_yolo.fresh("yolov8n"), tiny_yolo.fresh("yolov10n")
    of_head = ["cv2", "cv3", "stride", "nc", "reg_max", "end2end"]
    places = [(plain, "model.model.-1")] + [(plain.model.model[-1], path) for path in of_head]
    places += [(free.model.model[-1], path) for path in ("one2one_cv2", "one2one_cv3")]
    return missing + gone(places)


def ultralytics_rtdetr() -> list[str]:
    import tiny_yolo

    head = tiny_yolo.ultralytics.RTDETR("yolov8n-rtdetr.yaml").model.model[-1]
    return gone([(head, path) for path in ("dec_score_head", "decoder.eval_idx", "input_proj.-1")])


def transformers() -> list[str]:
    import tiny_detr

    from cval_torch.hooks.transformers import FAMILIES, _last_layer

    missing = classes_gone("transformers", [*FAMILIES, *{family.processor for family in FAMILIES.values()}])
    places: list[Place] = []
    for name in tiny_detr.MODELS:
        model = tiny_detr.fresh(name)
        family = FAMILIES[type(model).__name__]
        layer = _last_layer(model)
        paths = [family.encoder, family.head.format(layer=layer), (family.logits or family.head).format(layer=layer)]
        places += [(model, path) for path in paths]
        if family.square:
            places += [
                (model, f"config.backbone_config.{side}") for side in ("image_size", "patch_size", "num_windows")
            ]
    return missing + gone(places)


def zero_shot() -> list[str]:
    import tiny_zero_shot

    from cval_torch.hooks.zero_shot import FAMILIES

    missing = classes_gone("transformers", [*FAMILIES])
    places: list[Place] = []
    for name in tiny_zero_shot.MAKERS:
        model, processor = tiny_zero_shot.built(name)
        family = FAMILIES[type(model).__name__]
        paths = [family.head.format(layer=getattr(model.config, "decoder_layers", 1) - 1)]
        paths += [family.encoder] if family.encoder else []
        paths += ["config.max_text_len"] if family.tokens else []
        paths += ["language_cache_class.capacity", "language_cache_prompt.capacity"] if family.suppressed else []
        places += [(model, path) for path in paths] + [(processor, path) for path in ("tokenizer", "image_processor")]
    return missing + gone(places)


def rfdetr() -> list[str]:
    import tiny_rfdetr

    holder, keypoints = tiny_rfdetr.built(), tiny_rfdetr.built("RFDETRKeypointPreview").model.model
    of_holder = ["model.model", "model.resolution", "model.postprocess.num_select", "means", "stds"]
    of_network = ["backbone.0.encoder.shape", "class_embed", "num_queries", "use_grouppose_keypoints"]
    places = [(holder, path) for path in of_holder] + [(holder.model.model, path) for path in of_network]
    places += [(keypoints, path) for path in ("bbox_embed", "transformer", "bbox_reparam")]
    return classes_gone("rfdetr.models.lwdetr", ["LWDETR"]) + classes_gone("rfdetr.detr", ["RFDETR"]) + gone(places)


def effdet() -> list[str]:
    import tiny_effdet

    bench = tiny_effdet.built()
    of_bench = ["anchors.boxes", "max_detection_points", "max_det_per_image", "soft_nms", "model"]
    of_network = ["class_net", "box_net", "config.image_size", "config.max_detection_points", "config.soft_nms"]
    missing = classes_gone("effdet.bench", ["DetBenchPredict", "DetBenchTrain"])
    missing += classes_gone("effdet.soft_nms", ["batched_soft_nms"]) + classes_gone("effdet.anchors", ["Anchors"])
    places = [(bench, path) for path in of_bench] + [(bench.model, path) for path in of_network]
    return missing + gone(places)


HOSTS: list[tuple[str, str, Callable[[], list[str]]]] = [
    ("torchvision", "tiny_torchvision", torchvision),
    ("ultralytics", "tiny_yolo", ultralytics),
    ("ultralytics", "tiny_yolo", ultralytics_rtdetr),
    ("transformers", "tiny_detr", transformers),
    ("transformers", "tiny_zero_shot", zero_shot),
    ("rfdetr", "tiny_rfdetr", rfdetr),
    ("effdet", "tiny_effdet", effdet),
]


@pytest.mark.parametrize(("package", "world", "missing"), HOSTS, ids=[check.__name__ for *_, check in HOSTS])
def test_what_an_adapter_leans_on_is_there(package: str, world: str, missing: Callable[[], list[str]]) -> None:
    pytest.importorskip(world)
    from importlib.metadata import version

    moved = missing()
    assert not moved, f"{package} {version(package)} has moved what the adapter leans on: {', '.join(moved)}"


def test_every_adapter_is_looked_after() -> None:
    from pathlib import Path

    from cval_torch.hooks.registry import ADAPTERS

    modules = {entry.module.rpartition(".")[2] for entry in ADAPTERS} | {"zero_shot"}
    assert modules == {check.__name__ for *_, check in HOSTS}
    assert all((Path(__file__).parents[2] / f"cval_torch/hooks/{module}.py").exists() for module in modules)


def test_what_is_gone_is_named() -> None:
    holder = nn.ModuleDict({"heads": nn.ModuleList([nn.Linear(1, 1)])})
    places: list[Place] = [(holder, "heads.-1.weight"), (holder, "heads.1"), (holder, "heads.0.gone"), (holder, "neck")]
    assert gone(places) == ["ModuleDict.heads.1", "ModuleDict.heads.0.gone", "ModuleDict.neck"]
    assert classes_gone("torch.nn", ["Linear", "Curve"]) == ["torch.nn.Curve"]
