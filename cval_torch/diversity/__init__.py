"""Diversity: plain functions `(N, D) embeddings, n -> (n,) rows`, by wire name.

Every one takes `seed`, `labeled` (what is annotated already, to stay away from) and `weights` (how informative each row
is), and may leave either unused: its docstring says. Rows come in rank order and are distinct.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cval_torch.diversity.clustering import clustering
from cval_torch.diversity.hierarchical import hierarchical

DIVERSITIES: dict[str, Callable[..., Tensor]] = {"clustering": clustering, "hierarchical": hierarchical}
"""By wire name."""

CLUSTERED = frozenset({"clustering", "hierarchical"})
"""Those that take `num_of_clusters` too."""
