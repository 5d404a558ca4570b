"""`model_fingerprint`: a short name of a model's weights, to tell later whether they are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cval_torch.errors import InvalidInputError
from cval_torch.pool.ranks import Ranks


def model_fingerprint(model: nn.Module) -> str:
    """32 hex digits of every parameter and buffer: names, dtypes, shapes and bytes, not the device.

    Two models have the same one if, and as good as only if, their `state_dict` tensors are the same bit for bit.
    The cost is a copy of the weights to the CPU, a tensor at a time, and one pass of SHA-256.

    >>> layer = nn.Linear(2, 2)
    >>> before = model_fingerprint(layer)
    >>> with torch.no_grad():
    ...     _ = layer.bias.add_(1)
    >>> model_fingerprint(layer) == before
    False
    """
    digest = hashlib.sha256()
    for name, tensor in sorted((*model.named_parameters(), *model.named_buffers()), key=lambda item: item[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


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
