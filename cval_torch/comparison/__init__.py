"""A user's own proofs: what each strategy would have chosen from labelled frames, and which labels look wrong."""

from cval_torch.comparison.label_issue_record import LabelIssues
from cval_torch.comparison.label_issues import label_issues
from cval_torch.comparison.replay import compare
from cval_torch.comparison.result import Comparison, CurvePoint, MeasuredChoice, Saving

__all__ = ["Comparison", "CurvePoint", "LabelIssues", "MeasuredChoice", "Saving", "compare", "label_issues"]
