"""Diversity: plain functions `(N, D) embeddings, n -> (n,) rows`, by wire name; some take the `Pool` itself.

Every one takes `seed`, `labeled` (what is annotated already, to stay away from) and `weights` (how informative each row
is), and may leave either unused: its docstring says. Rows come in rank order and are distinct.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cval_torch.diversity.class_gain import class_gain
from cval_torch.diversity.clustering import clustering
from cval_torch.diversity.diverse_prototypes import diverse_prototypes
from cval_torch.diversity.facility_location import facility_location
from cval_torch.diversity.hierarchical import hierarchical
from cval_torch.diversity.k_center import k_center
from cval_torch.diversity.kmeans_plus_plus import kmeans_plus_plus
from cval_torch.diversity.ppal import ppal
from cval_torch.diversity.typicality import typicality
from cval_torch.diversity.weighted_kmeans import weighted_kmeans

DIVERSITIES: dict[str, Callable[..., Tensor]] = {
    "clustering": clustering,
    "hierarchical": hierarchical,
    "k_center": k_center,
    "weighted_kmeans": weighted_kmeans,
    "kmeans_plus_plus": kmeans_plus_plus,
    "typicality": typicality,
    "facility_location": facility_location,
}
"""Those that see one vector a frame, by wire name."""

POOL_DIVERSITIES: dict[str, Callable[..., Tensor]] = {
    "auto": class_gain,
    "class_gain": class_gain,
    "ppal": ppal,
    "diverse_prototypes": diverse_prototypes,
}
"""By wire name, those that look into the frames: `(Pool, n) -> (n,) rows`, `labeled` a Pool; otherwise the same.

`auto` is the recipe that needs the fewest labels in our experiments; a later version may know a better one.
"""

IN_PROCESS = frozenset({"auto", "class_gain"})
"""Those that read more than the protocol's payloads carry: a box's class vector and the whole frame's embedding."""

EMBEDDED = frozenset({*DIVERSITIES, *POOL_DIVERSITIES})
"""All of them: the strategies that read embeddings."""

ON_OBJECTS = frozenset({"ppal", "diverse_prototypes"})
"""Those that compare boxes with boxes, and need their embeddings and labels."""

BY_ENTROPY = frozenset({"diverse_prototypes"})
"""Those that a server needs the probabilities for, without a stage before."""

CLUSTERED = frozenset({"clustering", "hierarchical"})
"""Those that take `num_of_clusters` too."""

GREEDY = frozenset({"auto", "class_gain", "facility_location", "k_center"})
"""Those whose choice of n rows begins with their choice of fewer."""
