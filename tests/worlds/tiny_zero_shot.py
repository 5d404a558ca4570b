"""Tiny zero-shot detectors of transformers with random weights, their processors with tokenizers of a few words."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

CLASSES = ["a red cat", "dog", "remote control"]
QUERIES = 12
WORDS = ["a", "red", "cat", "dog", "remote", "control", "detect", ",", "very", "small"]


def tokenizer(special: dict[str, int], begin: str, end: str, pad: str, length: int) -> Any:
    vocabulary = {**special, **{word: 200 + place for place, word in enumerate(WORDS)}}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=pad))
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{begin} $A {end}", special_tokens=[(begin, special[begin]), (end, special[end])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, unk_token=pad, cls_token=begin, sep_token=end, model_max_length=length
    )


def bert_words() -> Any:
    """With the ids that Grounding DINO looks for."""
    return tokenizer({"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}, "[CLS]", "[SEP]", "[PAD]", 256)


def clip_words() -> Any:
    """The last token has the highest id, as models look for it."""
    return tokenizer({"<pad>": 0, "<begin>": 1, ".": 2, "<end>": 300}, "<begin>", "<end>", "<pad>", 16)


def dino(kind: str) -> tuple[Any, Any]:
    t = transformers
    text = t.BertConfig(
        vocab_size=1100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    backbone = t.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    config = getattr(t, f"{kind}Config")(
        backbone_config=backbone, text_config=text, d_model=32, encoder_layers=1, decoder_layers=2, num_queries=QUERIES,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        num_feature_levels=3, max_text_len=32,
    )  # fmt: skip
    images = t.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    return getattr(t, f"{kind}ForObjectDetection")(config), t.GroundingDinoProcessor(images, bert_words())


def owl(kind: str) -> tuple[Any, Any]:
    t = transformers
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = getattr(t, f"{kind}Config")(
        text_config={**small, "vocab_size": 301, "max_position_embeddings": 16},
        vision_config={**small, "image_size": 48, "patch_size": 8},
        projection_dim=32,
        bos_token_id=1,
        eos_token_id=300,
    )
    images = getattr(t, f"{kind}ImageProcessor")(size={"height": 48, "width": 48})
    return getattr(t, f"{kind}ForObjectDetection")(config), getattr(t, f"{kind}Processor")(images, clip_words())


def omdet() -> tuple[Any, Any]:
    t = transformers
    text = t.CLIPTextConfig(
        vocab_size=301, hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        projection_dim=48, max_position_embeddings=77, eos_token_id=300, bos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    backbone = t.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3"],
    )  # fmt: skip
    config = t.OmDetTurboConfig(
        text_config=text, backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False,
        apply_layernorm_after_vision_backbone=False, image_size=64, class_embed_dim=48, text_projection_in_dim=48,
        text_projection_out_dim=48, num_queries=QUERIES, encoder_hidden_dim=32, decoder_hidden_dim=32,
        vision_features_channels=[32, 32, 32], decoder_num_layers=2, decoder_num_heads=2, encoder_attention_heads=2,
        encoder_dim_feedforward=32, decoder_dim_feedforward=32, encoder_in_channels=[8, 16, 32], encoder_layers=1,
        task_encoder_hidden_dim=32,
    )  # fmt: skip
    images = t.DetrImageProcessor(size={"height": 64, "width": 64}, do_pad=False)
    words = clip_words()
    words.model_max_length = 77
    return t.OmDetTurboForObjectDetection(config), t.OmDetTurboProcessor(images, words)


MAKERS = {
    "Grounding DINO": lambda: dino("GroundingDino"),
    "MM Grounding DINO": lambda: dino("MMGroundingDino"),
    "OWL-ViT": lambda: owl("OwlViT"),
    "OWLv2": lambda: owl("Owlv2"),
    "OmDet-Turbo": omdet,
}


@functools.cache
def built(name: str) -> tuple[Any, Any]:
    """A model, with scores and boxes spread over queries, and its processor; never changed by a test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = MAKERS[name]()
        for key, weight in model.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, 0, weight.shape[-1] ** -0.5)
            if "query_position" in key or "reference" in key or "tgt_embed" in key:
                nn.init.normal_(weight)
        if name == "MM Grounding DINO":  # as built, all scores are low
            model.class_embed[-1].bias.data.fill_(2.0)
    return model.eval(), processor


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(3, *size, generator=generator) for size in [(64, 96), (60, 60), (96, 50)]]
