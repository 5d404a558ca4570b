"""`class_gain`: what the annotated set lacks, from places it does not have."""

from __future__ import annotations

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.strategies.columns import UNCERTAIN_CLASSES, check_columns
from cval_torch.strategies.descriptor import classes_of, descriptors_beside, unit_rows
from cval_torch.strategies.k_center import first_greatest
from cval_torch.strategies.kmeans import nearest_of, squared_distances
from cval_torch.strategies.scores import box_evidence, entropy

_CHUNK_BOXES = 2**18


def class_gain(pool: Pool, n: int, *, seed: int, labeled: Pool | None = None, weights: Tensor | None = None) -> Tensor:
    """Expected gain in doubtful objects of scarce classes, times the squared distance to what is labeled or chosen.

    Greedy. With `s_b` the score of a box, `H_b` its entropy (see `strategies.scores.entropy`) and `N_c` the objects of
    class c that are expected so far, each choice is the frame `f` with the greatest

        g(f) d(f)^2 / sqrt(1/2 + sum of s_b),   g(f) = sum over its boxes of s_b H_b / (N_c(b) + 1)

    `N_c` begins as the sum of the scores of class c in `labeled` and grows by those of each chosen frame: once a class
    is well served, others come first. `d(f)` is the distance to the nearest labeled or chosen frame, so that a
    near-duplicate is worth next to nothing, whatever it shows, and no radius has to be chosen. The root of the expected
    objects, which is what annotation costs, stands between the best gain a frame and the best gain a box.
    Distances are those of `frame_descriptors`, beside which stand, where the pool has them, the frames' own embeddings,
    standardised over both pools and made unit vectors: the objects and the place count alike.

    It does what an annotator with all labels would do, as far as predictions tell: scarce classes, and one frame of
    each scene. The powers were settled on pools of composed frames that no published table uses
    (`examples/benchmarks/label_efficiency.py`). Related: submodular coverage of classes, and BADGE's volume.

    Args:
        pool: N frames; needs `labels`, `scores` or `probabilities`, and embeddings of boxes or frames.
        n: frames to choose, 1 to N.
        seed: not used.
        labeled: the frames that are annotated already.
        weights: not used.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally good ones by row. Frames of no gain (without boxes, or
        with sure ones only) come when all others are chosen, the farthest first.

    Raises:
        InvalidInputError: a column is missing.
    """
    check_columns(pool, UNCERTAIN_CLASSES, "class_gain")
    if labeled is not None:
        check_columns(labeled, UNCERTAIN_CLASSES, "class_gain", name="labeled")
    scarce, expected, known = _contents(pool, labeled)
    scarce = scarce / (expected.sum(1, keepdim=True) + 0.5).sqrt()
    places, squares, nearest = _places(pool, labeled)
    chosen = torch.empty(n, dtype=torch.int64, device=pool.device)
    for turn in range(n):
        gains = scarce @ (1 / (known + 1))
        worth = gains * nearest
        worth[chosen[:turn]] = -1
        row = first_greatest(worth)
        if float(worth[row]) == 0:
            far = nearest.clone()
            far[chosen[:turn]] = -1
            row = first_greatest(far)
        chosen[turn] = row
        known = known + expected[row]
        nearest = torch.minimum(nearest, squared_distances(places, places[row : row + 1], squares).squeeze(1))
    return chosen


def _contents(pool: Pool, labeled: Pool | None) -> tuple[Tensor, Tensor, Tensor]:
    """By frame and class the doubtful and the expected objects, (N, K) each; by class those of `labeled`, (K,)."""
    classes = classes_of(pool) if labeled is None else classes_of(pool, labeled)
    scores = _confidences(pool)
    doubtful = _by_class(pool, scores * _entropies(pool), classes)
    expected = _by_class(pool, scores, classes)
    known = torch.zeros(len(classes), device=pool.device)
    if labeled is not None and labeled.num_boxes:
        known = _by_class(labeled, _confidences(labeled), classes).sum(0)
    return doubtful, expected, known


def _confidences(pool: Pool) -> Tensor:
    """(B,) float32."""
    if pool.scores is not None:
        return pool.scores.float()
    return torch.empty(0, device=pool.device) if pool.probabilities is None else pool.probabilities.float().amax(1)


def _entropies(pool: Pool) -> Tensor:
    """(B,) float32 in [0, 1]."""
    result = torch.empty(pool.num_boxes, device=pool.device)
    for first in range(0, pool.num_boxes, _CHUNK_BOXES):
        last = min(first + _CHUNK_BOXES, pool.num_boxes)
        result[first:last] = entropy(box_evidence(pool, first, last))
    return result


def _by_class(pool: Pool, values: Tensor, classes: Tensor) -> Tensor:
    """(N, K) sums of (B,) values by frame and class."""
    sums = torch.zeros(len(pool), len(classes), device=pool.device)
    if pool.labels is None or pool.num_boxes == 0:
        return sums
    place = pool.frame_rows * len(classes) + torch.searchsorted(classes, pool.labels)
    # sorted, so that a GPU adds in one order too
    place, order = place.sort(stable=True)
    return sums.view(-1).index_add_(0, place, values[order]).view_as(sums)


def _places(pool: Pool, labeled: Pool | None) -> tuple[Tensor, Tensor, Tensor]:
    """(N, D) where the frames lie, their (N,) squared lengths and squared distances to the nearest labeled one."""
    places, around = descriptors_beside(pool, labeled)
    held = None if around is None else labeled
    frames = [each.frame_embeddings for each in (pool, held) if each is not None]
    if pool.box_embeddings is not None and all(each is not None for each in frames):
        both = torch.cat([each.float() for each in frames if each is not None])
        spread = both.std(0, correction=0).clamp_min(torch.finfo(both.dtype).tiny)
        standard = unit_rows((both - both.mean(0)) / spread)
        places = torch.cat([places, standard[: len(pool)]], dim=1)
        around = None if around is None else torch.cat([around, standard[len(pool) :]], dim=1)
    # farther than any two: with nothing labeled the first choice is by gain alone
    squares = (places * places).sum(1)
    nearest = torch.full((len(pool),), 4 * float(squares.amax()), device=pool.device)
    return places, squares, nearest if around is None else nearest_of(places, squares, around, nearest)
