"""Tiny models of every family of transformers that is known, and one pass of the adapter over them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")

from cval_torch.hooks.base import FrameBatch  # noqa: E402
from cval_torch.hooks.recorder import Recorder, evaluating  # noqa: E402
from cval_torch.hooks.transformers import TransformersAdapter  # noqa: E402

QUERIES, CLASSES = 12, 5
SMALL = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": QUERIES,
    "num_labels": CLASSES,
}
LEVELS = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "embedding_size": 8}


def resnet(kind: Any, *stages: str) -> dict[str, Any]:
    config = kind(**LEVELS, layer_type="basic", out_features=list(stages))
    return {"backbone_config": config, "use_pretrained_backbone": False}


def plain(*stages: str) -> dict[str, Any]:
    return {**SMALL, **resnet(transformers.ResNetConfig, *stages), "use_timm_backbone": False, "backbone": None}


def hybrid() -> dict[str, Any]:
    return {
        **SMALL,
        **resnet(transformers.RTDetrResNetConfig, "stage2", "stage3", "stage4"),
        "encoder_hidden_dim": 32,
        "encoder_in_channels": [16, 16, 32],
        "decoder_in_channels": [32, 32, 32],
        "num_denoising": 0,
    }


def fine() -> dict[str, Any]:
    backbone = transformers.HGNetV2Config(
        **{**LEVELS, "hidden_sizes": [16, 16, 16, 32]},
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 16],
        stage_mid_channels=[8, 8, 8, 8],
        stage_out_channels=[16, 16, 16, 32],
        stage_num_blocks=[1, 1, 1, 1],
        stage_numb_of_layers=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )
    return {**hybrid(), "backbone_config": backbone}


def yolos() -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 32,
        "image_size": [64, 96],
        "patch_size": 16,
        "num_detection_tokens": QUERIES,
        "num_labels": CLASSES,
    }


def deim() -> dict[str, Any]:
    return {**fine(), "encoder_type": "hybrid"}


def light() -> dict[str, Any]:
    backbone = transformers.LwDetrViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_windows=4,
        window_block_indices=[0],
        out_indices=[1, 2],
    )
    return {**of_groups(), "backbone_config": backbone, "projector_scale_factors": [1.0]}


def windowed() -> dict[str, Any]:
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=60,
        patch_size=8,
        num_windows=2,
        out_features=["stage1", "stage2"],
    )
    return {**of_groups(), "backbone_config": backbone}


def of_groups() -> dict[str, Any]:
    return {
        "d_model": 32,
        "decoder_layers": 2,
        "decoder_ffn_dim": 32,
        "decoder_self_attention_heads": 4,
        "decoder_cross_attention_heads": 4,
        "num_queries": QUERIES,
        "num_labels": CLASSES,
        "group_detr": 2,
        "c2f_num_blocks": 1,
    }


def two_stage() -> dict[str, Any]:
    levels = plain("stage2", "stage3", "stage4")
    return {**levels, "two_stage": True, "with_box_refine": True, "two_stage_num_proposals": QUERIES}


# Of each: the class, its configuration, its image processor, the last layers of its class head and of its box head.
Layer = Callable[[Any], nn.Linear]
MODELS: dict[str, tuple[str, Callable[[], dict[str, Any]], str, Layer, Layer]] = {
    name: (kind, config, processor, class_layer, box_layer)
    for name, kind, config, processor, class_layer, box_layer in [
        (
            "DETR",
            "Detr",
            lambda: plain("stage4"),
            "Detr",
            lambda m: m.class_labels_classifier,
            lambda m: m.bbox_predictor.layers[-1],
        ),
        (
            "Table Transformer",
            "TableTransformer",
            lambda: plain("stage4"),
            "Detr",
            lambda m: m.class_labels_classifier,
            lambda m: m.bbox_predictor.layers[-1],
        ),
        (
            "Conditional DETR",
            "ConditionalDetr",
            lambda: plain("stage4"),
            "ConditionalDetr",
            lambda m: m.class_labels_classifier,
            lambda m: m.bbox_predictor.layers[-1],
        ),
        (
            "DAB-DETR",
            "DabDetr",
            lambda: {**plain("stage4"), "hidden_size": 32},
            "ConditionalDetr",
            lambda m: m.class_embed,
            lambda m: m.bbox_predictor.layers[-1],
        ),
        (
            "Deformable DETR",
            "DeformableDetr",
            lambda: plain("stage2", "stage3", "stage4"),
            "DeformableDetr",
            lambda m: m.class_embed[-1],
            lambda m: m.bbox_embed[-1].layers[-1],
        ),
        (
            "two-stage Deformable DETR",
            "DeformableDetr",
            two_stage,
            "DeformableDetr",
            lambda m: m.class_embed[1],
            lambda m: m.bbox_embed[1].layers[-1],
        ),
        *(
            (
                name,
                kind,
                config,
                "RTDetr",
                lambda m: m.model.decoder.class_embed[-1],
                lambda m: m.model.decoder.bbox_embed[-1].layers[-1],
            )
            for name, kind, config in [
                ("RT-DETR", "RTDetr", hybrid),
                ("RT-DETR v2", "RTDetrV2", hybrid),
                ("D-FINE", "DFine", fine),
            ]
        ),
        (
            "DETR with masks",
            "DetrForSegmentation",
            lambda: {**plain("stage1", "stage2", "stage3", "stage4"), "encoder_attention_heads": 8},
            "Detr",
            lambda m: m.detr.class_labels_classifier,
            lambda m: m.detr.bbox_predictor.layers[-1],
        ),
        (
            "DEIMv2",
            "Deimv2",
            deim,
            "RTDetr",
            lambda m: m.model.decoder.class_embed[-1],
            lambda m: m.model.decoder.bbox_embed[-1].layers[-1],
        ),
        ("LW-DETR", "LwDetr", light, "DeformableDetr", lambda m: m.class_embed, lambda m: m.bbox_embed.layers[-1]),
        ("RF-DETR", "RfDetr", windowed, "RfDetr", lambda m: m.class_embed, lambda m: m.bbox_embed.layers[-1]),
        (
            "RF-DETR with masks",
            "RfDetrForInstanceSegmentation",
            windowed,
            "RfDetr",
            lambda m: m.model.class_embed,
            lambda m: m.model.bbox_embed.layers[-1],
        ),
        (
            "YOLOS",
            "Yolos",
            yolos,
            "Yolos",
            lambda m: m.class_labels_classifier.layers[-1],
            lambda m: m.bbox_predictor.layers[-1],
        ),
    ]
}
SOFTMAX = {"DETR", "DETR with masks", "Table Transformer", "YOLOS"}
SQUARE = {"LW-DETR", "RF-DETR", "RF-DETR with masks"}
MASKED = {*MODELS} - {"RT-DETR", "RT-DETR v2", "D-FINE", "DEIMv2", "YOLOS"}


@functools.cache
def built(name: str) -> Any:
    """A tiny model from its configuration, with scores spread over classes and queries; never changed by a test."""
    *_, class_layer, box_layer = MODELS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = made(name)
        for key, weight in model.named_parameters():  # as built, all queries are nearly one
            if weight.ndim == 2 or "detection_tokens" in key:
                fan_in = 1 if "query" in key or "detection_tokens" in key else weight.shape[-1]
                nn.init.normal_(weight, 0, fan_in**-0.5)
        spread(model, class_layer(model), padded_batch(name), mean=-1.0)
        spread(model, box_layer(model), padded_batch(name), mean=0.0)
    return model


def spread(model: nn.Module, layer: nn.Linear, batch: dict[str, Any], *, mean: float) -> None:
    """Give `layer` weights by which its outputs over the batch's queries have this mean and an sd of 2."""
    inputs: list[Tensor] = []
    with torch.no_grad(), evaluating(model):
        watch = layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, -2)))
        model(**model_inputs(batch))
        watch.remove()
        nn.init.normal_(layer.weight)
        outputs = inputs[-1] @ layer.weight.T
        sd = outputs.std(0) + 1e-6
        layer.weight.mul_((2 / sd)[:, None])
        layer.bias.copy_(mean - 2 * outputs.mean(0) / sd)


def model_inputs(batch: dict[str, Any]) -> dict[str, Tensor]:
    return {key: batch[key] for key in ("pixel_values", "pixel_mask") if key in batch}


def processor_of(name: str, **options: Any) -> Any:
    return getattr(transformers, f"{MODELS[name][2]}ImageProcessor")(**options)


def run(adapter: TransformersAdapter, model: nn.Module, images: Any) -> FrameBatch:
    with evaluating(model), torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        output = adapter.forward(model, images)
        recorder.check()
        return adapter.read(model, recorder.recording, output).settle()


def run_batch(adapter: TransformersAdapter, model: nn.Module, batch: Any) -> FrameBatch:
    parts = adapter.split(batch)
    assert parts is not None
    return run(adapter, model, parts.images)


def padded_batch(name: str) -> dict[str, Any]:
    """Three images, of which two fill a part of the batch's 64 x 96 pixels only, made from images of other sizes."""
    generator = torch.Generator().manual_seed(1)
    pixels, mask = torch.zeros(3, 3, 64, 96), torch.zeros(3, 64, 96, dtype=torch.int64)
    for row, (height, width) in enumerate([(64, 96), (32, 64), (64, 32)]):
        pixels[row, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        mask[row, :height, :width] = 1
    labels = [
        {"orig_size": torch.tensor(size), "image_id": torch.tensor([row + 40])}
        for row, size in enumerate([(640, 960), (320, 640), (100, 50)])
    ]
    batch = {"pixel_values": pixels, "labels": labels}
    return batch | ({"pixel_mask": mask} if name in MASKED else {})


def host_output(name: str, batch: dict[str, Any]) -> Any:
    model = built(name)
    with evaluating(model), torch.no_grad():
        return model(**model_inputs(batch))


def frames_of(batch: FrameBatch) -> list[dict[str, Tensor]]:
    names = ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    parts = {name: torch.split(getattr(batch, name), batch.counts.tolist()) for name in names}
    return [{name: parts[name][row] for name in names} for row in range(len(batch.counts))]


def fresh(name: str) -> Any:
    """A tiny model as it is built from its configuration, the same at every call and never used."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return made(name)


def made(name: str) -> Any:
    kind, config, *_ = MODELS[name]
    model_class = getattr(transformers, f"{kind}ForObjectDetection", None) or getattr(transformers, kind)
    return model_class(model_class.config_class(**config()))


def small_processor(name: str, **options: Any) -> Any:
    """The family's image processor, for images of about 64 x 96 pixels."""
    fixed = {"height": 64, "width": 96}
    sides = {"shortest_edge": 64, "longest_edge": 96}
    return processor_of(name, size=fixed if MODELS[name][2] == "RTDetr" else sides, **options)
