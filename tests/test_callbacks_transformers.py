"""`TransformersSampler` in a real Trainer, over a real YOLOS of a few thousand weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from squares import Oracle, Squares, make_sampler
from torch import Tensor

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when transformers is imported, below
transformers = pytest.importorskip("transformers")

from cval_torch.callbacks import SamplerCallback, WhenStalled  # noqa: E402
from cval_torch.callbacks.transformers import TransformersSampler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator")


def make_yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[48, 48],
        patch_size=16,
        num_detection_tokens=5,
        num_labels=3,
        auxiliary_loss=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.YolosForObjectDetection(config)


def collate(samples: list[Any]) -> dict[str, Any]:
    """What the model trains on: boxes as centre, width and height, in units of the image."""

    def label(target: dict[str, Tensor]) -> dict[str, Tensor]:
        x1, y1, x2, y2 = (target["boxes"] / 48).unbind(1)
        boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
        return {"class_labels": target["labels"], "boxes": boxes}

    return {
        "pixel_values": torch.stack([image for image, _ in samples]),
        "labels": [label(target) for _, target in samples],
    }


def trainer_of(model: Any, sampler: SamplerCallback, folder: Path, *callbacks: Any, epochs: int, **options: Any) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=4,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    return transformers.Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=sampler.labels.labeled,
        eval_dataset=Squares(2),
        callbacks=list(callbacks),
    )


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
