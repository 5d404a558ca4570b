"""`model_fingerprint`: a short name of a model's weights, to tell later whether they are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.finding import unwrap
from cval_torch.pool.ranks import Ranks


def model_fingerprint(model: nn.Module) -> str:
    """32 hex digits of every parameter, buffer and packed weight: names, dtypes, shapes and bytes, not the device.

    Two models have the same one if, and as good as only if, their tensors are the same bit for bit: those of
    `parameters()`, `buffers()` and `state_dict()`, which also holds the packed weights of quantized layers. The cost is
    a copy of the weights to the CPU, a tensor at a time, and one pass of SHA-256.

    >>> layer = nn.Linear(2, 2)
    >>> before = model_fingerprint(layer)
    >>> with torch.no_grad():
    ...     _ = layer.bias.add_(1)
    >>> model_fingerprint(layer) == before
    False
    """
    digest = hashlib.sha256()
    network: nn.Module = model if isinstance(model, nn.Module) else unwrap(model)  # of a host's own object
    for name, tensor in sorted(weights_of(network).items()):
        digest.update(f"{name} {tensor_digest(tensor)};".encode())
    return digest.hexdigest()[:32]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor that a model answers with, by name: parameters, buffers, and what only `state_dict` shows.

    A part that is compiled by `torch.compile` has the names of the plain part.
    """
    found = dict((*model.named_parameters(), *model.named_buffers()))
    for name, value in extra_state_of(model).items():
        found |= dict(_tensors_in(name, value))
    return {plain_name(name): tensor for name, tensor in found.items()}


def extra_state_of(model: nn.Module) -> dict[str, Any]:
    """What `state_dict` holds beside parameters and buffers: packed weights, and what `get_extra_state` gives.

    Empty if the model has no `state_dict` to show (some raise).
    """
    known = {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    known |= {name for name, _ in model.named_parameters(remove_duplicate=False)}  # of tied weights, every name
    known |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    try:
        state = model.state_dict()
    except Exception:  # a hook of the user's, or a part that cannot be saved
        return {}
    return {plain_name(name): value for name, value in state.items() if name not in known}


def plain_name(name: str) -> str:
    """The name of a module or tensor without the parts that `torch.compile` puts in.

    >>> plain_name("backbone._orig_mod.0.weight")
    'backbone.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def tensor_digest(tensor: Tensor) -> str:
    """The dtype, shape and a SHA-256 of the numbers of any kind of tensor, whatever device and strides it has."""
    if is_lazy(tensor):  # it has no shape yet
        return f"{tensor.dtype} uninitialized"
    kind = f"{tensor.dtype} {tuple(tensor.shape)}"
    digest = hashlib.sha256()
    try:
        for part in _plain_tensors(tensor.detach()):
            digest.update(f"{part.dtype} {tuple(part.shape)};".encode())
            if part.device.type != "meta":  # a meta tensor has no numbers
                bytes_ = part.cpu().contiguous().reshape(-1).view(torch.uint8)
                digest.update(bytes_.numpy().data)
    except Exception as error:  # a kind that keeps its numbers to itself
        return f"{kind} unread ({type(error).__name__})"
    return f"{kind} {digest.hexdigest()}"


def _plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """The dense tensors that a tensor is made of: itself, the parts of a sparse, quantized or wrapping one."""
    if hasattr(tensor, "__tensor_flatten__"):
        names, _ = tensor.__tensor_flatten__()
        for name in names:
            yield from _plain_tensors(getattr(tensor, name))
        return
    if tensor.is_quantized:
        yield tensor.int_repr()
        yield tensor.dequantize()  # tells other scales and zero points
    elif tensor.layout == torch.sparse_coo:
        whole = tensor.coalesce()
        yield from (whole.indices(), whole.values())
    elif tensor.layout != torch.strided:
        yield tensor.to_dense()
    else:
        yield tensor.as_subclass(Tensor).resolve_conj().resolve_neg()


def _tensors_in(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _tensors_in(f"{name}[{key!r}]", part)
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        for place, part in enumerate(value):
            yield from _tensors_in(f"{name}[{place}]", part)


@contextmanager
def model_of_rank_zero(model: nn.Module, ranks: Ranks, fingerprint: Callable[[nn.Module], str]) -> Iterator[None]:
    """Give `model` rank 0's buffers meanwhile, and each process its own back.

    In a training each rank has BatchNorm statistics of its own, and rank 0's are those that are kept in the end.

    Raises:
        InvalidInputError: the parameters differ, so that there is no one model.
    """
    if ranks.size == 1:  # nothing to compare with, and a look at every weight is not free
        yield
        return
    prints = ranks.exchange(lambda: fingerprint(model))
    if len(set(prints)) == 1:
        yield
        return
    buffers = dict(model.named_buffers())
    theirs = ranks.from_rank_zero(lambda: {name: buffer.cpu() for name, buffer in buffers.items()})
    own = {name: buffer.clone() for name, buffer in buffers.items()}

    def take_over() -> str:
        for name, buffer in buffers.items():
            if name in theirs and theirs[name].shape == buffer.shape:
                buffer.copy_(theirs[name])
        return fingerprint(model)

    with torch.no_grad():
        try:
            prints = ranks.exchange(take_over)
            for rank, print_ in enumerate(prints):
                if print_ != prints[0]:
                    raise InvalidInputError(
                        f"rank {rank}'s model has other weights than rank 0's, so there is no one model to ask; load "
                        "the same weights in every process (or pass `distributed=False` to use this process's alone)"
                    )
            yield
        finally:
            for name, buffer in buffers.items():
                buffer.copy_(own[name])
