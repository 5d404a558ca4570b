"""Label Studio itself: it takes our tasks, shows the images, and we read what it exports.

All of it is one test, so that whatever deals tests out to processes starts the tool once.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from first_user import DETECTOR, make_place
from label_studio_server import LabelStudio, label_studio, program
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_coco, load_label_studio, load_yolo, match_paths, save_label_studio
from cval_torch.formats.label_studio_setup import CONTROL, IMAGE

WIDTH, HEIGHT = 200, 100
NAMES = ["box", "cam 1/rotated&", "cam 1/empty", "cam 2/skipped#1+%", "two ü日", "nobody", *map(str, range(6))]
IDS = [f"{name}.png" for name in NAMES]
CLASSES = {1: "a<\"&b'>", 2: "日本 100%#?\u202e", 5: "never drawn"}


def chosen() -> Annotations:
    """Twelve frames that a detector saw, one box in each but the last; the ranks have one and two digits."""
    count = len(IDS)
    counts = torch.ones(count, dtype=torch.int64)
    counts[-1] = 0
    return Annotations(
        IDS,
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        boxes=torch.tensor([[10.0, 20.0, 30.0, 60.0]] * (count - 1)),
        labels=torch.tensor([1, 2] * 6)[: count - 1],
        class_names=CLASSES,
        frame_ids=IDS,
        is_annotated=torch.zeros(count, dtype=torch.bool),
        sizes=torch.tensor([[WIDTH, HEIGHT]] * count),
        scores=torch.linspace(0.25, 0.75, count - 1),
        ranks=torch.arange(1, count + 1),
        uncertainties=torch.linspace(12, 0.5, count).double(),
        rounds=torch.full((count,), 3),
    )


def drawn(left: float, top: float, right: float, bottom: float, label: int = 1, rotation: float = 0) -> dict[str, Any]:
    """A region as the tool's interface makes it."""
    return {
        "id": "x1",
        "type": "rectanglelabels",
        "from_name": CONTROL,
        "to_name": IMAGE,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "origin": "manual",
        "value": {
            "x": 100 * left / WIDTH,
            "y": 100 * top / HEIGHT,
            "width": 100 * (right - left) / WIDTH,
            "height": 100 * (bottom - top) / HEIGHT,
            "rotation": rotation,
            "rectanglelabels": [CLASSES[label]],
        },
    }


@pytest.mark.timeout(1200)
def test_the_tool_takes_our_tasks_and_we_read_its_exports(tmp_path: Path) -> None:
    program()
    root = tmp_path / "ro ot"
    for frame_id in IDS:
        (root / "in" / frame_id).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "in" / frame_id)
    path = save_label_studio(chosen(), tmp_path / "out", image_root=root / "in", progress=False)
    assert f"\n     {root / 'in'}\n" in (path.parent / "README.txt").read_text()
    (tmp_path / "tool").mkdir()
    with label_studio(tmp_path / "tool", document_root=root) as tool:
        project = tool.project("What was chosen", (path.parent / "label_config.xml").read_text())
        _import(tool, project, path)
        _check_order_and_scores(tool, project)
        _check_images(tool, project, root / "in")
        found = load_label_studio(_saved(tool, project, "JSON", tmp_path))
        assert not found.is_annotated.any()
        assert found.frame_ids == chosen().frame_ids
        _annotate(tool, project)
        _check_json(tool, project, tmp_path)
        _check_coco(tool, project, tmp_path)
        _check_yolo(tool, project, tmp_path, root / "in")
        _check_annotated_tasks(tool, path.parent, root)
        _check_uploads(tool, root / "in", tmp_path)
        _check_command_line(tool, root, tmp_path / "round 1")


def _saved(tool: LabelStudio, project: int, kind: str, folder: Path, **options: str) -> Path:
    path = folder / f"export {project} {kind} {len(list(folder.iterdir()))}.{'json' if 'JSON' in kind else 'zip'}"
    path.write_bytes(tool.export(project, kind, **options))
    return path


def _import(tool: LabelStudio, project: int, path: Path) -> None:
    """As somebody does who drops the file into the browser."""
    answer = tool.upload(project, {"tasks.json": path.read_bytes()})
    assert (answer["task_count"], answer["prediction_count"], answer["annotation_count"]) == (12, 11, 0)


def _check_order_and_scores(tool: LabelStudio, project: int) -> None:
    tasks = tool.tasks(project)
    assert [task["data"]["frame_id"] for task in tasks] == IDS, "the order of the file is that of the ranks"
    assert [task["predictions_model_versions"] for task in tasks] == [*["cval_torch"] * 11, ""]
    assert [task["predictions_score"] for task in tasks[:-1]] == pytest.approx(torch.linspace(0.25, 0.75, 11).tolist())
    assert tool.get(f"/api/projects/{project}/").json()["model_version"] == "cval_torch", "so that the column fills"
    for order, ranks in (
        ("-tasks:data.rank", [*range(12, 0, -1)]),
        ("tasks:data.uncertainty", [*range(12, 0, -1)]),
        ("-tasks:data.uncertainty", [*range(1, 13)]),
    ):
        ordered = tool.tasks(project, query=json.dumps({"ordering": [order]}))
        assert [task["data"]["rank"] for task in ordered] == ranks
    assert {task["data"]["round"] for task in tasks} == {3}


def _check_images(tool: LabelStudio, project: int, folder: Path) -> None:
    """As the labelling page fetches them, once the storage is there."""
    tasks = tool.tasks(project)
    assert tool.status(tasks[0]["data"]["image"]) == 404, "without a storage the tool shows nothing"
    tool.post("/api/storages/localfiles/", {"project": project, "path": str(folder), "title": "images"})
    for task, frame_id in zip(tasks, IDS, strict=True):
        assert tool.get(task["data"]["image"]).content == (folder / frame_id).read_bytes()


def _annotate(tool: LabelStudio, project: int) -> None:
    other = tool.post("/api/users/", {"username": "other", "email": "other@example.org", "password": "Long-enough-7"})
    box, rotated, empty, skipped, two = (task["id"] for task in tool.tasks(project)[:5])
    for task, annotation in (
        (box, {"result": [drawn(20, 10, 80, 60)]}),
        (rotated, {"result": [drawn(100, 20, 140, 40, 2, rotation=30)]}),
        (empty, {"result": []}),
        (skipped, {"result": [], "was_cancelled": True}),
        (two, {"result": [drawn(20, 10, 80, 60), drawn(0, 0, 10, 10)]}),
        (two, {"result": [drawn(22, 10, 82, 60), drawn(0, 0, 10, 10, 2)], "completed_by": other["id"]}),
    ):
        tool.post(f"/api/tasks/{task}/annotations/", annotation)


def _rotated() -> list[float]:
    """The envelope of the box of 40 x 20 pixels that is turned by 30 degrees about its left upper corner."""
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    return [100 - 20 * sin, 20, 100 + 40 * cos, 20 + 40 * sin + 20 * cos]


def _check_json(tool: LabelStudio, project: int, folder: Path) -> None:
    path = _saved(tool, project, "JSON", folder)
    found = load_label_studio(path, class_names=CLASSES)
    assert found.frame_ids == tuple(name for name in IDS if "skipped" not in name)
    assert found.file_names == tuple(f"in/{name}" for name in IDS if "skipped" not in name)
    assert found.skipped == ("in/cam 2/skipped#1+%.png",)
    assert found.is_annotated.tolist() == [True] * 4 + [False] * 7
    assert found.counts.tolist() == [1, 1, 0, 1, *[0] * 7]
    boxes = torch.tensor([[20, 10, 80, 60], _rotated(), [21, 10, 81, 60]])
    torch.testing.assert_close(found.boxes, boxes, atol=1e-3, rtol=0)
    assert found.labels.tolist() == [1, 2, 1]
    assert found.ranks.tolist() == [1, 2, 3, *range(5, 13)]
    assert found.rounds.tolist() == [3] * 11
    given = chosen().uncertainties[found.ranks - 1]
    assert found.uncertainties.tolist() == given.tolist()
    assert load_label_studio(path, join="union").counts[3] == 3
    assert load_label_studio(path, join="latest").boxes[2].tolist() == pytest.approx([22, 10, 82, 60])
    with pytest.raises(InvalidInputError, match="annotations of 2 people: 1, 2"):
        load_label_studio(path, join="refuse")
    with pytest.raises(InvalidInputError, match="JSON-MIN"):
        load_label_studio(_saved(tool, project, "JSON_MIN", folder))


def _frames_of(found: Annotations) -> dict[str, list[int]]:
    """By frame id its rows in an export that names images in ways of its own."""
    matches = match_paths(found.file_names, IDS)
    rows: dict[str, list[int]] = {}
    for row, frame_id in enumerate(matches.frame_ids):
        assert frame_id is not None, matches.unmatched
        rows.setdefault(frame_id, []).append(row)
    return rows


def _check_coco(tool: LabelStudio, project: int, folder: Path) -> None:
    for kind in ("COCO", "COCO_WITH_IMAGES"):
        found = load_coco(_saved(tool, project, kind, folder), class_names=CLASSES)
        rows = _frames_of(found)
        assert len(rows["two ü日.png"]) == 2, "once for each person"
        assert any("load_label_studio" in note for note in found.notes)
        (box,), (rotated,), (empty,) = rows["box.png"], rows["cam 1/rotated&.png"], rows["cam 1/empty.png"]
        assert found.take([box]).boxes.tolist() == [[20, 10, 80, 60]]
        assert found.take([rotated]).labels.tolist() == [2]
        # the tool turns percentages: unless the image is square, that is another box than the one that was drawn
        theirs = [
            80,
            20,
            100 + 40 * math.cos(math.pi / 6),
            20 + 20 * math.sin(math.pi / 6) + 20 * math.cos(math.pi / 6),
        ]
        torch.testing.assert_close(found.take([rotated]).boxes, torch.tensor([theirs]), atol=1e-3, rtol=0)
        assert found.counts[empty] == 0
        assert any("no boxes" in note for note in found.notes), "COCO does not tell what such a frame is"


def _check_yolo(tool: LabelStudio, project: int, folder: Path, images: Path) -> None:
    path = _saved(tool, project, "YOLO", folder, download_all_tasks="false")
    found = load_yolo(path, class_names=CLASSES, image_root=images)
    row_of = {name: row for row, name in enumerate(found.file_names)}
    assert set(row_of) == set(IDS[:3]) | {IDS[4]}
    assert found.is_annotated.all()
    assert found.counts[row_of["cam 1/empty.png"]] == 0
    box = found.take([row_of["box.png"]])
    torch.testing.assert_close(box.boxes, torch.tensor([[20.0, 10, 80, 60]]), atol=1e-3, rtol=0)
    assert box.labels.tolist() == [1]


def _check_annotated_tasks(tool: LabelStudio, folder: Path, root: Path) -> None:
    """What people annotated elsewhere comes in as annotations, and out again."""
    given = chosen().take([0, 11, 1]).replace(is_annotated=torch.tensor([True, True, False]))
    given = given.replace(is_crowd=torch.tensor([True, False]))
    path = save_label_studio(given, folder.parent / "done", image_root=root / "in", progress=False)
    project = tool.project("What was annotated", (folder / "label_config.xml").read_text())
    answer = tool.upload(project, {"tasks.json": path.read_bytes()})
    assert (answer["task_count"], answer["prediction_count"], answer["annotation_count"]) == (3, 1, 2)
    found = load_label_studio(_saved(tool, project, "JSON", folder.parent), class_names=CLASSES)
    assert found.is_annotated.tolist() == [True, True, False]
    assert found.boxes.tolist() == given.boxes[:1].tolist()
    assert found.is_crowd.tolist() == [True]


def _check_uploads(tool: LabelStudio, images: Path, folder: Path) -> None:
    project = tool.project("Uploads", (folder / "out" / "label_config.xml").read_text())
    tool.upload(project, {name: (images / "box.png").read_bytes() for name in ("a b.png", "ü.png")})
    tasks = tool.tasks(project)
    for task in tasks:
        tool.post(f"/api/tasks/{task['id']}/annotations/", {"result": [drawn(20, 10, 80, 60)]})
    assert load_label_studio(_saved(tool, project, "JSON", folder)).file_names == ("a_b.png", "ü.png")
    for kind in ("COCO", "COCO_WITH_IMAGES"):
        assert load_coco(_saved(tool, project, kind, folder)).file_names == ("a_b.png", "ü.png")


def _check_command_line(tool: LabelStudio, place: Path, output: Path) -> None:
    """From a folder of photographs to tasks with pictures and boxes, by one command and what its README.txt says."""
    make_place(place)
    command = ["select", "--source", "photos", *DETECTOR, "-n", "6", "--class-names", "background", "cat", "cup"]
    command += ["--export", "label-studio", "--min-score", "0.3", "--no-report", "--output", str(output), "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "cval_torch", *command], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ids = (output / "ids.txt").read_text().splitlines()
    folder = output / "label_studio"
    assert f"\n     {place / 'photos'}\n" in (folder / "README.txt").read_text()
    project = tool.project("By one command", (folder / "label_config.xml").read_text())
    answer = tool.upload(project, {"tasks.json": (folder / "tasks.json").read_bytes()})
    assert answer["task_count"] == 6
    tool.post("/api/storages/localfiles/", {"project": project, "path": str(place / "photos"), "title": "photos"})
    tasks = tool.tasks(project)
    assert [task["data"]["frame_id"] for task in tasks] == ids
    chosen = json.loads((output / "selection.json").read_text())["frames"]
    assert any(task["predictions"] for task in tasks)
    for task, frame in zip(tasks, chosen, strict=True):
        assert tool.get(task["data"]["image"]).content == (place / "photos" / frame["frame_id"]).read_bytes()
        shown = [region["value"] for each in task["predictions"] for region in each["result"]]
        boxes = [box for box in frame["boxes"] if box["score"] >= 0.3]
        assert [value["rectanglelabels"] for value in shown] == [[box["class_name"]] for box in boxes]
        lefts = [value["x"] / 100 * 200 for value in shown]  # the photographs are 200 pixels wide
        assert lefts == pytest.approx([box["box"][0] for box in boxes], abs=1e-3)
