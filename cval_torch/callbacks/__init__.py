"""Active learning within a training loop: a callback that knows no framework, and thin shells for those that exist.

The shells are `lightning.LightningSampler`, `transformers.TransformersSampler` and `ultralytics.UltralyticsSampler`,
each in a module of its own that imports its framework: nothing here does.
"""

from cval_torch.callbacks.loop import SamplerCallback
from cval_torch.callbacks.schedules import AtEpochs, EveryEpochs, Schedule, WhenStalled

__all__ = ["AtEpochs", "EveryEpochs", "SamplerCallback", "Schedule", "WhenStalled"]
