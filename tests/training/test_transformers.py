"""`TransformersSampler` in a real Trainer, over a real YOLOS of a few thousand weights."""

# ruff: noqa: E402 - what an extra brings is imported first, or the tests are skipped

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from squares import Listener, Oracle, Squares, make_sampler

transformers = pytest.importorskip("transformers")

from tiny_yolos import make_yolos, trainer_of

from cval_torch.errors import InvalidInputError
from cval_torch.training import SamplerCallback, WhenStalled
from cval_torch.training.transformers import TransformersSampler

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator")


def test_rounds_of_trainers(tmp_path: Path) -> None:
    """Each round is a Trainer that stops after its choice; the next one trains on more."""
    oracle = Oracle()
    sampler, model, steps = make_sampler(annotate=oracle), make_yolos(), []
    for _ in range(3):
        callback = TransformersSampler(sampler)
        trainer = trainer_of(model, sampler, tmp_path, callback, epochs=5)
        trainer.train()
        steps.append(trainer.state.global_step)
        assert callback.chosen is not None
        assert callback.chosen.frame_ids == oracle.asked[-1]
    assert steps == [1, 2, 3]  # batches of four
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 0, 0, 0]


class Evaluates(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Gives each evaluation the loss that the test wants, under every name of a loss that it has."""

    def __init__(self, losses: Sequence[float]) -> None:
        self.losses = list(losses)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        for name in [name for name in metrics if name.endswith("_loss")]:
            metrics[name] = self.losses.pop(0)


def epochs_of(sampler: SamplerCallback) -> list[int | None]:
    return [round_.epoch for round_ in sampler.labels.rounds[1:]]


def stalled(metric: str = "eval_loss", patience: int = 1) -> WhenStalled:
    return WhenStalled(metric, patience=patience, higher_is_better=False)


@pytest.mark.parametrize(
    ("options", "before", "heard"),
    [
        ({"eval_strategy": "epoch"}, [], [(0, 3.0), (1, 2.0), (2, 2.5)]),
        ({"eval_strategy": "epoch", "eval_delay": 2}, [], [(0, None), (1, 2.0), (2, 2.5)]),
        ({"eval_strategy": "epoch", "eval_on_start": True}, [0.1], [(0, 3.0), (1, 2.0), (2, 2.5)]),
        ({"eval_strategy": "epoch", "eval_on_start": True, "eval_delay": 3}, [0.1], [(0, None), (1, None), (2, 2.5)]),
        ({"eval_strategy": "steps", "eval_steps": 1}, [], [(0, 3), (0, 2), (1, 2.5), (1, 1), (2, 5), (2, 4)]),
        ({"eval_strategy": "steps", "eval_steps": 2}, [], [(0, 3.0), (1, 2.0), (2, 2.5)]),
        ({"eval_strategy": "steps", "eval_steps": 3}, [], [(0, None), (1, 2.0), (2, 2.5)]),
        ({"eval_strategy": "steps", "eval_steps": 3, "eval_delay": 4}, [], [(0, None), (1, None), (2, 2.5)]),
        ({"eval_strategy": "no", "eval_on_start": True}, [0.1], [(0, None), (1, None), (2, None)]),
        ({"eval_strategy": "no"}, [], [(0, None), (1, None), (2, None)]),
        ({"eval_strategy": "epoch", "logging_strategy": "epoch"}, [], [(0, 3.0), (1, 2.0), (2, 2.5)]),
    ],
)
def test_the_schedule_hears_each_evaluation_once(
    tmp_path: Path, options: dict[str, Any], before: list[float], heard: list[tuple[float | None, ...]]
) -> None:
    """Two steps an epoch. The host evaluates at the end of an epoch after `on_epoch_end`."""
    listener = Listener("eval_loss")
    sampler = make_sampler(schedule=listener)
    evaluates = Evaluates([*before, *(value for _, value in heard if value is not None), 9.0])
    callback = TransformersSampler(sampler)
    trainer = trainer_of(make_yolos(), sampler, tmp_path, evaluates, callback, epochs=3, batch_size=2, **options)
    trainer.train()
    assert listener.asked == heard
    state = sampler.state_dict()
    trainer.evaluate()  # one of the user's own
    assert evaluates.losses == []
    assert sampler.state_dict() == state


@pytest.mark.parametrize(
    ("options", "losses", "schedule", "chosen", "steps"),
    [
        ({"eval_strategy": "epoch"}, [3.0, 2.0, 2.5], stalled(), 2, 6),
        ({"eval_strategy": "epoch", "eval_delay": 3}, [3.0, 3.5], stalled(), 3, 8),
        ({"eval_strategy": "steps", "eval_steps": 1}, [3.0, 2.0, 2.5, 2.5], stalled(patience=2), 1, 4),
        ({"eval_strategy": "steps", "eval_steps": 1}, [3.0, 2.0, 2.5, 1.0], stalled(), 1, 4),
        ({"eval_strategy": "steps", "eval_steps": 3}, [3.0, 3.5], stalled(), 2, 6),
        ({"eval_strategy": "epoch", "logging_strategy": "epoch"}, [3.0, 3.5], stalled(), 1, 4),
        # the stall is in the middle of an epoch, at whose end something else is logged
        (
            {"eval_strategy": "steps", "eval_steps": 3, "logging_strategy": "epoch", "eval_on_start": True},
            [1.0, 3.0, 3.5],
            stalled(),
            2,
            6,
        ),
        ({"eval_strategy": "epoch", "eval_dataset": "two"}, [1.0, 3.0, 0.5, 3.5], stalled("eval_b_loss"), 1, 4),
        ({"eval_strategy": "epoch", "eval_dataset": "two"}, [1.0, 3.0, 0.5, 3.5, 0.7, 1], stalled("eval_a_loss"), 2, 6),
    ],
)
def test_a_training_stops_when_its_evaluations_stall(
    tmp_path: Path, options: dict[str, Any], losses: list[float], schedule: WhenStalled, chosen: int, steps: int
) -> None:
    """Of five epochs, at the end of the one that is due, and not a step later."""
    schedule.load_state_dict({})
    if options.get("eval_dataset") == "two":
        options = {**options, "eval_dataset": {"a": Squares(2), "b": Squares(1)}}
    sampler = make_sampler(annotate=Oracle(), schedule=schedule)
    evaluates, callback = Evaluates(losses), TransformersSampler(sampler)
    trainer = trainer_of(make_yolos(), sampler, tmp_path, evaluates, callback, epochs=5, batch_size=2, **options)
    trainer.train()
    assert epochs_of(sampler) == [chosen]
    assert trainer.state.global_step == steps
    assert evaluates.losses == []


@pytest.mark.parametrize("options", [{"logging_strategy": "epoch"}, {"logging_steps": 1}, {"logging_steps": 3}])
def test_what_the_training_logs_counts_once_an_epoch(tmp_path: Path, options: dict[str, Any]) -> None:
    """The host logs the loss of an epoch after `on_epoch_end`, too."""
    sampler = make_sampler(annotate=Oracle(), schedule=stalled("loss"), n=40)
    callback = TransformersSampler(sampler, stop_training=False)
    trainer = trainer_of(
        make_yolos(),
        sampler,
        tmp_path,
        callback,
        epochs=8,
        batch_size=2,
        learning_rate=0.1,
        eval_strategy="no",
        **options,
    )
    trainer.train()
    last = {math.ceil(entry["epoch"]) - 1: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
    assert len(last) == (5 if options.get("logging_steps") == 3 else 8)
    expected, best = [], math.inf
    for epoch, loss in sorted(last.items()):
        if loss < best:
            best = loss
        else:
            expected.append(epoch)
            best = math.inf
    assert expected
    assert epochs_of(sampler) == expected


@pytest.mark.parametrize("eval_dataset", [None, {"a": Squares(2), "b": Squares(1)}])
def test_a_metric_that_no_evaluation_measures_is_an_error(tmp_path: Path, eval_dataset: Any) -> None:
    """After the first evaluation, and before another step."""
    sampler = make_sampler(schedule=stalled("eval_map"))
    callback = TransformersSampler(sampler)
    trainer = trainer_of(
        make_yolos(),
        sampler,
        tmp_path,
        callback,
        epochs=4,
        eval_strategy="epoch",
        eval_delay=2,
        eval_dataset=eval_dataset,
    )
    name = "'eval_loss'" if eval_dataset is None else "'eval_a_loss'.*'eval_b_loss'"
    with pytest.raises(
        InvalidInputError, match=rf"got 'eval_map', but what was measured by the end of epoch 1.*{name}"
    ):
        trainer.train()
    assert trainer.state.global_step == 2


def test_a_metric_that_the_last_evaluation_does_not_measure_is_told(tmp_path: Path) -> None:
    """The training is over: it is too late for an error."""
    sampler = make_sampler(schedule=stalled("eval_map"))
    trainer = trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=1, eval_strategy="epoch")
    message = "could not become due: it watches 'eval_map'.*epochs: 1; measured: .*eval_loss"
    with pytest.warns(UserWarning, match=message):
        trainer.train()


def test_a_training_that_never_evaluates_is_told(tmp_path: Path) -> None:
    sampler = make_sampler(schedule=stalled())
    with pytest.raises(InvalidInputError, match=r"watches 'eval_loss', but.*eval_strategy=\"epoch\" or \"steps\""):
        trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=2, eval_strategy="no").train()
    options = {"eval_strategy": "epoch", "eval_delay": 5}
    trainer = trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=2, **options)
    with pytest.warns(UserWarning, match="could not become due: it watches 'eval_loss'.*epochs: 2") as told:
        trainer.train()
    assert sum("could not become due" in str(one.message) for one in told) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the schedule could not")
        options = {"eval_strategy": "epoch"}
        trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=1, **options).train()


def test_epochs_that_end_early_are_counted(tmp_path: Path) -> None:
    sampler = make_sampler(annotate=Oracle())
    trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=3, max_steps=1).train()
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 0]
