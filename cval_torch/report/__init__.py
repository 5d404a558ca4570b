"""What was chosen, to look at."""

from cval_torch.report.frames import ChosenFrames
from cval_torch.report.gallery import contact_sheet
from cval_torch.report.html import report

__all__ = ["ChosenFrames", "contact_sheet", "report"]
