"""A `cache_dir` accepts a model that a framework trained, and the one that is loaded from its checkpoint."""

from __future__ import annotations

from pathlib import Path

import lightning_fit
import pytest
from refusals import accepts
from squares import Squares, make_sampler

from cval_torch.training.labels import LabelPool

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.` is deprecated"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]


def test_a_model_that_ultralytics_trained_is_the_one_in_its_checkpoint(tmp_path: Path) -> None:
    training = pytest.importorskip("ultralytics_training")
    yolo = training.make_yolo()
    training.train(yolo, training.write_images(tmp_path / "data"), epochs=1)
    (best,) = tmp_path.rglob("best.pt")
    accepts(tmp_path, lambda: yolo, lambda: training.ultralytics.YOLO(best))
    accepts(tmp_path / "back", lambda: training.ultralytics.YOLO(best), lambda: yolo)


def test_a_model_that_transformers_trained_is_the_one_that_it_saved(tmp_path: Path) -> None:
    yolos = pytest.importorskip("tiny_yolos")
    detr = pytest.importorskip("tiny_detr")
    model = yolos.make_yolos()
    yolos.trainer_of(model, make_sampler(), tmp_path / "training", epochs=1).train()
    model.save_pretrained(tmp_path / "saved")
    adapter = lambda: detr.TransformersAdapter(processor=detr.small_processor("YOLOS"))  # noqa: E731
    accepts(tmp_path, lambda: model, lambda: type(model).from_pretrained(tmp_path / "saved"), adapter)


def test_a_detector_that_lightning_fitted_is_the_one_with_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    pl, module_type, data_type = lightning_fit.host("lightning.pytorch")
    module = module_type()
    lightning_fit.trainer_of(pl, tmp_path, max_epochs=1).fit(
        module, data_type(LabelPool(Squares(8), labeled=["0", "1", "2", "3"]))
    )
    fresh = module_type()
    fresh.load_state_dict(module.state_dict())
    accepts(tmp_path, lambda: module.model, lambda: fresh.model)
