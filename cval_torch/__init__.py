"""Active learning for PyTorch object detectors: predictions by hooks, frames worth annotating as a Subset."""

from cval_torch.comparison import Comparison, LabelIssues, compare, label_issues
from cval_torch.errors import CvalError
from cval_torch.extraction import PassOptions, extract
from cval_torch.hooks import DetectorAdapter
from cval_torch.pipeline import SelectedFrames, select
from cval_torch.pool import Pool
from cval_torch.selection import (
    Backend,
    DetectionSampling,
    LocalBackend,
    Scored,
    Selection,
    balanced_class_weights,
    choose_frames,
    choose_from_parts,
    max_zscore,
    score_frames,
)
from cval_torch.service import RestBackend, pool_from_payloads, pool_to_payloads
from cval_torch.training import ClassDifficulty, LabelPool, SamplerCallback

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "ClassDifficulty",
    "Comparison",
    "CvalError",
    "DetectionSampling",
    "DetectorAdapter",
    "LabelIssues",
    "LabelPool",
    "LocalBackend",
    "PassOptions",
    "Pool",
    "RestBackend",
    "SamplerCallback",
    "Scored",
    "SelectedFrames",
    "Selection",
    "__version__",
    "balanced_class_weights",
    "choose_frames",
    "choose_from_parts",
    "compare",
    "extract",
    "label_issues",
    "max_zscore",
    "pool_from_payloads",
    "pool_to_payloads",
    "score_frames",
    "select",
]
