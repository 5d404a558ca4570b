"""`TransformersSampler` in a real Trainer, over a real YOLOS of a few thousand weights."""

# ruff: noqa: E402 - what an extra brings is imported first, or the tests are skipped

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from squares import Oracle, make_sampler

transformers = pytest.importorskip("transformers")

from tiny_yolos import make_yolos, trainer_of

from cval_torch.training import WhenStalled
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
    """Gives each evaluation the loss that the test wants."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        metrics["eval_loss"] = self.losses.pop(0)


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_the_metrics_are_those_of_the_epoch_itself(tmp_path: Path, strategy: str) -> None:
    """The host evaluates after `on_epoch_end`; evaluations by steps, or by the user, choose nothing."""
    schedule = WhenStalled("eval_loss", patience=1, higher_is_better=False)
    sampler = make_sampler(annotate=Oracle(), schedule=schedule)
    callback = TransformersSampler(sampler, stop_training=False)
    losses = Evaluates([3.0, 2.0, 2.5, 9.0, 9.0] if strategy == "epoch" else [3.0, 3.0, 2.0, 2.0, 2.5, 2.5, 9.0, 9.0])
    trainer = trainer_of(
        make_yolos(), sampler, tmp_path, losses, callback, epochs=3, eval_strategy=strategy, eval_steps=1
    )
    if strategy == "epoch":
        trainer.train()
        assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 2]
        trainer.evaluate()
        trainer.evaluate()
        assert len(sampler.labels.rounds) == 2
    else:
        seen = []
        sampler.schedule.due = lambda epoch, metrics: (seen.append((epoch, "eval_loss" in metrics)), False)[1]
        trainer.train()
        assert seen == [(0, True), (1, True), (2, True)]


def test_epochs_that_end_early_are_counted(tmp_path: Path) -> None:
    sampler = make_sampler(annotate=Oracle())
    trainer_of(make_yolos(), sampler, tmp_path, TransformersSampler(sampler), epochs=3, max_steps=1).train()
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 0]
