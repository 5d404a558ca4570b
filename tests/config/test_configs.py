"""The configurations that come with the package, each run by the command line on photographs: `named_configs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from own_server import OwnServer

from cval_torch.cli import main
from cval_torch.config import load_config, named_configs
from tests.worlds.clips import write_clip
from tests.worlds.first_user import BUILDER, make_place

pytestmark = pytest.mark.filterwarnings("default::UserWarning")  # the command line says them

SMALLER = {
    "box_budget": ["stages.0.num_of_boxes=40", "stages.0.num_of_samples=4"],
    "ppal": ["stages.0.num_of_samples=8", "stages.1.num_of_samples=3"],
    "quickstart": ["stages.0.num_of_samples=3"],
    "rare_classes": ["stages.0.num_of_samples=3", "stages.0.class_quotas={1: 2, 2: 1}"],
    "rest_service": ["stages.0.num_of_samples=8", "stages.1.num_of_samples=3"],
    "torchvision_folder": ["stages.0.num_of_samples=3"],
    "transformers_folder": ["stages.0.num_of_samples=8", "stages.1.num_of_samples=3"],
    "ultralytics_folder": ["stages.0.num_of_samples=3", "imgsz=64"],
    "video_frames": ["stages.0.num_of_samples=2", "source.rate=5", "source.thin=0.01"],
    "distributed": ["stages.0.num_of_samples=3", "autocast=null"],  # on a CPU bfloat16 takes long
}
ELSEWHERE = {"compare"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A first user's folder, with annotations of some of the photographs."""
    folder = make_place(tmp_path_factory.mktemp("user"))
    names = [f"cats/chelsea {number}.jpg" for number in range(4)]
    document = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"image_id": number, "category_id": 1, "bbox": [10, 10, 100, 90]} for number in range(4)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cup"}],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def torchvision_model() -> list[str]:
    return [
        f"model={{builder: {BUILDER}, checkpoint: detector.pt, num_classes: 3}}",
        "class_names=[background, cat, cup]",
    ]


def common(name: str, output: Path) -> list[str]:
    return ["--config", name, "--output", str(output), "--quiet", "source=photos", "workers=0", "batch=4", "device=cpu"]


def test_all_of_them_are_run_here() -> None:
    assert set(named_configs()) == set(SMALLER) | ELSEWHERE


@pytest.mark.parametrize("name", sorted(SMALLER.keys() - {"distributed"}))
def test_it_chooses_and_exports(
    name: str, place: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    words = [*common(name, tmp_path / "out"), *SMALLER[name]]
    server = None
    if name == "ultralytics_folder":
        ultralytics = pytest.importorskip("ultralytics")
        ultralytics.YOLO("yolo11n.yaml").save(tmp_path / "best.pt")
        words.append(f"model={tmp_path / 'best.pt'}")
    elif name == "transformers_folder":
        words.append(f"model={request.getfixturevalue('transformers_checkpoint')}")
    else:
        words += torchvision_model()
    if name == "video_frames":
        (tmp_path / "clips").mkdir()
        write_clip(tmp_path / "clips" / "a.mp4", 60)
        words.append(f"source.path={tmp_path / 'clips'}")
        words.remove("source=photos")
    if name == "rest_service":
        server = OwnServer(tmp_path / "server")
        monkeypatch.setenv("CVAL_API_KEY", server.key)
        words.append(f"service={server.url}")
    try:
        assert main(["select", *words]) == 0
    finally:
        if server is not None:
            server.stop()
    chosen = (tmp_path / "out" / "ids.txt").read_text().splitlines()
    assert 1 <= len(chosen) <= 4
    config: Any = load_config(name)
    for each in config.output.export:
        assert (tmp_path / "out" / each).is_dir()
    if config.labeled is not None:
        assert not any(each.startswith("cats/chelsea ") and each[13] in "0123" for each in chosen)


def test_several_processes_share_a_pass(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    words = [*common("distributed", tmp_path / "out"), *SMALLER["distributed"], *torchvision_model()]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, "-m", "cval_torch", "select", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("3 of 25 images") == 1, "the first tells it for all"
    assert main(["select", *words, "--output", str(tmp_path / "one")]) == 0
    chosen = (tmp_path / "out" / "ids.txt").read_text()
    assert (tmp_path / "one" / "ids.txt").read_text() == chosen
    assert len(chosen.splitlines()) == 3


def test_strategies_are_compared(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = ["--config", "compare", "--quiet", "source=photos", "workers=0", "device=cpu", *torchvision_model()]
    smaller = ["compare.num_of_samples=1", "compare.start=1", "compare.draws=3"]
    assert main(["compare", *words, *smaller]) == 0
    assert "k_center" in capsys.readouterr().out
