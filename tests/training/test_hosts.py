"""Every host makes the same calls of the same sampler: one an epoch, with its own detector, and no other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from squares import Oracle, make_sampler
from tiny_rcnn import make_faster_rcnn, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.training import SamplerCallback

EPOCHS = 2

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    losses = model(list(batch[0]), [dict(target) for target in batch[1]])
    return torch.stack(list(losses.values())).sum()


def training_loader(sampler: SamplerCallback) -> DataLoader[Any]:
    return DataLoader(sampler.labels.labeled, batch_size=4, collate_fn=pairs)


# The hosts: each trains for EPOCHS, and returns the detector


def plain(sampler: SamplerCallback, folder: Path) -> nn.Module:
    model = make_faster_rcnn(num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(EPOCHS):
        for batch in training_loader(sampler):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            optimizer.step()
        sampler.on_epoch_end(model, epoch, {"map": 0.5})
    return model


def lightning_of(package: str) -> Callable[[SamplerCallback, Path], nn.Module]:
    def train(sampler: SamplerCallback, folder: Path) -> nn.Module:
        pytest.importorskip(package)
        from lightning_fit import host, trainer_of

        from cval_torch.training.lightning import LightningSampler

        pl, module_class, data_class = host(package)
        module = module_class()
        trainer_of(pl, folder, LightningSampler(sampler), max_epochs=EPOCHS).fit(module, data_class(sampler.labels))
        return module.model  # type: ignore[no-any-return]

    return train


def transformers_trainer(sampler: SamplerCallback, folder: Path) -> nn.Module:
    pytest.importorskip("transformers")
    from tiny_yolos import make_yolos, trainer_of

    from cval_torch.training.transformers import TransformersSampler

    model = make_yolos()
    trainer_of(model, sampler, folder, TransformersSampler(sampler, stop_training=False), epochs=EPOCHS).train()
    return model


def ultralytics_yolo(sampler: SamplerCallback, folder: Path) -> nn.Module:
    pytest.importorskip("ultralytics")
    from ultralytics_training import make_yolo, train, write_images

    from cval_torch.training.ultralytics import UltralyticsSampler

    yolo = make_yolo()
    UltralyticsSampler(sampler, stop_training=False).attach(yolo)
    train(yolo, write_images(folder), epochs=EPOCHS)
    return yolo.trainer.ema.ema  # type: ignore[no-any-return]


def ignite(sampler: SamplerCallback, folder: Path) -> nn.Module:
    engine = pytest.importorskip("ignite.engine")
    model = make_faster_rcnn(num_classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(_: Any, batch: Any) -> float:
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    trainer = engine.Engine(step)
    trainer.state.metrics["map"] = 0.5

    @trainer.on(engine.Events.EPOCH_COMPLETED)
    def choose(trainer: Any) -> None:
        sampler.on_epoch_end(model, trainer.state.epoch - 1, trainer.state.metrics)
        trainer.set_data(training_loader(sampler))
        trainer.state.epoch_length = len(training_loader(sampler))  # else it stays that of the first loader

    trainer.run(training_loader(sampler), max_epochs=EPOCHS)
    assert trainer.state.iteration == 1 + 2  # batches of four
    return model


def skorch(sampler: SamplerCallback, folder: Path) -> nn.Module:
    package = pytest.importorskip("skorch")

    class Net(package.NeuralNet):  # type: ignore[misc, name-defined]
        def train_step_single(self, batch: Any, **_: Any) -> dict[str, Any]:
            self._set_training(True)
            loss = loss_of(self.module_, batch)
            loss.backward()
            return {"loss": loss, "y_pred": None}

    class Choose(package.callbacks.Callback):  # type: ignore[misc, name-defined]
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            row = net.history[-1]
            metrics = {name: value for name, value in row.items() if isinstance(value, float)}
            sampler.on_epoch_end(net.module_, row["epoch"] - 1, metrics)

    net = Net(
        make_faster_rcnn(num_classes=3),
        criterion=nn.Identity,
        max_epochs=1,
        lr=0.01,
        train_split=None,
        verbose=0,
        iterator_train__collate_fn=pairs,
        callbacks=[Choose()],
    ).initialize()
    for _ in range(EPOCHS):
        net.partial_fit(sampler.labels.labeled, None)
    return net.module_  # type: ignore[no-any-return]


def accelerate(sampler: SamplerCallback, folder: Path) -> nn.Module:
    package = pytest.importorskip("accelerate")
    accelerator = package.Accelerator(cpu=True)
    model = make_faster_rcnn(num_classes=3)
    prepared, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    accelerator.register_for_checkpointing(sampler)
    for epoch in range(EPOCHS):
        for batch in accelerator.prepare(training_loader(sampler)):
            optimizer.zero_grad()
            accelerator.backward(loss_of(prepared, batch))
            optimizer.step()
        sampler.on_epoch_end(prepared, epoch, {"map": 0.5})
        accelerator.save_state(str(folder / "state"))
    labels, state = sampler.labels.labeled_ids, sampler.state_dict()
    sampler.load_state_dict(make_sampler().state_dict())
    accelerator.load_state(str(folder / "state"))
    assert sampler.labels.labeled_ids == labels
    assert sampler.state_dict() == state
    return model


HOSTS = {
    "plain loop": plain,
    "lightning": lightning_of("lightning.pytorch"),
    "pytorch_lightning": lightning_of("pytorch_lightning"),
    "transformers": transformers_trainer,
    "ultralytics": ultralytics_yolo,
    "ignite": ignite,
    "skorch": skorch,
    "accelerate": accelerate,
}


class Noting(SamplerCallback):
    """A sampler that notes how it is called."""

    calls: list[tuple[nn.Module, int, bool]]

    def on_evaluation(self, metrics: Any) -> None:
        assert all(isinstance(value, float) for value in metrics.values())
        super().on_evaluation(metrics)

    def on_epoch_end(
        self, model: Any, epoch: int, metrics: Any = None, *, training_metrics: Any = None, complete: bool = True
    ) -> Any:
        flags = [part.training for part in model.modules()]
        measured = {**(metrics or {}), **(training_metrics or {})}
        assert all(isinstance(value, float) for value in measured.values())
        chosen = super().on_epoch_end(model, epoch, metrics, training_metrics=training_metrics, complete=complete)
        assert [part.training for part in model.modules()] == flags
        self.calls.append((model, epoch, chosen is not None))
        return chosen


@pytest.mark.parametrize("host", HOSTS)
def test_one_call_an_epoch(host: str, tmp_path: Path) -> None:
    oracle = Oracle()
    sampler = make_sampler(annotate=oracle, kind=Noting)
    sampler.calls = []
    detector = HOSTS[host](sampler, tmp_path)
    epochs = [0, 1]
    assert [(epoch, chosen) for _, epoch, chosen in sampler.calls] == [(epoch, True) for epoch in epochs]
    assert all(model is detector for model, _, _ in sampler.calls)
    assert len(oracle.asked) == EPOCHS
    rounds = sampler.labels.rounds
    assert [round_.epoch for round_ in rounds] == [None, *epochs]
    assert [round_.frame_ids for round_ in rounds[1:]] == oracle.asked
    assert len(sampler.labels.labeled) == 4 + 4 * EPOCHS
    assert len({round_.model_fingerprint for round_ in rounds}) == EPOCHS + 1  # the model trained in between


# Hosts that are not there


SCRIPT = """
import importlib, sys, types
import cval_torch.training
hosts = ("lightning", "pytorch_lightning", "transformers", "ultralytics", "ignite", "skorch", "accelerate")
print([host for host in hosts if host in sys.modules])

stub = types.ModuleType("pytorch_lightning")
stub.Callback = type("Callback", (), {})
sys.modules["pytorch_lightning"] = stub
from cval_torch.training.lightning import LightningSampler
print(LightningSampler.__mro__[1] is stub.Callback, "lightning" in sys.modules)
del sys.modules["cval_torch.training.lightning"]

for host in (*hosts, "lightning.pytorch"):
    sys.modules[host] = None
from cval_torch.errors import MissingExtraError
for name in ("lightning", "transformers", "ultralytics"):
    try:
        importlib.import_module(f"cval_torch.training.{name}")
    except MissingExtraError as error:
        print(error)
"""


def test_no_host_is_imported_unasked_and_a_missing_one_names_its_extra() -> None:
    """And of the two Lightnings, the one that is imported already is used."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "[]",
        "True False",
        'LightningSampler needs an extra: pip install "cval_torch[lightning]"',
        'TransformersSampler needs an extra: pip install "cval_torch[transformers]"',
        'UltralyticsSampler needs an extra: pip install "cval_torch[ultralytics]"',
    ]
