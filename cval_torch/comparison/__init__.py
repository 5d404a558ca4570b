"""A user's own proof: what each strategy would have chosen from frames whose labels are known, beside random choice."""

from cval_torch.comparison.replay import compare
from cval_torch.comparison.result import Comparison, CurvePoint, MeasuredChoice, Saving

__all__ = ["Comparison", "CurvePoint", "MeasuredChoice", "Saving", "compare"]
