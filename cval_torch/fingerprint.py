"""`model_fingerprint`: a short name of a model's weights, to tell later whether they are the same."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


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
