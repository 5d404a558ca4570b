"""What a frame is to the diversity strategies, by loops over its boxes; the library's own code is not asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cval_torch.pool.pool import Pool

CLASS_SCALE = 0.5  # two frames without a class in common: as far apart as two with a cosine of 0.75 by looks


def unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def naive_descriptors(pool: Pool, *, classes: Sequence[int] | None = None) -> list[list[float]]:
    """A vector a frame, of a pool with all columns but perhaps the scores; `classes`: those with a coordinate."""
    assert pool.box_embeddings is not None
    assert pool.frame_embeddings is not None
    assert pool.labels is not None
    width, frame_width = pool.box_embeddings.shape[1], pool.frame_embeddings.shape[1]
    classes = sorted(set(pool.labels.tolist())) if classes is None else classes
    own = 0 if frame_width == width else frame_width
    rows = []
    for frame, (begin, end) in enumerate(zip(pool.offsets[:-1].tolist(), pool.offsets[1:].tolist(), strict=True)):
        looks, apart, shares = [0.0] * width, [0.0] * own, [0.0] * (1 + len(classes))
        weights = [1.0] * (end - begin) if pool.scores is None else pool.scores[begin:end].tolist()
        if not sum(weights):
            weights = [1.0] * (end - begin)
        for box, weight in zip(range(begin, end), weights, strict=True):
            for column, value in enumerate(unit(pool.box_embeddings[box].tolist())):
                looks[column] += weight * value
            shares[1 + classes.index(pool.labels[box].item())] += weight / sum(weights) * CLASS_SCALE
        if begin == end:
            shares[0] = CLASS_SCALE
            embedding = unit(pool.frame_embeddings[frame].tolist())
            looks, apart = (looks, embedding) if own else (embedding, apart)
        rows.append(unit(looks) + apart + shares)
    return rows
