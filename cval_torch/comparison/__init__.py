"""A user's own proof: what each strategy would have chosen from frames whose labels are known, beside random choice."""

from cval_torch.comparison.replay import compare
from cval_torch.comparison.result import Choice, Comparison, CurvePoint, Saving

__all__ = ["Choice", "Comparison", "CurvePoint", "Saving", "compare"]
