"""Files of the outside world: which image an annotation file means."""

from cval_torch.formats.matching import PathMatches, match_paths

__all__ = ["PathMatches", "match_paths"]
