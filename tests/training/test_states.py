"""Saved states that were damaged, or whose dataset changed: refused whole, or read as they stand, never half."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import SamplerCallback
from cval_torch.training.labels import LabelPool
from cval_torch.training.rounds import Round
from cval_torch.training.schedules import WhenStalled

IDS = list("abcdefgh")
STAGE = DetectionSampling(num_of_samples=2, selection_strategy="entropy", bbox_selection_policy="max")


def callback(labels: LabelPool | None = None) -> SamplerCallback:
    labels = LabelPool(IDS, frame_ids=IDS) if labels is None else labels  # type: ignore[arg-type]
    return SamplerCallback(labels, lambda part: part, STAGE, schedule=WhenStalled("map"))  # type: ignore[arg-type, return-value]


def saved() -> dict[str, Any]:
    """A state with every field there is, as it is in a file."""
    sampler = callback()
    sampler.labels.label(["a", "b"])
    sampler.labels.measured({"map": 0.3})
    sampler.labels.label(["c", "d"], scores=[0.1, 0.2], stages=[STAGE], epoch=3, model_fingerprint="1f")
    for epoch, value in enumerate([0.5, 0.4]):
        sampler.schedule.due(epoch, {"map": value})
    sampler.on_evaluation({"map": 0.3, "loss": 2.0})
    state = sampler.state_dict() | {"pending": Round(("e", "f"), (0.3, 0.4), (), 4, "1f", ("f",)).state_dict()}
    return json.loads(json.dumps(state))  # type: ignore[no-any-return]


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if before:
        yield before
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*before, key))


DAMAGE = [None, -1, "x", [], {}, [1], ["a", "a"], {"a": 1}, float("nan"), float("inf"), True, [None], [[]], "deleted"]


@pytest.mark.parametrize("place", list(places(saved())), ids=lambda place: ".".join(map(str, place)))
def test_a_damaged_state_is_refused_whole_or_still_one(place: tuple[Any, ...]) -> None:
    accepted = 0
    for damage in DAMAGE:
        state = copy.deepcopy(saved())
        inner = state
        for key in place[:-1]:
            inner = inner[key]
        if damage == "deleted":
            del inner[place[-1]]
        else:
            inner[place[-1]] = damage
        sampler = callback()
        sampler.labels.label(["h"])
        before = json.dumps(sampler.state_dict())
        try:
            sampler.load_state_dict(state)
        except InvalidInputError:
            assert json.dumps(sampler.state_dict()) == before
            continue
        accepted += 1
        json.dumps(sampler.state_dict())  # what was taken over can be asked and saved
        assert set(sampler.labels.labeled_ids) | set(sampler.pending) <= set(IDS)
        assert [round_.strategy for round_ in sampler.labels.rounds] == [
            ", ".join(stage["selection_strategy"] for stage in round_.stages) or None
            for round_ in sampler.labels.rounds
        ]
        sampler.schedule.due(9, {"map": 0.1})
    assert accepted < len(DAMAGE) or "stages" in place  # options of a stage are kept as they were written


def test_pending_frames_that_are_gone_are_dropped_if_that_is_allowed() -> None:
    left = [name for name in IDS if name != "e"]
    sampler = callback(LabelPool(left, frame_ids=left))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"1 frames of `state` that were pending are no longer.*strict=False"):
        sampler.load_state_dict(saved())
    with pytest.warns(UserWarning, match=r"no longer in the dataset: \['e'\]. They are not waited for any more"):
        sampler.load_state_dict(saved(), strict=False)
    assert sampler.pending == ("f",)
    assert sampler.confirm().frame_ids == ("f",)
    assert sampler.labels.rounds[-1].scores == (0.4,)
    left = [name for name in IDS if name not in "ef"]
    sampler = callback(LabelPool(left, frame_ids=left))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match=r"\['e', 'f'\]"):
        sampler.load_state_dict(saved(), strict=False)
    assert sampler.pending == ()


class Files(Dataset[str]):
    """Frames without ids, from a list of files under a name of its own."""

    def __init__(self, files: str) -> None:
        self.my_files = list(files)

    def __len__(self) -> int:
        return len(self.my_files)

    def __getitem__(self, row: int) -> str:
        return self.my_files[row]


@pytest.mark.parametrize("strict", [True, False])
def test_pending_rows_that_are_other_frames_now_are_refused(strict: bool) -> None:
    sampler = callback(LabelPool(Files("abcdef"), labeled=["0"]))
    sampler._waiting = Round(("3", "4"), (0.3, 0.4))
    state = json.loads(json.dumps(sampler.state_dict()))
    again = callback(LabelPool(Files("abcdef")))
    again.load_state_dict(state)
    assert again.pending == ("3", "4")
    moved = callback(LabelPool(Files("abcedf")))  # the labelled row stayed, the pending ones were exchanged
    with pytest.raises(
        InvalidInputError, match="knows frames by their rows alone, and row 3 of the dataset is another"
    ):
        moved.load_state_dict(state, strict=strict)
    assert moved.pending == ()
    assert moved.labels.labeled_ids == ()
