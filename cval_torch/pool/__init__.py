"""The columns of what a detector said of many frames: in memory, on disk, among processes."""

from cval_torch.pool.layout import Layout
from cval_torch.pool.pool import Activation, Pool
from cval_torch.pool.skipped import SkippedFrame

__all__ = ["Activation", "Layout", "Pool", "SkippedFrame"]
