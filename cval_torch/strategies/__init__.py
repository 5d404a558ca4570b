"""Strategies: plain functions on arrays and pools, and the registry that knows each by its name."""

from cval_torch.strategies.columns import needs
from cval_torch.strategies.descriptor import frame_descriptors
from cval_torch.strategies.registry import STRATEGIES, Strategy, find_strategy, names_served

__all__ = ["STRATEGIES", "Strategy", "find_strategy", "frame_descriptors", "names_served", "needs"]
