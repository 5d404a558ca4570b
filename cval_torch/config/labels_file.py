"""`labels.json`: which images are labelled, and which were chosen and wait for annotators, as a file of records."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cval_torch.errors import InvalidInputError
from cval_torch.pool.files import read_record, write_record
from cval_torch.training.labels import STATE_FORMAT as LABELS_FORMAT
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import LearningCurve
from cval_torch.training.rounds import Round
from cval_torch.training.sampler import STATE_FORMAT as SAMPLER_FORMAT
from cval_torch.training.schedules import EveryEpochs


@dataclass(frozen=True)
class LabelsFile:
    """What a record says; `SamplerCallback.load` reads it, too.

    Attributes:
        path: the file.
        state: as it stands there: of a `SamplerCallback`.
    """

    path: Path
    state: dict[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> LabelsFile:
        """Read what `SamplerCallback.save`, `LabelPool.save` or `cval-torch select` wrote.

        Raises:
            InvalidInputError: it is no such file, or damaged.
            OSError: it cannot be read.
        """
        name = os.fspath(path)
        state = read_record(path, what="a record of labels", form=SAMPLER_FORMAT)
        form = state.get("format") if isinstance(state, dict) else None
        if form == LABELS_FORMAT:
            state = _around(read_record(path, what="a record of labels", form=LABELS_FORMAT))
        elif form != SAMPLER_FORMAT:
            raise InvalidInputError(f"{name!r} must be a labels.json; its format is {form!r}")
        try:
            rounds = [Round.from_state(each) for each in state["labels"]["rounds"]]
            pending = [Round.from_state(state["pending"])] if "pending" in state else []
            int(state["labels"]["frames"])
            LearningCurve.from_state(state["labels"].get("learning_curve", []))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInputError(f"{name!r} is damaged: {type(error).__name__}: {error}") from error
        del rounds, pending
        return cls(Path(path), dict(state))

    @classmethod
    def of(cls, path: Path, labels: LabelPool, pending: Round | None) -> LabelsFile:
        """The record of some labels, and of frames that wait."""
        state = _around(labels.state_dict())
        if pending is not None:
            state["pending"] = pending.state_dict()
            marks = labels.row_marks_of(pending.frame_ids)
            if marks is not None:
                state["pending_row_marks"] = marks
        return cls(path, state)

    @property
    def num_frames(self) -> int:
        """The images of the dataset."""
        return int(self.state["labels"]["frames"])

    @property
    def rounds(self) -> list[Round]:
        """Those that are labelled."""
        return [Round.from_state(each) for each in self.state["labels"]["rounds"]]

    @property
    def learning_curve(self) -> LearningCurve:
        """What was measured as labels grew."""
        return LearningCurve.from_state(self.state["labels"].get("learning_curve", []))

    def measured(self, metrics: Mapping[str, float]) -> LabelsFile:
        """What a detector measured that was trained on the labelled images.

        Raises:
            InvalidInputError: no image is labelled.
        """
        labeled = sum(len(each.frame_ids) for each in self.rounds)
        if not labeled:
            raise InvalidInputError(
                f"no images are labelled in {os.fspath(self.path)!r}: `labels confirm` those that are, then note what "
                "a detector measured that was trained on them"
            )
        curve = self.learning_curve
        curve.add(labeled, metrics)
        return LabelsFile(self.path, self.state | {"labels": self.state["labels"] | {"learning_curve": curve.state()}})

    @property
    def pending(self) -> tuple[str, ...]:
        """Ids that were chosen and wait, in rank order."""
        if "pending" not in self.state:
            return ()
        labeled = {frame_id for round_ in self.rounds for frame_id in round_.frame_ids}
        return tuple(each for each in Round.from_state(self.state["pending"]).frame_ids if each not in labeled)

    def confirm(self, frame_ids: Collection[str] | None = None) -> LabelsFile:
        """Frames that wait have labels now: all, or some.

        Raises:
            InvalidInputError: a frame does not wait.
        """
        pending = self.pending
        confirmed = set(pending if frame_ids is None else frame_ids)
        if not confirmed:
            raise InvalidInputError(f"no frames wait in {os.fspath(self.path)!r}")
        for frame_id in sorted(confirmed - set(pending)):
            raise InvalidInputError(f"frame {frame_id!r} does not wait in {os.fspath(self.path)!r}: {len(pending)} do")
        waiting = Round.from_state(self.state["pending"])
        marks = dict(zip(waiting.frame_ids, self.state.get("pending_row_marks") or [], strict=False))
        labels = dict(self.state["labels"])
        new = waiting.part(confirmed)
        labels["rounds"] = [*labels["rounds"], new.state_dict()]
        if "row_marks" in labels:
            labels["row_marks"] = [*labels["row_marks"], *(marks.get(each) for each in new.frame_ids)]
        rest = [each for each in pending if each not in confirmed]
        return self._with(labels, waiting.part(rest) if rest else None, [marks.get(each) for each in rest])

    def discard(self) -> LabelsFile:
        """Wait no longer: what was chosen may be chosen again."""
        return self._with(dict(self.state["labels"]), None, [])

    def write(self) -> None:
        """Write the file; an older one stays intact if writing fails."""
        write_record(self.path, self.state)

    def _with(self, labels: dict[str, Any], pending: Round | None, marks: list[Any]) -> LabelsFile:
        state = {name: value for name, value in self.state.items() if not name.startswith("pending")}
        state["labels"] = labels
        if pending is not None:
            state["pending"] = pending.state_dict()
            if "pending_row_marks" in self.state:
                state["pending_row_marks"] = marks
        return LabelsFile(self.path, state)


def load_labels(path: str | os.PathLike[str], labels: LabelPool) -> None:
    """Take over which images are labelled.

    Raises:
        InvalidInputError: it is no such record; it is of other images; frames in it wait for annotators.
        OSError: it cannot be read.
    """
    record = LabelsFile.read(path)
    waiting = record.pending
    if waiting:
        name = os.fspath(path)
        raise InvalidInputError(
            f"{len(waiting)} frames in {name!r} were chosen and wait for annotators. When they are annotated, run "
            f"`cval-torch labels confirm {name}`, or `cval-torch labels discard {name}` to let them be chosen again"
        )
    labels.load_state_dict(record.state["labels"], strict=False)


def _around(labels: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in labels.items() if name != "checksum"}
    return {"format": SAMPLER_FORMAT, "labels": plain, "schedule": EveryEpochs(1).state_dict(), "rounds_chosen": 0}
