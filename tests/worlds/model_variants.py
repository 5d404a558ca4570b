"""Detectors with parts that are hard to read, and how to change one thing in each; no two calls share an object."""

from __future__ import annotations

import functools
import io
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from one_box import OneBox
from tiny_rcnn import Frames, loader_of, make_faster_rcnn
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from cval_torch import Pool, extract

Detector = Callable[[], nn.Module]


def cached_pass(folder: Path | None, model: Any, *, adapter: Any = None, frames: Any = 4, **options: Any) -> Pool:
    dataset = Frames(frames) if isinstance(frames, int) else frames
    options = {"cache_dir": folder, "progress": False, **options}
    return extract(model, loader_of(dataset), adapter=adapter, **options)


def rcnn(change: Callable[[Any], object] = lambda model: None, **options: Any) -> nn.Module:
    """The small Faster R-CNN, changed."""
    model = make_faster_rcnn(**options)
    change(model)
    return model


def with_part(part: nn.Module) -> nn.Module:
    """The same with `part` after its first normalization."""
    return rcnn(lambda model: model.backbone.__setitem__(2, part))


class Holder(nn.Module):
    """Applies a function that it holds, and holds whatever else it is given."""

    def __init__(self, function: Callable[[Tensor], Tensor] = functional.relu, **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            self.__dict__[name] = value  # a module in here is not registered

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Doubling(Holder):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Slotted:
    __slots__ = ("_gain", "unset")

    def __init__(self, gain: float) -> None:
        self._gain = gain


class Gain(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


class Remembering(nn.Module):
    """Fills caches in a forward pass: at the first, at each of a new size, and at every one."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Any = None
        self.by_size: dict[Any, Tensor] = {}
        self.last, self.calls = torch.zeros(0), 0
        self.register_buffer("grid", torch.zeros(0), persistent=False)
        self.note: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.first = self.first or tuple(x.shape)
        self.by_size.setdefault(tuple(x.shape[-2:]), torch.ones(x.shape[-2:]))
        self.last, self.grid, self.calls = x.mean((0, 2, 3)), torch.arange(x.shape[-1]), self.calls + 1
        self.note = SimpleNamespace(size=x.shape[-1])
        return x.relu()


class Resisting(nn.Module):
    """Properties that raise, handles of the process, and a reference to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.lock, self.log, self.file = threading.Lock(), logging.getLogger("a"), io.BytesIO(b"a")
        self.generator, self.thread = torch.Generator(), threading.Thread(target=print)
        self.function, self.me, self.object = lambda x: x, [self], object()
        self.loop: list[Any] = []
        self.loop.append(self.loop)

    @property
    def broken(self) -> Any:
        raise RuntimeError("not now")

    def extra_repr(self) -> str:
        raise RuntimeError("not now")

    def forward(self, x: Tensor) -> Tensor:
        return x.relu()


class LowRank(nn.Module):
    """A linear layer with several low-rank adapters, of which one is active, as peft makes them."""

    def __init__(self, base: nn.Linear, *, active: str = "default", scaling: float = 2.0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.base = base
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name in ("default", "other"):
            self.down[name] = torch.randn(2, base.in_features, generator=generator)
            self.up[name] = torch.randn(base.out_features, 2, generator=generator)
        self.scaling, self._active, self._disabled = {"default": scaling, "other": 1.0}, [active], False

    def forward(self, x: Tensor) -> Tensor:
        result = self.base(x)
        for name in self._active:
            result = result + x @ self.down[name].T @ self.up[name].T * self.scaling[name]
        return result


def low_rank(**options: Any) -> nn.Module:
    def change(model: Any) -> None:
        model.roi_heads.box_head.fc6 = LowRank(model.roi_heads.box_head.fc6, **options)

    return rcnn(change)


def parametrized(gain: float) -> nn.Module:
    return rcnn(lambda model: parametrize.register_parametrization(model.roi_heads.box_head.fc6, "weight", Gain(gain)))


def int8(change: Callable[[Any], object] = lambda head: None) -> nn.Module:
    """With a box head of 8-bit weights, which are neither parameters nor buffers."""

    def quantize(model: Any) -> None:
        head = model.roi_heads.box_head.eval()
        with torch.no_grad():
            change(head)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated in favour of torchao
            model.roi_heads.box_head = torch.ao.quantization.quantize_dynamic(head, {nn.Linear}, dtype=torch.qint8)

    return rcnn(quantize)


class ScriptedGain(nn.Module):
    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


def scripted(gain: float) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of torch.export
        return with_part(torch.jit.script(ScriptedGain(gain)))


def traced(part: nn.Module) -> nn.Module:
    return with_part(torch.fx.symbolic_trace(part))


def compiled(model: Any) -> None:
    model.backbone[0] = torch.compile(model.backbone[0], backend="eager")


def hooked(factor: float, *, stores: bool = False) -> nn.Module:
    """With a hook that scales what the backbone returns, and perhaps one that stores it."""
    kept: list[Any] = []

    def scale(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output * factor

    def store(module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append(output)

    def change(model: Any) -> None:
        model.backbone.register_forward_hook(scale)
        if stores:
            model.backbone.register_forward_hook(store)

    return rcnn(change)


def partial_of(slope: float) -> nn.Module:
    return with_part(Holder(functools.partial(functional.leaky_relu, negative_slope=slope)))


def closing_over(value: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: x * value


def hidden(seed: int) -> nn.Module:
    """With a module that stands in a plain list."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return with_part(Holder(parts=[nn.Linear(2, 2)]))


class Graded(OneBox):
    """An adapter with settings of its own, plain and not."""

    def __init__(self, conf: float = 0.25, classes: Sequence[int] = (1, 2), **held: Any) -> None:
        super().__init__()
        self.conf, self.classes, self.note = conf, classes, None
        self._held = SimpleNamespace(**held)


SAME: dict[str, Detector] = {
    "plain": rcnn,
    "remembering": lambda: with_part(Remembering()),
    "resisting": lambda: with_part(Resisting()),
    "low rank": low_rank,
    "parametrized": lambda: parametrized(2.0),
    "int8": int8,
    "scripted": lambda: scripted(2.0),
    "traced": lambda: traced(Holder()),
    "hooked": lambda: hooked(2.0, stores=True),
    "partial": lambda: partial_of(0.1),
    "lambda": lambda: with_part(Holder(lambda x: x * 2)),
    "closure": lambda: with_part(Holder(closing_over(torch.tensor(2.0)))),
    "hidden": lambda: hidden(0),
    "plain values": lambda: with_part(
        Holder(
            names={"b", "a", "c", "d"}, table={"x": 1, "y": [2]}, size=Slotted(2.0), file="/a/b.txt", device="cuda:0"
        )
    ),
    "compiled in part": lambda: rcnn(compiled),
}
"""Each is the same model at every call, in every process."""
