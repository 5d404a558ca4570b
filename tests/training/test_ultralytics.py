"""`UltralyticsSampler` in a real training of a YOLO that is built from its yaml."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from squares import Listener, Oracle, make_sampler

pytest.importorskip("ultralytics")

from ultralytics_training import make_yolo, train, write_images

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.service.rest import RestBackend
from cval_torch.training import AtEpochs, SamplerCallback, WhenStalled
from cval_torch.training.ultralytics import UltralyticsSampler

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]


def test_a_training_stops_after_its_choice(tmp_path: Path) -> None:
    """The choice is the averaged weights'; the host's extra "epoch" after the last validation chooses nothing."""
    oracle = Oracle()
    sampler = make_sampler(annotate=oracle, schedule=AtEpochs(1, 2, 3))
    yolo, ends, flags = make_yolo(), [], []
    callback = UltralyticsSampler(sampler).attach(yolo)
    yolo.add_callback("on_fit_epoch_end", lambda trainer: ends.append(trainer.epoch))
    yolo.add_callback(
        "on_fit_epoch_end", lambda trainer: flags.append((trainer.model.training, trainer.ema.ema.training))
    )
    train(yolo, write_images(tmp_path), epochs=4)
    assert ends == [0, 1, 2]  # it trained two epochs: so the host counts
    assert flags == [(True, False)] * 3
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 1]
    assert sampler.labels.rounds[1].model_fingerprint == model_fingerprint(yolo.trainer.ema.ema)
    assert model_fingerprint(yolo.trainer.model) != model_fingerprint(yolo.trainer.ema.ema)
    assert callback.chosen is not None
    assert [callback.chosen.frame_ids] == oracle.asked


# What the schedule hears


MAP = "metrics/mAP50(B)"


def attach(sampler: SamplerCallback, measured: Mapping[int, float], *, every: int | None = None) -> Any:
    """A YOLO whose validations give the mAP that the test wants, an epoch each.

    With `every`, a callback of the user turns the host's option on and off, to validate after every so many epochs.
    """
    yolo = make_yolo()

    def on_train_epoch_start(trainer: Any) -> None:
        if every is not None:
            trainer.args.val = (trainer.epoch + 1) % every == 0

    def on_fit_epoch_end(trainer: Any) -> None:
        if trainer.epoch in measured:
            trainer.metrics[MAP] = measured[trainer.epoch]

    yolo.add_callback("on_train_epoch_start", on_train_epoch_start)
    yolo.add_callback("on_fit_epoch_end", on_fit_epoch_end)
    UltralyticsSampler(sampler).attach(yolo)
    return yolo


@pytest.mark.parametrize(
    ("val", "every", "heard"),
    [
        (True, None, [(0, 0.1), (1, 0.2), (2, 0.3)]),
        (False, None, [(0, None), (1, None), (2, 0.3)]),
        (True, 2, [(0, None), (1, 0.2), (2, None), (3, 0.4)]),
    ],
)
def test_the_schedule_hears_each_validation_once(
    tmp_path: Path, val: bool, every: int | None, heard: list[tuple[float | None, ...]]
) -> None:
    """Otherwise the host has zeros or old metrics. Its last epoch is validated always, its best weights once more."""
    listener = Listener(MAP)
    sampler = make_sampler(schedule=listener)
    measured = {epoch: value for epoch, value in heard if value is not None}
    yolo = attach(sampler, {**measured, len(heard): 0.9}, every=every)
    validations: list[bool] = []
    yolo.add_callback("on_val_end", lambda validator: validations.append(validator.training))
    train(yolo, write_images(tmp_path), epochs=len(heard), val=val)
    assert listener.asked == heard
    assert validations == [True] * len(measured) + [False]
    state = sampler.state_dict()
    yolo.val(data=str(tmp_path / "data.yaml"), imgsz=64, device="cpu", plots=False, project=str(tmp_path / "runs"))
    assert validations[-1] is False
    assert sampler.state_dict() == state


def test_a_validation_of_the_users_own_is_none_of_the_training(tmp_path: Path) -> None:
    listener = Listener("val/box_loss")
    yolo = attach(make_sampler(schedule=listener), {})

    def on_model_save(trainer: Any) -> None:
        if trainer.epoch == 0:
            yolo.val(
                data=str(tmp_path / "data.yaml"), imgsz=64, device="cpu", plots=False, project=str(tmp_path / "runs")
            )

    yolo.add_callback("on_model_save", on_model_save)
    train(yolo, write_images(tmp_path), epochs=2, val=False)
    assert [value is not None for _, value in listener.asked] == [False, True]


def test_a_training_stops_when_its_validations_stall(tmp_path: Path) -> None:
    sampler = make_sampler(annotate=Oracle(), schedule=WhenStalled(MAP, patience=1))
    yolo = attach(sampler, {1: 0.4, 3: 0.3, 5: 0.2}, every=2)
    train(yolo, write_images(tmp_path), epochs=6)
    assert [round_.epoch for round_ in sampler.labels.rounds] == [None, 3]
    assert yolo.trainer.epoch == 3


def test_a_metric_that_no_validation_measures_is_an_error(tmp_path: Path) -> None:
    yolo = attach(make_sampler(schedule=WhenStalled("mAP50")), {}, every=2)
    with pytest.raises(InvalidInputError, match=r"got 'mAP50'.*by the end of epoch 1 is \[.*'metrics/mAP50\(B\)'"):
        train(yolo, write_images(tmp_path), epochs=4)
    assert yolo.trainer.epoch == 1


def test_a_training_that_hardly_validates_is_told(tmp_path: Path) -> None:
    yolo = attach(make_sampler(schedule=WhenStalled(MAP)), {})
    yolo.add_callback("on_fit_epoch_end", lambda trainer: setattr(trainer, "stop", True))
    with pytest.warns(UserWarning, match="the schedule") as told:
        train(yolo, write_images(tmp_path), epochs=3, val=False)
    before, after = (str(one.message) for one in told if "the schedule" in str(one.message))
    assert f"watches '{MAP}', but with val=False the host validates after the last epoch alone: train with" in before
    assert f"watches '{MAP}', which this training did not measure (epochs: 1; measured: nothing)" in after


# Travelling


def test_what_it_can_be_attached_to() -> None:
    yolo = make_yolo()
    UltralyticsSampler(make_sampler()).attach(yolo)
    with pytest.raises(InvalidInputError, match="has a sampler attached already"):
        UltralyticsSampler(make_sampler()).attach(yolo)
    with pytest.raises(InvalidInputError, match=r"must be an ultralytics.YOLO; got DetectionModel"):
        UltralyticsSampler(make_sampler()).attach(yolo.model)


def test_it_travels_to_the_hosts_processes(tmp_path: Path) -> None:
    """As the host does it under DDP: all callbacks in one file, by cloudpickle, which is read without it."""
    cloudpickle = pytest.importorskip("cloudpickle")
    sampler = make_sampler(annotate=lambda selected: selected.frame_ids)
    yolo = make_yolo()
    UltralyticsSampler(sampler).attach(yolo)
    torch.save({"callbacks": yolo.callbacks}, tmp_path / "state.pt", pickle_module=cloudpickle)
    callbacks = torch.load(tmp_path / "state.pt", weights_only=False)["callbacks"]
    again = callbacks["on_fit_epoch_end"][-1].__self__
    assert again is callbacks["on_train_epoch_end"][-1].__self__
    assert again.sampler.state_dict() == sampler.state_dict()
    assert pickle.loads(pickle.dumps(UltralyticsSampler(make_sampler()))).sampler.pending == ()


def test_a_key_does_not_travel() -> None:
    """The host would write it to a file: refused, rather than written."""
    shell = UltralyticsSampler(make_sampler(backend=RestBackend(api_key="k-secret", url="http://127.0.0.1:9")))
    for dumps in (pickle.dumps, pytest.importorskip("cloudpickle").dumps):
        with pytest.raises(TypeError, match=r"an API key is not pickled.* CVAL_API_KEY") as caught:
            dumps(shell)
        assert "k-secret" not in str(caught.value)
