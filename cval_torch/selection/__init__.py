"""From a `Pool` and stages to the chosen frames."""

from cval_torch.selection.backend import Backend, Selection
from cval_torch.selection.class_weights import balanced_class_weights
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.scored import Scored, choose_frames, score_frames
from cval_torch.selection.signals import max_zscore
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.together import choose_from_parts

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
