"""The strategies by kind, as the registry tells them, for tests that run over all of one kind."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cval_torch.strategies.registry import STRATEGIES, Strategy, names_served


def _functions(chosen: Callable[[Strategy], bool]) -> dict[str, Callable[..., Tensor]]:
    return {name: record.function for name, record in STRATEGIES.items() if chosen(record) and record.function}


UNCERTAINTIES = _functions(lambda record: record.sees == "distributions")
DIVERSITIES = _functions(lambda record: record.sees == "vectors")
POOL_DIVERSITIES = _functions(lambda record: record.sees in ("contents", "boxes"))
GREEDY = frozenset(name for name, record in STRATEGIES.items() if record.greedy)
ON_OBJECTS = frozenset({"ppal", "diverse_prototypes"})
IN_PROCESS = frozenset(name for name, record in STRATEGIES.items() if record.served == "in process")
KNOWN_STRATEGIES = tuple(STRATEGIES)
SERVED_STRATEGIES = names_served("own server")
UNCERTAINTY_STRATEGIES = tuple(name for name, record in STRATEGIES.items() if record.scores_boxes)
