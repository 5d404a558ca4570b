"""What exports are made of: files of images, pre-labels in pixels of these files, and everything that travels along."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import CocoDetection
from torchvision.transforms import v2

from cval_torch import DetectionSampling, LocalBackend, Pool, SelectedFrames
from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, ImageFolder, load_coco, save_coco
from cval_torch.formats.prepared import ExportOptions, prepare

BOXES = torch.tensor([[10.0, 20.0, 30.0, 40.0], [1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 70.0, 48.0]])


def pool_of(ids: Sequence[str], **columns: Any) -> Pool:
    given: dict[str, Any] = {
        "scores": torch.tensor([0.4, 0.9, 0.8]),
        "boxes": BOXES,
        "labels": torch.tensor([3, 1, 3]),
        "indices": torch.arange(len(ids)),
        **columns,
    }
    return Pool(ids, torch.tensor([0, 2, 3, *[3] * (len(ids) - 2)]), ids_from="target", **given)


def chosen(dataset: Dataset[Any], pool: Pool, **stage: Any) -> SelectedFrames:
    sampling = DetectionSampling(num_of_samples=len(pool), selection_strategy="least", **stage)
    return SelectedFrames(dataset, LocalBackend().select(pool, sampling), pool)


@pytest.fixture
def photos(tmp_path: Path) -> ImageFolder:
    for name in ("cam1/a.jpg", "cam2/a.jpg", "b.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 40).convert("RGB").save(path)
    return ImageFolder(tmp_path / "photos", frame_ids=["cam1/a.jpg", "cam2/a.jpg", "b.png"])


@pytest.fixture
def frames(photos: ImageFolder) -> SelectedFrames:
    return chosen(photos, pool_of(photos.frame_ids))


def test_everything_travels_along(frames: SelectedFrames, tmp_path: Path) -> None:
    options = ExportOptions(class_names={1: "nut", 3: "bolt", 9: "gap"}, round=4, progress=False)
    prepared = prepare(frames, tmp_path, options)
    found = prepared.annotations
    assert found.frame_ids == frames.frame_ids
    assert found.file_names == frames.frame_ids, "ids that are paths are the names of files left where they are"
    assert found.ranks.tolist() == [1, 2, 3]
    assert found.rounds.tolist() == [4, 4, 4]
    assert torch.equal(found.uncertainties, frames.scores)
    assert found.sizes.tolist() == [[64, 48]] * 3
    assert not found.is_annotated.any()
    assert found.class_names == {1: "nut", 3: "bolt", 9: "gap"}
    row = frames.frame_ids.index("cam1/a.jpg")
    mine = slice(int(found.offsets[row]), int(found.offsets[row + 1]))
    assert found.boxes[mine].tolist() == [[1, 2, 5, 6], [10, 20, 30, 40]], "the surest first"
    assert found.scores[mine].tolist() == pytest.approx([0.9, 0.4])
    row = frames.frame_ids.index("cam2/a.jpg")
    assert found.boxes[int(found.offsets[row])].tolist() == [0, 0, 64, 48], "boxes end where the image does"
    assert prepared.stages[0]["selection_strategy"] == "least"


@pytest.mark.parametrize(("min_score", "count"), [(0.0, 3), (0.4, 3), (0.41, 2), (1.0, 0), (None, 0)])
def test_pre_labels_by_choice(frames: SelectedFrames, tmp_path: Path, min_score: float | None, count: int) -> None:
    prepared = prepare(frames, tmp_path, ExportOptions(min_score=min_score, progress=False))
    assert len(prepared.annotations.labels) == count


@pytest.mark.parametrize("images", ["copy", "symlink", "hardlink"])
def test_images_are_put_below_the_folder(
    frames: SelectedFrames, photos: ImageFolder, tmp_path: Path, images: Any
) -> None:
    folder = tmp_path / "out"
    save_coco(frames, folder, images=images, progress=False)
    for frame_id in frames.frame_ids:
        source, target = photos.folder / frame_id, folder / "images" / frame_id
        assert target.read_bytes() == source.read_bytes()
        assert target.is_symlink() == (images == "symlink")
        assert target.samefile(source) == (images != "copy")


def test_frames_without_files_are_written_as_pixels(tmp_path: Path) -> None:
    pictures = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    dataset = [(pictures[0], {}), (pictures[1], {})]
    frames = chosen(dataset, pool_of(["first", "second"]))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"frame '.*' must have a file.*images='pixels'"):
        save_coco(frames, tmp_path / "left", progress=False)
    for images in ("pixels", "copy"):
        save_coco(frames, tmp_path / images, images=images, progress=False)  # type: ignore[arg-type]
        found = load_coco(tmp_path / images)
        for row, frame_id in enumerate(found.frame_ids):
            with Image.open(tmp_path / images / found.file_names[row]) as image:
                assert torch.equal(
                    v2.functional.pil_to_tensor(image), pictures[("first", "second").index(frame_id or "")]
                )
    assert not (tmp_path / "left").exists()


def test_a_real_dataset_of_torchvision_names_its_files(tmp_path: Path) -> None:
    root = tmp_path / "val2017"
    root.mkdir()
    for name in ("000139.jpg", "000285.jpg"):
        Image.effect_noise((64, 48), 40).convert("RGB").save(root / name)
    images = [{"id": 139, "file_name": "000139.jpg"}, {"id": 285, "file_name": "000285.jpg"}]
    (tmp_path / "gt.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    dataset = CocoDetection(root, tmp_path / "gt.json")
    frames = chosen(dataset, pool_of(["139", "285"]))
    found = load_coco(save_coco(frames, tmp_path / "out", images="symlink", progress=False))
    assert set(found.file_names) == {"images/139.jpg", "images/285.jpg"}
    left = load_coco(save_coco(frames, tmp_path / "left", progress=False))
    assert {Path(name).name for name in left.file_names} == {"000139.jpg", "000285.jpg"}
    below = load_coco(
        save_coco(
            frames,
            tmp_path / "below",
            image_root={"139": root / "000139.jpg", "285": root / "000285.jpg"},
            progress=False,
        )
    )
    assert sorted(below.file_names) == [str(root / "000139.jpg"), str(root / "000285.jpg")]


class Resized(Dataset[Any]):
    """A dataset that makes every image half as large, or cuts it."""

    def __init__(self, photos: ImageFolder, change: Any) -> None:
        self.paths = [str(photos.folder / frame_id) for frame_id in photos.frame_ids]
        self._photos, self._change = photos, change

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self._change(self._photos[index][0]), {}


def test_boxes_are_in_pixels_of_the_file(photos: ImageFolder, tmp_path: Path) -> None:
    half = Resized(photos, v2.Resize((24, 32)))
    found = prepare(chosen(half, pool_of(photos.frame_ids)), tmp_path, ExportOptions(progress=False)).annotations
    row = found.frame_ids.index("cam1/a.jpg")
    assert found.boxes[int(found.offsets[row])].tolist() == [2, 4, 10, 12]
    cut = Resized(photos, v2.CenterCrop(32))
    frames = chosen(cut, pool_of(photos.frame_ids))
    with pytest.raises(InvalidInputError, match="cropped, padded or stretched"):
        save_coco(frames, tmp_path / "out", progress=False)
    save_coco(frames, tmp_path / "bare", min_score=None, progress=False)
    found = load_coco(save_coco(frames, tmp_path / "seen", images="pixels", progress=False))
    assert found.sizes.tolist() == [[32, 32]] * 3


def test_annotations_keep_what_they_are(tmp_path: Path, photos: ImageFolder) -> None:
    given = Annotations(
        ["cam1/a.jpg", "b.png"],
        torch.tensor([0, 1, 1]),
        boxes=BOXES[:1],
        labels=torch.tensor([5]),
        class_names={5: "bolt"},
        is_annotated=torch.tensor([True, False]),
    )
    found = prepare(
        given, tmp_path / "out", ExportOptions(min_score=1.0, image_root=photos.folder, progress=False)
    ).annotations
    assert (found.file_names, found.boxes.tolist()) == (given.file_names, BOXES[:1].tolist())
    assert found.sizes.tolist() == [[64, 48]] * 2, "sizes are read from the files"
    assert found.is_annotated.tolist() == [True, False]
    with pytest.raises(InvalidInputError, match="no file to be put into the folder"):
        prepare(given, tmp_path / "out", ExportOptions(images="copy", progress=False))
    with pytest.raises(InvalidInputError, match="annotations have no pixels"):
        prepare(given, tmp_path / "out", ExportOptions(images="pixels", progress=False))
    renamed = prepare(given, tmp_path, ExportOptions(class_names={5: "nut", 6: "bolt"}, progress=False)).annotations
    assert renamed.class_names == {5: "nut", 6: "bolt"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "move"}, "`images` must be one of leave, copy, symlink, hardlink, pixels; got 'move'"),
        ({"min_score": 1.5}, r"`min_score` must be in \[0, 1\]"),
        ({"min_score": float("nan")}, "`min_score`"),
        ({"round": -1}, "`round` must be 0 or more"),
        ({"round": True}, "`round` must be 0 or more"),
        ({"class_names": {1: "a", 2: "a"}}, "the name 'a' to 1 and to 2"),
        ({"class_names": {1: "nut"}}, "label 3 has no name"),
        ({"class_names": "nut"}, "`class_names` must be names by label"),
        ({"image_root": "nowhere"}, "there is no file 'nowhere/"),
        ({"image_root": {}}, "`image_root` must have a file for every frame"),
    ],
)
def test_wrong_options_are_named(frames: SelectedFrames, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        save_coco(frames, tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_predictions_without_boxes_can_be_left_out(photos: ImageFolder, tmp_path: Path) -> None:
    frames = chosen(photos, pool_of(photos.frame_ids, boxes=None))
    with pytest.raises(InvalidInputError, match="min_score=None"):
        save_coco(frames, tmp_path / "out", progress=False)
    assert len(load_coco(save_coco(frames, tmp_path / "out", min_score=None, progress=False)).labels) == 0


def test_nothing_is_written_outside_the_folder(tmp_path: Path) -> None:
    ids = ["../../escape", "/etc/passwd", "a/../../b", "..", "C:\\x", "nul\0nul"]
    random.Random(0).shuffle(ids)
    dataset = [(torch.zeros(3, 8, 8, dtype=torch.uint8), {})] * len(ids)
    frames = chosen(dataset, pool_of(ids))  # type: ignore[arg-type]
    (tmp_path / "deep" / "er").mkdir(parents=True)
    save_coco(frames, tmp_path / "deep" / "er" / "out", images="copy", progress=False)
    assert len(list((tmp_path / "deep" / "er" / "out" / "images").iterdir())) == len(ids)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "out" not in path.parts] == []
    assert load_coco(tmp_path / "deep" / "er" / "out").frame_ids == frames.frame_ids
