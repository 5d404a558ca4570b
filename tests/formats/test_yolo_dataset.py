"""What a YOLO dataset consists of, as Ultralytics finds it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.formats.yolo_dataset import label_path, read_yolo_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("images/train/a.jpg", "images/val/b.jpg", "images/val/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def read(folder: Path, text: str) -> list[str]:
    (folder / "data.yaml").write_text(text)
    found = read_yolo_dataset(folder / "data.yaml", source="the dataset")
    return [str(image.relative_to(folder)) for image in found.images]


def test_all_splits_count_each_image_once(folder: Path) -> None:
    every = ["images/train/a.jpg", "images/val/b.jpg", "images/val/c.jpg"]
    assert read(folder, "train: images/train\nval: [images/val, images/train]\nnames: [x]\n") == every
    assert read(folder, f"path: {folder}\ntrain: images\nval: images\ntest:\nnames: {{0: x}}\n") == every
    (folder / "list.txt").write_text("./images/val/c.jpg\n\nimages/train/a.jpg\n")
    assert read(folder, "train: list.txt\nnames: [x]\n") == ["images/val/c.jpg", "images/train/a.jpg"]


def test_the_yaml_file_of_a_folder_is_found(folder: Path) -> None:
    (folder / "pcb.yml").write_text("train: images/train\nnames: [x]\n")
    assert read_yolo_dataset(folder, source="the dataset").names == {0: "x"}
    (folder / "two.yaml").write_text("")
    with pytest.raises(InvalidInputError, match="several yaml files"):
        read_yolo_dataset(folder, source="the dataset")


@pytest.mark.parametrize("name", ["classes.txt", "obj.names"])
def test_a_list_of_classes_will_do(folder: Path, name: str) -> None:
    (folder / name).write_text("bolt\nnut\n")
    found = read_yolo_dataset(folder, source="the dataset")
    assert (found.names, len(found.images)) == ({0: "bolt", 1: "nut"}, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [x", "is not YAML"),
        ("- x", "must have the `names`"),
        ("train: images", "must have the `names`"),
        ("names: x", "must be a list"),
        ("names: [no, yes]", "number 0 is False to YAML. Put it in quotes"),
        ("names: {a: b}", "must be by number; got 'a'"),
        ("names: [x]\ntrain: gone", "`train` of .* must be a folder of images"),
        ("names: [x]\npath: gone\ntrain: images", "there is no folder"),
    ],
)
def test_what_is_no_dataset_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read(folder, text)


def test_neither_yaml_nor_classes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no `data\.yaml`"):
        read_yolo_dataset(tmp_path, source="the dataset")
    with pytest.raises(FileNotFoundError, match="the dataset"):
        read_yolo_dataset(tmp_path / "gone", source="the dataset")


@pytest.mark.parametrize("name", ["/d/images/a.jpg", "/images/x/images/b/a.b.png", "/d/pictures/a.jpg"])
def test_labels_are_where_ultralytics_looks(name: str) -> None:
    utils = pytest.importorskip("ultralytics.data.utils")
    assert [str(label_path(Path(name)))] == utils.img2label_paths([name])
