"""Zero-shot detectors of the transformers library: the classes are prompts, so they detect before anything is labeled.

Models are told by their classes' names. What of the host is leaned on: its processor, the names of the model's inputs,
and the modules in `FAMILIES`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.base import BatchParts, Call, FrameBatch, Later, Recording, Size
from cval_torch.hooks.hosts import parts_of_network, row_of
from cval_torch.hooks.queries import QueryChoice, read_queries
from cval_torch.hooks.regrouping import unit_range


@dataclass(frozen=True)
class _Family:
    """What differs between the families.

    Attributes:
        name: as a user knows it.
        head: the module that is given, or returns, the queries' last states.
        encoder: the module whose output holds the image's features; None: they are the queries' states.
        tokens: whether the logits are of the prompt's tokens, several of which are a class.
        suppressed: whether the host removes overlapping boxes of a class.
        padded: whether boxes are in units of the padded square around the image.
    """

    name: str
    head: str
    encoder: str | None = None
    tokens: bool = False
    suppressed: bool = False
    padded: bool = False


_DINO = ("class_embed.{layer}", "model.encoder", True)

FAMILIES = {
    "GroundingDinoForObjectDetection": _Family("Grounding DINO", *_DINO),
    "MMGroundingDinoForObjectDetection": _Family("MM Grounding DINO", *_DINO),
    "OwlViTForObjectDetection": _Family("OWL-ViT", "class_head"),
    "Owlv2ForObjectDetection": _Family("OWLv2", "class_head", padded=True),
    "OmDetTurboForObjectDetection": _Family("OmDet-Turbo", "decoder", "encoder", suppressed=True),
}


@dataclass
class _Output:
    """What the model answered, and the tokens of each class in the prompt."""

    result: Any
    classes: list[list[int]]


class ZeroShotAdapter:
    """Grounding DINO, MM Grounding DINO, OWL-ViT, OWLv2 and OmDet-Turbo, with your prompts as classes.

    Labels are positions in `classes`. `probabilities` are the query's independent sigmoids, one column a prompt; where
    the model scores tokens (Grounding DINO), a prompt's is that of its best token. The host's score there is that of
    the best token of all, be it a full stop. `box_embeddings` are the last state of the query, `frame_embeddings` the
    mean over the image of the encoder's output, or of the patches (OWL), without padding.

    A query is one detection, under its best prompt; see `every_class`. OmDet-Turbo's host reports each pair of a query
    and a prompt, and of overlapping boxes of a prompt the best.

    Images (C, H, W) are RGB in [0, 1], and go through the processor.

    Args:
        processor: the model's own, such as `AutoProcessor.from_pretrained(checkpoint)`.
        classes: the prompts, such as `["a cat", "a remote control"]`.
        threshold: keep detections that score above this, in [0, 1). Low on purpose: what the detector is unsure of is
            what selection looks for.
        top_k: most detections a frame, highest scores first, before overlapping ones are removed.
        every_class: whether a query may be several detections, under each prompt above the threshold.
        iou: of two boxes of a prompt that overlap more than this, in (0, 1], the higher score stays; OmDet-Turbo only.

    Raises:
        InvalidInputError: an option out of its range, no prompts, or an empty or repeated one.
    """

    name = "zero-shot detectors"

    def __init__(
        self,
        processor: Any,
        classes: Sequence[str],
        *,
        threshold: float = 0.05,
        top_k: int = 100,
        every_class: bool = False,
        iou: float = 0.5,
    ) -> None:
        self.choice = QueryChoice(threshold, top_k, every_class)
        if not callable(processor) or not hasattr(processor, "tokenizer"):
            raise InvalidInputError(f"`processor` must be the model's processor; got {type(processor).__name__}")
        if isinstance(classes, str) or not classes:
            raise InvalidInputError(f"`classes` must be a list of prompts; got {classes!r}")
        cleaned = [str(prompt).strip() for prompt in classes]
        if not all(cleaned) or len(set(cleaned)) < len(cleaned):
            raise InvalidInputError(f"`classes` must be prompts that differ, none of them empty; got {list(classes)}")
        if not 0 < iou <= 1:
            raise InvalidInputError(f"`iou` must be in (0, 1]; got {iou}")
        self.processor, self.classes, self.iou = processor, tuple(cleaned), iou

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is of one of `FAMILIES`, or of a class derived from one."""
        return _family_of(model) is not None

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """What has the queries' states, and the encoder.

        Raises:
            HookError: the model does not have them where its family has them.
        """
        family = _known(model)
        layer = getattr(model.config, "decoder_layers", 1) - 1
        places = {"head": family.head.format(layer=layer)}
        if family.encoder is not None:
            places["encoder"] = family.encoder
        return parts_of_network(model, places, built_as=f"{family.name} is")

    def split(self, batch: Any) -> BatchParts | None:
        """None: batches are ordinary ones.

        Raises:
            InvalidInputError: a batch of a processor, which has prompts of its own.
        """
        if isinstance(batch, Mapping) and "pixel_values" in batch:
            raise InvalidInputError(
                "a ZeroShotAdapter takes plain images (C, H, W), and makes the processor's batches itself, with its "
                "prompts"
            )
        return None

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> _Output:
        """The images and the prompts through the processor and the model, once.

        Raises:
            InvalidInputError: the prompts have more tokens than the model takes, or one has a full stop in it.
        """
        family, device = _known(model), images[0].device
        if family.tokens and any("." in prompt for prompt in self.classes):
            raise InvalidInputError(f"`classes` must be prompts without full stops; got {list(self.classes)}")
        made = self.processor(
            images=[unit_range(image) if _on_device(self.processor) else unit_range(image).cpu() for image in images],
            text=[list(self.classes)] * len(images),
            images_kwargs={"do_rescale": False, "input_data_format": "channels_first"},
            return_tensors="pt",
        )
        given = {key: value.to(device) for key, value in made.items() if isinstance(value, Tensor)}
        given["pixel_values"] = given["pixel_values"].to(next(model.parameters()).dtype)
        classes = self._tokens(model, given["input_ids"][0].tolist()) if family.tokens else []
        with _nothing_remembered(model):
            return _Output(model(**given, return_dict=True), classes)

    def read(self, model: nn.Module, recording: Recording, output: _Output) -> FrameBatch:
        """The best queries of each frame, boxes in pixels of the loader's images and clipped to them."""
        family, result = _known(model), output.result
        head = recording["head"][-1]
        if family.suppressed:
            logits, boxes = result["decoder_class_logits"], result["decoder_coord_logits"]
            states, recorded = head.output["last_hidden_state"], head.output["decoder_classes"][-1]
        elif family.tokens:
            logits, boxes = result["logits"], result["pred_boxes"]
            states, recorded = head.kwargs["vision_hidden_state"], head.output
        else:
            logits, boxes = result["logits"], result["pred_boxes"]
            states, recorded = head.args[0], head.output[0]
        told_by = logits
        if family.tokens:
            logits = torch.stack([logits[..., tokens].amax(-1) for tokens in output.classes], dim=-1)
        sizes = recording.sizes or []
        encoder = recording["encoder"][-1] if "encoder" in recording else None
        return read_queries(
            logits,
            boxes,
            states,
            sizes,
            activation="sigmoid",
            choice=self.choice,
            recorded=recorded,
            told_by=told_by,
            units=[(max(size), max(size)) for size in sizes] if family.padded else None,
            iou=self.iou if family.suppressed else None,
            frame_embeddings=Later(lambda: _frame_vectors(family, encoder, states, sizes)),
        )

    def _tokens(self, model: Any, ids: list[int]) -> list[list[int]]:
        """The positions of each class's tokens in the prompt, where a full stop ends each class."""
        tokenizer = self.processor.tokenizer
        stop = tokenizer.convert_tokens_to_ids(".")
        ignored = set(tokenizer.all_special_ids)
        found: list[list[int]] = [[]]
        for place, token in enumerate(ids):
            if token == stop:
                found.append([])
            elif token not in ignored:
                found[-1].append(place)
        found.pop()
        if len(ids) > model.config.max_text_len:
            raise InvalidInputError(
                f"`classes` have {len(ids)} tokens; this model takes {model.config.max_text_len}. Detect them in parts"
            )
        if len(found) != len(self.classes) or not all(found):
            raise InvalidInputError(
                f"`classes` must be prompts that the tokenizer has words for; got {list(self.classes)}"
            )
        return found


@contextmanager
def _nothing_remembered(model: Any) -> Iterator[None]:
    """Hide what OmDet-Turbo remembers of prompts: that may be of other weights, or of another precision."""
    names = [name for name in ("language_cache_class", "language_cache_prompt") if hasattr(model, name)]
    before = {name: getattr(model, name) for name in names}
    for name, cache in before.items():
        setattr(model, name, type(cache)(cache.capacity))
    try:
        yield
    finally:
        for name, cache in before.items():
            setattr(model, name, cache)


def _family_of(model: nn.Module) -> _Family | None:
    return row_of(model, "transformers", FAMILIES)


def _known(model: Any) -> _Family:
    family = _family_of(model)
    if family is None:
        raise InvalidInputError(f"`model` must be one of {', '.join(FAMILIES)}; got {type(model).__name__}")
    return family


def _on_device(processor: Any) -> bool:
    images = processor.image_processor
    return getattr(images, "backend", None) == "torchvision" or bool(getattr(images, "is_fast", False))


def _frame_vectors(family: _Family, encoder: Call | None, states: Tensor, sizes: Sequence[Size]) -> Tensor:
    """(N, D), the mean of the image's features over what is no padding."""
    if encoder is None:  # OWL: the queries are patches of a square
        side = math.isqrt(states.shape[1])
        cells = states.float().reshape(len(states), side, side, -1)
        if not family.padded:
            return cells.mean(dim=(1, 2))
        shares = [(height / max(height, width), width / max(height, width)) for height, width in sizes]
        reached = [(math.ceil(side * down), math.ceil(side * across)) for down, across in shares]
        frames = zip(cells, reached, strict=True)
        return torch.stack([frame[:down, :across].mean((0, 1)) for frame, (down, across) in frames])
    if family.suppressed:
        last: Tensor = encoder.output["extracted_states"][-1]  # one map a level, the coarsest last
        return last.float().mean((2, 3))
    tokens: Tensor = encoder.output["last_hidden_state_vision"].float()
    valid: Tensor = ~encoder.kwargs["vision_attention_mask"]  # the mask is True where there is padding
    weights = valid.to(tokens.dtype)[..., None]
    means: Tensor = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1)
    return means
