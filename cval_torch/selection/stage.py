"""`DetectionSampling`: what one stage of a selection is to do. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator

from cval_torch.errors import callable_name, dotted_name

BboxSelectionPolicy = Literal["min", "max", "mean", "sum"]
SortStrategy = Literal["ascending", "descending"]
NullPolicy = Literal["protocol", "skip", "last", "sample"]

CategoryId = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Weight = Annotated[FiniteFloat, Field(ge=0)]
ClassWeights = dict[CategoryId, Weight]

NumOfBoxes = Annotated[FiniteFloat, Field(gt=0)]
NumOfMinutes = Annotated[FiniteFloat, Field(gt=0)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
MinDistance = Annotated[FiniteFloat, Field(gt=0, le=2.12)]
ClassQuotas = Annotated[dict[CategoryId, Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1)]

BUDGETS = ("num_of_boxes", "num_of_minutes")
"""Fields of a stage that bound what its choice may cost."""

CONSTRAINTS = (*BUDGETS, "seconds_per_frame", "seconds_per_box", "min_distance", "class_quotas")
"""Fields of a stage that bound what it may choose; None leaves it free."""

SECONDS_PER_FRAME = 7.8
"""What a frame takes beside its boxes: to see that no object is left without one.

The median of the coverage verification in Su, Deng and Fei-Fei, "Crowdsourcing Annotations for Visual Object
Detection", AAAI workshop on human computation 2012.
"""

SECONDS_PER_BOX = 25.5
"""What a box takes to draw: the median of the same study. By clicks on the four extreme points of an object it is 7
(Papadopoulos et al., "Extreme clicking for efficient object annotation", ICCV 2017)."""


class Payload(BaseModel):
    """What all payloads share: fields are checked when set, and floats are finite."""

    model_config = ConfigDict(extra="ignore", validate_assignment=True, allow_inf_nan=False)


class Scoring(Payload):
    """The fields of a stage that say how frames are compared. `DetectionSampling` documents each of them."""

    selection_strategy: str | Callable[..., Any]
    bbox_selection_policy: BboxSelectionPolicy | Callable[..., Any] | None = None
    sort_strategy: SortStrategy | None = None
    probs_weights: list[Weight] | None = None
    class_weights: ClassWeights | Literal["balanced"] | None = None
    use_null_detections: bool = True
    null_policy: NullPolicy = "protocol"
    num_of_clusters: Annotated[int, Field(lt=2**31)] = -1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("num_of_clusters")
    @classmethod
    def _check_num_of_clusters(cls, value: int) -> int:
        if value != -1 and value < 1:
            raise ValueError(f"`num_of_clusters` must be -1 (choose) or at least 1; got {value}")
        return value

    @field_validator("class_weights", mode="before")
    @classmethod
    def _check_class_weights(cls, value: object) -> object:
        if isinstance(value, str) and value != "balanced":
            raise ValueError(f"`class_weights` must be weights by label, or 'balanced'; got {value!r}")
        return value

    @property
    def name(self) -> str:
        """What to call the stage in a message: its strategy."""
        strategy = self.selection_strategy
        return strategy if isinstance(strategy, str) else callable_name(strategy)

    @property
    def descending(self) -> bool:
        """Whether high frame scores come first, with the default of `sort_strategy` resolved."""
        if self.sort_strategy is None:
            return self.selection_strategy != "probability"
        return self.sort_strategy == "descending"


class DetectionSampling(Scoring):
    """One stage of a selection: how frames are scored or spread, and how many are kept.

    Attributes:
        num_of_samples: frames to keep, at least 1. Asking for more than there are keeps all, with a warning. May be
            None where `num_of_boxes` or `num_of_minutes` is given.
        num_of_boxes: a budget in boxes, above 0, in process or at a server of one's own: what annotation costs. A
            frame costs the sum of its boxes' scores, which is the number of objects to be expected in it whatever the
            detector's score threshold, or, in a pool without scores, the number of its boxes. With `num_of_samples`
            too, whichever is reached first ends the choice. One frame is kept at least, with a warning if it alone
            costs more. Frames without boxes cost nothing, so no budget ends with them: set `null_policy`, or
            `num_of_samples` too.

            - Stages that rank, and `random`: frames are kept by rank up to the first one that would exceed the
              budget. It is not passed over for cheaper ones: those would be the emptier frames.
            - Diversity: so many frames that their choice costs no more than the budget, and that of one more frame
              does, found by bisection. The choice of a larger number is another choice and may cost less, so this
              need not be the largest number that fits.
        num_of_minutes: a budget in minutes of annotation, above 0, in process or at a server of one's own. A frame
            takes `seconds_per_frame`, and `seconds_per_box` for each box that is to be expected in it, as
            `num_of_boxes` counts them. So a frame without boxes takes time, too. All else is as with `num_of_boxes`;
            with several budgets, whichever is reached first ends the choice.
        seconds_per_frame: for `num_of_minutes`: what it takes to open a frame and to see that nothing is left to draw,
            0 or more. None means 7.8, the median that Su, Deng and Fei-Fei (2012) measured.
        seconds_per_box: for `num_of_minutes`: what a box takes, 0 or more. None means 25.5, the median of the same
            study for drawing one. Papadopoulos et al. (2017) measured 7 for clicks on an object's four extreme points.
        min_distance: no two of the frames kept, and none of them and a labeled one, are nearer than this, in process or
            at a server of one's own: above 0, at most 2.12, Euclidean, between `frame_descriptors`. 0 is between
            copies, 1.41 between two that look alike in nothing; how far apart the near-duplicates of a video are
            depends on the detector. Stages that rank, and `random`, pass over a frame that is too near one before it.
            Diversity chooses among frames that were thinned like this, the most informative by an earlier stage
            first, then by id. Frames that a `null_policy` sets apart keep the distance from all others. The number
            asked for is kept all the same: if too few are that far apart, those passed over fill the choice up, by
            rank, after the others, with a warning; a batch of the size that was ordered is worth more than a rule
            kept to the letter.
        class_quotas: by label, how many of the frames kept are to show that class at least, in process or at a server
            of one's own. A frame shows a class if the scores of its boxes of that class add up to 0.5 or more: then
            an object of it may be expected. Without scores one box is enough. The frames for the rarest class (in
            the frames that the stage chooses among) are kept first, by rank, up to its quota; what the others show
            is counted; then come those of any class. The order of the result is by rank as ever; `auto` gives the
            frames in the order in which it takes them. If there are too few such frames, or `num_of_samples` or a
            budget ends the choice before, that is a warning. Not for diversity but `auto`: its other choices are of
            all frames together.
        selection_strategy: a name: an uncertainty (`least`, `margin`, `ratio`, `entropy`), `probability`, `clustering`,
            `hierarchical`; or, in process and at a server of one's own, `random`, `k_center`, `weighted_kmeans`,
            `kmeans_plus_plus`, `typicality`, `facility_location`, of which some weigh frames by the scores of an
            earlier stage, and, on the boxes of each frame, `ppal`, `diverse_prototypes` and `class_gain` (as `auto`:
            our recipe for when nothing speaks for another); or, in process only, a callable: `Pool -> (F,)` frame
            scores, higher = more informative.
        bbox_selection_policy: how the scores of a frame's boxes become the frame's: `min`, `max`, `mean`
            or `sum`, or, in process only, a callable `(box_scores (B,), offsets (F+1,)) -> (F,)`.
            None means `max`: one uncertain box is reason enough to look, and crowded frames are not favoured.
        sort_strategy: `ascending` or `descending` by frame score. None means the most informative first:
            `descending`, and for `probability`, where a sure box is the least informative, `ascending`.
        use_null_detections: whether frames without boxes take part (as one box of score 0.5 for
            `least`, `margin`, `ratio` and `entropy`, of score 0 for `probability`; by the whole frame's
            embedding for diversity). If False such a frame is an error.
        null_policy: what becomes of frames without boxes ("null detections"), in process or at a server of
            one's own. Of a real pool they may be a third or more.

            - `protocol`: they take part as the protocol has it (see `use_null_detections`). Uncertain as can
              be by `least`, `margin`, `ratio` and `entropy`, so with `max` they come before nearly everything:
              good while the detector misses most objects, else a budget spent on empty images.
            - `skip`: never chosen. The choice may be smaller than asked for. Objects that the detector does
              not see at all are never annotated.
            - `last`: chosen only when frames with boxes run out, by frame id.
            - `sample`: they get a share of the budget equal to their share of the frames, drawn at random by
              `seed`, and rank after the others: the misses among them are found in proportion.
        num_of_clusters: for `hierarchical` and `clustering`; -1 chooses it (by silhouette, and as
            `num_of_samples`, in turn).
        probs_weights: for `entropy` on probabilities: a non-negative weight for each of their columns, a factor for
            its term of the sum, whatever class the box is of; the protocol has it. To make boxes of some classes
            count for more than others, `class_weights` is what is wanted.
        class_weights: for `least`, `margin`, `ratio` and `entropy`, in process or at a server of one's own: the
            non-negative weight by which the uncertainty of a box is multiplied before the boxes of a frame are
            aggregated, by its label; labels not listed weigh 1, and so does the one box that a frame without boxes
            counts as. `"balanced"`, in process: from the class counts of what is annotated, which `LocalBackend`
            is given (see `balanced_class_weights`).
        seed: of every random choice in the stage. The same seed and frames give the same choice,
            whatever the order of the frames.
    """

    model_config = ConfigDict(extra="forbid")

    num_of_samples: Annotated[int, Field(ge=1, lt=2**63)] | None = None
    num_of_boxes: NumOfBoxes | None = None
    num_of_minutes: NumOfMinutes | None = Field(default=None, validate_default=True)
    seconds_per_frame: Seconds | None = None
    seconds_per_box: Seconds | None = None
    min_distance: MinDistance | None = None
    class_quotas: ClassQuotas | None = None

    @field_validator("num_of_samples", *BUDGETS)
    @classmethod
    def _check_amount(cls, value: float | None, info: ValidationInfo) -> float | None:
        amounts = {"num_of_samples", *BUDGETS} - {info.field_name}
        # a field that is not there yet is checked later
        if value is None and all(info.data.get(name, 1) is None for name in amounts):
            raise ValueError("`num_of_samples`, `num_of_boxes` or `num_of_minutes` must be given; got none of them")
        return value

    @field_validator("seconds_per_frame", "seconds_per_box")
    @classmethod
    def _check_seconds(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("num_of_minutes", 1) is None:
            raise ValueError(f"`{info.field_name}` means nothing without a budget in `num_of_minutes`")
        (other,) = {"seconds_per_frame", "seconds_per_box"} - {info.field_name}
        if value == 0 == info.data.get(other):
            raise ValueError("`seconds_per_frame` and `seconds_per_box` must not both be 0: no budget would end")
        return value

    def minutes(self, boxes: float, *, frames: int) -> float:
        """What it takes to annotate some frames, by `seconds_per_frame` and `seconds_per_box`.

        >>> DetectionSampling(selection_strategy="auto", num_of_samples=9).minutes(2, frames=10)
        2.15
        """
        per_frame = SECONDS_PER_FRAME if self.seconds_per_frame is None else self.seconds_per_frame
        per_box = SECONDS_PER_BOX if self.seconds_per_box is None else self.seconds_per_box
        return (per_frame * frames + per_box * boxes) / 60

    @property
    def budget_fields(self) -> tuple[str, ...]:
        """Those of the `BUDGETS` that are set."""
        return tuple(name for name in BUDGETS if getattr(self, name) is not None)

    @property
    def constrained(self) -> bool:
        """Whether any of the `CONSTRAINTS` is set."""
        return any(getattr(self, name) is not None for name in CONSTRAINTS)


def describe_stage(stage: DetectionSampling) -> dict[str, Any]:
    """What is set in a stage, as a dict of plain values; a callable becomes its dotted name.

    Labels that are keys become strings, as JSON has them.
    """
    described = stage.model_dump(include=set(DetectionSampling.model_fields), exclude_none=True)
    for name in ("class_weights", "class_quotas"):
        if isinstance(by_label := described.get(name), dict):
            described[name] = {str(label): value for label, value in by_label.items()}
    return {name: dotted_name(value) if callable(value) else value for name, value in described.items()}
