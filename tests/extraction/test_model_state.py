"""Everything that a model holds, as text by name; nothing that it can hold is an error."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

import pytest
import torch
from model_variants import Gain, Holder, Resisting, Slotted, hooked, int8, scripted
from torch import Tensor, nn
from torch.nn import functional

from cval_torch.extraction.model_state import State, read_functions, read_model, read_object, read_values
from cval_torch.extraction.user_code import UserCode


def state_of(model: nn.Module) -> State:
    return read_model(model, UserCode())


def settings_of(**held: Any) -> dict[str, str]:
    """Of a module that holds these, without its class and function."""
    found = state_of(Holder(**held)).settings
    return {name: text for name, text in found.items() if name not in ("", "function", "function.inplace")}


@dataclasses.dataclass
class Options:
    size: int
    inner: Any = None


Pair = collections.namedtuple("Pair", ["left", "right"])


def test_structure_weights_and_settings() -> None:
    state = state_of(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert state.weights.keys() == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip
    assert state.settings == {
        "": "torch.nn.modules.container.Sequential",
        "0": "torch.nn.modules.linear.Linear",
        "0.in_features": "2",
        "0.out_features": "3",
        "1": "torch.nn.modules.batchnorm.BatchNorm1d",
        "1.affine": "True",
        "1.eps": "1e-05",
        "1.momentum": "0.1",
        "1.num_features": "3",
        "1.track_running_stats": "True",
    }
    assert state.unread == []
    without = read_model(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), UserCode(), parameters=False)
    assert without.weights.keys() == {"1.running_mean", "1.running_var"}
    assert without.settings == state.settings


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ({"_a": (1, 2), "b": None, "empty": [], "text": "x"}, {"_a": "(1, 2)", "b": "None", "text": "'x'"}),
        ({"a": torch.tensor([1, 2])}, {"a": "int64 (1, 2)"}),
        (
            {"a": [torch.tensor(1), {"b": torch.tensor(2)}]},
            {"a[0]": "int64 1", "a[1]['b']": "int64 2"},
        ),
        (
            {"a": Options(3, inner=Options(4))},
            {
                "a": "tests.extraction.test_model_state.Options",
                "a.size": "3",
                "a.inner": "tests.extraction.test_model_state.Options",
                "a.inner.size": "4",
                "a.inner.inner": "None",
            },
        ),
        ({"a": Slotted(2.0)}, {"a": "model_variants.Slotted", "a._gain": "2.0"}),
        ({"a": Pair(torch.tensor(1), 2)}, {"a.left": "int64 1", "a.right": "2"}),
        ({"a": {Options: torch.tensor(1)}}, {"a[tests.extraction.test_model_state.Options]": "int64 1"}),
        ({"a": len, "b": functional.gelu}, {"a": "builtins.len", "b": "torch._C._nn.gelu"}),
        (
            {"a": functools.partial(functional.relu, inplace=True)},
            {
                "a": "functools.partial",
                "a.func": "torch.nn.functional.relu",
                "a.func.inplace": "False",
                "a.inplace": "True",
            },
        ),
        ({"a": nn.ReLU}, {"a": "torch.nn.modules.activation.ReLU"}),
        ({"a": torch}, {"a": "the module torch"}),
        ({"a": [Gain(2.0)]}, {"a[0]": "model_variants.Gain", "a[0].gain": "2.0"}),
        ({"a": torch.Generator(), "b": object()}, {"b": "builtins.object"}),
    ],
)
def test_each_kind_of_value(held: dict[str, Any], found: dict[str, str]) -> None:
    assert settings_of(**held) == found


def test_a_long_table_is_told_by_key_and_a_long_list_by_a_digest() -> None:
    table = settings_of(names={number: f"class {number}" for number in range(20)})
    assert (len(table), table["names[7]"]) == (20, "'class 7'")
    assert len(settings_of(rows=list(range(1000)))["rows"]) < 120


def test_an_object_is_described_once_and_loops_end() -> None:
    shared = Options(1)
    shared.inner = shared
    found = settings_of(a=shared, b=shared, c=[shared, torch.zeros(1)])
    assert found == {"a": "tests.extraction.test_model_state.Options", "a.size": "1", "c[1]": "float32 (0.0,)"}
    deep: Any = None
    for _ in range(30):
        deep = Options(1, deep)
    state = state_of(Holder(deep=deep))
    assert len(state.settings) < 30
    assert len(state.unread) == 1
    wide = state_of(Holder(wide=[torch.zeros(1) for _ in range(6000)], after=1))
    assert len(wide.unread) == 0
    many = state_of(Holder(wide=[[object()] for _ in range(6000)], after=1))
    assert len(many.unread) > 0
    assert many.settings["after"] == "1"


def test_hooks_are_told_by_their_functions_and_constants() -> None:
    found = state_of(hooked(2.0, stores=True)).settings
    assert {name: text for name, text in found.items() if "hook" in name} == {
        "backbone forward hook model_variants.hooked.<locals>.scale": "there",
        "backbone forward hook model_variants.hooked.<locals>.scale.factor": "2.0",
        "backbone forward hook model_variants.hooked.<locals>.store": "there",
    }

    class Watcher:
        def __init__(self) -> None:
            self.gain = 2.0

        def __call__(self, *args: Any) -> None: ...

        def method(self, *args: Any) -> None: ...

    model, name = nn.ReLU(), "tests.extraction.test_model_state.test_hooks_are_told_by_their_functions_and_constants"
    for hook in (Watcher(), Watcher().method, functools.partial(Watcher().method, 1)):
        model.register_forward_pre_hook(hook)
    watcher = f"forward pre hook {name}.<locals>.Watcher"
    assert {name: text for name, text in state_of(model).settings.items() if "hook" in name} == {
        watcher: "there",
        f"{watcher}.gain": "2.0",
        f"{watcher}.method": "there again",
        f"{watcher}.method.argument 0": "1",
    }


def test_methods_of_an_instance_and_constants_of_the_users_classes() -> None:
    class Tuned(Holder):
        gain = 2.0

    model = Tuned()
    assert state_of(model).settings["gain"] == "2.0"
    model.forward = functional.gelu  # type: ignore[method-assign]
    assert state_of(model).settings["forward"] == "torch._C._nn.gelu"
    model.forward = model.relu = Holder().forward  # type: ignore[method-assign, assignment]
    found = state_of(model).settings
    assert (found["forward"], found["forward.__self__"]) == ("model_variants.Holder.forward", "model_variants.Holder")


def test_odd_modules_are_read_as_far_as_they_can_be() -> None:
    with torch.no_grad():
        packed = state_of(int8())
    assert packed.unread == []
    assert "roi_heads.box_head.fc6._packed_params._packed_params[0]" in packed.weights
    assert state_of(nn.LazyLinear(3)).weights["weight"] == "float32 uninitialized"
    assert state_of(Resisting()).unread == []
    state = state_of(scripted(2.0))  # its attributes cannot be listed
    assert (state.unread, state.settings["backbone.2"]) == (["backbone.2"], "torch.jit ScriptedGain")
    traced = [state_of(torch.fx.symbolic_trace(Holder(function))) for function in (functional.relu, functional.gelu)]
    assert traced[0].settings["code"] != traced[1].settings["code"]

    class Refusing(nn.Module):
        def named_modules(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("no")

    class Mute:
        __slots__ = ()

        def __reduce_ex__(self, protocol: Any) -> Any:
            raise TypeError("no")

    assert state_of(Refusing()).unread == [""]
    assert state_of(Holder(mute=Mute())).unread == ["mute"]


class Hostile:
    """Raises whatever it is asked."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def _raise(self, *args: Any) -> Any:
        raise RuntimeError("no")

    __eq__ = __hash__ = __len__ = __iter__ = __repr__ = __str__ = __bool__ = __call__ = __reduce_ex__ = _raise  # type: ignore[assignment]


def test_an_object_that_resists_is_told_by_its_class() -> None:
    name = f"{__name__}.Hostile"
    hostile: Any = Hostile()
    state = state_of(Holder(a=hostile, b=[hostile], c={"x": hostile}))
    assert state.unread == ["a", "b", "c"]
    assert [state.settings[key] for key in "abc"] == [name, "builtins.list", "builtins.dict"]
    assert read_object(hostile, UserCode()).unread == [""]
    assert read_functions({"f": hostile}, UserCode()).unread == ["f"]
    assert read_values({"v": hostile}, UserCode()).settings == {"v": name}


def test_compiled_parts_have_the_names_of_the_plain_ones() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    before = state_of(model)
    model[0] = torch.compile(model[0], backend="eager")
    model[1].compile(backend="eager")
    assert state_of(model) == before


def test_an_adapter_names_the_modules_of_the_model() -> None:
    model = nn.Sequential(Gain(2.0))
    adapter = Options(3, inner=[model, model[0], Gain(4.0)])
    assert read_object(adapter, UserCode(), beside=model).settings == {
        "size": "3",
        "inner[0]": "the module 'itself'",
        "inner[1]": "the module '0'",
        "inner[2]": "model_variants.Gain",
        "inner[2].gain": "4.0",
    }


def test_values_and_functions() -> None:
    def scaled(x: Tensor, gain: float = 2.0) -> Tensor:
        return x * gain + len(seen)

    seen: list[int] = []
    values = read_values({"transform": Options(1), "collate_fn": scaled}, UserCode())
    assert values.settings["transform.size"] == "1"
    assert values.settings["collate_fn.gain"] == "2.0"
    code = UserCode()
    assert read_functions({"`split`": scaled}, code).settings == {"`split`.gain": "2.0"}
    assert len(code.digests()) == 1
