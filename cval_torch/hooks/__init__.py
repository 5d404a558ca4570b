"""How predictions leave an unmodified detector: a recorder of module outputs, and one adapter a family."""

from cval_torch.hooks.base import DetectorAdapter, FrameBatch, Later, LaterRows, Recording
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.hooks.queries import QueryChoice, read_queries
from cval_torch.hooks.registry import ADAPTERS, KnownAdapter, register_adapter
from cval_torch.hooks.tiles import TiledAdapter

__all__ = [
    "ADAPTERS",
    "DetectorAdapter",
    "FrameBatch",
    "KnownAdapter",
    "Later",
    "LaterRows",
    "QueryChoice",
    "Recording",
    "TiledAdapter",
    "find_adapter",
    "read_queries",
    "register_adapter",
    "unwrap",
]
