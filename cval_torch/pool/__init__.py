"""The columns of what a detector said of many frames: in memory, on disk, among processes."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
    from cval_torch.pool.layout import Layout
    from cval_torch.pool.pool import Activation, Pool
    from cval_torch.pool.skipped import SkippedFrame
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.pool.layout": ["Layout"],
            "cval_torch.pool.pool": ["Activation", "Pool"],
            "cval_torch.pool.skipped": ["SkippedFrame"],
        },
    )

__all__ = ["Activation", "Layout", "Pool", "SkippedFrame"]
