"""From a `Pool` and stages to the chosen frames."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
    from cval_torch.selection.backend import Backend, Selection
    from cval_torch.selection.class_weights import balanced_class_weights
    from cval_torch.selection.local import LocalBackend
    from cval_torch.selection.scored import Scored, choose_frames, score_frames
    from cval_torch.selection.signals import max_zscore
    from cval_torch.selection.stage import DetectionSampling
    from cval_torch.selection.together import choose_from_parts
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.selection.backend": ["Backend", "Selection"],
            "cval_torch.selection.class_weights": ["balanced_class_weights"],
            "cval_torch.selection.local": ["LocalBackend"],
            "cval_torch.selection.scored": ["Scored", "choose_frames", "score_frames"],
            "cval_torch.selection.signals": ["max_zscore"],
            "cval_torch.selection.stage": ["DetectionSampling"],
            "cval_torch.selection.together": ["choose_from_parts"],
        },
    )

__all__ = [
    "Backend",
    "DetectionSampling",
    "LocalBackend",
    "Scored",
    "Selection",
    "balanced_class_weights",
    "choose_frames",
    "choose_from_parts",
    "max_zscore",
    "score_frames",
]
