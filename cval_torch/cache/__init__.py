"""A folder in which an inference pass survives the process that makes it (`extract(..., cache_dir=...)`)."""

from __future__ import annotations

from cval_torch.cache.folder import PassCache
from cval_torch.cache.resume import resume

__all__ = ["PassCache", "resume"]
