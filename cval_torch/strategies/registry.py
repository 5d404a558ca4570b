"""Every strategy, one record each: the only place that knows a strategy by its name.

A new strategy is one file with its function, one row in `STRATEGIES`, and one test. Backends, checks, the server and
`compare` ask the record; nothing else has to be told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from cval_torch.errors import InvalidInputError, callable_name
from cval_torch.strategies.class_gain import class_gain
from cval_torch.strategies.clustering import clustering
from cval_torch.strategies.columns import (
    CONFIDENCES,
    DESCRIBED,
    EMBEDDINGS,
    OBJECTS,
    UNCERTAIN,
    UNCERTAIN_CLASSES,
    UNCERTAIN_OBJECTS,
    Needs,
    columns_needed,
)
from cval_torch.strategies.diverse_prototypes import diverse_prototypes
from cval_torch.strategies.facility_location import facility_location
from cval_torch.strategies.hierarchical import hierarchical
from cval_torch.strategies.k_center import k_center
from cval_torch.strategies.kmeans_plus_plus import kmeans_plus_plus
from cval_torch.strategies.ppal import ppal
from cval_torch.strategies.scores import entropy, least, margin, ratio
from cval_torch.strategies.typicality import typicality
from cval_torch.strategies.weighted_kmeans import weighted_kmeans

Sees = Literal["distributions", "confidences", "vectors", "contents", "boxes", "pool", "nothing"]
Served = Literal["cval.ai", "own server", "in process"]


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """What there is to know of a strategy.

    Attributes:
        name: the wire string.
        sees: what `function` is given, and so what it gives.

            - `distributions`: (B, n) class distributions or (B,) confidences, to (B,) uncertainties.
            - `confidences`: nothing; the confidences of the boxes are their scores, and there is no function.
            - `vectors`: (N, D), one vector a frame, and how many to choose; to (n,) rows in rank order.
            - `contents`: `Contents`, which are made of each frame's own boxes, and how many to choose; to (n,) rows.
              It also takes `labeled_counts`, the annotated objects by label, or None.
            - `boxes`: a `Pool`, and how many to choose; to (n,) rows in rank order.
            - `pool`: a `Pool`; to (F,) frame scores. This is a user's callable.
            - `nothing`: it draws at random, and there is no function.
        function: the strategy itself. One that chooses rows also takes `seed`, `labeled` (what is annotated already)
            and `weights` (how informative each frame is), and may leave them unused.
        needs: the columns that it cannot do without.
        reads: all columns that it looks at, where they are there. A pass need not keep others for it.
        served: the smallest place that has it: cval.ai and every server, a server of one's own, or this process only.
        greedy: whether its choice of n rows begins with its choice of fewer.
        takes_points: under `vectors`, whether `function` takes any `Points`, of which it holds some rows at a time.
            Else it is given a tensor of all rows, which takes as much memory.
        takes_clusters: whether it takes `num_of_clusters`.
        knows_labeled: whether it stays away from frames that are annotated already.
        takes_quotas: of a strategy that is no ranking, whether `function` takes `quotas`: pairs of a (N,) bool and how
            many of these frames to choose before any others.
    """

    name: str
    sees: Sees
    function: Callable[..., Tensor] | None = None
    needs: Needs = ()
    reads: tuple[str, ...] = ()
    served: Served = "own server"
    greedy: bool = False
    takes_points: bool = False
    takes_clusters: bool = False
    knows_labeled: bool = False
    takes_quotas: bool = False

    @property
    def reads_probabilities(self) -> bool:
        """Whether it reads the class vectors of boxes, where there are some."""
        return "probabilities" in self.reads

    @property
    def scores_frames(self) -> bool:
        """Whether it gives each frame a score, by which frames are ranked."""
        return self.sees in ("distributions", "confidences", "pool")

    @property
    def scores_boxes(self) -> bool:
        """Whether a frame's score is made of its own boxes' scores and nothing else."""
        return self.sees in ("distributions", "confidences")

    @property
    def reads_embeddings(self) -> bool:
        """Whether it looks at embeddings of boxes or frames."""
        return "box_embeddings" in self.reads or "frame_embeddings" in self.reads

    @property
    def is_diversity(self) -> bool:
        """Whether it chooses frames that differ, all of them together, by their embeddings."""
        return self.sees in ("vectors", "contents", "boxes")

    @property
    def keeps_quotas(self) -> bool:
        """Whether a stage with it may have `class_quotas`."""
        return self.takes_quotas or not self.is_diversity

    def box_scores(self, values: Tensor) -> Tensor:
        """(B,) scores of boxes from (B, n) class distributions or (B,) confidences. Needs `scores_boxes`."""
        return values if self.function is None else self.function(values)


def _uncertainty(name: str, function: Callable[[Tensor], Tensor]) -> Strategy:
    return Strategy(
        name=name,
        sees="distributions",
        function=function,
        needs=UNCERTAIN,
        reads=("scores", "probabilities"),
        served="cval.ai",
    )


_CLASS_GAIN = Strategy(
    name="class_gain",
    sees="contents",
    function=class_gain,
    needs=UNCERTAIN_CLASSES,
    reads=("labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"),
    greedy=True,
    knows_labeled=True,
    takes_quotas=True,
)

# What the strategies share that see one vector a frame.
_OF_VECTORS = Strategy(
    name="", sees="vectors", takes_points=True, needs=EMBEDDINGS, reads=DESCRIBED, knows_labeled=True
)

_RECORDS = (
    _uncertainty("least", least),
    _uncertainty("margin", margin),
    _uncertainty("ratio", ratio),
    _uncertainty("entropy", entropy),
    Strategy(name="probability", sees="confidences", needs=CONFIDENCES, reads=("scores",), served="cval.ai"),
    replace(_OF_VECTORS, name="clustering", function=clustering, served="cval.ai", takes_clusters=True),
    replace(_OF_VECTORS, name="hierarchical", function=hierarchical, served="cval.ai", takes_clusters=True),
    replace(_OF_VECTORS, name="k_center", function=k_center, greedy=True),
    replace(_OF_VECTORS, name="weighted_kmeans", function=weighted_kmeans),
    replace(_OF_VECTORS, name="kmeans_plus_plus", function=kmeans_plus_plus, knows_labeled=False),
    replace(_OF_VECTORS, name="typicality", function=typicality),
    replace(_OF_VECTORS, name="facility_location", function=facility_location, greedy=True),
    replace(_CLASS_GAIN, name="auto"),  # the recipe that needs the fewest labels in our experiments; it may change
    _CLASS_GAIN,
    Strategy(name="ppal", sees="boxes", function=ppal, needs=OBJECTS, reads=DESCRIBED, knows_labeled=True),
    Strategy(
        name="diverse_prototypes",
        sees="boxes",
        function=diverse_prototypes,
        needs=UNCERTAIN_OBJECTS,
        reads=("labels", "scores", "probabilities", "box_embeddings"),
        knows_labeled=True,
    ),
    Strategy(name="random", sees="nothing"),
)

STRATEGIES: dict[str, Strategy] = {record.name: record for record in _RECORDS}
"""By wire name."""


def find_strategy(strategy: str | Callable[..., Any]) -> Strategy:
    """The record of a strategy: a name, or a user's callable `Pool -> (F,)` scores.

    Raises:
        InvalidInputError: no strategy has this name.

    >>> find_strategy("ppal").sees
    'boxes'
    """
    if callable(strategy):
        name, reads = callable_name(strategy), columns_needed(strategy)
        return Strategy(name=name, sees="pool", function=strategy, reads=reads, served="in process")
    if strategy not in STRATEGIES:
        raise InvalidInputError(
            f"`selection_strategy` must be a callable or one of {', '.join(STRATEGIES)}; got {strategy!r}"
        )
    return STRATEGIES[strategy]


def names_served(by: Served = "in process") -> tuple[str, ...]:
    """The names that can be run in a place: by cval.ai, by a server of one's own, or in process (all of them).

    >>> names_served("cval.ai")
    ('least', 'margin', 'ratio', 'entropy', 'probability', 'clustering', 'hierarchical')
    """
    places: tuple[Served, ...] = ("cval.ai", "own server", "in process")
    have = places[: places.index(by) + 1]
    return tuple(name for name, record in STRATEGIES.items() if record.served in have)
