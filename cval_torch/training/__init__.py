"""Active learning within a training loop: a callback that knows no framework, and thin shells for those that exist.

The shells are `lightning.LightningSampler`, `transformers.TransformersSampler` and `ultralytics.UltralyticsSampler`,
each in a module of its own that imports its framework: nothing here does.
"""

from cval_torch.training.annotate import Annotated
from cval_torch.training.class_difficulty import ClassDifficulty
from cval_torch.training.found import FoundFrames, found_in
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import GainForecast, LearningCurve
from cval_torch.training.loggers import RoundLogger, as_round_logger
from cval_torch.training.rounds import Round
from cval_torch.training.sampler import SamplerCallback
from cval_torch.training.schedules import AtEpochs, EveryEpochs, Schedule, WhenStalled
from cval_torch.training.training_set import TrainingSet

__all__ = [
    "Annotated",
    "AtEpochs",
    "ClassDifficulty",
    "EveryEpochs",
    "FoundFrames",
    "GainForecast",
    "LabelPool",
    "LearningCurve",
    "Round",
    "RoundLogger",
    "SamplerCallback",
    "Schedule",
    "TrainingSet",
    "WhenStalled",
    "as_round_logger",
    "found_in",
]
