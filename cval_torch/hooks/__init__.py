"""How predictions leave an unmodified detector: a recorder of module outputs, and one adapter a family."""

from cval_torch.hooks.base import DetectorAdapter, FrameBatch, Later, LaterRows, Recording
from cval_torch.hooks.finding import ADAPTERS, KnownAdapter, find_adapter, unwrap
from cval_torch.hooks.tiles import TiledAdapter

__all__ = [
    "ADAPTERS",
    "DetectorAdapter",
    "FrameBatch",
    "KnownAdapter",
    "Later",
    "LaterRows",
    "Recording",
    "TiledAdapter",
    "find_adapter",
    "unwrap",
]
