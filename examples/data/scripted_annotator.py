"""Somebody who annotates: a script that answers what was handed over, in the format that the tool exports.

It knows where everything is, and treats pre-labels as people do. A pre-label that fits well stays as it is. One that is
near an object is moved, and gets the right class. The others are deleted, and objects without a pre-label are drawn.

`answer_in_label_studio` writes what Label Studio exports as JSON. `answer_in_cvat` writes the zip file that CVAT
exports as "CVAT for images 1.1".
"""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import torch
from torchvision.ops import box_iou

Box = tuple[float, float, float, float]
"""xyxy in pixels."""

Treated = Literal["kept", "corrected", "drawn"]
"""What was done to get a box. `kept` and `corrected` ones were pre-labels."""

_NEAR, _FITS = 0.5, 0.75  # IoU from which on a pre-label is of an object, and from which on it stays as it is
_STUDIO_ORIGIN = {"kept": "prediction", "corrected": "prediction-changed", "drawn": "manual"}
_CVAT_SOURCE = {"kept": "auto", "corrected": "semi-auto", "drawn": "manual"}
_TIME = "2026-01-15T10:30:00.000000Z"


@dataclass(frozen=True)
class Object:
    """What is in a frame: a box and its class."""

    box: Box
    name: str


Truth = Mapping[str, Sequence[Object]]
"""The objects of each frame, by its id."""


@dataclass(frozen=True)
class Answer:
    """One box of an answer; `row` is that of the pre-label that it was."""

    found: Object
    treated: Treated
    row: int | None = None


@dataclass
class Work:
    """What was done.

    Attributes:
        path: the file that the tool exports.
        boxes: how many were `kept`, `corrected`, `drawn` and `deleted`.
        empty: ids of frames that were annotated, with nothing in them.
        skipped: those of tasks that were skipped.
        unopened: those of tasks that nobody opened.
        twice: those of tasks that two people annotated.
    """

    path: Path
    boxes: Counter[str] = field(default_factory=Counter)
    empty: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    unopened: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()

    def answer(self, frame_id: str, before: Sequence[Object], truth: Truth) -> list[Answer]:
        """Annotate a frame, and count what that took."""
        answers = corrected(before, truth[frame_id])
        self.boxes.update(each.treated for each in answers)
        self.boxes["deleted"] += len(before) - sum(each.row is not None for each in answers)
        if not answers:
            self.empty += (frame_id,)
        return answers


def corrected(before: Sequence[Object], truth: Sequence[Object]) -> list[Answer]:
    """What becomes of the pre-labels of a frame: one answer an object, in the order of the objects."""
    free = dict(enumerate(before))
    answers = []
    for thing in truth:
        overlaps = {row: _overlap(pre.box, thing.box) for row, pre in free.items()}
        row = max(overlaps, key=lambda each: overlaps[each], default=-1)
        if overlaps.get(row, 0.0) < _NEAR:
            answers.append(Answer(thing, "drawn"))
            continue
        pre = free.pop(row)
        fits = overlaps[row] >= _FITS and pre.name == thing.name
        answers.append(Answer(pre, "kept", row) if fits else Answer(thing, "corrected", row))
    return answers


def answer_in_label_studio(folder: Path, truth: Truth) -> Work:
    """Annotate the tasks in the folder of `save_label_studio`, and write the export into it.

    Two people annotate the first task that has objects. The second one places boxes a pixel further to the right, and
    draws one around nothing. The last task is skipped. Nobody opens the one before it, so the export does not have it.

    Args:
        folder: with `frames.json`, and a `tasks.json` of three tasks or more.
        truth: of each frame in it.
    """
    tasks = json.loads((folder / "tasks.json").read_text())
    frames = json.loads((folder / "frames.json").read_text())["frames"]
    size_of = {frame["frame_id"]: (frame["width"], frame["height"]) for frame in frames}
    work = Work(folder / "project-1-at-2026-01-15-10-30-0a1b2c3d.json")
    ids = [task["data"]["frame_id"] for task in tasks]
    work.unopened, work.skipped = (ids[-2],), (ids[-1],)
    work.twice = tuple(frame_id for frame_id in ids[:-2] if truth[frame_id])[:1]
    exported = []
    for number, (frame_id, task) in enumerate(zip(ids, tasks, strict=True), start=1):
        if frame_id in work.unopened:
            continue
        if frame_id in work.skipped:
            exported.append(_task(number, task, [_annotation(number, person=1, result=[], was_cancelled=True)]))
            continue
        before = task["predictions"][0]["result"] if "predictions" in task else []
        answers = work.answer(frame_id, [_seen(region) for region in before], truth)
        size = size_of[frame_id]
        people = [[_region(each.found, each.treated, size, _at(before, each.row)) for each in answers]]
        if frame_id in work.twice:
            nothing = Object((0.0, 0.0, 8.0, 8.0), answers[0].found.name)
            second = [*(_shifted(each.found) for each in answers), nothing]
            people.append([_region(thing, "drawn", size, None) for thing in second])
        annotations = [_annotation(number, person=person, result=each) for person, each in enumerate(people, start=1)]
        exported.append(_task(number, task, annotations))
    work.path.write_text(json.dumps(exported))
    return work


def answer_in_cvat(folder: Path, truth: Truth) -> Work:
    """Annotate the images in the folder of `save_cvat`, and write the export into it.

    Args:
        folder: with `annotations.xml`, `labels.json` and `frames.json`.
        truth: of each frame in it.
    """
    frames = json.loads((folder / "frames.json").read_text())["frames"]
    id_of = {frame["file_name"]: frame["frame_id"] for frame in frames}
    images = list(ElementTree.parse(folder / "annotations.xml").iter("image"))  # noqa: S314  # we wrote it
    work = Work(folder / "task_1.zip")
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    root.append(_meta(json.loads((folder / "labels.json").read_text()), len(images)))
    for number, image in enumerate(images):
        before = image.findall("box")
        answers = work.answer(id_of[image.attrib["name"]], [_drawn_in(box) for box in before], truth)
        size = {key: image.attrib[key] for key in ("width", "height")}
        answered = SubElement(root, "image", {"id": str(number), "name": image.attrib["name"], **size})
        for answer in answers:
            corners = zip(("xtl", "ytl", "xbr", "ybr"), answer.found.box, strict=True)
            box = {"label": answer.found.name, "source": _CVAT_SOURCE[answer.treated], "occluded": "0"}
            box |= {key: f"{value:.2f}" for key, value in corners}
            score = "" if answer.row is None else before[answer.row].findtext("attribute[@name='score']")
            SubElement(SubElement(answered, "box", box | {"z_order": "0"}), "attribute", name="score").text = score
    ElementTree.indent(root)
    with zipfile.ZipFile(work.path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations.xml", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return work


def _overlap(one: Box, other: Box) -> float:
    return float(box_iou(torch.tensor([one]), torch.tensor([other])))


def _shifted(thing: Object) -> Object:
    left, top, right, bottom = thing.box
    return Object((left + 1, top, right + 1, bottom), thing.name)


def _seen(region: dict[str, Any]) -> Object:
    """A region of Label Studio, whose numbers are percent of the image."""
    value, width, height = region["value"], region["original_width"] / 100, region["original_height"] / 100
    left, top = value["x"] * width, value["y"] * height
    box = (left, top, left + value["width"] * width, top + value["height"] * height)
    return Object(box, value["rectanglelabels"][0])


def _at(before: Sequence[dict[str, Any]], row: int | None) -> dict[str, Any] | None:
    return None if row is None else before[row]


def _region(thing: Object, treated: Treated, size: tuple[int, int], pre: dict[str, Any] | None) -> dict[str, Any]:
    """An object as a region. One that was a pre-label keeps its id and score, and its numbers if it stays as it is."""
    if treated == "kept" and pre is not None:
        return pre | {"origin": _STUDIO_ORIGIN[treated]}
    left, top, right, bottom = thing.box
    width, height = size[0] / 100, size[1] / 100
    value = {"x": left / width, "y": top / height, "width": (right - left) / width, "height": (bottom - top) / height}
    region = {
        "id": f"drawn-{left:.0f}-{top:.0f}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value | {"rotation": 0, "rectanglelabels": [thing.name]},
    }
    known = {} if pre is None else {key: pre[key] for key in ("id", "score")}
    return region | known | {"origin": _STUDIO_ORIGIN[treated]}


def _annotation(task: int, person: int, result: list[Any], *, was_cancelled: bool = False) -> dict[str, Any]:
    number = 2 * task + person
    return {
        "id": number,
        "completed_by": person,
        "result": result,
        "was_cancelled": was_cancelled,
        "ground_truth": False,
        "created_at": _TIME,
        "updated_at": _TIME,
        "draft_created_at": None,
        "lead_time": 9.5,
        "prediction": {},
        "result_count": len(result),
        "unique_id": f"00000000-0000-4000-8000-{number:012}",
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": task,
        "project": 1,
        "updated_by": person,
        "parent_prediction": None,
        "parent_annotation": None,
        "last_created_by": None,
    }


def _task(number: int, task: dict[str, Any], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """A task as it is exported; of its predictions, it has the ids alone."""
    cancelled = sum(annotation["was_cancelled"] for annotation in annotations)
    return {
        "id": number,
        "annotations": annotations,
        "file_upload": "0a1b2c3d-tasks.json",
        "drafts": [],
        "predictions": [number],
        "data": task["data"],
        "meta": {},
        "created_at": _TIME,
        "updated_at": _TIME,
        "allow_skip": True,
        "inner_id": number,
        "total_annotations": len(annotations) - cancelled,
        "cancelled_annotations": cancelled,
        "total_predictions": 1,
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": 1,
        "updated_by": 1,
        "comment_authors": [],
    }


def _drawn_in(box: Element) -> Object:
    left, top, right, bottom = (float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    return Object((left, top, right, bottom), box.attrib["label"])


def _meta(labels: Sequence[Mapping[str, Any]], size: int) -> Element:
    """What CVAT says of the task in front of its images."""
    meta = Element("meta")
    task = SubElement(meta, "task")
    plain = {"id": "1", "name": "round 1", "size": str(size), "mode": "annotation", "overlap": "0", "bugtracker": ""}
    plain |= {"created": _TIME, "updated": _TIME, "subset": "", "start_frame": "0", "stop_frame": str(size - 1)}
    for key, value in plain.items():
        SubElement(task, key).text = value
    named = SubElement(task, "labels")
    for label in labels:
        one = SubElement(named, "label")
        for key, value in (("name", label["name"]), ("color", "#c06060"), ("type", label["type"])):
            SubElement(one, key).text = value
        attributes = SubElement(one, "attributes")
        for attribute in label["attributes"]:
            described = SubElement(attributes, "attribute")
            for key, value in (attribute | {"values": "\n".join(attribute["values"])}).items():
                SubElement(described, key).text = str(value)
    SubElement(meta, "dumped").text = _TIME
    return meta
