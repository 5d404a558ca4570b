"""What decides an answer, and what only ties a model to its process, its training or its file."""

from __future__ import annotations

import io
import logging
import random
import threading
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from cval_torch.extraction.model_state import read_model
from cval_torch.extraction.user_code import UserCode
from cval_torch.hooks.bookkeeping import deciding, is_counter, is_machinery


def test_of_a_module_its_own_attributes_count() -> None:
    norm = nn.BatchNorm2d(2, eps=0.1).eval()
    norm._is_hf_initialized = True  # type: ignore[assignment]
    norm._own = 3  # type: ignore[assignment]
    assert deciding(norm, vars(norm)) == {
        "num_features": 2, "eps": 0.1, "momentum": 0.1, "affine": True, "track_running_stats": True, "_own": 3
    }  # fmt: skip
    assert deciding(object(), {"training": 1, 3: 4}) == {"training": 1}


def test_of_transformers_the_settings_count() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.YolosConfig(hidden_size=16)
    found = deciding(config, vars(config))
    assert found["hidden_size"] == 16
    assert not {"_name_or_path", "transformers_version", "architectures", "dtype"} & found.keys()


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_of_ultralytics_training_arguments_the_size_of_images_counts(kind: Any) -> None:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    model = tasks.BaseModel()
    found = deciding(model, {"args": kind(imgsz=320, epochs=5, model="a.pt"), "pt_path": "/a.pt", "names": {0: "a"}})
    assert found == {"args.imgsz": 320, "names": {0: "a"}}


@pytest.mark.parametrize(
    "value",
    [
        threading.Lock(), threading.RLock(), threading.Thread(), logging.getLogger("a"), io.BytesIO(), random.Random(),
        np.random.default_rng(), torch.Generator(), weakref.ref(nn.ReLU()), (each for each in ()),
        torch.optim.SGD([torch.zeros(1)]), DataLoader([0]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_machinery(value: Any) -> None:
    assert is_machinery(value)


def test_a_metric_and_a_trainer_are_machinery_and_a_lightning_module_is_not() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    lightning = pytest.importorskip("lightning")
    assert is_machinery(torchmetrics.MeanMetric())
    assert is_machinery(lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))
    assert not is_machinery(lightning.LightningModule())
    assert not is_machinery(SimpleNamespace())
    assert not is_machinery([1])


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_of_a_lightning_module_the_hyperparameters_count(package: str) -> None:
    pl = pytest.importorskip(package)

    class Module(pl.LightningModule):  # type: ignore[name-defined]
        def __init__(self, limit: float, part: Any) -> None:
            super().__init__()
            self.save_hyperparameters()

    settings = read_model(Module(0.5, [torch.ones(1)]), UserCode()).settings
    assert (settings["_hparams['limit']"], settings["_hparams['part'][0]"]) == ("0.5", "float32 (1.0,)")
    assert not {"_trainer", "_fabric"} & settings.keys()


def test_counters() -> None:
    assert is_counter("num_batches_tracked")
    assert not is_counter("norm.running_mean")
