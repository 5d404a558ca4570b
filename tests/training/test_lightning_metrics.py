"""What a schedule hears of a Lightning fit: everything that was measured since it was last asked, and nothing older."""

# ruff: noqa: E402 - what an extra brings is imported first, or the tests are skipped

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from lightning_fit import host, trainer_of
from squares import Listener, Oracle, Squares, make_loader, make_sampler
from tiny_rcnn import pairs
from torch.utils.data import DataLoader

lightning = pytest.importorskip("lightning.pytorch")

from cval_torch.errors import InvalidInputError
from cval_torch.training import SamplerCallback, WhenStalled
from cval_torch.training.lightning import LightningSampler

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

SANITY = 0.99  # what a sanity check measures: better than anything after it


class Fit:
    """A fit whose validations measure the values given, one after the other, as `map`.

    Args:
        values: as many as there are validations.
        batches: of an epoch of training.
        late: what the module logs as `late` in its own `on_train_epoch_end`, an epoch each.
        name: the validation's metric.
        train_name: name of the training's metric, which is the number of the epoch.
    """

    def __init__(
        self,
        values: Sequence[float] = (),
        *,
        batches: int = 1,
        late: Sequence[float] = (),
        name: str = "map",
        train_name: str = "train_loss",
        package: str = "lightning.pytorch",
    ) -> None:
        self.pl, module_class, data_class = host(package)
        left, left_late = list(values), list(late)

        class Module(module_class):  # type: ignore[misc, valid-type]
            def training_step(self, batch: Any, number: int) -> Any:
                self.log(train_name, float(self.current_epoch), on_step=False, on_epoch=True, batch_size=1)
                return super().training_step(batch, number)

            def validation_step(self, batch: Any, number: int) -> None:
                self.log(name, SANITY if self.trainer.sanity_checking else left.pop(0), batch_size=1)

            def on_train_epoch_end(self) -> None:
                if left_late:
                    self.log("late", left_late.pop(0))

        class Data(data_class):  # type: ignore[misc, valid-type]
            def train_dataloader(self) -> DataLoader[Any]:
                return DataLoader(self.labels.labeled, 4 // batches, collate_fn=pairs)

        self.left, self.module, self.data_class = left, Module(), Data

    def run(
        self, folder: Path, sampler: SamplerCallback, *callbacks: Any, resume: Path | None = None, **options: Any
    ) -> Any:
        options = {"num_sanity_val_steps": 0, **options}
        trainer = trainer_of(self.pl, folder, LightningSampler(sampler), *callbacks, **options)
        trainer.fit(self.module, self.data_class(sampler.labels), ckpt_path=resume)
        assert self.left == []
        return trainer


def epochs_of(sampler: SamplerCallback) -> list[int | None]:
    return [round_.epoch for round_ in sampler.labels.rounds[1:]]


def stalled(**options: Any) -> WhenStalled:
    return WhenStalled(options.pop("metric", "map"), **{"patience": 1, **options})


@pytest.mark.parametrize(
    ("options", "batches", "heard"),
    [
        ({}, 1, [(0, 0.1, 0), (1, 0.2, 1), (2, 0.3, 2), (3, 0.4, 3)]),
        ({"num_sanity_val_steps": 1}, 1, [(0, 0.1, 0), (1, 0.2, 1), (2, 0.3, 2), (3, 0.4, 3)]),
        ({"check_val_every_n_epoch": 2}, 1, [(0, None, 0), (1, 0.1, 1), (2, None, 2), (3, 0.2, 3)]),
        (
            {"check_val_every_n_epoch": 3, "num_sanity_val_steps": -1},
            1,
            [(0, None, 0), (1, None, 1), (2, 0.1, 2), (3, None, 3)],
        ),
        ({"val_check_interval": 0.5, "max_epochs": 2}, 2, [(0, 0.1, None), (0, 0.2, 0), (1, 0.3, None), (1, 0.4, 1)]),
        ({"val_check_interval": 3, "max_epochs": 1}, 4, [(0, 0.1, 0)]),
        (
            {"val_check_interval": 3, "check_val_every_n_epoch": None},
            2,
            [(0, None, 0), (1, 0.1, 1), (2, 0.2, 2), (3, None, 3)],
        ),
        (
            {"val_check_interval": 1, "check_val_every_n_epoch": 2, "max_epochs": 2},
            2,
            [(0, None, 0), (1, 0.1, None), (1, 0.2, 1)],
        ),
        ({"limit_val_batches": 0, "max_epochs": 2}, 1, [(0, None, 0), (1, None, 1)]),
    ],
)
def test_the_schedule_hears_each_validation_once(
    tmp_path: Path, options: dict[str, Any], batches: int, heard: list[tuple[float | None, ...]]
) -> None:
    listener = Listener("map", "train_loss")
    values = [value for _, value, _ in heard if value is not None]
    Fit(values, batches=batches).run(tmp_path, make_sampler(schedule=listener), **{"max_epochs": 4, **options})
    assert listener.asked == heard


@pytest.mark.parametrize(
    ("options", "batches", "values", "schedule", "chosen"),
    [
        # the best, one that is no better, and a fresh start
        ({"check_val_every_n_epoch": 2}, 1, [0.5, 0.4, 0.3], stalled(), [3]),
        ({"check_val_every_n_epoch": 2, "num_sanity_val_steps": 1}, 1, [0.1, 0.2, 0.3], stalled(), []),
        ({"check_val_every_n_epoch": 3}, 1, [0.5, 0.4], stalled(patience=2), []),
        # two an epoch: the patience of 3 is over in the middle of the second, and what follows in it is dropped
        ({"val_check_interval": 0.5, "max_epochs": 3}, 2, [0.5, 0.4, 0.4, 0.4, 0.1, 0.2], stalled(patience=3), [1]),
        ({"val_check_interval": 0.5, "max_epochs": 3}, 2, [0.5, 0.4, 0.9, 0.6, 0.5, 0.6], stalled(), [0, 1]),
        # every third batch of epochs of two, and of four when the labels have grown
        (
            {"val_check_interval": 3, "check_val_every_n_epoch": None, "max_epochs": 5},
            2,
            [0.5, 0.4, 0.3, 0.3],
            stalled(),
            [2, 4],
        ),
        # the training's own, which is the number of the epoch
        ({"limit_val_batches": 0}, 1, [], stalled(metric="train_loss", higher_is_better=False), [1, 3, 5]),
        ({"check_val_every_n_epoch": 2}, 1, [1, 1, 1], stalled(metric="train_loss", higher_is_better=False), [1, 3, 5]),
    ],
)
def test_validations_are_counted_not_epochs(
    tmp_path: Path, options: dict[str, Any], batches: int, values: list[float], schedule: WhenStalled, chosen: list[int]
) -> None:
    schedule.load_state_dict({})
    sampler = make_sampler(annotate=Oracle(), schedule=schedule, n=40)
    Fit(values, batches=batches).run(tmp_path, sampler, **{"max_epochs": 6, **options})
    assert epochs_of(sampler) == chosen


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_metric_that_no_validation_measures_is_an_error(tmp_path: Path, package: str) -> None:
    """Not before the first validation, and before any more is trained after it."""
    sampler = make_sampler(schedule=WhenStalled("mAP"))
    fit = Fit([0.5], package=package)
    with pytest.raises(
        InvalidInputError, match=r"got 'mAP', but what was measured by the end of epoch 1 is \['map', 'train_loss'\]"
    ):
        fit.run(tmp_path, sampler, max_epochs=4, check_val_every_n_epoch=2)
    assert fit.module.trainer.current_epoch == 2
    assert fit.module.trainer.fit_loop.epoch_loop.batch_progress.total.ready == 2
    assert fit.left == []


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 5}])
def test_a_fit_that_never_validates_is_told(tmp_path: Path, options: dict[str, Any]) -> None:
    sampler = make_sampler(schedule=WhenStalled("map"))
    message = r"could not become due: it watches 'map'.*\(epochs: 2; measured: train_loss\)"
    with pytest.warns(UserWarning, match=message) as told:
        Fit().run(tmp_path, sampler, max_epochs=2, **options)
    assert sum("could not become due" in str(one.message) for one in told) == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the schedule could not")
        Fit([0.3]).run(tmp_path, sampler, max_epochs=1)


def test_what_the_module_logs_last_counts_an_epoch_later(tmp_path: Path) -> None:
    """The host calls the hook of the module after those of callbacks."""
    listener = Listener("map", "late")
    Fit([0.1, 0.2, 0.3, 0.4], late=[0.7, 0.7, 0.5]).run(tmp_path, make_sampler(schedule=listener), max_epochs=4)
    assert listener.asked == [(0, 0.1, None), (1, 0.2, 0.7), (2, 0.3, 0.7), (3, 0.4, 0.5)]
    sampler = make_sampler(annotate=Oracle(), schedule=stalled(metric="late"), n=40)
    Fit([0.1, 0.2, 0.3, 0.4], late=[0.7, 0.7, 0.5]).run(tmp_path, sampler, max_epochs=4)
    assert epochs_of(sampler) == [2]


def test_what_is_logged_in_some_epochs_is_heard_in_those(tmp_path: Path) -> None:
    """By the training and by the validation; the host keeps the old values in the others."""
    fit = Fit([0.1, 0.2, 0.3, 0.4])

    class Module(type(fit.module)):  # type: ignore[misc]
        def training_step(self, batch: Any, number: int) -> Any:
            if self.current_epoch % 3 == 0:
                self.log("step", 0.5 + self.current_epoch, batch_size=1)  # the host's default: not on_epoch
                self.log("epoch", 0.5, on_step=False, on_epoch=True, batch_size=1)
            return super().training_step(batch, number)

        def on_validation_epoch_end(self) -> None:
            if self.current_epoch % 2 == 1:
                self.log("map75", 0.7)

    fit.module = Module()
    listener = Listener("map", "step", "epoch", "map75")
    fit.run(tmp_path, make_sampler(schedule=listener), max_epochs=4)
    assert listener.asked == [
        (0, 0.1, 0.5, 0.5, None),
        (1, 0.2, None, None, 0.7),
        (2, 0.3, None, None, None),
        (3, 0.4, 3.5, 0.5, 0.7),
    ]


def test_one_name_for_training_and_validation_is_the_validation(tmp_path: Path) -> None:
    listener = Listener("loss")
    fit = Fit([0.1, 0.2], name="loss", train_name="loss")
    fit.run(tmp_path, make_sampler(schedule=listener), max_epochs=5, check_val_every_n_epoch=2)
    assert listener.asked == [(0, 0.0), (1, 0.1), (2, None), (3, 0.2), (4, None)]


def test_several_validation_sets(tmp_path: Path) -> None:
    fit = Fit([0.1, 0.2, 0.3, 0.4])

    class Two(fit.data_class):  # type: ignore[misc, name-defined]
        def val_dataloader(self) -> list[DataLoader[Any]]:
            return [make_loader(Squares(2)), make_loader(Squares(1))]

    class Module(type(fit.module)):  # type: ignore[misc]
        def validation_step(self, batch: Any, number: int, dataloader_idx: int = 0) -> None:
            super().validation_step(batch, number)

    fit.module, fit.data_class = Module(), Two
    listener = Listener("map/dataloader_idx_0", "map/dataloader_idx_1")
    fit.run(tmp_path, make_sampler(schedule=listener), max_epochs=4, check_val_every_n_epoch=2)
    assert listener.asked == [(0, None, None), (1, 0.1, 0.2), (2, None, None), (3, 0.3, 0.4)]


def test_only_validations_of_a_fit_count(tmp_path: Path) -> None:
    """Neither a `fast_dev_run`, nor `Trainer.validate` before and after a fit."""
    listener = Listener("map")
    sampler = make_sampler(schedule=listener)
    before = sampler.state_dict()
    fit = Fit([0.1, 0.2, 0.3, 0.4, 0.5])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the schedule could not")
        trainer_of(fit.pl, tmp_path, LightningSampler(sampler), fast_dev_run=True).fit(
            fit.module, fit.data_class(sampler.labels)
        )
    callback = LightningSampler(sampler)
    trainer = trainer_of(fit.pl, tmp_path, callback, max_epochs=2, num_sanity_val_steps=0)
    data = fit.data_class(sampler.labels)
    trainer.validate(fit.module, data, verbose=False)
    assert sampler.state_dict() == before
    assert listener.asked == []
    trainer.fit(fit.module, data)
    trainer.validate(fit.module, data, verbose=False)
    assert listener.asked == [(0, 0.3), (1, 0.4)]
    assert sampler.state_dict() == before


# Resuming


def saves(pl: Any, path: Path, when: Callable[[Any], bool], hook: str) -> Any:
    """A callback that saves a checkpoint in one hook."""

    def save(self: Any, trainer: Any, *_: Any) -> None:
        if when(trainer):
            trainer.save_checkpoint(path)

    return type("Saves", (pl.Callback,), {hook: save})()


@pytest.mark.parametrize(
    ("hook", "batch", "before"),
    [
        ("on_train_batch_start", 6, 3),
        ("on_validation_end", 5, 3),
        ("on_validation_end", 7, 4),  # at the end of the epoch, before the schedule is asked
        ("on_train_epoch_end", 7, 4),  # after that
    ],
)
def test_a_resumed_fit_counts_the_same(tmp_path: Path, hook: str, batch: int, before: int) -> None:
    """Two validations an epoch of four batches; some of epoch 1 are in the checkpoint."""
    values = [0.5, 0.45, 0.4, 0.35, 0.3, 0.2]

    def fit(values: list[float], *, resume: Path | None = None) -> tuple[SamplerCallback, Listener]:
        listener = Listener("map")
        schedule = WhenStalled("map", patience=2)
        asks = schedule.due
        schedule.due = lambda *what: (listener.due(*what), asks(*what))[1]  # type: ignore[func-returns-value, method-assign]
        sampler = make_sampler(annotate=Oracle(), schedule=schedule, n=40)
        run = Fit(values, batches=4)

        def when(trainer: Any) -> bool:
            return resume is None and trainer.fit_loop.epoch_loop.total_batch_idx == batch

        save = saves(run.pl, tmp_path / "middle.ckpt", when, hook)
        run.run(tmp_path, sampler, save, resume=resume, max_epochs=3, val_check_interval=0.5)
        return sampler, listener

    whole, heard = fit(values)
    assert heard.asked == [(0, 0.5), (0, 0.45), (1, 0.4), (2, 0.3), (2, 0.2)]
    assert epochs_of(whole) == [1]
    resumed, heard = fit(values[before:], resume=tmp_path / "middle.ckpt")
    assert heard.asked == [*([] if hook == "on_train_epoch_end" else [(1, 0.4)]), (2, 0.3), (2, 0.2)]
    assert epochs_of(resumed) == epochs_of(whole)
    assert resumed.schedule.state_dict() == whole.schedule.state_dict()
    assert whole.schedule.state_dict() == {"best": pytest.approx(0.3), "stalled": 1, "measured": True}


# Several processes


def test_two_processes_count_what_the_first_measures(tmp_path: Path) -> None:
    """Their values differ, for nobody told the host to average them; the second never measures anything better."""
    script = tmp_path / "fit.py"
    script.write_text(
        """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from cval_torch.training import WhenStalled
from cval_torch.training.lightning import LightningSampler
from lightning_fit import host, trainer_of
from squares import Oracle, make_sampler

if __name__ == "__main__":
    root, metric = Path(sys.argv[1]), sys.argv[2]
    pl, module_class, data_class = host("lightning.pytorch")
    sampler = make_sampler(annotate=Oracle(), schedule=WhenStalled(metric, patience=1))

    class Module(module_class):
        def validation_step(self, batch, number):
            values = [0.1, 0.2, 0.15] if self.global_rank == 0 else [0.9, 0.1, 0.1]
            self.log("map", values[self.current_epoch // 2], batch_size=1)

    class Report(pl.Callback):
        def on_fit_end(self, trainer, module):
            sampler.on_epoch_end(module.model, 9)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                sampler.on_training_end()
            found = sampler.state_dict(), [str(one.message) for one in told]
            (root / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))

    trainer = trainer_of(
        pl, root, LightningSampler(sampler), Report(), max_epochs=6, check_val_every_n_epoch=2, devices=2,
        strategy="ddp_fork"
    )
    trainer.fit(Module(), data_class(sampler.labels))
"""
    )

    def fit(metric: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), str(tmp_path), metric]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = fit("map")
    assert done.returncode == 0, done.stderr
    (first, told), (second, told_again) = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert [len(told), len(told_again)] == [1, 0]
    assert [round_.get("epoch") for round_ in first["labels"]["rounds"]] == [None, 5]
    failed = fit("mAP")
    assert failed.returncode != 0
    assert "got 'mAP', but what was measured by the end of epoch 1 is ['map']" in failed.stderr
