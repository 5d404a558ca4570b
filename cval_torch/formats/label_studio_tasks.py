"""Tasks as Label Studio exports them in JSON: who annotated what, brought together."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.formats.annotations import Annotations
from cval_torch.formats.joining import Join, joined_boxes
from cval_torch.formats.json_files import integer_or, number_or_nan
from cval_torch.formats.label_studio_regions import Region, Tally, read_regions
from cval_torch.formats.rotated import envelopes
from cval_torch.formats.tool_paths import plain_paths
from cval_torch.pool.offsets import offsets_of

_OF_JSON_MIN = {"annotation_id", "annotator", "lead_time"}
_LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.timezone.utc)


class _Vote(NamedTuple):
    """What one person, or a detector, says of a task."""

    person: str
    time: datetime.datetime
    regions: list[Region]
    size: tuple[int, int] | None


@dataclass
class Tasks:
    """What `read_tasks` found: F tasks that were not skipped, and B boxes in them.

    Attributes:
        source: what to call the file in messages.
        file_names: F plain paths.
        data: the tasks' `data`.
        is_annotated: F.
        sizes: F; width and height, 0 where no region tells.
        counts: F; the boxes of each.
        boxes: B; (4,) float64 xyxy in pixels.
        names: B; the class of each box.
        scores: B; NaN where there is none.
        crowds: B.
        skipped: paths of tasks that were skipped.
        notes: what a user should know.
    """

    source: str
    file_names: list[str] = field(default_factory=list)
    data: list[Mapping[str, Any]] = field(default_factory=list)
    is_annotated: list[bool] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    crowds: list[bool] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def annotations(self, class_names: Mapping[int, str], labels: Sequence[int], notes: Sequence[str]) -> Annotations:
        """The same with numbers of classes.

        Args:
            class_names: names by label.
            labels: B.
            notes: in place of `notes`.
        """
        ids = [_frame_id(each) for each in self.data]
        return Annotations(
            self.file_names,
            offsets_of(torch.tensor(self.counts, dtype=torch.int64)),
            boxes=torch.cat([torch.empty(0, 4, dtype=torch.float64), *self.boxes]),
            labels=torch.tensor(labels, dtype=torch.int64),
            class_names=class_names,
            frame_ids=ids,
            is_annotated=torch.tensor(self.is_annotated, dtype=torch.bool),
            sizes=torch.tensor(self.sizes, dtype=torch.int64).reshape(-1, 2),
            scores=torch.tensor(self.scores, dtype=torch.float32),
            is_crowd=torch.tensor(self.crowds, dtype=torch.bool),
            ranks=torch.tensor([integer_or(each.get("rank"), 0) for each in self.data], dtype=torch.int64),
            uncertainties=torch.tensor(
                [number_or_nan(each.get("uncertainty")) for each in self.data], dtype=torch.float64
            ),
            rounds=torch.tensor([integer_or(each.get("round"), -1) for each in self.data], dtype=torch.int64),
            source=self.source,
            skipped=self.skipped,
            notes=notes,
        )

    def add(self, name: str, data: Mapping[str, Any], votes: Sequence[_Vote], *, annotated: bool, join: Join) -> None:
        """Add a task with the votes that count."""
        self.file_names.append(name)
        self.data.append(data)
        self.is_annotated.append(annotated)
        self.sizes.append(next((vote.size for vote in votes if vote.size is not None), (0, 0)))
        regions = [region for vote in votes for region in vote.regions]
        corners = torch.tensor([region.box for region in regions], dtype=torch.float64).reshape(-1, 4)
        boxes = envelopes(corners, torch.tensor([region.degrees for region in regions]), about="corner")
        groups = [[row] for row in range(len(regions))]
        if len(votes) > 1:
            numbers = {name: number for number, name in enumerate(sorted({region.name for region in regions}))}
            labels = torch.tensor([numbers[region.name] for region in regions], dtype=torch.int64)
            owners = [number for number, vote in enumerate(votes) for _ in vote.regions]
            boxes, groups = joined_boxes(boxes, labels, owners, people=len(votes), join=join)
        self.counts.append(len(groups))
        self.boxes.append(boxes.double())
        for group in groups:
            members = [regions[row] for row in group]
            self.names.append(members[0].name)
            self.scores.append(
                statistics.median([member.score for member in members]) if _scored(members) else math.nan
            )
            self.crowds.append(2 * sum(member.crowd for member in members) > len(members))


def _scored(members: Sequence[Region]) -> bool:
    return not any(math.isnan(member.score) for member in members)


def read_tasks(document: Any, source: str, *, join: Join, image_key: str) -> Tasks:
    """The tasks of a JSON export; see `load_label_studio`.

    Args:
        document: what was read from the file.
        source: what to call it in messages.
        join: see there.
        image_key: see there.
    """
    rows = _checked(document, source)
    wheres = [_where(task, number, source) for number, task in enumerate(rows)]
    datas = [_data(task, where) for task, where in zip(rows, wheres, strict=True)]
    names = plain_paths([_image(data, image_key, where) for data, where in zip(datas, wheres, strict=True)])
    _check_distinct(datas, wheres)
    tasks, tally = Tasks(source), Tally()
    several = repeated = versions = 0
    for task, where, data, name in zip(rows, wheres, datas, names, strict=True):
        votes, cancelled = _votes(task, where, tally)
        if votes:
            counted = _one_a_person(votes)
            repeated += len(counted) < len(votes)
            several += len(counted) > 1
            if len(counted) > 1 and join == "refuse":
                raise InvalidInputError(
                    f"{where} has annotations of {len(counted)} people: {', '.join(vote.person for vote in counted)}. "
                    "Say how they are joined by `join`, such as 'majority'"
                )
            kept = [_newest(votes)] if join == "latest" else counted
            tasks.add(name, data, kept, annotated=True, join=join)
        elif cancelled:
            tasks.skipped.append(name)
        else:
            found = _predictions(task, where, tally)
            versions += len(found) > 1
            newest = [_newest(found)] if found else []
            tasks.add(name, data, newest, annotated=False, join=join)
    tasks.notes = tally.notes()
    if several:
        tasks.notes.append(f"{several} tasks have annotations of several people, joined by `join={join!r}`")
    if repeated:
        tasks.notes.append(f"{repeated} tasks have several annotations of one person, of which the last counts")
    if versions:
        tasks.notes.append(f"{versions} tasks have several predictions, of which the newest was read")
    if tasks.skipped:
        tasks.notes.append(f"{len(tasks.skipped)} tasks were skipped by those who annotated, and are left out")
    return tasks


def looks_like_tasks(document: Any) -> bool:
    """Whether the content of a JSON file is a list of tasks, or what JSON-MIN makes of them."""
    first = document[0] if isinstance(document, list) and document else None
    return isinstance(first, Mapping) and (isinstance(first.get("data"), Mapping) or bool(_OF_JSON_MIN & set(first)))


def _checked(document: Any, source: str) -> list[Mapping[str, Any]]:
    if isinstance(document, Mapping) and "images" in document and "annotations" in document:
        raise InvalidInputError(f"{source} is a COCO instances file; read it by `load_coco`")
    if not isinstance(document, list):
        raise InvalidInputError(
            f"{source} must be a list of tasks, as Label Studio exports them as JSON; got {type(document).__name__}"
        )
    for number, task in enumerate(document):
        if not isinstance(task, Mapping):
            raise InvalidInputError(f"task {number} of {source} must be an object; got {_short(task)}")
        if "data" not in task and _OF_JSON_MIN & set(task):
            raise InvalidInputError(
                f"{source} was exported as JSON-MIN, which does not tell images with nothing in them from images that "
                "nobody annotated. Export the project as JSON"
            )
    return document


def _where(task: Mapping[str, Any], number: int, source: str) -> str:
    own = task.get("id")
    return f"task {number} (id {own}) of {source}" if isinstance(own, (int, str)) else f"task {number} of {source}"


def _data(task: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "data" not in task:
        raise InvalidInputError(f"{where} has no `data`; its keys are {', '.join(map(str, task)) or 'none'}")
    data = task["data"]
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"{where} must have an object as `data`; got {_short(data)}")
    return data


def _image(data: Mapping[str, Any], key: str, where: str) -> str:
    if key not in data:
        raise InvalidInputError(
            f"{where} has no `{key}` in `data`; its keys are {', '.join(map(str, data)) or 'none'}. Name the one of "
            "the image by `image_key`"
        )
    name = data[key]
    if not isinstance(name, str) or not name:
        raise InvalidInputError(f"{where} must have a path or URL as `{key}` in `data`; got {_short(name)}")
    return name


def _check_distinct(datas: Sequence[Mapping[str, Any]], wheres: Sequence[str]) -> None:
    owners: dict[str, str] = {}
    for data, where in zip(datas, wheres, strict=True):
        frame_id = _frame_id(data)
        if frame_id is not None and owners.setdefault(frame_id, where) != where:
            raise InvalidInputError(
                f"{where} is of the frame {frame_id!r}, as is {owners[frame_id]}: the frame was imported twice. Delete "
                "one of the tasks in Label Studio, and export again"
            )


def _frame_id(data: Mapping[str, Any]) -> str | None:
    value = data.get("frame_id")
    return value if isinstance(value, str) and value else None


def _list(task: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = task.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidInputError(f"{where} must have a list as `{key}`; got {_short(value)}")
    return value


def _votes(task: Mapping[str, Any], where: str, tally: Tally) -> tuple[list[_Vote], int]:
    """The annotations that were submitted, and how many were skipped."""
    votes, cancelled = [], 0
    for number, annotation in enumerate(_list(task, "annotations", where)):
        here = f"annotation {number} of {where}"
        if not isinstance(annotation, Mapping):
            raise InvalidInputError(f"{here} must be an object; got {_short(annotation)}")
        was_cancelled = annotation.get("was_cancelled")
        if was_cancelled not in (None, True, False):
            raise InvalidInputError(f"{here} must have true or false as `was_cancelled`; got {_short(was_cancelled)}")
        if was_cancelled:
            cancelled += 1
            continue
        if "result" not in annotation:
            raise InvalidInputError(f"{here} has no `result`; its keys are {', '.join(map(str, annotation)) or 'none'}")
        regions, size = read_regions(annotation["result"], here, tally)
        person = _person(annotation.get("completed_by"))
        votes.append(_Vote(person or f"annotation {number}", _time(annotation, here), regions, size))
    sizes = {vote.size for vote in votes if vote.size is not None}
    if len(sizes) > 1:
        raise InvalidInputError(
            f"{where} has annotations with several values of `original_width` and `original_height`, "
            f"{sorted(sizes)}: the image was exchanged. Annotate it anew"
        )
    return votes, cancelled


def _predictions(task: Mapping[str, Any], where: str, tally: Tally) -> list[_Vote]:
    """Predictions; exports may have their ids alone."""
    votes = []
    for number, prediction in enumerate(_list(task, "predictions", where)):
        here = f"prediction {number} of {where}"
        if isinstance(prediction, int):
            continue
        if not isinstance(prediction, Mapping) or "result" not in prediction:
            raise InvalidInputError(f"{here} must be an object with `result`; got {_short(prediction)}")
        regions, size = read_regions(prediction["result"], here, tally)
        votes.append(_Vote("prediction", _time(prediction, here), regions, size))
    return votes


def _newest(votes: Sequence[_Vote]) -> _Vote:
    """The one with the latest time; of several such the last one."""
    return max(enumerate(votes), key=lambda pair: (pair[1].time, pair[0]))[1]


def _one_a_person(votes: Sequence[_Vote]) -> list[_Vote]:
    """The last of each person's votes, in the order of their first ones."""
    last: dict[str, _Vote] = {}
    for vote in votes:
        if vote.person not in last or vote.time >= last[vote.person].time:
            last[vote.person] = vote
    return list(last.values())


def _person(value: Any) -> str:
    """A name for who annotated, from a number, an address, or an object that has one of them; empty if not told."""
    if isinstance(value, Mapping):
        value = value.get("id", value.get("email"))
    return str(value) if isinstance(value, (int, str)) else ""


def _time(values: Mapping[str, Any], where: str) -> datetime.datetime:
    """When it was changed, or made; long ago where that is not told."""
    for key in ("updated_at", "created_at"):
        value = values.get(key)
        if value is None:
            continue
        try:
            time = datetime.datetime.fromisoformat(value.replace("Z", "+00:00"))
        except (AttributeError, ValueError):
            raise InvalidInputError(f"{where} must have a time as `{key}`; got {_short(value)}") from None
        return time if time.tzinfo is not None else time.replace(tzinfo=datetime.timezone.utc)
    return _LONG_AGO


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
