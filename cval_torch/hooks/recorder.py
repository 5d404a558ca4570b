"""Recording what the modules of a detector are given and return, and putting the detector back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from cval_torch.errors import HookError, warn_user
from cval_torch.hooks.base import Call, Recording


class Recorder:
    """Records every forward of the given modules while the context is open; nothing of them is replaced.

    Inside the context a compiled part that holds a recorded module runs eagerly, because a hook that is added after
    the first compiled call is never reached there. Parts compiled without such a module stay compiled.

    Args:
        modules: what to record, by the name that the calls will have in `recording`.
        within: the detector that is going to be called; it is searched for compiled parts.

    >>> layer = nn.Linear(2, 3)
    >>> with Recorder({"layer": layer}) as recorder:
    ...     _ = layer(torch.zeros(1, 2))
    ...     recorder.check()
    >>> recorder.recording["layer"][0].output.shape, len(layer._forward_hooks)
    (torch.Size([1, 3]), 0)
    """

    def __init__(self, modules: Mapping[str, nn.Module], *, within: nn.Module | None = None) -> None:
        self._modules = dict(modules)
        self._within = within
        self._calls: dict[str, list[Call]] = {name: [] for name in self._modules}
        self._images: Any = None
        self._closing = ExitStack()

    @property
    def recording(self) -> Recording:
        """The calls since `clear`, by module name, in the order in which they returned."""
        return Recording(self._calls, images=self._images)

    def __enter__(self) -> Recorder:
        with ExitStack() as opening:  # closes what was opened, should a step of this fail
            if self._within is not None and _runs_compiled(self._within, self._modules.values()):
                opening.enter_context(_eagerly())
            for name, module in self._modules.items():
                opening.callback(self._record(name, module).remove)
            self._closing = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closing.close()

    def clear(self, images: Any = None) -> None:
        """Forget the calls so far, and with them their tensors; due before every batch.

        Args:
            images: what the detector is going to be given, for `Recording.images`.
        """
        self._images = images
        for calls in self._calls.values():
            calls.clear()

    def check(self) -> None:
        """Make sure that every module has run since `clear`.

        Raises:
            HookError: some did not; the message names them.
        """
        silent = [name for name, calls in self._calls.items() if not calls]
        if silent:
            raise HookError(
                f"{', '.join(f'`{name}`' for name in silent)} did not run in this forward pass, so nothing was "
                "recorded; the detector bypasses the module, or runs it inside a compiled or scripted part"
            )

    def _record(self, name: str, module: nn.Module) -> RemovableHandle:
        calls = self._calls[name]

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # The containers are copied: detectors go on to write into the lists and dicts that a module returned.
            calls.append(Call(args=_copied(args), kwargs=_copied(kwargs), output=_copied(output)))

        return module.register_forward_hook(keep, with_kwargs=True)


def _copied(value: Any) -> Any:
    """`value` with its plain lists, tuples and dicts copied, at any depth; what they hold is shared."""
    if type(value) in (list, tuple):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


def _runs_compiled(within: nn.Module, recorded: Any) -> bool:
    """Whether a recorded module lies inside a part of `within` that torch.compile has taken over."""
    wanted = {id(module) for module in recorded}
    return any(_is_compiled(part) and any(id(inner) in wanted for inner in part.modules()) for part in within.modules())


def _is_compiled(module: nn.Module) -> bool:
    in_place = getattr(module, "_compiled_call_impl", None) is not None  # module.compile()
    return in_place or "_orig_mod" in module._modules  # torch.compile(module)


@contextmanager
def _eagerly() -> Iterator[None]:
    """Switch torch.compile off for the time being, where this torch can (2.6 and later)."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None:
        warn_user(
            "parts of this detector are compiled, and this torch cannot run them eagerly (2.6 can): if nothing is "
            "recorded, pass the detector as it was before torch.compile"
        )
        yield
        return
    with set_stance("force_eager"):
        yield


@contextmanager
def running_eagerly(model: nn.Module) -> Iterator[None]:
    """Run the compiled parts of `model` as they were before torch.compile, where this torch can (2.6 and later)."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None or not any(_is_compiled(part) for part in model.modules()):
        yield
        return
    with set_stance("force_eager"):
        yield


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put `model` into eval mode, and afterwards give every submodule its own train flag back.

    A submodule that was frozen in eval mode comes out in eval mode, whatever the flag of the whole.
    """
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        # By way of `train`, parents first, for modules that do more there than set a flag (merged adapters, say);
        # then the flags themselves, for those whose `train` does not pass them on.
        for module, flag in flags:
            if module.training != flag:
                module.train(flag)
        for module, flag in flags:
            module.training = flag
