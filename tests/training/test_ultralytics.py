"""`UltralyticsSampler` in a real training of a YOLO that is built from its yaml."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from squares import Oracle, make_sampler

pytest.importorskip("ultralytics")

from ultralytics_training import make_yolo, train, write_images

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.service.rest import RestBackend
from cval_torch.training import AtEpochs
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
