"""What a selection is going to take, from a few images."""

from __future__ import annotations

import time
from typing import Any

from torch.utils.data import Subset

from cval_torch.config.choosing import Work
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.pool.memory import available_memory
from cval_torch.selection.costs import estimated_boxes

_FIRST, _MOST = 4, 64


def forecast(work: Work) -> dict[str, Any]:
    """Infer a few images, evenly spread, and say what all of them will take.

    Returns:
        `images`; `labeled`; `seconds` of the pass over all; `boxes` to be expected in all; `kept_bytes`, if all columns
        of all images were kept; `available_bytes` of memory.

    Raises:
        InvalidInputError: no image is left to choose.
        CvalError: see `extract`.
    """
    left = work.labels.unlabeled
    count = len(left)
    if count == 0:
        raise InvalidInputError(f"all {len(work.labels)} images are annotated already: there is nothing to choose")
    rows = sorted({number * count // min(count, _MOST) for number in range(min(count, _MOST))})
    options = work.options(progress=False)
    first = rows[:_FIRST]
    InferencePass(work.detector.model, work.loader(Subset(left, first)), options).pool()  # it warms up
    began = time.perf_counter()
    pool = InferencePass(work.detector.model, work.loader(Subset(left, rows)), options).pool()
    seconds = time.perf_counter() - began
    size = sum(column.nbytes for _, column in pool.columns())
    return {
        "images": count,
        "labeled": len(work.labels.labeled_ids),
        "seconds": seconds / len(rows) * count,
        "boxes": float(estimated_boxes(pool).sum()) / max(len(pool), 1) * count,
        "kept_bytes": size / max(len(pool), 1) * count,
        "available_bytes": available_memory(),
    }
