"""What hooks record, and that they leave the model as it was."""

from __future__ import annotations

import pytest
import torch
from small_nets import Net, compiled
from torch import nn

from cval_torch.errors import HookError
from cval_torch.hooks.finding import unwrap
from cval_torch.hooks.recorder import Recorder, evaluating


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


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


EAGERLY = pytest.mark.skipif(
    not hasattr(torch.compiler, "set_stance"), reason="this torch cannot run compiled parts eagerly, which is warned of"
)


@EAGERLY
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


@EAGERLY
@pytest.mark.parametrize("what", ["in place", "holder of a recorded part"])
def test_compiled_parts_bypass_hooks_without_the_guard(what):
    model = compiled(what)
    layer = (model.first._orig_mod if what == "holder of a recorded part" else model.first)[0]
    with torch.no_grad(), Recorder({"layer": layer}) as recorder:
        model(torch.zeros(1, 2))
        with pytest.raises(HookError, match="`layer` did not run"):
            recorder.check()


def test_an_older_torch_is_warned_about(monkeypatch):
    monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    model = compiled("in place")
    with (
        pytest.warns(UserWarning, match="this torch cannot run them eagerly"),
        Recorder({"a": model.first}, within=model),
    ):
        pass
    assert hooks_of(model) == 0


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
