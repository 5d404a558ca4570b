"""`LightningSampler` in real Trainers: growing, resuming, and doing no harm."""

# ruff: noqa: E402 - what an extra brings is imported first, or the tests are skipped

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fit import host, trainer_of
from squares import Oracle, Squares, make_loader, make_sampler

lightning = pytest.importorskip("lightning.pytorch")

from cval_torch.errors import InvalidInputError
from cval_torch.training import SamplerCallback, WhenStalled
from cval_torch.training.lightning import LightningSampler

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


# Growing


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_a_fit_grows_its_own_train_set(package: str, tmp_path: Path) -> None:
    """One class serves both packages, whichever of them it was derived from."""
    pl, module_class, data_class = host(package)
    oracle = Oracle()
    sampler = make_sampler(annotate=oracle)
    data, module, callback = data_class(sampler.labels), module_class(), LightningSampler(sampler)
    flags = [part.training for part in module.modules()]
    trainer_of(pl, tmp_path, callback, max_epochs=3).fit(module, data)
    assert data.sizes == [4, 8, 12]
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 0, 1, 2]
    assert [round_.frame_ids for round_ in sampler.labels.rounds[1:]] == oracle.asked
    assert callback.chosen is not None
    assert callback.chosen.frame_ids == oracle.asked[-1]
    assert flags.count(False) > 3
    assert [part.training for part in module.modules()] == flags


def test_metrics_reach_the_schedule(tmp_path: Path) -> None:
    pl, module_class, data_class = host("lightning.pytorch")
    sampler = make_sampler(annotate=Oracle(), schedule=WhenStalled("map", patience=1))
    trainer_of(pl, tmp_path, LightningSampler(sampler), max_epochs=2).fit(module_class(), data_class(sampler.labels))
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 1]


def test_a_fit_that_cannot_grow_is_refused(tmp_path: Path) -> None:
    pl, module_class, data_class = host("lightning.pytorch")
    oracle = Oracle()
    sampler = make_sampler(annotate=oracle)
    options = {"max_epochs": 2, "reload_dataloaders_every_n_epochs": 0}
    with pytest.raises(InvalidInputError, match="reload_dataloaders_every_n_epochs=1, or pass stop_training=True"):
        trainer_of(pl, tmp_path, LightningSampler(sampler), **options).fit(module_class(), data_class(sampler.labels))
    assert oracle.asked == []
    data = data_class(sampler.labels)
    rounds = trainer_of(pl, tmp_path, LightningSampler(sampler, stop_training=True), **options)
    rounds.fit(module_class(), data)
    assert rounds.current_epoch == 1  # it stopped after the choice
    assert data.sizes == [4]
    waits = make_sampler()
    trainer_of(pl, tmp_path, LightningSampler(waits), **{**options, "max_epochs": 1}).fit(
        module_class(), data_class(waits.labels)
    )
    assert len(waits.pending) == 4


def test_a_loader_that_stays_the_same_is_noticed(tmp_path: Path) -> None:
    pl, module_class, _ = host("lightning.pytorch")
    sampler = make_sampler(annotate=Oracle())
    trainer = trainer_of(pl, tmp_path, LightningSampler(sampler), max_epochs=2)
    with pytest.warns(UserWarning, match="the same train dataset as before"):
        trainer.fit(module_class(), make_loader(sampler.labels.labeled))


# Doing no harm


def test_a_sanity_check_and_a_fast_dev_run_choose_nothing(tmp_path: Path) -> None:
    pl, module_class, data_class = host("lightning.pytorch")
    oracle, seen = Oracle(), []
    sampler = make_sampler(annotate=oracle)
    sampler.make_loader = lambda subset: (seen.append(len(subset)), make_loader(subset))[1]  # type: ignore[func-returns-value]
    before = sampler.state_dict()

    class Stop(pl.Callback):  # type: ignore[name-defined]
        def on_sanity_check_end(self, *_: Any) -> None:
            assert sampler.state_dict() == before
            raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        trainer_of(pl, tmp_path, LightningSampler(sampler), Stop(), max_epochs=1, num_sanity_val_steps=1).fit(
            module_class(), data_class(sampler.labels)
        )
    assert seen == []
    trainer_of(pl, tmp_path, LightningSampler(sampler), fast_dev_run=True).fit(
        module_class(), data_class(sampler.labels)
    )
    assert seen == [2]
    assert oracle.asked == []
    assert sampler.state_dict() == before


# Resuming


def test_a_resumed_fit_chooses_the_same_bit_for_bit(tmp_path: Path) -> None:
    pl, module_class, data_class = host("lightning.pytorch")

    def fit(max_epochs: int, *, resume: Path | None = None, folder: str, **options: Any) -> SamplerCallback:
        sampler = make_sampler(annotate=Oracle())
        checkpoints = pl.callbacks.ModelCheckpoint(tmp_path / folder, "{epoch}", save_top_k=-1, **options)
        trainer = trainer_of(
            pl, tmp_path, LightningSampler(sampler), checkpoints, max_epochs=max_epochs, enable_checkpointing=True
        )
        trainer.fit(module_class(), data_class(sampler.labels), ckpt_path=resume)
        return sampler

    whole = fit(3, folder="whole")
    stopped = fit(1, folder="stopped")
    path = tmp_path / "stopped" / "epoch=0.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]["cval_torch.LightningSampler[sampler]"]
    assert state == stopped.state_dict()
    assert len(state["labels"]["rounds"]) == 2
    resumed = fit(3, resume=path, folder="stopped")
    assert resumed.state_dict() == whole.state_dict()
    # a checkpoint from before the choice of its epoch: the choice is made again, and is the same
    fit(1, folder="early", save_on_train_epoch_end=False)
    path = tmp_path / "early" / "epoch=0.ckpt"
    state = torch.load(path, weights_only=True)["callbacks"]["cval_torch.LightningSampler[sampler]"]
    assert len(state["labels"]["rounds"]) == 1
    resumed = fit(3, resume=path, folder="early", save_on_train_epoch_end=False)
    assert resumed.state_dict() == whole.state_dict()


def test_testing_an_old_checkpoint_takes_no_labels_back(tmp_path: Path) -> None:
    """The host hands callbacks their old state then too."""
    pl, module_class, data_class = host("lightning.pytorch")
    sampler = make_sampler(annotate=Oracle())
    callback = LightningSampler(sampler)
    module, data = module_class(), data_class(sampler.labels)
    first = trainer_of(pl, tmp_path, callback, max_epochs=1)
    first.fit(module, data)
    first.save_checkpoint(tmp_path / "old.ckpt")
    sampler.choose(module.model)
    state = sampler.state_dict()
    trainer_of(pl, tmp_path, callback).test(module, make_loader(Squares(2)), ckpt_path=tmp_path / "old.ckpt")
    assert callback._loaded is not None  # so the host did
    assert sampler.state_dict() == state
    trainer_of(pl, tmp_path, callback, max_epochs=1).fit(module, data)
    assert sampler.labels.rounds[:3] == rounds_of(state)
    assert len(sampler.labels.rounds) == 4


def rounds_of(state: dict[str, Any]) -> tuple[Any, ...]:
    labels = make_sampler().labels
    labels.load_state_dict(state["labels"])
    return labels.rounds


def test_two_samplers_in_one_checkpoint(tmp_path: Path) -> None:
    pl, _, _ = host("lightning.pytorch")
    callbacks = [LightningSampler(make_sampler(), name=name) for name in ("day", "night")]
    assert len({callback.state_key for callback in callbacks}) == 2
    trainer_of(pl, tmp_path, *callbacks)
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer_of(pl, tmp_path, callbacks[0], LightningSampler(make_sampler(), name="day"))


# Several processes


def test_two_processes_choose_once(tmp_path: Path) -> None:
    script = tmp_path / "fit.py"
    script.write_text(
        """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from cval_torch.training.lightning import LightningSampler
from lightning_fit import host, trainer_of
from squares import Oracle, make_sampler

if __name__ == "__main__":
    root = Path(sys.argv[1])
    pl, module_class, data_class = host("lightning.pytorch")
    oracle = Oracle()
    sampler = make_sampler(annotate=oracle)
    data = data_class(sampler.labels)

    class Report(pl.Callback):
        def on_fit_end(self, trainer, module):
            found = {"asked": oracle.asked, "sizes": data.sizes, "state": sampler.state_dict()}
            (root / f"rank{trainer.global_rank}.json").write_text(json.dumps(found))

    trainer = trainer_of(
        pl, root, LightningSampler(sampler), Report(), max_epochs=2, devices=2, strategy="ddp_fork"
    )
    trainer.fit(module_class(), data)
"""
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert [len(first["asked"]), len(second["asked"])] == [2, 0]
    assert first["sizes"] == second["sizes"] == [4, 8]
    assert first["state"] == second["state"]
    assert len(first["state"]["labels"]["rounds"]) == 3
