"""`ppal`: frames whose objects are unlike, by category-conditioned matching."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.strategies.columns import OBJECTS, check_columns
from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.objects import Objects, check_widths

_ITERATIONS = 100
_HALF_A_STEP = 2.0**-17  # distances are multiples of 2^-16


def ppal(pool: Pool, n: int, *, seed: int, labeled: Pool | None = None, weights: Tensor | None = None) -> Tensor:
    """The second stage of PPAL (Yang, Huang and Crowley 2024, *Plug and Play Active Learning*, arXiv 2211.11612).

    Two frames are as far from each other as their objects are, class by class. With `s` the scores and `d_k`, for an
    object `k` of frame `x`, the least `1 - cos` to the embedding of an object of the same class in frame `y`, or 2 if
    it has none,

        d(x->y) = sum_k s_k d_k / sum_k s_k        D(x, y) = (d(x->y) + d(y->x)) / 2        D(x, x) = 0

    in multiples of 2^-16. Boxes of score 0.05 or less are left out, unless a frame has no others. A frame without
    boxes counts as one object of a class of its own, with the embedding of the frame (without `frame_embeddings` they
    are all alike): it is at 2 from every frame that has boxes.

    Of a pool with `embedded`, only those boxes count.

    Then k-centre greedy, from a random frame (with labeled ones: from the farthest), and k-medoids from there: each
    frame joins the nearest medoid, and each cluster moves its medoid to the frame with the least sum of distances to
    the others, until none moves. Frames nearer to a labeled one than to any medoid join no cluster.

    Put it after a stage that keeps a few times as many frames by their uncertainty, as the paper does (4 times). No
    matrix of all frames, or of all objects, is made: memory is that of the embeddings, in float32, and of blocks. Time
    goes with n times the boxes, for each iteration, and with the squared size of the clusters.

    Args:
        pool: F frames; needs `box_embeddings` and `labels`, unless no frame has boxes.
        n: rows to choose, 1 to F.
        seed: of the first frame, where nothing is labeled.
        labeled: frames that are annotated already, as good as chosen, with the same columns.
        weights: not used.

    Returns:
        (n,) int64 distinct rows, in the order in which k-centre opened their clusters; equally good ones by row.

    Raises:
        InvalidInputError: a missing column, or labeled embeddings of another width; the message names it.
    """
    check_columns(pool, OBJECTS, "ppal")
    check_widths(pool, labeled)
    known = labeled if labeled is not None and len(labeled) else None
    if known is not None:
        check_columns(known, OBJECTS, "ppal", name="labeled")
    frames = Objects.of(pool, frame_embeddings=_alike(pool, known))
    far = torch.full((len(pool),), torch.inf, device=pool.device)
    if known is None:
        first = int(torch.randint(len(pool), (1,), generator=torch.Generator().manual_seed(seed)))
    else:
        for _, block in Objects.of(known.to(pool.device), frame_embeddings=_alike(pool, known)).blocks(frames):
            far = torch.minimum(far, block.amin(0))
        first = first_greatest(far)
    return _k_medoids(frames, _k_center(frames, n, first, far), far)


def _alike(pool: Pool, labeled: Pool | None) -> bool:
    """Whether the embeddings of whole frames can be compared."""
    if labeled is None or pool.frame_embeddings is None or labeled.frame_embeddings is None:
        return labeled is None
    return pool.frame_embeddings.shape[1] == labeled.frame_embeddings.shape[1]


def _k_center(frames: Objects, n: int, first: int, far: Tensor) -> Tensor:
    """(n,) rows: `first`, and then the farthest from all before it and from what is labeled, at `far` (F,)."""
    chosen = torch.empty(n, dtype=torch.int64, device=far.device)
    closest = far.clone()
    for turn in range(n):
        chosen[turn] = first if turn == 0 else first_greatest(closest)
        for _, block in frames.take(chosen[turn : turn + 1]).blocks(frames):
            closest = torch.minimum(closest, block[0])
        closest[chosen[: turn + 1]] = -1  # never again, though copies of it are at 0
    return chosen


def _k_medoids(frames: Objects, medoids: Tensor, far: Tensor) -> Tensor:
    """The medoids (n,) once none moves; the sum of distances to the nearest falls with every move."""
    before = torch.full_like(far, -2, dtype=torch.int64)
    for _ in range(_ITERATIONS):
        labels = _nearest(frames, medoids, far)
        moved = medoids.clone()
        differing = labels != before
        for label in torch.unique(torch.cat([labels[differing], before[differing]])).tolist():
            if label >= 0:
                moved[label] = _medoid(frames, (labels == label).nonzero().squeeze(1), int(medoids[label]))
        if torch.equal(moved, medoids):
            break
        medoids, before = moved, labels
    return medoids


def _nearest(frames: Objects, medoids: Tensor, far: Tensor) -> Tensor:
    """(F,) the number of the nearest medoid, the first of several, or -1 where a labeled frame, at `far`, is nearer."""
    labels = torch.full_like(far, -1, dtype=torch.int64)
    least = far + _HALF_A_STEP  # a medoid as near as a labeled frame is preferred
    for begin, block in frames.take(medoids).blocks(frames):
        for number, row in enumerate(block, begin):
            nearer = row < least
            least = torch.where(nearer, row, least)
            labels[nearer] = number
    labels[medoids] = torch.arange(len(medoids), device=far.device)
    return labels


def _medoid(frames: Objects, members: Tensor, medoid: int) -> int:
    """The row, among `members`, with the least sum of distances to the others; `medoid`, the present one, if it has."""
    if len(members) <= 2:
        return medoid
    cluster = frames.take(members)
    sums = torch.empty(len(members), dtype=torch.float64, device=members.device)
    for begin, block in cluster.blocks(cluster):
        block.diagonal(begin).zero_()
        sums[begin : begin + len(block)] = block.double().sum(1)
    best = first_greatest(-sums)
    return medoid if bool(sums[members == medoid] <= sums[best]) else int(members[best])
