"""Active learning for PyTorch object detectors: predictions by hooks, frames worth annotating as a Subset."""

from cval_torch.backends.base import Backend, Selection
from cval_torch.backends.local import LocalBackend
from cval_torch.backends.rest import RestBackend
from cval_torch.callbacks import SamplerCallback
from cval_torch.class_weights import balanced_class_weights
from cval_torch.codec import pool_from_payloads, pool_to_payloads
from cval_torch.comparison import Comparison, compare
from cval_torch.difficulty import ClassDifficulty
from cval_torch.errors import CvalError
from cval_torch.extraction import extract
from cval_torch.hooks.base import DetectorAdapter
from cval_torch.labels import LabelPool
from cval_torch.pipeline import SelectedFrames, select
from cval_torch.pool import Pool
from cval_torch.signals import max_zscore
from cval_torch.wire import DetectionSampling

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "ClassDifficulty",
    "Comparison",
    "CvalError",
    "DetectionSampling",
    "DetectorAdapter",
    "LabelPool",
    "LocalBackend",
    "Pool",
    "RestBackend",
    "SamplerCallback",
    "SelectedFrames",
    "Selection",
    "__version__",
    "balanced_class_weights",
    "compare",
    "extract",
    "max_zscore",
    "pool_from_payloads",
    "pool_to_payloads",
    "select",
]
