"""`diverse_prototypes`: the most uncertain frames, less those whose objects look like what was chosen before."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cval_torch.pool.offsets import chunks
from cval_torch.pool.pool import Pool
from cval_torch.strategies.columns import UNCERTAIN_OBJECTS, check_columns
from cval_torch.strategies.descriptor import classes_of, unit_rows
from cval_torch.strategies.objects import ByClass, check_widths, segmented
from cval_torch.strategies.scores import box_evidence, entropy

REDUNDANT = 0.5
"""Within a frame, a box is left out if its cosine to a more uncertain one of its class is higher."""
ALIKE = 0.7
"""A frame is rejected if in each of its classes the cosine to some chosen frame is this or higher."""
PRESENT = 0.3
"""A class is in a frame if some box of it has a higher score."""
MINORITY_SHARE = 0.75
"""Of the budget, what is offered to frames that hold a minority class."""

_BLOCK_ELEMENTS = 2**22


def diverse_prototypes(
    pool: Pool, n: int, *, seed: int, labeled: Pool | None = None, weights: Tensor | None = None
) -> Tensor:
    """Entropy NMS and diverse prototypes (Wu, Chen and Huang 2022, arXiv 2204.07965).

    With `H` the entropy of a box (of its class distribution, or, without `probabilities`, of its score; see `scores`)
    and `f` its L2-normalised embedding:

    1. *Entropy NMS*. Within a frame and class, the box of the highest `H` stays, those with a cosine above 0.5 to it
       go, and so on with the rest. The sum of `H` over what stays is the frame's uncertainty: copies count once.
    2. *Prototypes*. A frame has one for each class among its boxes, `sum(H f) / sum(H)` over all boxes of the class
       (their mean, if no `H` is above 0).
    3. *Rejection*. Frames are gone through by falling uncertainty. Of each prototype the highest cosine to those of
       its class is taken, among chosen and labeled frames (-1 if there is none), and a frame is rejected if the least
       of these is 0.7 or more: it has nothing new in any class.
    4. *Minority classes first*. A class is in a frame if some box of it has a score above 0.3 (without `scores`, any).
       Of the classes in the pool, the half (rounded down) that is in the fewest labeled frames, or, with nothing
       labeled, in the fewest frames of the pool, are the minority. Each has a quota, an equal part of
       three quarters of n, rounded up. First only frames are chosen that hold a class whose quota is open, until
       no quota is, or three quarters of n, rounded up, are chosen; then all others, again from the most uncertain.
    5. If that leaves fewer than n, the rejected ones follow, by uncertainty, and then frames without boxes.

    The numbers 0.5, 0.7, 0.3, a half and three quarters are the paper's settings, as public rewritings have them.
    Of a pool with `embedded`, all of this is of those boxes, since copies are told by embeddings.
    It scores frames by itself, so it may be the only stage. Memory is that of one embedding for each class of each
    frame, in float32, and of blocks.

    Args:
        pool: F frames; needs `box_embeddings`, `labels`, and `probabilities` or `scores`, unless no frame has boxes.
        n: rows to choose, 1 to F.
        seed: not used.
        labeled: frames that are annotated already, with the same columns.
        weights: not used.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally uncertain ones by row.

    Raises:
        InvalidInputError: a missing column, or labeled embeddings of another width; the message names it.
    """
    check_columns(pool, UNCERTAIN_OBJECTS, "diverse_prototypes")
    check_widths(pool, labeled)
    uncertainty, prototypes = _summed_up(pool)
    closest = torch.full((len(prototypes.labels),), -1.0, device=pool.device)
    counted = prototypes
    if labeled is not None and len(labeled):
        check_columns(labeled, UNCERTAIN_OBJECTS, "diverse_prototypes", name="labeled")
        counted = _summed_up(labeled.to(pool.device))[1]
        for label, part in counted.parts.items():
            if label in prototypes.parts:
                _come_closer(closest, prototypes, label, counted.vectors[part])
    order = torch.arange(len(pool), device=pool.device)[pool.is_empty.long().argsort(stable=True)]
    order = order[(-uncertainty[order]).argsort(stable=True)]
    chosen = _scan(prototypes, order, closest, n, _quotas(prototypes, counted, n))
    rest = torch.ones(len(pool), dtype=torch.bool, device=pool.device)
    rest[chosen] = False
    return torch.cat([torch.tensor(chosen, dtype=torch.int64, device=pool.device), order[rest[order]]])[:n]


def _scan(prototypes: ByClass, order: Tensor, closest: Tensor, n: int, quotas: dict[int, int]) -> list[int]:
    """At most n rows that are not rejected: first those that a minority class is in, then the others."""
    chosen: list[int] = []

    def choose_if_new(row: int) -> bool:
        mine = prototypes.places[prototypes.offsets[row] : prototypes.offsets[row + 1]]
        if len(mine) == 0 or bool(closest[mine].amin() >= ALIKE):
            return False
        chosen.append(row)
        for place, label in zip(mine.tolist(), prototypes.labels[mine].tolist(), strict=True):
            _come_closer(closest, prototypes, label, prototypes.vectors[place : place + 1])
        return True

    for row in order.tolist():
        if not quotas or len(chosen) == math.ceil(MINORITY_SHARE * n):
            break
        mine = prototypes.places[prototypes.offsets[row] : prototypes.offsets[row + 1]]
        held = quotas.keys() & prototypes.labels[mine[prototypes.weights[mine] > PRESENT]].tolist()
        if held and choose_if_new(row):
            quotas.update({label: quotas[label] - 1 for label in held})
            quotas = {label: left for label, left in quotas.items() if left}
    taken = set(chosen)
    for row in order.tolist():
        if len(chosen) == n:
            break
        if row not in taken:
            choose_if_new(row)
    return chosen


def _quotas(prototypes: ByClass, counted: ByClass, n: int) -> dict[int, int]:
    """How many frames each minority class is due."""
    known = {label: int((counted.weights[part] > PRESENT).sum()) for label, part in counted.parts.items()}
    there = [label for label, part in prototypes.parts.items() if bool((prototypes.weights[part] > PRESENT).any())]
    minority = sorted(there, key=lambda label: (known.get(label, 0), label))[: len(there) // 2]
    return {label: math.ceil(MINORITY_SHARE * n / len(minority)) for label in minority}


def _come_closer(closest: Tensor, prototypes: ByClass, label: int, vectors: Tensor) -> None:
    """Raise the highest cosines of the prototypes of a class, in place, by those to further vectors."""
    part = prototypes.parts[label]
    mine = prototypes.vectors[part]
    for block in torch.split(vectors, max(_BLOCK_ELEMENTS // len(mine), 1)):
        closest[part] = torch.maximum(closest[part], (mine @ block.T).amax(1))


def _summed_up(pool: Pool) -> tuple[Tensor, ByClass]:
    """The (F,) float64 uncertainty of each frame, and its prototypes, which weigh as the highest score among them.

    Both are made of the boxes that are embedded.
    """
    pool = pool.only(("scores", "labels", "probabilities", "box_embeddings")).embedded_boxes()
    uncertainty = torch.zeros(len(pool), dtype=torch.float64, device=pool.device)
    counts, labels, surest, vectors = [], [], [], []
    width, classes = 1 if pool.box_embeddings is None else pool.box_embeddings.shape[1], classes_of(pool)
    for begin, end in chunks(pool.offsets, boxes=max(_BLOCK_ELEMENTS // max(width, 1), 1)):
        first, last = int(pool.offsets[begin]), int(pool.offsets[end])
        if first == last or pool.box_embeddings is None or pool.labels is None:
            counts.append(torch.zeros(end - begin, dtype=torch.int64, device=pool.device))
            continue
        doubts = entropy(box_evidence(pool, first, last)).double()
        owners = torch.arange(end - begin, device=pool.device).repeat_interleave(pool.counts[begin:end])
        groups = owners * len(classes) + torch.searchsorted(classes, pool.labels[first:last])
        # frame by frame, class by class, the most uncertain box first
        order = (-doubts).argsort(stable=True)
        order = order[groups[order].argsort(stable=True)]
        groups, sizes = torch.unique_consecutive(groups[order], return_counts=True)
        units = unit_rows(pool.box_embeddings[first:last][order])
        kept = torch.empty(len(order), dtype=torch.bool, device=pool.device)
        kept[order] = _nms(units, sizes)
        uncertainty[begin:end] = segmented(torch.where(kept, doubts, 0), pool.counts[begin:end], "sum")
        silent = (segmented(doubts[order], sizes, "sum") == 0).repeat_interleave(sizes)
        pull = torch.where(silent, 1.0, doubts[order])
        scores = torch.ones(len(order), device=pool.device) if pool.scores is None else pool.scores[first:last].float()
        counts.append(torch.bincount(groups // len(classes), minlength=end - begin))
        labels.append(classes[groups % len(classes)])
        surest.append(segmented(scores[order], sizes, "max"))
        vectors.append(segmented(units * pull.float()[:, None], sizes, "sum"))
    if not labels:
        nothing = torch.empty(0, device=pool.device)
        labels, surest, vectors = [nothing.long()], [nothing], [nothing[:, None]]
    return uncertainty, ByClass.of(torch.cat(counts), torch.cat(labels), torch.cat(surest), torch.cat(vectors))


def _nms(units: Tensor, sizes: Tensor) -> Tensor:
    """(b,) bool, the rows that stay: of each group of `sizes` (g,) successive rows, those unlike all before that do."""
    starts = sizes.cumsum(0) - sizes
    stays = torch.ones(len(units), dtype=torch.bool, device=units.device)
    for turn in range(int(sizes.max()) - 1):
        groups = ((sizes > turn + 1) & stays[(starts + turn).clamp_max(len(units) - 1)]).nonzero().squeeze(1)
        left = sizes[groups] - turn - 1
        leaders = (starts[groups] + turn).repeat_interleave(left)
        within = torch.arange(len(leaders), device=units.device) - (left.cumsum(0) - left).repeat_interleave(left)
        later = leaders + 1 + within
        open_ = stays[later]
        leaders, later = leaders[open_], later[open_]
        stays[later] = (units[later] * units[leaders]).sum(1) <= REDUNDANT
    return stays
