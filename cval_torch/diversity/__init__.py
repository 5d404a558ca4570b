"""Diversity: plain functions `(N, D) embeddings, n -> rows`, by wire name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

DIVERSITIES: dict[str, Callable[..., Tensor]] = {}
