"""The one rule by which `extract` and the callbacks of frameworks find the detector in what people hold."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from one_box import OneBox
from small_nets import Net
from tiny_torchvision import images, tiny
from torch import nn
from torch.optim.swa_utils import AveragedModel

from cval_torch.errors import InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.holding import find_detector
from cval_torch.hooks.tiles import TiledAdapter
from cval_torch.pool.pool import Pool


def pool_of(model: Any, **options: Any) -> Pool:
    return extract(model, [images(2)], progress=False, **options)


def same(one: Pool, other: Pool) -> bool:
    return all(torch.equal(a, b) for (_, a), (_, b) in zip(one.columns(), other.columns(), strict=True))


def test_a_module_with_one_detector_inside_is_that_detector() -> None:
    first, second = tiny("rcnn"), tiny("rcnn")
    holder = nn.ModuleDict({"teacher": first, "loss": nn.Identity()})
    for model in (first, holder, nn.Sequential(nn.Identity(), holder), nn.ModuleList([nn.DataParallel(first)])):
        assert find_detector(model).model is first
    holder["twice"] = first
    assert find_detector(holder).model is first
    holder["student"] = second
    with pytest.raises(
        InvalidInputError, match=r"holds several detectors: 'teacher', 'student'. Say which: pass `model\.teacher`, or"
    ):
        find_detector(holder)
    with pytest.raises(InvalidInputError, match="holds several detectors"):
        pool_of(holder)
    outer = nn.ModuleDict({"both": holder})
    assert find_detector(outer, name="both.student").model is second
    assert find_detector(outer, name="both.student.backbone", adapter=OneBox()).model is second.backbone
    with pytest.raises(InvalidInputError, match="`detector` must name a module within ModuleDict; got 'pupil'"):
        find_detector(holder, name="pupil")
    with pytest.raises(UnsupportedModelError, match="no adapter knows"):
        find_detector(nn.ModuleDict({"loss": nn.Identity()}))


def test_an_averaged_copy_beside_the_model_is_a_second_detector() -> None:
    model = tiny("rcnn")
    with pytest.raises(InvalidInputError, match=r"'model', 'average\.module'"):
        find_detector(nn.ModuleDict({"model": model, "average": AveragedModel(model)}))


def test_extract_takes_what_holds_a_detector() -> None:
    model = tiny("rcnn")
    plain = pool_of(model)
    assert plain.num_boxes
    for held in (nn.Sequential(model), nn.ModuleDict({"net": nn.ModuleDict({"detector": model})})):
        assert same(pool_of(held), plain)
    tiles = TiledAdapter(tile=4000)
    assert same(pool_of(nn.Sequential(model), adapter=tiles), pool_of(model, adapter=tiles))


def test_layers_of_a_sequential_that_would_not_run_are_refused() -> None:
    model = nn.ModuleDict({"net": nn.Sequential(nn.ReLU(), nn.ModuleList([tiny("fcos")]))})
    with pytest.raises(
        UnsupportedModelError,
        match=r"holds a detector, `model\.net\.1\.0`, in an nn\.Sequential, beside `0`, a .*ReLU, which would not run",
    ):
        pool_of(model)


def test_an_adapter_of_ones_own_says_what_it_reads_or_reads_the_model_as_it_is() -> None:
    class Own(OneBox):
        def matches(self, model: nn.Module) -> bool:
            return isinstance(model, Net)

    net, adapter = Net(), Own()
    assert find_detector(net, adapter=adapter) == (net, adapter)
    assert find_detector(nn.ModuleDict({"net": net, "other": tiny("fcos")}), adapter=adapter) == (net, adapter)
    other = nn.ModuleDict({"other": nn.Linear(1, 1)})
    assert find_detector(other, adapter=adapter) == (other, adapter)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "must be a detector, an nn.Module; got None"),
        ("best.pt", "got the path 'best.pt'. Load it first"),
        (Path("best.pt"), "got the path 'best.pt'. Load it first"),
        (Net, "got the class small_nets.Net. Make one of it"),
        (SimpleNamespace(size=3), "got a types.SimpleNamespace. It holds no nn.Module that can be seen"),
        (
            SimpleNamespace(a=1, net=Net()),
            r"Its `net` is a small_nets.Net, which no adapter knows: pass `model.net`",
        ),
        (SimpleNamespace(a=SimpleNamespace(model=tiny("fcos"))), "Its detector is `model.a.model`: pass that"),
    ],
)
def test_what_is_no_module_is_refused_with_a_hint_at_the_module_inside(model: Any, message: str) -> None:
    for adapter in (None, OneBox()):
        with pytest.raises(UnsupportedModelError, match=message):
            extract(model, [images(1)], adapter=adapter, progress=False)


def test_what_accelerate_prepares_is_read_in_its_precision() -> None:
    accelerate = pytest.importorskip("accelerate")
    detr = pytest.importorskip("tiny_detr")
    adapter = detr.TransformersAdapter(processor=detr.processor_of("DETR", do_resize=False))
    resized = detr.TransformersAdapter(processor=detr.small_processor("RT-DETR"))
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)  # of other tests in this process
    accelerator = accelerate.Accelerator(mixed_precision="bf16", cpu=True)
    for make, options in (
        (lambda: tiny("rcnn"), {}),
        (lambda: tiny("fcos"), {}),
        (lambda: detr.fresh("DETR"), {"adapter": adapter}),
        (lambda: detr.fresh("RT-DETR"), {"adapter": resized}),
    ):
        plain = pool_of(make(), autocast=torch.bfloat16, **options)
        prepared = pool_of(accelerator.prepare_model(make()), **options)
        assert plain.num_boxes
        assert plain.counts.tolist() == prepared.counts.tolist()
        assert torch.allclose(plain.boxes, prepared.boxes, atol=0.1)
        assert torch.allclose(plain.box_embeddings, prepared.box_embeddings, atol=1e-2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_lora_layers_count() -> None:
    """PEFT keeps the detector two levels down, with other layers in it."""
    peft = pytest.importorskip("peft")
    detr = pytest.importorskip("tiny_detr")
    import copy

    adapter = detr.TransformersAdapter(processor=detr.processor_of("DETR", do_resize=False))
    plain = pool_of(detr.built("DETR"), adapter=adapter)
    config = peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["class_labels_classifier"], init_lora_weights=False
    )
    model = peft.get_peft_model(copy.deepcopy(detr.built("DETR")), config)
    changed = pool_of(model, adapter=adapter)
    with torch.no_grad():
        merged = pool_of(copy.deepcopy(model).merge_and_unload(), adapter=adapter)
    assert not torch.allclose(changed.frame_embeddings, plain.frame_embeddings, atol=1e-3)
    assert torch.allclose(changed.frame_embeddings, merged.frame_embeddings, atol=1e-4)
    assert changed.counts.tolist() == merged.counts.tolist()
    assert torch.allclose(changed.box_embeddings, merged.box_embeddings, atol=1e-3)


def test_an_averaged_copy_of_timm_is_its_detector() -> None:
    utils = pytest.importorskip("timm.utils")
    model = tiny("rcnn")
    assert same(pool_of(utils.ModelEmaV3(model)), pool_of(model))


def test_the_copy_that_ultralytics_averages_is_its_network() -> None:
    yolo = pytest.importorskip("tiny_yolo")
    from ultralytics.utils.torch_utils import ModelEMA

    average = ModelEMA(yolo.built("yolov8n", False).model)
    assert find_detector(average).model is average.ema


@contextlib.contextmanager
def alone(folder: Path) -> Any:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def test_a_sharded_model_is_refused_as_such(tmp_path: Path) -> None:
    fsdp = pytest.importorskip("torch.distributed.fsdp")
    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("this torch has no FSDP2")
    with alone(tmp_path):
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
        model = fsdp.fully_shard(tiny("rcnn"), mesh=mesh)
        for held in (model, nn.ModuleDict({"net": model})):
            with pytest.raises(UnsupportedModelError, match=r"`model` is sharded: .*full_state_dict=True"):
                pool_of(held)
