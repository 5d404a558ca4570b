"""The recorder, eval mode, the way out of wrappers, and the search for an adapter."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.hooks.finding import ADAPTERS, find_adapter, unwrap
from cval_torch.hooks.recorder import Recorder, evaluating

# torch.compile looks at autograd functions and events of other packages, and warns of what it finds there.
pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch", "ignore:.*:FutureWarning:torch")


class Net(nn.Module):
    """Two layers, the first frozen in eval mode."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)), nn.Linear(2, 3)
        self.first.eval()

    def forward(self, x, *, scale=1.0):
        return {"out": [self.second(self.first(x)) * scale]}


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


# The recorder


def test_calls_are_recorded_in_order_and_cleared():
    net, one, two = Net(), torch.zeros(1, 2), torch.ones(1, 2)
    with Recorder({"net": net, "last": net.second}) as recorder:
        outputs = [net(one), net(two, scale=2.0)]
        calls = recorder.recording["net"]
        assert [call.args[0] is x for call, x in zip(calls, (one, two), strict=True)] == [True, True]
        assert [call.kwargs for call in calls] == [{}, {"scale": 2.0}]
        assert calls[1].output["out"][0] is outputs[1]["out"][0]
        assert len(recorder.recording["last"]) == 2
        recorder.check()
        recorder.clear()
        assert recorder.recording == {"net": [], "last": []}
    assert hooks_of(net) == 0
    net(one)
    assert recorder.recording["net"] == []


def test_what_a_detector_does_to_a_container_later_does_not_reach_the_recording():
    net = Net()
    with Recorder({"net": net}) as recorder:
        output = net(torch.zeros(1, 2))
        output["out"].append("later")
        output["new"] = 1
        assert list(recorder.recording["net"][0].output) == ["out"]
        assert len(recorder.recording["net"][0].output["out"]) == 1


def test_a_named_tuple_stays_one():
    class Twice(nn.Module):
        def forward(self, x):
            return torch.max(x, 0)

    twice = Twice()
    with Recorder({"twice": twice}) as recorder:
        twice(torch.ones(2))
        assert recorder.recording["twice"][0].output.indices == 0


def test_silent_modules_are_named():
    net, idle = Net(), nn.Linear(1, 1)
    with Recorder({"net": net, "idle": idle, "other": nn.ReLU()}) as recorder:
        net(torch.zeros(1, 2))
        with pytest.raises(HookError, match=r"^`idle`, `other` did not run in this forward pass"):
            recorder.check()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_hooks_are_gone_after_an_exception(error):
    net = Net()
    kept = net.second.register_forward_hook(lambda *_: None)
    seen = []

    def fail_inside():
        with Recorder({"net": net, "second": net.second}):
            seen.append(hooks_of(net))
            raise error

    with pytest.raises(error):
        fail_inside()
    assert seen == [3]
    assert list(net.second._forward_hooks) == [kept.id]
    assert hooks_of(net) == 1


def test_hooks_are_gone_when_one_cannot_be_added():
    net = Net()
    recorder = Recorder({"net": net, "none": None})
    with pytest.raises(AttributeError), recorder:
        pass
    assert hooks_of(net) == 0


# Compiled parts. The backend "eager" runs the captured graph as it is: no compiler is needed to see hooks bypassed.


def compiled(what: str) -> nn.Module:
    net = Net().eval()
    if what == "whole":
        net = torch.compile(net, backend="eager")
    elif what == "in place":
        net.compile(backend="eager")
    elif what == "holder of a recorded part":
        net.first = torch.compile(net.first, backend="eager")
    elif what == "another part":
        net.second = torch.compile(net.second, backend="eager")
    with torch.no_grad():
        net(torch.zeros(1, 2))  # hooks that come after the first compiled call are not seen
    return net


@pytest.mark.parametrize("what", ["whole", "in place", "holder of a recorded part", "another part"])
def test_compiled_parts_are_recorded_all_the_same(what):
    model = unwrap(compiled(what))
    layer = (model.first._orig_mod if what == "holder of a recorded part" else model.first)[0]
    with torch.no_grad(), Recorder({"model": model, "layer": layer}, within=model) as recorder:
        for _ in range(2):
            recorder.clear()
            model(torch.zeros(1, 2))
            recorder.check()
    assert hooks_of(model) == 0


@pytest.mark.parametrize("what", ["in place", "holder of a recorded part"])
def test_compiled_parts_bypass_hooks_without_the_guard(what):
    model = compiled(what)
    layer = (model.first._orig_mod if what == "holder of a recorded part" else model.first)[0]
    with torch.no_grad(), Recorder({"layer": layer}) as recorder:
        model(torch.zeros(1, 2))
        with pytest.raises(HookError, match="`layer` did not run"):
            recorder.check()


def test_an_older_torch_is_warned_about(monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance")
    model = compiled("in place")
    with (
        pytest.warns(UserWarning, match="this torch cannot run them eagerly"),
        Recorder({"a": model.first}, within=model),
    ):
        pass
    assert hooks_of(model) == 0


# Eval mode


def flags(model: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_each_submodule_has_its_own_flag_again(error):
    net = Net()
    net.first[1].train()
    before = flags(net)
    assert set(before.values()) == {True, False}
    try:
        with evaluating(net):
            assert not any(flags(net).values())
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt):
        assert error
    assert flags(net) == before


class Frozen(nn.Sequential):
    """A usual idiom: a backbone whose norm never trains."""

    def train(self, mode=True):
        super().train(mode)
        self[0].eval()
        return self


class Merging(nn.Linear):
    """A usual idiom of low-rank adapters: weights are merged for inference and unmerged for training."""

    merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_modules_that_override_train():
    net = nn.Sequential(Frozen(nn.BatchNorm2d(1), nn.Dropout()), Merging(1, 1))
    net[0][0].train()  # against its own idiom: it is given back as it was, all the same
    before = flags(net)
    with evaluating(net):
        assert net[1].merged
    assert flags(net) == before
    assert not net[1].merged


# Wrappers


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


# The search for an adapter


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
        UnsupportedModelError, match=r"no adapter knows `model`, a tests\.hooks\.test_finding\.Net\. Known are: "
    ) as caught:
        find_adapter(Net())
    for entry in ADAPTERS:
        assert f"{entry.families} ({entry.vendor})" in str(caught.value)
    assert "pass `adapter=`" in str(caught.value)
    assert "examples/custom_detector.py" in str(caught.value)


def test_something_that_is_no_module_is_unknown():
    with pytest.raises(UnsupportedModelError, match=r"no adapter knows `model`, a builtins\.str"):
        find_adapter("model.pt")


def test_a_holder_is_told_what_to_pass():
    holder = nn.Module()
    holder.net = nn.Sequential(nn.ReLU(), detectors()["FCOS"])
    with pytest.raises(UnsupportedModelError, match=r"Its `net\.1` is a FCOS: pass that\. Known are"):
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


# Wrapped detectors, from end to end


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
        return adapter.read(model, recorder.recording, output)
