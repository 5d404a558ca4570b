"""`ask_model`: what a model answers to test images, and what it changes of itself meanwhile."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cval_torch.extraction.inference import on_device
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.random_state import random_state_kept
from cval_torch.hooks.base import DetectorAdapter, FrameBatch
from cval_torch.hooks.recorder import Recorder, evaluating, running_eagerly

SIZES = ((64, 192), (192, 64))  # unlike each other and unlike most images, so that caches that go by size fill

Groups = Mapping[str, Mapping[str, str]]
"""What a model and its adapter hold, as text, by kind and name."""

Answer = dict[str, float]
"""A few numbers that sum up the rows of one frame."""


@dataclass(frozen=True)
class Probe:
    """What came of it.

    Attributes:
        changed: by kind, the names of what a forward pass changes: caches and counters, not settings.
        answers: of each test image.
    """

    changed: dict[str, list[str]]
    answers: list[Answer]


def ask_model(
    model: nn.Module,
    adapter: DetectorAdapter,
    options: PassOptions,
    device: torch.device,
    read: Callable[[nn.Module, DetectorAdapter], Groups],
) -> Probe | None:
    """Run a copy of the model over two small images of noise, which are the same in every process.

    The copy shares the parameters, so it costs little memory, and the model itself is left as it is: modules remember
    things of their first batch. The random states are the same each time, and the caller's are left alone.

    Args:
        model: the detector, unwrapped.
        adapter: reads it.
        options: the `device` and `autocast` of the pass.
        device: where the model runs.
        read: what a model and an adapter hold, without the parameters.

    Returns:
        None if the model cannot be copied, or does not take plain images.
    """
    with inferring(model, options, device) as where, running_eagerly(model), random_states_fixed(where):
        twins = _twins(model, adapter)
        if twins is None:
            return None
        tries = (_answered(*twins, channels, where, read) for channels in _channels(model))
        return next((probe for probe in tries if probe is not None), None)


def _twins(model: nn.Module, adapter: DetectorAdapter) -> tuple[nn.Module, DetectorAdapter] | None:
    """Copies that share the parameters, and those attributes that cannot be copied (locks, files); None: impossible."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    with suppress(Exception):
        return copy.deepcopy((model, adapter), dict(shared))
    modules = {id(module): module for module in model.modules()}
    for owner in (*modules.values(), adapter):
        for value in vars(owner).values():
            try:
                copy.deepcopy(value, {**shared, **modules})
            except Exception:  # of whatever kind: it is not ours
                shared[id(value)] = value
    with suppress(Exception):
        return copy.deepcopy((model, adapter), dict(shared))
    return None


def _answered(
    model: nn.Module,
    adapter: DetectorAdapter,
    channels: int,
    device: torch.device,
    read: Callable[[nn.Module, DetectorAdapter], Groups],
) -> Probe | None:
    seen, answers = [read(model, adapter)], []
    try:
        for number, size in enumerate(SIZES):
            image = torch.rand(channels, *size, generator=torch.Generator().manual_seed(number)).to(device)
            answers.append(_summary(_frames(model, adapter, image), size))
            seen.append(read(model, adapter))
    except Exception:  # it takes other inputs than images, or images of another kind
        return None
    return Probe(_changed(seen), answers)


@contextmanager
def inferring(model: nn.Module, options: PassOptions, device: torch.device) -> Iterator[torch.device]:
    """The model as it is in a pass: on its device, in eval mode, without gradients, and under the pass's autocast."""
    with ExitStack() as stack:
        stack.enter_context(random_state_kept(device))
        where = stack.enter_context(on_device(model, options.device))
        stack.enter_context(evaluating(model))
        stack.enter_context(torch.no_grad())
        if options.autocast is not None:
            stack.enter_context(torch.autocast(where.type, dtype=options.autocast))
        yield where


@contextmanager
def random_states_fixed(device: torch.device) -> Iterator[None]:
    """For models that draw numbers when they answer: the same numbers each time."""
    random.seed(0)
    np.random.seed(0)  # the legacy state, which models draw from
    torch.default_generator.manual_seed(0)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(0)
    yield


def _channels(model: nn.Module) -> list[int]:
    """How many channels an image may have: what the first convolution takes, else three."""
    taken = [module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)][:1]
    return [*taken, *({3} - set(taken))]


def _frames(model: nn.Module, adapter: DetectorAdapter, image: Tensor) -> FrameBatch:
    with Recorder(dict(adapter.modules(model)), within=model) as recorder:
        output = adapter.forward(model, [image])
        recorder.check()
        return adapter.read(model, recorder.recording, output)


def _summary(frames: FrameBatch, size: tuple[int, int]) -> Answer:
    found: Answer = {"height": size[0], "width": size[1], "boxes": int(frames.counts.sum())}
    numbers: dict[str, float] = {}
    if len(frames.scores):
        numbers["mean score"] = float(frames.scores.float().mean())
    if frames.frame_embeddings is not None:
        vector = frames.frame_embeddings.float()
        numbers |= {"embedding's mean": float(vector.mean()), "embedding's size": float(vector.square().mean().sqrt())}
    return found | {name: float(f"{number:.6g}") for name, number in numbers.items() if math.isfinite(number)}


def _changed(seen: list[Groups]) -> dict[str, list[str]]:
    """The names whose text is not the same in all of these readings; of items that come and go, their container's."""
    found: dict[str, list[str]] = {}
    for kind in seen[0]:
        names: set[str] = set()
        for then, now in itertools.pairwise(each[kind] for each in seen):
            for name in then.keys() | now.keys():
                if name not in then or name not in now:
                    names.add(_container(name))
                elif then[name] != now[name]:
                    names.add(name)
        if names:
            found[kind] = sorted(name for name in names if not names & {*around(name)})
    return found


def around(name: str) -> list[str]:
    """The names of what a thing is within.

    >>> around("a.b['key']")
    ['a', 'a.b']
    """
    return [name[:place] for place, letter in enumerate(name) if letter in ".[ "]


def _container(name: str) -> str:
    """`cache` for `cache['key'][0]`."""
    while name.endswith("]") and "[" in name:
        name = name[: name.rindex("[")]
    return name


def answer_changes(then: Sequence[Answer], now: Sequence[Answer]) -> list[str]:
    """How two answers differ, where that is not the doing of another GPU, another number of threads or the like.

    These change the last bits of a number, and with them perhaps the place of a detection near a threshold. So what is
    compared is coarse: a fifth of the detections, a tenth in their mean score, a tenth of the embedding's size.

    >>> answer_changes([{"height": 96, "width": 128, "boxes": 10}], [{"height": 96, "width": 128, "boxes": 11}])
    []
    >>> answer_changes([{"height": 96, "width": 128, "boxes": 10}], [{"height": 96, "width": 128, "boxes": 1}])
    ["the model's answer to a test image of 96 x 128 pixels was 10 boxes and is 1 boxes now"]
    """
    found = []
    for old, new in zip(then, now, strict=False):
        size = max(old.get("embedding's size", 0.0), new.get("embedding's size", 0.0))
        allowed = {
            "boxes": max(2.0, 0.2 * max(old["boxes"], new["boxes"])),
            "mean score": 0.1,
            "embedding's mean": 0.1 * size,
            "embedding's size": 0.1 * size,
        }
        differing = [
            name for name, most in allowed.items() if name in old and name in new and abs(old[name] - new[name]) > most
        ]
        if differing or old.keys() - {"mean score"} != new.keys() - {"mean score"}:
            found.append(
                f"the model's answer to a test image of {old['height']} x {old['width']} pixels was {_shown(old)} "
                f"and is {_shown(new)} now"
            )
    return found


def _shown(answer: Answer) -> str:
    rest = {name: number for name, number in answer.items() if name not in ("height", "width", "boxes")}
    return ", ".join([f"{answer['boxes']} boxes", *(f"{name} {number:.3g}" for name, number in rest.items())])
