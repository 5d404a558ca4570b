"""`Config`: everything that a configuration file may say. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from cval_torch.selection.stage import (
    BboxSelectionPolicy,
    CategoryId,
    ClassQuotas,
    DetectionSampling,
    MinDistance,
    NullPolicy,
    NumOfBoxes,
    NumOfMinutes,
    Seconds,
    SortStrategy,
    Weight,
)

VERSION: Literal[1] = 1
Count = Annotated[int, Field(ge=1, lt=2**63)]
ExportFormat = Literal["coco", "yolo", "cvat", "label_studio", "label-studio", "csv"]
_FACTORY = "a function of yours, as `package.module:function`; it is imported and run"


def _with_underscores(value: Any) -> Any:
    """`label-studio` for `label_studio`."""
    return (
        [each.replace("-", "_") if isinstance(each, str) else each for each in value]
        if isinstance(value, list)
        else value
    )


class Section(BaseModel):
    """A part of a configuration: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class SourceConfig(Section):
    """Where the images are.

    Attributes:
        path: a folder (with the folders below it), a COCO instances file, a text file with one path a line, a video, or
            a folder of videos.
        images: the folder that the paths in a file are below. Not set: the folder of that file.
        rate: frames a second that are read of a video. Not set: 1.
        thin: leave out frames of a video that look like the one before: see `VideoFrames`. Not set: all are kept.
        tile: side in pixels of the tiles that large images are inferred in. Not set: images are inferred whole.
        overlap: pixels that neighboring tiles share.
        factory: makes your own dataset.
        args: its keyword arguments.
    """

    path: str | None = None
    images: str | None = None
    rate: Annotated[float, Field(gt=0)] | None = None
    thin: Annotated[float, Field(gt=0, le=1)] | None = None
    tile: Annotated[int, Field(ge=32)] | None = None
    overlap: Annotated[int, Field(ge=0)] = 0
    factory: str | None = Field(default=None, description=_FACTORY)
    args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> SourceConfig:
        _one_of(self.path, self.factory, "`path` or `factory`")
        if self.tile is not None and self.overlap >= self.tile:
            raise ValueError(f"`overlap` must be less than `tile`, which is {self.tile}; got {self.overlap}")
        return self


class ModelConfig(Section):
    """The detector.

    Attributes:
        path: an Ultralytics `.pt` or `.yaml` file, or the folder of a transformers model.
        builder: the name of a torchvision detector, such as `fasterrcnn_resnet50_fpn_v2`.
        checkpoint: a file with its state dict, or with one under the key `model`.
        num_classes: its classes, with the background where torchvision counts it. Not set: 91.
        factory: makes your own detector.
        args: keyword arguments of the builder or the factory.
    """

    path: str | None = None
    builder: str | None = None
    checkpoint: str | None = None
    num_classes: Count | None = None
    factory: str | None = Field(default=None, description=_FACTORY)
    args: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        _one_of(self.path, self.builder, self.factory, "`path`, `builder` or `factory`")
        for name in ("checkpoint", "num_classes"):
            if getattr(self, name) is not None and self.builder is None:
                raise ValueError(f"`{name}` is for a torchvision `builder`")
        return self


class LabeledConfig(Section):
    """What is annotated already. These frames are not chosen, and diverse choices keep away from them.

    Attributes:
        path: annotations, in any format that `load_annotations` reads; or the `labels.json` of a `LabelPool`.
        format: of the annotations. Not set: it is told from the file.
        empty: what an image without boxes is where the format does not tell.
    """

    path: str
    format: str | None = None
    empty: Literal["annotated", "unannotated"] = "unannotated"


class StageConfig(Section):
    """One stage of a selection; see `DetectionSampling`, which documents each of the fields."""

    selection_strategy: str = "auto"
    num_of_samples: Count | None = None
    num_of_boxes: NumOfBoxes | None = None
    num_of_minutes: NumOfMinutes | None = None
    seconds_per_frame: Seconds | None = None
    seconds_per_box: Seconds | None = None
    min_distance: MinDistance | None = None
    class_quotas: ClassQuotas | None = None
    bbox_selection_policy: BboxSelectionPolicy | None = None
    sort_strategy: SortStrategy | None = None
    probs_weights: list[Weight] | None = None
    class_weights: dict[CategoryId, Weight] | Literal["balanced"] | None = None
    use_null_detections: bool = True
    null_policy: NullPolicy = "protocol"
    num_of_clusters: int = -1
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    def stage(self, *, seed: int) -> DetectionSampling:
        """The stage, with a seed where the configuration has none.

        Raises:
            ValidationError: fields that do not go together.
        """
        values = self.model_dump(exclude_unset=True)
        values.setdefault("selection_strategy", "auto")
        if values.get("seed") is None:
            values["seed"] = seed
        return DetectionSampling.model_validate(values)


class ServiceConfig(Section):
    """A service that makes the choice, in place of this process. The key is in the environment's `CVAL_API_KEY`.

    Attributes:
        url: of cval.ai's REST API, or of a server of your own (`cval-torch serve`).
    """

    url: str


class OutputConfig(Section):
    """What is written.

    Attributes:
        folder: everything is written there.
        export: formats for annotators, each in a folder of its own.
        images: what happens to the image files of exports: see `ExportOptions`.
        min_score: the detector's boxes with this score or a higher one become pre-labels. Null writes none.
        report: whether to write `report.html`.
        max_frames: frames that the report shows.
        round: the number of the round, to travel along.
    """

    folder: str | None = None
    export: Annotated[list[ExportFormat], BeforeValidator(_with_underscores)] = []
    images: Literal["leave", "copy", "symlink", "hardlink", "pixels"] | None = None
    min_score: Annotated[float, Field(ge=0, le=1)] | None = 0.3
    report: bool = True
    max_frames: Count = 200
    round: Annotated[int, Field(ge=0)] | None = None


class CompareConfig(Section):
    """What `cval-torch compare` measures, on images that are labelled.

    Attributes:
        strategies: their names.
        num_of_samples: frames that each chooses.
        draws: random choices beside them.
        start: how many images are taken to be labelled from the start, drawn at random; or annotations of those.
    """

    strategies: Annotated[list[str], Field(min_length=1)] = ["auto", "entropy", "k_center"]
    num_of_samples: Count = 100
    draws: Count = 100
    start: Annotated[int, Field(ge=0)] = 0


class Config(Section):
    """Everything that a configuration file may say.

    Attributes:
        version: of this form.
        source: where the images are; a path will do.
        model: the detector; a path, or the name of a torchvision detector, will do.
        labeled: what is annotated already; a path will do.
        class_names: names of the classes by label. Not set: those that the model or the annotations have.
        stages: how frames are chosen, stage after stage.
        seed: of everything that is drawn.
        device: such as `cpu` or `cuda:0`. Not set: a GPU if there is one.
        batch: images that are inferred at a time.
        workers: processes that load images.
        imgsz: size in pixels that Ultralytics infers images at. Not set: the model's own.
        conf: the lowest score of a detection, for Ultralytics. Not set: the adapter's own.
        iou: the threshold of non-maximum suppression, for Ultralytics. Not set: the adapter's own.
        max_det: the most detections of an image, for Ultralytics. Not set: the adapter's own.
        autocast: infer with numbers of this type where that is safe.
        embedding_dtype: keep embeddings as numbers of this type.
        top_boxes: keep embeddings of so many boxes of each image, those with the highest scores. Not set: of all.
        on_error: what to do with an image that cannot be read.
        memory_limit_gb: the most memory, in GB, that may be taken for what is kept of all frames.
        service: a service that makes the choice. Not set: this process does.
        output: what is written.
        compare: what `cval-torch compare` measures.
    """

    version: Literal[1] = VERSION
    source: SourceConfig | None = None
    model: ModelConfig | None = None
    labeled: LabeledConfig | None = None
    class_names: dict[CategoryId, str] | list[str] | None = None
    stages: list[StageConfig] = []
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str | None = None
    batch: Count = 8
    workers: Annotated[int, Field(ge=0)] = 2
    imgsz: Annotated[int, Field(ge=32)] | None = None
    conf: Annotated[float, Field(ge=0, le=1)] | None = None
    iou: Annotated[float, Field(gt=0, le=1)] | None = None
    max_det: Count | None = None
    autocast: Literal["float16", "bfloat16"] | None = None
    embedding_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    top_boxes: Count | None = None
    on_error: Literal["raise", "skip"] = "skip"
    memory_limit_gb: Annotated[float, Field(gt=0)] | None = None
    service: ServiceConfig | None = None
    output: OutputConfig = OutputConfig()
    compare: CompareConfig = CompareConfig()

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        """A path in place of a section."""
        if not isinstance(value, dict):
            return value
        spelled = dict(value)
        for name in ("source", "labeled"):
            if isinstance(spelled.get(name), str):
                spelled[name] = {"path": spelled[name]}
        model = spelled.get("model")
        if isinstance(model, str):
            spelled["model"] = {"path": model} if _is_path(model) else {"builder": model}
        if isinstance(spelled.get("service"), str):
            spelled["service"] = {"url": spelled["service"]}
        return spelled

    def sampling(self) -> list[DetectionSampling]:
        """The stages, as `select` takes them.

        Raises:
            ValidationError: a stage whose fields do not go together.
        """
        return [stage.stage(seed=self.seed) for stage in self.stages]


def _one_of(*values: Any) -> None:
    *given, what = values
    if sum(value is not None for value in given) != 1:
        raise ValueError(f"exactly one of {what} must be given")


def _is_path(model: str) -> bool:
    return any(sign in model for sign in "./\\")
