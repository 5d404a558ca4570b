"""Which columns of a pool a stage reads: a pass need not keep others."""

from __future__ import annotations

from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.columns import DESCRIBED
from cval_torch.strategies.registry import find_strategy


def columns_read(stage: DetectionSampling) -> frozenset[str]:
    """The columns that a stage looks at, where they are there.

    >>> sorted(columns_read(DetectionSampling(selection_strategy="entropy", num_of_boxes=90, class_quotas={1: 5})))
    ['labels', 'probabilities', 'scores']
    """
    read = set(find_strategy(stage.selection_strategy).reads)
    if stage.budget_fields:
        read.add("scores")
    if stage.class_quotas is not None:
        read.update(("scores", "labels"))
    if stage.class_weights is not None:
        read.add("labels")
    if stage.min_distance is not None:
        read.update(DESCRIBED)
    return frozenset(read)
