"""The benchmark on real images: what it makes of a folder, its settings, and a run from the photographs of a wheel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import real_pool
from real_frames import read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of three groups with two boxes each; the categories' ids are neither dense nor in order."""
    from skimage import data

    root = tmp_path_factory.mktemp("real")
    (root / "images").mkdir()
    photos = {"cat_1": data.chelsea(), "cup_1": data.coffee(), "cup_2": data.coffee(), "sky_1": data.rocket()}
    images, annotations = [], []
    for number, (name, pixels) in enumerate(photos.items(), start=7):
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
        height, width = pixels.shape[:2]
        images.append({"id": number, "file_name": f"{name}.png", "width": width, "height": height})
        for place, category in ((0, 30), (1, 4)):
            box = [40 + 70 * place, 50, 60, 40]
            annotations.append({"image_id": number, "category_id": category, "bbox": box, "iscrowd": 0})
    annotations.append({"image_id": 7, "category_id": 4, "bbox": [0, 0, 200, 200], "iscrowd": 1})
    for number, each in enumerate(annotations):
        each["id"] = number
    categories = [{"id": 30, "name": "right"}, {"id": 4, "name": "left"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    for name in ("pool.json", "test.json"):
        (root / name).write_text(json.dumps(document))
    return root


def test_tiles_are_the_image_and_keep_half_boxes(folder: Path) -> None:
    frames = read_frames(folder, "pool.json", tile=96)
    with Image.open(folder / "images" / "cat_1.png") as file:
        grey = torch.from_numpy(np.array(file.convert("L")))
    columns = -(-grey.shape[1] // 96)
    assert frames.frame_ids[:2] == ["cat_1.png#0,0", "cat_1.png#96,0"]
    assert torch.equal(frames.images[1, 0], grey[:96, 96:192].byte())
    assert torch.equal(
        frames.images[columns - 1, 0][:, : grey.shape[1] % 96], grey[:96, -(grey.shape[1] % 96) :].byte()
    )
    # the first box (40..100 by 50..90) is mostly in the first tile, the second (110..170) in the second
    assert frames.boxes[0].tolist() == [[40, 50, 96, 90]]
    assert frames.boxes[1].tolist() == [[14, 50, 74, 90]]
    assert (frames.classes, frames.labels[0].tolist(), frames.labels[1].tolist()) == (("left", "right"), [1], [0])
    assert frames.group_names == ("cat", "cup", "sky")
    assert frames.sequences.unique().tolist() == [0, 1, 2, 3]
    assert sum(map(len, frames.boxes)) == 8


def test_images_can_be_stretched(folder: Path) -> None:
    frames = read_frames(folder, "pool.json", resize=64)
    assert frames.images.shape == (4, 1, 64, 64)
    assert frames.frame_ids[0] == "cat_1.png"
    width, height = 451, 300
    expected = torch.tensor([40 * 64 / width, 50 * 64 / height, 100 * 64 / width, 90 * 64 / height])
    torch.testing.assert_close(frames.boxes[0][0], expected)
    with pytest.raises(ValueError, match="one of `tile` and `resize`"):
        read_frames(folder, "pool.json")


def test_halves_share_no_group(folder: Path) -> None:
    frames = read_frames(folder, "pool.json", tile=96)
    halves = [real_pool.half_of(frames, half) for half in ("tune", "report")]
    assert sum(map(len, halves)) == len(frames)
    assert not set(halves[0].groups.tolist()) & set(halves[1].groups.tolist())
    assert halves[0].groups.unique().tolist() == [1, 2] or halves[0].groups.unique().tolist() == [0, 1]


def test_it_runs_and_goes_on(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--data", str(folder), "--tile", "96", "--start", "12", "--added", "4", "--steps", "2", "--starts", "1"]
    asked += ["--random-draws", "1", "--processes", "1", "--out", str(tmp_path / "run")]
    asked += ["--settings", *real_pool.SETTINGS, "--arms", "auto", "most boxes"]
    rounds = real_pool.main(asked)
    assert {each.setting for each in rounds} == set(real_pool.SETTINGS)
    assert {each.arm for each in rounds} == {"random", "every n-th", "oracle (cheats)", "auto", "most boxes"}
    assert {each.frames for each in rounds} == {12, 16}
    about = [each for each in rounds if each.setting == "unseen_group"]
    assert [each.marked for each in about if each.frames == 12] == [0] * 5
    assert any(each.marked for each in about)
    assert (tmp_path / "run" / "curves-plain.png").exists()
    assert "of 1 starts" in (tmp_path / "run" / "summary.md").read_text()
    stored = {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "rounds").iterdir()}
    assert real_pool.main(asked) == rounds
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "run" / "rounds").iterdir()} == stored
    capsys.readouterr()
