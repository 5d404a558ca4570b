"""Label Studio's tasks: what is written, a round trip of any annotations, and what chosen frames become."""

from __future__ import annotations

import json
import shutil
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from hypothesis import given, settings
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_label_studio, save_label_studio
from cval_torch.pool import Pool
from tests.worlds.annotated import annotations, assert_same, write_images


def marked(**columns: object) -> Annotations:
    """Three frames of 64 x 48: two boxes; annotated and empty; not annotated, with a detector's box."""
    given = Annotations(
        ["cam/a.png", "cam/b.png", "c.png"],
        torch.tensor([0, 2, 2, 3]),
        boxes=torch.tensor([[16.0, 12.0, 32.0, 36.0], [0.0, 0.0, 64.0, 48.0], [8.0, 12.0, 24.0, 48.0]]),
        labels=torch.tensor([7, 3, 7]),
        class_names={3: "bolt", 7: "no", 90: "gap"},
        frame_ids=["cam/a.png", "cam/b.png", "c.png"],
        is_annotated=torch.tensor([True, True, False]),
        sizes=torch.tensor([[64, 48]] * 3),
        scores=torch.tensor([torch.nan, torch.nan, 0.25]),
        ranks=torch.tensor([1, 2, 3]),
        uncertainties=torch.tensor([1.5, torch.nan, 0.5]),
    )
    return given.replace(**columns)


class Chosen:
    """Two frames that a detector saw, as `select` gives them."""

    frame_ids = ("cam/a.png", "b.png")
    scores = torch.tensor([0.75, float("nan")])
    predictions = Pool(
        ("cam/a.png", "b.png"),
        torch.tensor([0, 3, 3]),
        scores=torch.tensor([0.5, 0.25, 0.75]),
        boxes=torch.tensor([[16.0, 12.0, 32.0, 36.0], [0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 32.0, 24.0]]),
        labels=torch.tensor([1, 1, 2]),
    )

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(3, 48, 64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cam/a.png", "cam/b.png", "b.png", "c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "in" / name)
    return tmp_path


@settings(max_examples=60, deadline=None)
@given(given=annotations())
def test_a_round_trip_loses_nothing(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        files = write_images(given, folder / "in")
        path = save_label_studio(given, folder / "out", image_root=files, progress=False)
        found = load_label_studio(folder / "out")
        assert_same(found, given, within=1e-3)
        assert found.class_names == given.class_names
        tags = ET.parse(folder / "out" / "label_config.xml").getroot().findall("./RectangleLabels/Label")
        assert [tag.get("value") for tag in tags] == [name for _, name in sorted(given.class_names.items())]
        for task in json.loads(path.read_text()):
            below = parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]
            assert (folder / below).is_file(), "the default root is the parent of the folder with the images"
    finally:
        shutil.rmtree(folder)


def test_what_is_written(folder: Path) -> None:
    path = save_label_studio(marked(), folder / "out", image_root=folder / "in", round=4, progress=False)
    assert sorted(each.name for each in (folder / "out").iterdir()) == [
        "README.txt",
        "frames.json",
        "label_config.xml",
        "tasks.json",
    ]
    first, second, third = json.loads(path.read_text())
    assert first["data"] == {
        "image": "/data/local-files/?d=in/cam/a.png",
        "frame_id": "cam/a.png",
        "rank": 1,
        "uncertainty": 1.5,
        "round": 4,
    }
    assert "predictions" not in first
    (one,) = first["annotations"]
    assert one["result"][0] == {
        "id": "box1",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": 64,
        "original_height": 48,
        "image_rotation": 0,
        "value": {"x": 25.0, "y": 25.0, "width": 25.0, "height": 50.0, "rotation": 0, "rectanglelabels": ["no"]},
    }
    assert one["result"][1]["value"]["rectanglelabels"] == ["bolt"]
    assert second["annotations"] == [{"result": []}], "annotated, and nothing in it"
    assert "uncertainty" not in second["data"]
    assert "annotations" not in third
    (prediction,) = third["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("cval_torch", 0.25)
    assert [region["score"] for region in prediction["result"]] == [0.25]


def test_chosen_frames_become_tasks_with_pre_labels_in_order_of_rank(folder: Path) -> None:
    names = {1: "bolt", 2: "nut", 3: "never seen"}
    path = save_label_studio(
        Chosen(), folder / "out", class_names=names, image_root=folder / "in", model_version="epoch 3", progress=False
    )
    first, second = json.loads(path.read_text())
    assert [task["data"]["rank"] for task in (first, second)] == [1, 2]
    assert first["data"]["uncertainty"] == 0.75
    (prediction,) = first["predictions"]
    assert prediction["model_version"] == "epoch 3"
    assert prediction["score"] == (0.75 + 0.5) / 2, "the mean of those that are written"
    assert [(region["score"], region["value"]["rectanglelabels"]) for region in prediction["result"]] == [
        (0.75, ["nut"]),
        (0.5, ["bolt"]),
    ]
    assert second["predictions"] == [{"model_version": "epoch 3", "result": []}], "a detector saw it, and found nothing"
    assert "never seen" in (folder / "out" / "label_config.xml").read_text()
    found = load_label_studio(path)
    assert not found.is_annotated.any()
    assert found.frame_ids == ("cam/a.png", "b.png")
    assert found.scores.tolist() == [0.75, 0.5]
    assert found.class_names == names, "from the export beside it"
    save_label_studio(
        Chosen(),
        folder / "out",
        class_names=names,
        image_root=folder / "in",
        min_score=None,
        exist_ok=True,
        progress=False,
    )
    assert all("predictions" not in task for task in json.loads(path.read_text()))


def test_the_document_root_is_what_the_readme_says(folder: Path) -> None:
    def urls(**options: object) -> tuple[list[str], str]:
        path = save_label_studio(
            marked(), folder / "out", image_root=folder / "in", exist_ok=True, progress=False, **options
        )
        written = [task["data"]["image"].removeprefix("/data/local-files/?d=") for task in json.loads(path.read_text())]
        return written, (folder / "out" / "README.txt").read_text()

    left, text = urls()
    assert left == ["in/cam/a.png", "in/cam/b.png", "in/c.png"]
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder}\n" in text
    assert f"\n     {folder / 'in'}\n" in text, "the storage"
    copied, text = urls(images="copy")
    assert copied == ["out/images/cam/a.png", "out/images/cam/b.png", "out/images/c.png"]
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder}\n" in text
    assert f"\n     {folder / 'out' / 'images'}\n" in text
    above, text = urls(document_root=folder.parent)
    assert above == [f"{folder.name}/in/{name}" for name in marked().file_names]
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={folder.parent}\n" in text
    with pytest.raises(InvalidInputError, match=r"c.png' is in the `document_root` itself.*Give the folder above"):
        urls(document_root=folder / "in")
    with pytest.raises(InvalidInputError, match=r"frame 'cam/a.png' must be below the document root"):
        urls(document_root=folder / "in" / "x")


def test_images_without_files_here_need_to_be_found_by_the_tool(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="itself"):
        save_label_studio(marked(), folder / "out", document_root=folder / "elsewhere", progress=False)
    in_cam = marked().take([0, 1])
    path = save_label_studio(in_cam, folder / "out", document_root=folder / "elsewhere", progress=False)
    assert f"\n     {folder / 'elsewhere' / 'cam'}\n" in (folder / "out" / "README.txt").read_text()
    assert json.loads(path.read_text())[0]["data"]["image"] == "/data/local-files/?d=cam/a.png"
    with pytest.raises(InvalidInputError, match=r"find the image of frame 'cam/a.png'.*image_root"):
        save_label_studio(marked(), folder / "none", progress=False)
    remote = marked(file_names=["https://host/a.png?x=1", "s3://bucket/b.png", "gs://bucket/c.png"])
    path = save_label_studio(remote, folder / "remote", progress=False)
    assert [task["data"]["image"] for task in json.loads(path.read_text())] == list(remote.file_names)
    assert "LOCAL_FILES" not in (folder / "remote" / "README.txt").read_text()


def test_what_cannot_be_written(folder: Path) -> None:
    def save(given: Annotations, **options: object) -> None:
        save_label_studio(given, folder / "out", image_root=folder / "in", progress=False, **options)

    with pytest.raises(InvalidInputError, match="at least one class"):
        save(marked().take([1]).replace(class_names={}))
    with pytest.raises(InvalidInputError, match=r"'a\\x00b' of class 3 has the character '\\x00'.*Rename"):
        save(marked(class_names={3: "a\x00b", 7: "no"}))
    with pytest.raises(InvalidInputError, match="`model_version` must be a text; got ' '"):
        save(marked(), model_version=" ")
    with pytest.raises(InvalidInputError, match=r"the size of 'https://a/b.png' is not known"):
        save_label_studio(
            marked().take([0]).replace(file_names=["https://a/b.png"], sizes=torch.zeros(1, 2)),
            folder / "out",
            progress=False,
        )
    assert sorted(each.name for each in folder.iterdir()) == ["in"], "nothing is left half written"


def test_crowds_and_scores_of_annotated_boxes_come_back(folder: Path) -> None:
    given = marked(is_crowd=torch.tensor([True, False, False]), scores=torch.tensor([torch.nan, 0.5, 0.25]))
    path = save_label_studio(given, folder / "out", image_root=folder / "in", progress=False)
    found = load_label_studio(path)
    assert found.is_crowd.tolist() == [True, False, False]
    assert found.scores.tolist()[1:] == [0.5, 0.25]
    assert found.is_annotated.tolist() == [True, True, False]


def test_labels_are_those_of_the_user_or_of_the_export_beside(folder: Path) -> None:
    path = save_label_studio(marked(), folder / "out", image_root=folder / "in", progress=False)
    assert load_label_studio(path).labels.tolist() == [7, 3, 7]
    assert load_label_studio(path, class_names=["bolt", "no"]).labels.tolist() == [1, 0, 1]
    with pytest.raises(InvalidInputError, match="has the class 'bolt', which is not among"):
        load_label_studio(path, class_names=["no"])
    away = folder / "project-1.json"
    shutil.copyfile(path, away)
    assert load_label_studio(away).class_names == {1: "bolt", 2: "no"}
    tasks = json.loads(path.read_text())
    tasks[0]["annotations"][0]["result"][0]["value"]["rectanglelabels"] = ["a new one"]
    (folder / "out" / "project-1.json").write_text(json.dumps(tasks))
    found = load_label_studio(folder / "out" / "project-1.json")
    assert found.class_names == {3: "bolt", 7: "no", 90: "gap", 91: "a new one"}
    assert found.labels.tolist() == [91, 3, 7]
    assert "a new one" in found.notes[-1]


def test_a_zip_file_of_something_else(folder: Path) -> None:
    shutil.make_archive(str(folder / "zipped"), "zip", folder / "in")
    for place in (folder / "in", folder / "zipped.zip"):
        with pytest.raises(InvalidInputError, match=r"must hold a tasks.json.*`load_coco` and `load_yolo`"):
            load_label_studio(place)
