"""From a loader to a `Pool`: one inference pass over an unmodified detector."""

from cval_torch.extraction.adapter_check import check_adapter
from cval_torch.extraction.batches import Split, split_batch
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.ids import FrameIdOf
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import BatchParts

__all__ = [
    "BatchParts",
    "FrameIdOf",
    "PassOptions",
    "Split",
    "check_adapter",
    "extract",
    "model_fingerprint",
    "split_batch",
]
