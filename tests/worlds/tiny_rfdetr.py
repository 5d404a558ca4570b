"""RF-DETR models with random weights and three layers of backbone, and one pass of the adapter over them."""

from __future__ import annotations

import functools
import logging
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    rfdetr = pytest.importorskip("rfdetr")
    from rfdetr.models.backbone import dinov2
    from rfdetr.training.module_model import RFDETRModelModule
    from rfdetr.utilities.logger import get_logger

get_logger().setLevel(logging.ERROR)  # that nothing is downloaded, and that nothing is compiled

CLASSES, QUERIES, SIDE = 5, 20, 96
OPTIONS: dict[str, Any] = {
    "pretrain_weights": None,  # nothing is downloaded
    "resolution": SIDE,
    "num_classes": CLASSES,
    "num_queries": QUERIES,
    "num_select": 30,
    "device": "cpu",
    "out_feature_indexes": [1, 2, 3],
    "dec_layers": 2,
    "group_detr": 2,
}


def shallow(name: str = "RFDETRNano", **options: Any) -> Any:
    """An object of the package with a backbone of three layers, as it is built."""
    whole = dinov2.get_config
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setattr(dinov2, "get_config", lambda *size: {**whole(*size), "num_hidden_layers": 3})
        torch.manual_seed(0)
        return getattr(rfdetr, name)(**{**OPTIONS, **options})


@functools.cache
def built(name: str = "RFDETRNano") -> Any:
    """The same with scores and boxes spread over classes and queries; never changed by a test."""
    model = shallow(name)
    spread_out(model.model.model)
    return model


def spread_out(network: Any) -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        heads = [network.class_embed, *network.transformer.enc_out_class_embed]
        heads += [head.layers[-1] for head in (network.bbox_embed, *network.transformer.enc_out_bbox_embed)]
        for head in heads:
            nn.init.normal_(head.weight, std=0.06)
        network.class_embed.bias.fill_(-1.0)
        nn.init.normal_(network.refpoint_embed.weight, std=0.5)
        nn.init.normal_(network.query_feat.weight)


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(3, *size, generator=generator) for size in [(64, 64), (40, 60), (96, 50), (150, 210)]]


def training_module(network: nn.Module) -> Any:
    """What the package's training holds, around a network."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = built().model_config
        module = object.__new__(RFDETRModelModule)
        super(RFDETRModelModule, module).__init__()
        module.model_config, module.model = config, network
    return module
