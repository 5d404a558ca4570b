"""From the `model` of a configuration to a detector, and every mistake that a first user makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_model

from cval_torch.config import load_config
from cval_torch.config.detectors import Detector, open_detector
from cval_torch.errors import InvalidInputError

BUILDER = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "detector.pt"
    torch.manual_seed(0)
    model = get_model(BUILDER, weights=None, weights_backbone=None, num_classes=3)
    torch.save({"model": model.state_dict(), "epoch": 3}, path)
    return path


def opened(**values: Any) -> Detector:
    return open_detector(load_config(None, values=values))


def test_a_torchvision_detector_has_the_weights_of_its_checkpoint(checkpoint: Path) -> None:
    found = opened(model=BUILDER, **{"model.checkpoint": str(checkpoint), "model.num_classes": 3}).model
    expected = torch.load(checkpoint, weights_only=True)["model"]
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    assert not found.training


def test_an_ultralytics_model_brings_its_names_and_options(tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics")
    ultralytics.YOLO("yolo11n.yaml").save(tmp_path / "best.pt")
    found = opened(model=str(tmp_path / "best.pt"), imgsz=320, conf=0.2)
    assert found.class_names is not None
    assert len(found.class_names) == 80
    adapter: Any = found.adapter
    assert (adapter.conf, adapter.imgsz) == (0.2, (320, 320))


def test_a_transformers_folder_brings_its_processor(transformers_checkpoint: str) -> None:
    found = opened(model=transformers_checkpoint)
    assert found.class_names
    assert "ForObjectDetection" in type(found.model).__name__


def test_a_factory_of_the_users_own() -> None:
    found = opened(**{"model.factory": "tests.worlds.tiny_rcnn:make_faster_rcnn", "model.args": {"num_classes": 4}})
    assert type(found.model).__name__ == "FasterRCNN"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "`model` must be given"),
        ({"model": "gone.pt"}, "no file 'gone.pt'. Nothing is downloaded"),
        ({"model": "no_such_net"}, "torchvision has no detector 'no_such_net'; it has fasterrcnn"),
        ({"model": BUILDER}, "`model.checkpoint` must be given"),
        ({"model": BUILDER, "model.checkpoint": "gone.pt"}, "`model.checkpoint`: there is no file 'gone.pt'"),
        ({"model": BUILDER, "model.args": {"num_classes": 3}}, "cannot be built with {'num_classes': 3}"),
        ({"model": "weights.onnx"}, r"is no folder, and no file of Ultralytics"),
        ({"model": BUILDER, "imgsz": 320}, "`imgsz` is for Ultralytics"),
        ({"model.factory": "builtins:int"}, "`model.factory` must return a detector; got int"),
    ],
)
def test_mistakes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        opened(**values)


def test_weights_of_another_architecture(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"are not of a ssdlite.* with 5 classes: size mismatch.*num_classes"):
        opened(model=BUILDER, **{"model.checkpoint": str(checkpoint), "model.num_classes": 5})
    with pytest.raises(InvalidInputError, match="are not of a retinanet"):
        opened(model="retinanet_resnet50_fpn", **{"model.checkpoint": str(checkpoint)})
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InvalidInputError, match="is no file of weights alone"):
        opened(model=BUILDER, **{"model.checkpoint": str(tmp_path / "text.pt")})


def test_files_that_are_no_models_of_a_package(tmp_path: Path) -> None:
    for package in ("ultralytics", "transformers"):
        pytest.importorskip(package)
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(InvalidInputError, match=r"Ultralytics cannot load .*text.pt"):
        opened(model=str(tmp_path / "text.pt"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match="holds no detector of transformers"):
        opened(model=str(tmp_path / "folder"))
