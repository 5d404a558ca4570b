"""A `cache_dir` accepts the same model, whatever happened to it that does not change its answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fresh_process import run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_variants import SAME, Graded, Holder, cached_pass, rcnn, with_part
from refusals import accepts, unfinish
from tiny_torchvision import FAMILIES, tiny
from torch import nn

from cval_torch import Pool


def used(make: Callable[[], Any], adapter: Any = None) -> Any:
    model = make()
    cached_pass(None, model, adapter=adapter, frames=2)
    return model


@pytest.mark.parametrize("name", SAME)
def test_a_model_is_the_same_when_it_is_made_anew_and_when_it_was_used(name: str, tmp_path: Path) -> None:
    make = SAME[name]
    accepts(tmp_path / "made anew", make, make)
    accepts(tmp_path / "used now", make, lambda: used(make))
    accepts(tmp_path / "used then", lambda: used(make), make)


@pytest.mark.parametrize("family", FAMILIES)
def test_torchvisions_families_too(family: str, tmp_path: Path) -> None:
    accepts(tmp_path / "used now", lambda: tiny(family), lambda: used(lambda: tiny(family)))
    accepts(tmp_path / "used then", lambda: used(lambda: tiny(family)), lambda: tiny(family))


@pytest.mark.parametrize(
    "name", ["DETR", "Conditional DETR", "DAB-DETR", "Deformable DETR", "RT-DETR", "D-FINE", "YOLOS"]
)
def test_transformers_families_too_and_a_model_that_was_saved_and_loaded(name: str, tmp_path: Path) -> None:
    detr = pytest.importorskip("tiny_detr")

    def make() -> Any:
        return copy.deepcopy(detr.fresh(name))

    def adapter() -> Any:
        return detr.TransformersAdapter(processor=detr.small_processor(name))

    def loaded() -> Any:
        model = make()
        model.save_pretrained(tmp_path / "saved")
        return type(model).from_pretrained(tmp_path / "saved")

    accepts(tmp_path / "used now", make, lambda: used(make, adapter()), adapter)
    accepts(tmp_path / "used then", lambda: used(make, adapter()), make, adapter)
    accepts(tmp_path / "loaded", make, loaded, adapter)


@pytest.mark.parametrize("name", ["yolov8n", "yolov10n"])
def test_ultralytics_models_too_wherever_their_file_lies(name: str, tmp_path: Path) -> None:
    yolo = pytest.importorskip("tiny_yolo")
    adapter = lambda: yolo.UltralyticsAdapter(imgsz=64)  # noqa: E731
    make = lambda: yolo.fresh(name)  # noqa: E731
    accepts(tmp_path / "used now", make, lambda: used(make, adapter()), adapter)
    accepts(tmp_path / "used then", lambda: used(make, yolo.UltralyticsAdapter(imgsz=96)), make, adapter)
    files = [tmp_path / "last.pt", tmp_path / "elsewhere" / "best.pt"]
    files[1].parent.mkdir()
    make().save(files[0])
    files[1].write_bytes(files[0].read_bytes())
    loaded = [yolo.ultralytics.YOLO(file) for file in files]
    accepts(tmp_path / "loaded", lambda: loaded[0], lambda: loaded[1], adapter)


def test_another_process_finds_the_same_models(tmp_path: Path) -> None:
    """It has other addresses, other hashes of strings, and models in train mode with the counters of a training."""
    code = f"""
import torch
from pathlib import Path
from model_variants import SAME, cached_pass
for name, make in SAME.items():
    model = make().train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.num_batches_tracked += 7
    cached_pass(Path({str(tmp_path)!r}) / name, model)
"""
    run_python("-c", f"import os, sys\nif not sys.flags.hash_randomization: raise SystemExit(1)\n{code}")
    for name, make in SAME.items():
        cached_pass(tmp_path / name, make().eval())
        unfinish(tmp_path / name)
        cached_pass(tmp_path / name, make().eval())


COMPILES = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="torch before 2.6 compiles no torchvision.nms"
)


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.eval(),
        lambda model: model.requires_grad_(False),
        lambda model: model.backbone[1].num_batches_tracked.add_(5),
        lambda model: model.backbone.register_full_backward_hook(lambda *args: None),
        lambda model: setattr(model.backbone[0].weight, "grad", torch.ones_like(model.backbone[0].weight)),
        lambda model: setattr(model.rpn, "_pre_nms_top_n", dict(reversed(model.rpn._pre_nms_top_n.items()))),
        lambda model: setattr(model.transform, "image_mean", tuple(model.transform.image_mean)),
        lambda model: setattr(model.backbone[0], "_is_hf_initialized", True),
        pytest.param(lambda model: model.compile(backend="eager"), marks=COMPILES),
        lambda model: setattr(model, "optimizer", torch.optim.SGD(model.parameters(), lr=0.1)),
        lambda model: setattr(model, "random", np.random.default_rng(3)),
        lambda model: model.to(memory_format=torch.channels_last),
    ],
    ids=["eval", "frozen", "counted", "gradients hook", "gradients", "dict order", "list or tuple", "marked",
         "compiled", "optimizer", "random state", "memory format"],
)  # fmt: skip
def test_what_does_not_decide_an_answer_is_no_difference(change: Callable[[Any], Any], tmp_path: Path) -> None:
    with torch.no_grad():
        accepts(tmp_path / "now", rcnn, lambda: rcnn(change))
        accepts(tmp_path / "then", lambda: rcnn(change), rcnn)


def test_a_training_step_and_the_old_weights_again_make_the_same_model(tmp_path: Path) -> None:
    model = rcnn()
    weights = copy.deepcopy(model.state_dict())
    cached_pass(tmp_path, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, target = torch.rand(1, 3, 48, 48), {"boxes": torch.tensor([[4.0, 4, 20, 20]]), "labels": torch.tensor([1])}
    sum(model.train()(list(images), [target]).values()).backward()
    optimizer.step()
    model.load_state_dict(weights)
    cached_pass(tmp_path, model)


def test_wrapped_models_and_an_adapter_that_holds_the_model(tmp_path: Path) -> None:
    accepts(tmp_path / "wrapped", rcnn, lambda: nn.DataParallel(torch.compile(rcnn(), backend="eager")))
    models = [nn.Linear(1, 1), nn.Linear(1, 1)]
    models[1].load_state_dict(models[0].state_dict())
    for place in (0, 1):
        cached_pass(tmp_path / "holding", models[place], adapter=Graded(model=models[place], layers=[models[place]]))


def test_a_pass_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    """What a model remembers of its first batch decides what it answers: test images must not be that batch."""
    model, other = rcnn(), rcnn()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        numbers = torch.rand(3)
        torch.manual_seed(5)
        pool = cached_pass(tmp_path, model)
        assert torch.equal(torch.rand(3), numbers)
    cached_pass(None, other)
    assert model.roi_heads.box_roi_pool.scales == other.roi_heads.box_roi_pool.scales
    reread: Pool = cached_pass(tmp_path, rcnn())
    assert torch.equal(reread.boxes, pool.boxes)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(held=st.dictionaries(st.from_regex("[a-z]{1,4}", fullmatch=True), PLAIN, max_size=3))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_plain_values_a_module_holds(held: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("held")
    cached_pass(folder, with_part(Holder(**held)), frames=1)
    reordered = {name: copy.deepcopy(held[name]) for name in reversed(held)}
    cached_pass(folder, with_part(Holder(**reordered)), frames=1)
