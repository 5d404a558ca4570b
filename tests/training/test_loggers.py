"""What is logged of a round, and that no logger, however it fails, changes a training."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh_process import run_python
from PIL import Image
from round_notes import Broken, Notes
from shades import STAGE, Shades, Tiny, make, train_epoch

from cval_torch import LabelPool, LocalBackend, Pool, SelectedFrames
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training import RoundLogger, as_round_logger
from cval_torch.training.loggers import RoundLog


def test_what_a_round_is_logged_as() -> None:
    notes = Notes()
    sampler = make(loggers=[notes])
    for epoch in (4, 7):
        chosen = sampler.on_epoch_end(Tiny(), epoch)
        assert chosen is not None
        number = sampler.rounds_chosen
        labeled = 3 + 3 * (number - 1)
        values = notes.of("scalars")[-1]
        boxes = chosen.predictions.scores.double().sum().item()  # one box a frame, all of class 0
        assert values == {
            "rounds/chosen_frames": 3,
            "rounds/labeled_frames": labeled,
            "rounds/frames_left": 20 - labeled - 3,
            "rounds/epoch": epoch,
            "rounds/estimated_boxes": pytest.approx(boxes),
            "rounds/estimated_minutes": pytest.approx((3 * 7.8 + 25.5 * boxes) / 60),
            "rounds/classes/0": pytest.approx(boxes),
        }
        assert all(type(value) is float for value in values.values())
        assert notes.of("histogram")[-1] == chosen.scores.tolist()
        columns = zip((1, 2, 3), chosen.frame_ids, chosen.scores.tolist(), chosen.estimated_boxes.tolist(), strict=True)
        rows = list(columns)
        assert notes.of("table")[-1] == [("rank", "frame_id", "score", "estimated_boxes"), *rows]
        name, written = notes.of("file")[-1]
        assert name == f"round-{number:04d}.csv"
        assert [row["frame_id"] for row in csv.DictReader(io.StringIO(written))] == list(chosen.frame_ids)
        with Image.open(io.BytesIO(notes.of("image")[-1])) as picture:
            assert (picture.format, picture.width > 3 * 224) == ("PNG", True)
    assert notes.steps("scalars") == notes.steps("image") == [1, 2]


def test_a_choice_by_hand_has_no_epoch_and_waits() -> None:
    """It is logged before people annotate: they may take days."""
    notes = Notes()
    seen_by_annotator = []
    sampler = make(loggers=[notes], annotate=lambda _: seen_by_annotator.extend(notes.of("scalars")))
    sampler.choose(Tiny())
    assert seen_by_annotator == notes.of("scalars")
    assert "rounds/epoch" not in seen_by_annotator[0]
    with pytest.warns(UserWarning, match="wait for labels"):
        assert sampler.choose(Tiny()) is None
    assert len(notes.of("scalars")) == 1


def test_scores_that_there_are_not_have_no_histogram() -> None:
    notes = Notes()
    make(loggers=[notes], stages=DetectionSampling(selection_strategy="random", num_of_samples=2)).choose(Tiny())
    assert notes.of("histogram") == []
    assert all(math.isnan(row[2]) for row in notes.of("table")[0][1:])


def test_without_boxes_and_classes_the_rest_is_logged() -> None:
    dataset, notes = Shades(5), Notes()
    pool = Pool(list("01234"), torch.arange(6), scores=dataset.shades, indices=torch.arange(5))
    chosen = SelectedFrames(dataset, LocalBackend().select(pool, STAGE), pool)
    RoundLog([notes]).log(chosen, LabelPool(dataset, labeled=["0"]), number=4, epoch=None)
    [values] = notes.of("scalars")
    names = ("chosen_frames", "labeled_frames", "frames_left", "estimated_boxes", "estimated_minutes")
    assert set(values) == {f"rounds/{name}" for name in names}
    assert (notes.steps("table"), notes.steps("file"), notes.of("image")) == ([4], [4], [])


@pytest.mark.parametrize("explicit", [True, False])
def test_numbers_are_logged_by_the_round_after_a_restart(explicit: bool) -> None:
    first = make()
    first.on_epoch_end(Tiny(), 0)
    notes = Notes()
    second = make(loggers=[notes])
    second.load_state_dict(first.state_dict())
    second.choose(Tiny(), epoch=1 if explicit else None)
    assert notes.steps("scalars") == [2]


class Undrawable(Shades):
    """Its frames are read for inference, and cannot be read once more."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.reads = 0

    def __getitem__(self, row: int) -> Any:
        self.reads += 1
        if self.reads > 17:
            raise RuntimeError("the file has gone")
        return super().__getitem__(row)


def test_frames_that_cannot_be_drawn_are_a_warning_and_the_rest_is_logged() -> None:
    notes = Notes()
    sampler = make(dataset=Undrawable(20), loggers=[notes, notes])
    with pytest.warns(UserWarning, match="frames of round 1 could not be drawn.*the file has gone") as caught:
        assert sampler.choose(Tiny()) is not None
    assert len(caught) == 1
    assert (len(notes.of("scalars")), len(notes.of("file")), notes.of("image")) == (2, 2, [])


@pytest.mark.parametrize("at", ["scalars", "histogram", "image", "table", "file"])
def test_a_logger_that_fails_warns_once_a_round_and_the_others_go_on(at: str) -> None:
    broken, notes = Broken(at), Notes()
    sampler, plain = make(loggers=[broken, notes]), make()
    for epoch in range(2):
        expected = plain.on_epoch_end(Tiny(), epoch)
        with pytest.warns(UserWarning, match="Broken did not log all of round .: OSError: the disk is full") as caught:
            chosen = sampler.on_epoch_end(Tiny(), epoch)
        assert len(caught) == 1
        assert chosen is not None
        assert expected is not None
        assert chosen.frame_ids == expected.frame_ids
        assert caught[0].filename == __file__
    assert len(notes.calls) == 10
    assert sampler.labels.labeled_ids == plain.labels.labeled_ids


def test_a_stop_by_the_user_is_no_failure_of_a_logger() -> None:
    with pytest.raises(KeyboardInterrupt):
        make(loggers=[Broken("table", KeyboardInterrupt())]).choose(Tiny())


def test_without_room_for_files_nothing_is_logged_and_the_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cval_torch.training.loggers.TemporaryDirectory", full)
    notes = Notes()
    with pytest.warns(UserWarning, match="round 1 was not logged: OSError.*No space left"):
        assert make(loggers=[notes]).choose(Tiny()) is not None
    assert notes.calls == []


def test_a_training_is_bit_for_bit_the_same_as_without() -> None:
    """Though the picture reads frames of a dataset that draws random numbers."""
    outcomes = []
    for loggers in ([], [Notes()]):
        sampler = make(dataset=Shades(20, noise=0.01), loggers=loggers)
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        model = Tiny()
        for epoch in range(2):
            train_epoch(model, sampler.labels.labeled)
            sampler.on_epoch_end(model, epoch)
        outcomes.append((model_fingerprint(model), float(torch.rand(())), random.random(), np.random.rand()))
    assert outcomes[0] == outcomes[1]


def test_of_several_processes_the_first_alone_logs(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "worlds" / "logging_ranks.py"
    run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script), str(tmp_path))
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert (first["steps"], second["steps"]) == ([1, 2], [])
    assert first["labeled"] == second["labeled"]


def test_an_own_logger_is_taken_as_it_is() -> None:
    notes: RoundLogger = Notes()
    assert as_round_logger(notes) is notes


class Writer:
    """Nearly a SummaryWriter."""

    def add_scalar(self) -> None: ...


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        (None, "got None of type NoneType"),
        (Writer(), "of type Writer"),
        (print, "of type builtin_function_or_method"),
        (types.ModuleType("wandb"), "got the module `wandb`"),
        ((Writer(), "id"), "of type tuple"),
        ({"log": 1}, "of type dict"),
        (types.SimpleNamespace(info=types.SimpleNamespace(), data=1), "of type SimpleNamespace"),
    ],
)
def test_an_unknown_object_is_refused_and_the_known_kinds_are_named(thing: Any, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        make(loggers=[thing])
    message = str(caught.value)
    assert said in message
    for known in ("SummaryWriter", "wandb.init", "mlflow.start_run", "CSVLogger", "RoundLogger"):
        assert known in message


@pytest.mark.parametrize("loggers", [Notes(), "tensorboard", None])
def test_loggers_come_in_a_list(loggers: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"`loggers` must be a list .* pass `loggers=\[...\]`"):
        RoundLog(loggers)


def test_no_property_is_run_to_tell_what_an_object_is() -> None:
    class Careful:
        @property
        def info(self) -> Any:
            raise AssertionError

        @property
        def experiment(self) -> Any:
            raise AssertionError

    with pytest.raises(InvalidInputError, match="of type Careful"):
        as_round_logger(Careful())
