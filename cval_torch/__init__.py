"""Active learning for PyTorch object detectors: predictions by hooks, frames worth annotating as a Subset."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.comparison": ["Comparison", "LabelIssues", "compare", "label_issues"],
            "cval_torch.errors": ["CvalError"],
            "cval_torch.extraction": ["PassOptions", "extract"],
            "cval_torch.hooks": ["DetectorAdapter"],
            "cval_torch.pipeline": ["SelectedFrames", "select"],
            "cval_torch.pool": ["Pool"],
            "cval_torch.selection": [
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
            ],
            "cval_torch.service": ["RestBackend", "pool_from_payloads", "pool_to_payloads"],
            "cval_torch.training": ["ClassDifficulty", "LabelPool", "SamplerCallback"],
        },
        modules=[
            "comparison",
            "config",
            "errors",
            "extraction",
            "formats",
            "hooks",
            "pipeline",
            "pool",
            "report",
            "selection",
            "service",
            "strategies",
            "training",
        ],
    )

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
