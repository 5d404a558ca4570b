"""CVAT's files: a round trip of any annotations, what CVAT itself reads, and other programs that read them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from annotated import annotations, assert_same, write_images
from hypothesis import given, settings

from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.formats import Annotations, load_coco, load_cvat, save_cvat

EXPORT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><{level}><id>4</id><name>t</name><size>4</size><mode>annotation</mode><labels>
    <label><name>car</name><color>#c06060</color><type>any</type><attributes></attributes></label>
    <label><name>traffic_line</name><attributes></attributes></label>
    <label><name>person</name><type>skeleton</type><attributes></attributes></label>
    <label><name>nose</name><type>points</type><attributes></attributes><parent>person</parent></label>
  </labels></{level}><dumped>2018-09-25 11:38:28.799808+03:00</dumped></meta>
  <image id="0" name="filename000.jpg" width="1600" height="1200">
    <box label="car" source="manual" occluded="0" xtl="797.33" ytl="870.92" xbr="965.52" ybr="928.94" z_order="4">
      <attribute name="score"></attribute>
    </box>
    <box label="car" source="semi-auto" occluded="0" xtl="10.00" ytl="20.00" xbr="50.00" ybr="40.00" rotation="90.00">
      <attribute name="score">0.875</attribute>
      <attribute name="color">red</attribute>
    </box>
    <polyline label="traffic_line" source="manual" points="462.10,0.00;126.80,1200.00" occluded="0" z_order="3">
    </polyline>
    <tag label="car" source="manual"></tag>
  </image>
  <image id="1" name="cam/empty.jpg" width="1600" height="1200">
  </image>
  <image id="2" name="cam/imported.jpg" width="1600" height="1200">
    <box label="car" source="file" occluded="0" xtl="1.00" ytl="2.00" xbr="3.00" ybr="4.00" z_order="0">
      <attribute name="score">0.5</attribute>
    </box>
  </image>
  <image id="3" name="cam/line.jpg" width="1600" height="1200">
    <polyline label="traffic_line" source="manual" points="462.10,0.00;126.80,1200.00" occluded="0" z_order="3">
    </polyline>
  </image>
</annotations>
"""


def marked(**columns: object) -> Annotations:
    """Two boxes of a detector, and one that somebody drew, in three frames that are not in the order of their names."""
    given = Annotations(
        ["z/b.png", "a.png", "z/a.png"],
        torch.tensor([0, 2, 2, 3]),
        boxes=torch.tensor([[10.0, 20.0, 30.0, 40.0], [0.1, 0.0, 64.0, 48.0], [1.0, 2.0, 3.0, 4.5]]),
        labels=torch.tensor([7, 3, 7]),
        class_names={3: 'bo"lt', 7: "<nut>", 90: "gap"},
        frame_ids=["z/b.png", "a.png", "z/a.png"],
        is_annotated=torch.tensor([False, True, True]),
        sizes=torch.tensor([[64, 48]] * 3),
        scores=torch.tensor([0.9, 0.25, torch.nan]),
        ranks=torch.tensor([1, 2, 3]),
        uncertainties=torch.tensor([0.5, 0.25, 0.125]),
        rounds=torch.tensor([2, 2, 2]),
    )
    return given.replace(**columns)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    files = write_images(marked(), tmp_path / "in")
    return save_cvat(marked(), tmp_path / "out", image_root=files, progress=False).parent


@settings(max_examples=60, deadline=None)
@given(given=annotations())
def test_a_round_trip_loses_nothing(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        if any(name != name.strip() or len(name) > 64 for name in given.class_names.values()):
            with pytest.raises(InvalidInputError, match="CVAT cuts"):
                save_cvat(given, folder / "out", images="leave", progress=False)
            assert not (folder / "out").exists()
            return
        found = load_cvat(save_cvat(given, folder / "out", images="leave", progress=False))
        assert_same(found, given, within=0)
        assert found.file_names == given.file_names
        assert found.class_names == given.class_names, "labels keep their numbers"
        assert found.boxes.equal(given.boxes)
        assert found.sizes.equal(given.sizes)
    finally:
        shutil.rmtree(folder)


@settings(max_examples=15, deadline=None)
@given(given=annotations(names=["cam/1", "../../x", "=1", "a&b<c>", "\u202eabc"]))
def test_ids_come_back_where_images_got_other_names(given: Annotations) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        files = write_images(given, folder / "in")
        path = save_cvat(given, folder / "out", image_root=files, images="symlink", progress=False)
        assert_same(load_cvat(path), given, within=0)
        named = [image.get("name") for image in ElementTree.parse(path).iter("image")]
        assert all((folder / "out" / str(name)).is_file() for name in named)
    finally:
        shutil.rmtree(folder)


def test_the_manifest_has_the_order_of_the_choice(out: Path) -> None:
    header, kind, *rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert header == {"version": "1.1"}
    assert kind == {"type": "images"}
    names = [f"{row['name']}{row['extension']}" for row in rows]
    assert names == ["images/z/b.png", "images/a.png", "images/z/a.png"]
    assert all(row["width"] == 64 and row["height"] == 48 for row in rows)
    named = [image.get("name") for image in ElementTree.parse(out / "annotations.xml").iter("image")]
    assert named == names, "CVAT finds the frames of pre-labels by these names"


def test_a_number_of_an_image_is_no_position_of_a_frame(out: Path) -> None:
    """Where CVAT finds no frame of a name, it takes the number for a position: boxes would be on another image."""
    numbers = [int(image.get("id", "")) for image in ElementTree.parse(out / "annotations.xml").iter("image")]
    assert len(set(numbers)) == 3
    assert min(numbers) >= 10**9


def test_labels_are_as_the_raw_editor_checks_them(out: Path) -> None:
    labels = json.loads((out / "labels.json").read_text())
    assert [label["name"] for label in labels] == ['bo"lt', "<nut>", "gap"]
    for label in labels:
        assert label["type"] == "rectangle"
        (score,) = label["attributes"]
        assert score["name"] == "score"
        assert score["input_type"] == "text"
        assert score["mutable"] is False
        assert score["values"] == [""], "a list that is not empty, and a drawn box has no score"
        assert score["default_value"] == ""


def test_pre_labels_are_marked_as_automatic(out: Path) -> None:
    boxes = list(ElementTree.parse(out / "annotations.xml").iter("box"))
    assert [box.get("source") for box in boxes] == ["auto", "auto", "manual"]
    assert [box.findtext("attribute") for box in boxes] == ["0.9", "0.25", None]
    assert boxes[1].get("xtl") == "0.1"


def test_the_readme_names_the_files_and_follows_the_images(out: Path, tmp_path: Path) -> None:
    text = (out / "README.txt").read_text()
    assert "3 frames for CVAT" in text
    for name in ("labels.json", "manifest.jsonl", "annotations.xml", "Predefined", "CVAT for images 1.1"):
        assert name in text
    left = save_cvat(marked(), tmp_path / "left", images="leave", progress=False).parent
    assert "manifest.jsonl" not in (left / "README.txt").read_text()
    assert sorted(path.name for path in left.iterdir()) == [
        "README.txt",
        "annotations.xml",
        "coco_1.0.zip",
        "frames.json",
        "labels.json",
    ]


def test_the_same_is_there_as_coco_in_the_zip_file_that_cvat_reads(out: Path) -> None:
    with zipfile.ZipFile(out / "coco_1.0.zip") as archive:
        assert archive.namelist() == ["annotations/instances_default.json"]
    ours, theirs = load_coco(out / "coco_1.0.zip"), load_cvat(out)
    row_of = {frame_id: row for row, frame_id in enumerate(ours.frame_ids)}
    ours = ours.take([row_of[frame_id] for frame_id in theirs.frame_ids])
    assert ours.file_names == theirs.file_names
    assert ours.counts.tolist() == theirs.counts.tolist()
    torch.testing.assert_close(ours.boxes, theirs.boxes, atol=0.01, rtol=0)
    names = [ours.class_names[label] for label in ours.labels.tolist()]
    assert names == [theirs.class_names[label] for label in theirs.labels.tolist()]


def test_crowds_travel_as_the_attribute_that_cvat_documents(tmp_path: Path) -> None:
    crowd = marked(is_crowd=torch.tensor([False, True, False]))
    path = save_cvat(crowd, tmp_path / "out", images="leave", progress=False)
    assert load_cvat(path).is_crowd.tolist() == [False, True, False]
    (label, *_) = json.loads((path.parent / "labels.json").read_text())
    assert [attribute["name"] for attribute in label["attributes"]] == ["score", "is_crowd"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nul\0", "XML cannot hold its character"),
        ("\ud800", "XML cannot hold its character"),
        ("\x0b", "XML cannot hold|must map"),
        ("end ", "white space at its ends"),
        ("n" * 65, "exceeds 64 characters, and it has 65"),
    ],
)
def test_class_names_that_cvat_would_change_are_refused(tmp_path: Path, name: str, said: str) -> None:
    bad = marked().replace(class_names={3: "bolt", 7: name, 90: "gap"})
    with pytest.raises(InvalidInputError, match=said):
        save_cvat(bad, tmp_path / "out", images="leave", progress=False)
    assert not (tmp_path / "out").exists()


def test_paths_that_cvat_cannot_tell_are_refused_and_copies_are_not(tmp_path: Path) -> None:
    given = marked(file_names=["a.png", "a.jpg", "b.png"])
    with pytest.raises(InvalidInputError, match=r"'a\.png' and 'a\.jpg' are one image to CVAT"):
        save_cvat(given, tmp_path / "out", images="leave", progress=False)
    with pytest.raises(InvalidInputError, match=r"the path of frame 'z/b\.png' has the character"):
        save_cvat(marked(file_names=["a\0.png", "b", "c"]), tmp_path / "out", images="leave", progress=False)
    ids = given.replace(frame_ids=["a.png", "a.jpg", "nul\0"])
    files = write_images(ids, tmp_path / "in")
    found = load_cvat(save_cvat(ids, tmp_path / "out", image_root=files, progress=False))
    assert found.frame_ids == ("a.png", "a.jpg", "nul\0")


@pytest.mark.parametrize("level", ["task", "job", "project"])
def test_an_export_of_cvat(tmp_path: Path, level: str) -> None:
    file = tmp_path / "annotations.xml"
    file.write_text(EXPORT.format(level=level))
    found = load_cvat(file)
    assert found.file_names == ("filename000.jpg", "cam/empty.jpg", "cam/imported.jpg", "cam/line.jpg")
    assert found.class_names == {1: "car", 2: "person", 3: "traffic_line"}
    torch.testing.assert_close(
        found.boxes, torch.tensor([[797.33, 870.92, 965.52, 928.94], [20.0, 10.0, 40.0, 50.0], [1.0, 2.0, 3.0, 4.0]])
    )
    assert found.labels.tolist() == [1, 1, 1]
    assert found.scores.isnan().tolist() == [True, False, False]
    assert found.scores[1:].tolist() == [0.875, 0.5]
    assert found.is_annotated.tolist() == [True, False, True, True]
    assert found.sizes.tolist() == [[1600, 1200]] * 4
    assert any("1 frame has no boxes" in note for note in found.notes)
    assert "shapes without a box were left out: 2 of the kind `polyline`, 1 of the kind `tag`" in found.notes
    assert any(note.startswith("in 1 frames all boxes are as they were imported") for note in found.notes)
    assert load_cvat(file, empty="annotated").is_annotated.all()
    assert load_cvat(file, class_names={5: "traffic_line", 9: "car", 2: "person"}).labels.tolist() == [9, 9, 9]
    with pytest.raises(InvalidInputError, match="has the class 'person', which is not among"):
        load_cvat(file, class_names=["car", "traffic_line"])
    with pytest.raises(InvalidInputError, match="`empty` must be"):
        load_cvat(file, empty="maybe")  # type: ignore[arg-type]


def test_the_zip_file_of_cvat_beside_our_folder(out: Path) -> None:
    """What people marked comes back with ids, ranks and the numbers of the classes, and a label that they added."""
    text = """<annotations><version>1.1</version><meta><task><labels><label><name>&lt;nut&gt;</name></label>
    <label><name>bo"lt</name></label><label><name>gap</name></label><label><name>added</name></label></labels></task>
    </meta><image id="0" name="images/z/b.png" width="64" height="48"><box label="added" source="manual" xtl="1" ytl="2"
    xbr="3" ybr="4" /></image><image id="2" name="images/z/a.png" width="64" height="48"></image></annotations>"""
    with zipfile.ZipFile(out / "task.zip", "w") as archive:
        archive.writestr("annotations.xml", text)
        archive.writestr("images/z/b.png", b"")
    found = load_cvat(out / "task.zip", empty="annotated")
    assert found.frame_ids == ("z/b.png", "z/a.png")
    assert found.ranks.tolist() == [1, 3]
    assert found.rounds.tolist() == [2, 2]
    assert found.class_names == {3: 'bo"lt', 7: "<nut>", 90: "gap", 91: "added"}
    assert found.labels.tolist() == [91]
    assert found.is_annotated.tolist() == [True, True], "what we wrote before people looked does not count"


def test_zip_files_that_are_no_export(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("instances.json", "{}")
    with pytest.raises(InvalidInputError, match=r"must hold one annotations\.xml; it has none"):
        load_cvat(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/annotations.xml", "<annotations/>")
        archive.writestr("b/annotations.xml", "<annotations/>")
    with pytest.raises(InvalidInputError, match=r"it has a/annotations\.xml, b/annotations\.xml"):
        load_cvat(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("annotations.xml", EXPORT.format(level="task"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"filename000", b"filename001"))
    with pytest.raises(InvalidInputError, match="cannot be unpacked: Bad CRC"):
        load_cvat(path)
    with pytest.raises(FileNotFoundError):
        load_cvat(tmp_path / "gone.xml")


def test_coco_from_cvat_in_a_zip_file(tmp_path: Path) -> None:
    """As CVAT documents 'COCO 1.0': an instances file in a folder, scores as such, and other attributes beside."""
    document = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": 1, "name": "car", "supercategory": ""}],
        "images": [
            {
                "id": 1,
                "width": 100,
                "height": 80,
                "file_name": "images/a.jpg",
                "license": 0,
                "flickr_url": "",
                "coco_url": "",
                "date_captured": 0,
            }
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": [],
                "area": 800.0,
                "bbox": [10.0, 20.0, 40.0, 20.0],
                "iscrowd": 0,
                "score": 0.5,
                "attributes": {"occluded": False, "rotation": 90.0},
            }
        ],
    }
    path = tmp_path / "task.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("annotations/instances_default.json", json.dumps(document))
    found = load_coco(path)
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 10.0, 40.0, 50.0]]))
    assert found.scores.tolist() == [0.5]


def test_labelformat_reads_the_same_boxes(out: Path) -> None:
    from labelformat.formats import CVATObjectDetectionInput
    from labelformat.model.bounding_box import BoundingBoxFormat

    read = list(CVATObjectDetectionInput(out / "annotations.xml").get_labels())
    given = marked()
    assert [label.image.filename for label in read] == ["images/z/b.png", "images/a.png", "images/z/a.png"]
    boxes = [each.box.to_format(BoundingBoxFormat.XYXY) for label in read for each in label.objects]
    torch.testing.assert_close(torch.tensor(boxes), given.boxes)
    names = [each.category.name for label in read for each in label.objects]
    assert names == ["<nut>", 'bo"lt', "<nut>"]


def test_globox_reads_the_same_boxes(out: Path) -> None:
    from globox import AnnotationSet

    read = AnnotationSet.from_cvat(out / "annotations.xml")
    boxes = [box.ltrb for name in ("z/b.png", "a.png", "z/a.png") for box in read[f"images/{name}"].boxes]
    torch.testing.assert_close(torch.tensor(boxes), marked().boxes)


def test_panlabel_reads_the_same_boxes(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "converted.json"
    command = [
        str(Path(sys.executable).with_name("panlabel")),
        "convert",
        "--from",
        "cvat",
        "--to",
        "coco",
        "--input",
        str(out / "annotations.xml"),
        "--output",
        str(target),
        "--allow-lossy",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    read = load_coco(target)
    order = [read.file_names.index(f"images/{name}") for name in ("z/b.png", "a.png", "z/a.png")]
    torch.testing.assert_close(read.take(order).boxes, marked().boxes)


def test_without_the_extra_the_error_names_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "defusedxml", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cval_torch\[formats\]"'):
        load_cvat(out)
