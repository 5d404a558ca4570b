"""The recorder, eval mode, the way out of wrappers, and the search for an adapter."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from small_nets import Net
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from cval_torch.errors import InvalidInputError, UnsupportedModelError
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.hooks.recorder import Recorder
from cval_torch.hooks.registry import ADAPTERS

# torch.compile looks at autograd functions and events of other packages, and warns of what it finds there.
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch", "ignore:.*:FutureWarning:torch")


def test_a_model_comes_out_of_its_wrappers():
    net = Net()
    assert unwrap(net) is net
    assert unwrap(nn.DataParallel(net)) is net
    assert unwrap(AveragedModel(net)).second.weight.equal(net.second.weight)
    assert unwrap(torch.compile(net, backend="eager")) is net
    assert unwrap(torch.compile(nn.DataParallel(net), backend="eager")) is net
    assert unwrap(nn.DataParallel(torch.compile(net, backend="eager"))) is net
    assert unwrap("no model") == "no model"


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_a_model_comes_out_of_distributed_data_parallel(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net = Net()
        wrapped = nn.parallel.DistributedDataParallel(net)
        assert unwrap(wrapped) is net
        assert unwrap(torch.compile(wrapped, backend="eager")) is net
    finally:
        torch.distributed.destroy_process_group()


class Maps(nn.Module):
    out_channels = 32

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 32, 16, stride=16)

    def forward(self, pixels):
        return self.layer(pixels)


def detectors() -> dict[str, nn.Module]:
    anchors, point = AnchorGenerator(((16,),), ((1.0,),)), AnchorGenerator(((16,),), ((1.0,),))
    ssd_maps = Maps()
    ssd_maps.out_channels = [32]
    pool = MultiScaleRoIAlign(["0"], 2, 2)
    return {
        "Faster, Mask or Keypoint R-CNN": FasterRCNN(Maps(), 2, rpn_anchor_generator=anchors, box_roi_pool=pool),
        "RetinaNet": RetinaNet(Maps(), 2, anchor_generator=anchors),
        "FCOS": FCOS(Maps(), 2, anchor_generator=point),
        "SSD or SSDLite": SSD(ssd_maps, DefaultBoxGenerator([[2]]), (32, 32), 2),
    }


@pytest.mark.parametrize("name", ["Faster, Mask or Keypoint R-CNN", "RetinaNet", "FCOS", "SSD or SSDLite"])
def test_each_family_has_one_adapter(name):
    model = detectors()[name]
    adapter = find_adapter(model)
    assert adapter.name == name
    assert isinstance(adapter, DetectorAdapter)
    assert sum(entry.load().matches(model) for entry in ADAPTERS if entry.vendor == "torchvision") == 1


def test_an_unknown_model_learns_what_is_known():
    with pytest.raises(
        UnsupportedModelError, match=r"no adapter knows `model`, a small_nets\.Net\. Known are: "
    ) as caught:
        find_adapter(Net())
    for entry in ADAPTERS:
        assert f"{entry.families} ({entry.vendor})" in str(caught.value)
    assert "pass `adapter=`" in str(caught.value)
    assert "examples/extend/detector.py" in str(caught.value)


def test_something_that_is_no_module_is_unknown():
    with pytest.raises(UnsupportedModelError, match=r"no adapter knows `model`, a builtins\.str"):
        find_adapter("model.pt")


def test_a_holder_is_told_what_to_pass():
    holder = nn.Module()
    holder.net = nn.Sequential(nn.ReLU(), detectors()["FCOS"])
    with pytest.raises(
        UnsupportedModelError, match=r"`net\.1` is a FCOS: pass `model\.net\.1`, or `detector='net\.1'`"
    ):
        find_adapter(holder)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_scripted_model_is_refused_even_with_an_adapter():
    scripted = torch.jit.script(nn.Linear(1, 1))
    for adapter in (None, own_adapter()):
        with pytest.raises(
            UnsupportedModelError, match=r"torch\.jit module, .* pass the detector .* Known are: Faster"
        ):
            find_adapter(scripted, adapter)


def own_adapter() -> SimpleNamespace:
    return SimpleNamespace(name="own", matches=print, modules=print, forward=print, read=print)


def test_an_adapter_of_ones_own_is_taken_at_its_word():
    adapter = own_adapter()
    assert find_adapter(Net(), adapter) is adapter
    assert find_adapter(detectors()["FCOS"], adapter) is adapter


@pytest.mark.parametrize("name", detectors())
def test_a_built_in_adapter_is_asked_whether_it_knows_the_model(name):
    model = detectors()[name]
    adapter = find_adapter(model)
    assert find_adapter(model, adapter) is adapter
    with pytest.raises(
        UnsupportedModelError, match=r"`adapter` reads .*; it does not know `model`, a small_nets.Net\."
    ):
        find_adapter(Net(), adapter)
    with pytest.raises(UnsupportedModelError, match="must override `matches`"):
        find_adapter(Net(), type("Derived", (type(adapter),), {})())
    liberal = type("Liberal", (type(adapter),), {"matches": lambda self, model: False})()
    assert find_adapter(Net(), liberal) is liberal


def test_ultralytics_adapter_refuses_models_of_other_tasks():
    ultralytics = pytest.importorskip("ultralytics")
    from cval_torch.hooks.ultralytics import UltralyticsAdapter

    for task in ("obb", "cls"):
        network = unwrap(ultralytics.YOLO(f"yolov8n-{task}.yaml"))
        with pytest.raises(UnsupportedModelError, match="`adapter` reads Ultralytics YOLO; it does not know `model`"):
            find_adapter(network, UltralyticsAdapter())


def test_what_is_no_adapter_is_refused():
    adapter = own_adapter()
    del adapter.read, adapter.name
    with pytest.raises(InvalidInputError, match="SimpleNamespace lacks `name`, `read`"):
        find_adapter(Net(), adapter)
    with pytest.raises(InvalidInputError, match="must be an instance; got the class "):
        find_adapter(Net(), type(ADAPTERS[0].load()))


def test_vendors_are_not_imported_by_looking_for_an_adapter():
    program = """
import sys
from torch import nn
from cval_torch.errors import UnsupportedModelError
from cval_torch.hooks import find_adapter
try:
    find_adapter(nn.Linear(1, 1))
except UnsupportedModelError:
    print([name for name in ("ultralytics", "transformers") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "wrap", ["plain", "data parallel", "compiled", "compiled in place", "compiled backbone", "compiled heads"]
)
def test_a_wrapped_detector_gives_what_the_plain_one_gives(wrap):
    torch.manual_seed(0)
    model = detectors()["Faster, Mask or Keypoint R-CNN"].eval()
    model.transform.min_size, model.transform.max_size = (64,), 96
    image = [torch.rand(3, 48, 64)]
    expected = read(model, image)
    assert expected.counts.sum() > 0
    if wrap == "data parallel":
        model = nn.DataParallel(model)
    elif wrap == "compiled":
        model = torch.compile(model, backend="eager")
    elif wrap == "compiled in place":
        if not hasattr(torch.compiler, "set_stance"):
            pytest.skip("this torch cannot run compiled parts eagerly, which is warned of")
        model.compile(backend="eager")
    elif wrap == "compiled backbone":
        model.backbone = torch.compile(model.backbone, backend="eager")
    elif wrap == "compiled heads":
        model.roi_heads.box_head = torch.compile(model.roi_heads.box_head, backend="eager")
    if wrap in ("compiled backbone", "compiled heads"):  # to trace a whole detector takes long; small ones are above
        with torch.no_grad():
            model(image)
    found = read(unwrap(model), image)
    for column in ("counts", "boxes", "labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"):
        torch.testing.assert_close(getattr(found, column), getattr(expected, column))


def read(model, images):
    adapter = find_adapter(model)
    with torch.no_grad(), Recorder(adapter.modules(model), within=model) as recorder:
        output = adapter.forward(model, images)
        recorder.check()
        return adapter.read(model, recorder.recording, output).settle()
