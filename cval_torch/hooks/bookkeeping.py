"""What modules, models and configurations hold that does not decide what a model answers."""

from __future__ import annotations

import functools
import random
import weakref
from collections.abc import Mapping
from types import CodeType, FrameType, GeneratorType
from typing import Any

import torch
from torch import nn

from cval_torch.errors import dotted_name

_NAMES = {
    "torch.nn.modules.module.Module": {
        *nn.Module().__dict__,  # parameters, submodules, hooks and the like are read in ways of their own
        "training",  # a pass is in eval mode
        "_compiled_call_impl",  # `module.compile()`
        "_is_torch_compile", "_compile_kwargs",  # `torch.compile(module)`, and how lightning compiles
        "_is_hf_initialized", "_is_accelerate_prepared",
    },
    "torch.fx.graph_module.GraphModule": {  # its `code` is read
        "_code", "_create_node_hooks", "_deepcopy_hooks", "_erase_node_hooks", "_graph", "_lineno_map",
        "_prologue_start", "_replace_hooks", "_tracer_cls", "_tracer_extras", "meta", "shape_env",
    },
    # how transformers loads, saves and distributes a model, and where a configuration came from
    "transformers.modeling_utils.PreTrainedModel": {
        "_ep_plan", "_fsdp_plan", "_pp_plan", "_tp_plan", "_use_kernels", "_weight_conversions",
        "all_tied_weights_keys", "name_or_path", "warnings_issued",
    },
    "transformers.configuration_utils.PreTrainedConfig": {
        "_commit_hash", "_name_or_path", "architectures", "dtype", "model_type", "torch_dtype",
        "transformers_version", "use_cache", "use_pretrained_backbone", "use_timm_backbone",
    },
    "ultralytics.nn.tasks.BaseModel": {"criterion", "pt_path"},
    "lightning.pytorch.core.module.LightningModule": {"_current_fx_name", "_fabric", "_trainer"},
}  # fmt: skip
_ALSO_CALLED = {
    "transformers.configuration_utils.PretrainedConfig": "transformers.configuration_utils.PreTrainedConfig",
    "pytorch_lightning.core.module.LightningModule": "lightning.pytorch.core.module.LightningModule",
}

_TRAINING_COUNTER = "num_batches_tracked"

_OF_TRAINING = ("torchmetrics", "ultralytics.utils.loss")

# What ties a model to a process, a training or a log.
_MACHINERY = (
    *_OF_TRAINING, "_io", "_random", "_thread", "_weakref", "accelerate", "asyncio", "concurrent", "io", "lightning",
    "lightning_fabric", "logging", "multiprocessing", "numpy.random", "pytorch_lightning", "queue", "random", "socket",
    "subprocess", "tempfile", "threading", "torch._C._distributed", "torch.autograd.profiler", "torch.cuda",
    "torch.distributed", "torch.fx", "torch.optim", "torch.profiler", "torch.utils.data", "torch.utils.tensorboard",
    "tqdm", "wandb", "weakref",
)  # fmt: skip
_PASSING = (torch.Generator, random.Random, GeneratorType, FrameType, CodeType, weakref.ref, *weakref.ProxyTypes)


def deciding(owner: object, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those attributes of `owner` that may decide an answer.

    >>> deciding(nn.Dropout(0.25), vars(nn.Dropout(0.25)))
    {'p': 0.25, 'inplace': False}
    """
    names = (dotted_name(kind) for kind in type(owner).__mro__)
    kinds = {_ALSO_CALLED.get(name, name) for name in names}
    skipped = set().union(*(_NAMES[kind] for kind in kinds & _NAMES.keys()))
    found = {name: value for name, value in attributes.items() if isinstance(name, str) and name not in skipped}
    if "ultralytics.nn.tasks.BaseModel" in kinds and "args" in found:  # of a training; one is for inference, too
        args = found.pop("args")
        size = args.get("imgsz") if isinstance(args, Mapping) else getattr(args, "imgsz", None)
        found["args.imgsz"] = size
    return found


def is_counter(name: str) -> bool:
    """Whether a buffer of this name only counts the steps of a training.

    >>> is_counter("backbone.1.num_batches_tracked")
    True
    """
    return name.rpartition(".")[2] == _TRAINING_COUNTER


def is_machinery(value: object) -> bool:
    """Whether a value ties a model to a process, a training or a log: a lock, a file, a logger, a trainer, a metric.

    >>> is_machinery(torch.Generator()), is_machinery(nn.ReLU())
    (True, False)
    """
    packages = _OF_TRAINING if isinstance(value, nn.Module) else _MACHINERY  # a LightningModule may be the model
    return isinstance(value, _PASSING) or any(_is_of(kind.__module__, packages) for kind in type(value).__mro__[:-1])


@functools.cache
def _is_of(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)
