"""The payloads of the REST protocol, as pydantic models. Imports no torch.

`DetectionSampling` is also the stage of a selection pipeline, in process and over the wire alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationInfo, field_validator

UNCERTAINTY_STRATEGIES = ("least", "margin", "ratio", "entropy", "probability")
DIVERSITY_STRATEGIES = ("clustering", "hierarchical")
SERVICE_STRATEGIES = UNCERTAINTY_STRATEGIES + DIVERSITY_STRATEGIES

BboxSelectionPolicy = Literal["min", "max", "mean", "sum"]
SortStrategy = Literal["ascending", "descending"]
NullPolicy = Literal["protocol", "skip", "last", "sample"]
DatasetPart = Literal["training", "test", "validation"]

FrameId = Annotated[str, Field(min_length=1, max_length=128)]
CategoryId = Annotated[int, Field(ge=-(2**63), lt=2**63)]
ClassWeights = dict[CategoryId, Annotated[FiniteFloat, Field(ge=0)]]

NumOfBoxes = Annotated[FiniteFloat, Field(gt=0)]
MinDistance = Annotated[FiniteFloat, Field(gt=0, le=2.12)]
ClassQuotas = Annotated[dict[CategoryId, Annotated[int, Field(ge=1, lt=2**63)]], Field(min_length=1)]

CONSTRAINTS = ("num_of_boxes", "min_distance", "class_quotas")
"""Fields of a stage that bound what it may choose; None leaves it free."""


class Payload(BaseModel):
    """What all payloads share: fields are checked when set, and floats are finite."""

    model_config = ConfigDict(extra="ignore", validate_assignment=True, allow_inf_nan=False)


class BBoxScores(Payload):
    """One detected box.

    Attributes:
        category_id: class index; -1 means "no detection". A string of digits, which old clients send, is accepted.
        score: confidence, strictly between 0 and 1.
        embedding_id: names the box's embedding among those uploaded to the dataset.
        probabilities: one non-negative number a class; the distribution that uncertainty is computed from.
    """

    category_id: CategoryId | None = None
    score: Annotated[float, Field(gt=0, lt=1)] | None = None
    embedding_id: str | None = None
    probabilities: list[Annotated[FiniteFloat, Field(ge=0)]] | None = None


class FramePrediction(Payload):
    """The boxes of one frame; no boxes (an empty list or None) is a "null detection"."""

    frame_id: FrameId
    predictions: list[BBoxScores] | None = None


class Embedding(Payload):
    """One vector and its name."""

    embedding_id: str
    embedding: list[FiniteFloat]


class FrameEmbedding(Payload):
    """The named vectors of one frame."""

    frame_id: FrameId
    embeddings: list[Embedding]


class DetectionSampling(Payload):
    """One stage of a selection: how frames are scored or spread, and how many are kept.

    Attributes:
        num_of_samples: frames to keep, at least 1. Asking for more than there are keeps all, with a warning. May be
            None where `num_of_boxes` is given.
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
            is counted; then come those of any class. The order of the result is by rank as ever. If there are too few
            such frames, or `num_of_samples` or `num_of_boxes` ends the choice before, that is a warning. Not for
            diversity, whose choice is one of all frames together.
        selection_strategy: a name: an uncertainty (`least`, `margin`, `ratio`, `entropy`), `probability`, `clustering`,
            `hierarchical`; or, in process and at a server of one's own, `random`, `k_center`, `weighted_kmeans`,
            `kmeans_plus_plus`, `typicality`, `facility_location`, of which some weigh frames by the scores of an
            earlier stage, and, on the boxes of each frame, `ppal` and `diverse_prototypes`; or, in process only,
            `class_gain` (as `auto`: our recipe for when nothing speaks for another), or a callable: `Pool -> (F,)`
            frame scores, higher = more informative.
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
        dataset_id: where the embeddings are, on the wire; set by the backend.
        frames: what to choose from, on the wire; set by the backend.
    """

    num_of_samples: Annotated[int, Field(ge=1)] | None = None
    num_of_boxes: NumOfBoxes | None = Field(default=None, validate_default=True)
    min_distance: MinDistance | None = None
    class_quotas: ClassQuotas | None = None
    dataset_id: str | None = None
    num_of_clusters: int = -1
    use_null_detections: bool = True
    null_policy: NullPolicy = "protocol"
    bbox_selection_policy: BboxSelectionPolicy | Callable[..., Any] | None = None
    selection_strategy: str | Callable[..., Any]
    sort_strategy: SortStrategy | None = None
    probs_weights: list[Annotated[FiniteFloat, Field(ge=0)]] | None = None
    class_weights: ClassWeights | Literal["balanced"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    frames: list[FramePrediction] | None = None

    @field_validator("num_of_samples", "num_of_boxes")
    @classmethod
    def _check_amount(cls, value: float | None, info: ValidationInfo) -> float | None:
        other = "num_of_boxes" if info.field_name == "num_of_samples" else "num_of_samples"
        if value is None and info.data.get(other, 1) is None:  # a field that is not there yet is checked later
            raise ValueError("`num_of_samples` or `num_of_boxes` must be given; got neither")
        return value

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
    def constrained(self) -> bool:
        """Whether any of the `CONSTRAINTS` is set."""
        return any(getattr(self, name) is not None for name in CONSTRAINTS)

    @property
    def descending(self) -> bool:
        """Whether high frame scores come first, with the default of `sort_strategy` resolved."""
        if self.sort_strategy is None:
            return self.selection_strategy != "probability"
        return self.sort_strategy == "descending"


class Dataset(Payload):
    """A dataset of the service: a named place for embeddings."""

    dataset_id: str | None = None
    dataset_name: Annotated[str, Field(max_length=32)] | None = None
    dataset_description: Annotated[str, Field(max_length=256)] | None = None


class StorageConfig(Payload):
    """Where a dataset's images lie in a cloud storage that the service knows."""

    cloud_storage_id: str | None = None
    dataset_name_in_storage: str | None = None


class DatasetRequest(Payload):
    """What creates or updates a dataset; on update a null field leaves its value."""

    dataset_name: Annotated[str, Field(max_length=32)] | None = None
    dataset_description: Annotated[str, Field(max_length=256)] | None = None
    storage_config: StorageConfig | None = None


class FrameEmbeddingMeta(Payload):
    """The names of a frame's stored vectors."""

    frame_id: str
    embeddings_quantity: int
    embeddings: list[str]


class EmbeddingsMeta(Payload):
    """What an upload of embeddings stored."""

    frames_quantity: int
    frames: list[FrameEmbeddingMeta]


class Result(Payload):
    """A task of the service, finished or not.

    Attributes:
        time_start: unix seconds; `time_end` the same, None while the task runs.
        result: the chosen frame ids, in order; None, or an object with progress, while the task runs.
    """

    task_id: str
    dataset_id: str | None = None
    time_start: float
    time_end: float | None = None
    type_of_task: str = "detection"
    action: str = "sampling"
    weights: Any = None
    result: list[str] | dict[str, Any] | None = None
    queue_info: Any = None
