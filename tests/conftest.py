"""Small real detectors, small real datasets and several processes, for the tests of what runs over them."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stand_ins
import torch
from fresh_process import run_python
from hypothesis import settings
from processes import SCRIPT, THREE, Outcomes, outcomes_of
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN

from cval_torch.hooks import registry

ROOT = Path(__file__).parents[1]

collect_ignore = ["worlds"]  # what tests import or start; some of it is for the interpreters of other environments

# Several processes run tests, and tests start processes: each of them uses one core and finds the same modules.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)
paths = [str(ROOT), str(ROOT / "tests" / "worlds"), str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
# Hosts read these when they are imported: no test needs the network, nor the settings of whoever runs it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["YOLO_OFFLINE"] = "true"
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()
# No test depends on the clock, whatever else the machine does.
settings.register_profile("no_clock", deadline=None)
settings.load_profile("no_clock")


@pytest.fixture
def faster_rcnn() -> FasterRCNN:
    return make_faster_rcnn()


@pytest.fixture
def make_frames() -> Callable[..., Frames]:
    return Frames


@pytest.fixture(scope="session")
def transformers_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small RT-DETR and its image processor, as `save_pretrained` writes them."""
    transformers = pytest.importorskip("transformers")
    folder = str(tmp_path_factory.mktemp("checkpoint"))
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[16, 16, 16],
        encoder_hidden_dim=16,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_in_channels=[16, 16, 16],
        d_model=16,
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=1,
        num_queries=20,
        num_denoising=0,
        num_labels=4,
    )
    transformers.RTDetrForObjectDetection(config).save_pretrained(folder)
    transformers.RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def page_names(
    faster_rcnn: FasterRCNN, transformers_checkpoint: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the snippets of the pages take for granted: a detector, frames, and a training step."""
    monkeypatch.setattr(registry, "_registered", {})  # a snippet registers an adapter

    def train_one_epoch(model: nn.Module, loader: DataLoader[Any]) -> None:
        assert len(loader) > 0
        model.train()

    def train_step(model: nn.Module, batch: Any) -> float:
        model.train()
        return float(len(batch))

    dataset = Frames(12)
    return {
        "model": faster_rcnn,
        "unlabeled_loader": DataLoader(dataset, batch_size=4, collate_fn=pairs),
        "labeled_loader": DataLoader(Frames(6, image_ids=True), batch_size=4, collate_fn=pairs),
        "checkpoint": transformers_checkpoint,
        "dataset": dataset,
        "first_ids": ["0", "1"],
        "collate": pairs,
        "train_one_epoch": train_one_epoch,
        "train_step": train_step,
        "detectron2_model": stand_ins.made(stand_ins.GeneralizedRCNN),
        "mmdetection_model": stand_ins.made(stand_ins.DINO),
        "DetDataSample": stand_ins.DetDataSample,
        "images": stand_ins.pictures(),
    }


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that the first process of this test run makes; the others wait for it, and take it as it is."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f"{name}-is-made"
    with (base / f"{name}-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Every scenario, by torchrun."""

    def make(root: Path) -> None:
        run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(root))

    return outcomes_of(made_once(tmp_path_factory, "two", make))


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Some scenarios in three processes without torchrun; in the end rank 1 is killed."""

    def make(root: Path) -> None:
        done = run_python(str(SCRIPT), "--fork", "3", str(root), *THREE, "a_rank_dies")
        assert json.loads(done.stdout) == [0, -9, 0], done.stderr

    return outcomes_of(made_once(tmp_path_factory, "three", make))


@pytest.fixture
def ranks(request: pytest.FixtureRequest, launch: str) -> Outcomes:
    return request.getfixturevalue(launch)  # type: ignore[no-any-return]
