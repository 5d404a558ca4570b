"""Detectors of the transformers library that answer with a fixed number of queries: DETR and its descendants.

Every query is a candidate. A row of the output is paired with the decoder's state of its query by its logits, see
`queries.py`. Models are told by their classes' names; of transformers only an image processor is imported, and only for
images that have not met one yet.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.base import BatchParts, Call, FrameBatch, Later, Recording, Size
from cval_torch.hooks.hosts import row_of
from cval_torch.hooks.queries import QueryChoice, read_queries
from cval_torch.hooks.regrouping import calls_of_passes, in_order, unit_range
from cval_torch.hooks.zero_shot import FAMILIES as ZERO_SHOT


@dataclass(frozen=True)
class _Family:
    """What differs between the families.

    Attributes:
        name: as a user knows it.
        softmax: whether classes compete, with a last column for "no object"; else they are independent sigmoids.
        processor: the image processor that the family's checkpoints come with.
        encoder: where the module is whose output holds the image's features.
        head: where the class head is that is given the decoder's last states; `{layer}` is the decoder's last layer.
        logits: where the module is that returns the logits of the output; None: the head itself.
        masked: whether the model is told which pixels are padding.
        square: whether its backbone looks at windows, so that images must be squares of the size it was built for.
    """

    name: str
    softmax: bool
    processor: str
    encoder: str = "model.encoder"
    head: str = "class_labels_classifier"
    logits: str | None = None
    masked: bool = True
    square: bool = False


_LAYERED = "model.decoder.class_embed.{layer}"


FAMILIES = {
    "DetrForObjectDetection": _Family("DETR", True, "DetrImageProcessor"),
    "DetrForSegmentation": _Family(
        "DETR with masks", True, "DetrImageProcessor", "detr.model.encoder", "detr.class_labels_classifier"
    ),
    "TableTransformerForObjectDetection": _Family("Table Transformer", True, "DetrImageProcessor"),
    "ConditionalDetrForObjectDetection": _Family("Conditional DETR", False, "ConditionalDetrImageProcessor"),
    "DabDetrForObjectDetection": _Family("DAB-DETR", False, "ConditionalDetrImageProcessor", head="class_embed"),
    "DeformableDetrForObjectDetection": _Family(
        "Deformable DETR", False, "DeformableDetrImageProcessor", head="class_embed.{layer}"
    ),
    "RTDetrForObjectDetection": _Family("RT-DETR", False, "RTDetrImageProcessor", head=_LAYERED, masked=False),
    "RTDetrV2ForObjectDetection": _Family("RT-DETR v2", False, "RTDetrImageProcessor", head=_LAYERED, masked=False),
    "DFineForObjectDetection": _Family(
        "D-FINE",
        False,
        "RTDetrImageProcessor",
        head=_LAYERED,
        logits="model.decoder.lqe_layers.{layer}",
        masked=False,
    ),
    "Deimv2ForObjectDetection": _Family(
        "DEIMv2",
        False,
        "RTDetrImageProcessor",
        head=_LAYERED,
        logits="model.decoder.lqe_layers.{layer}",
        masked=False,
    ),
    "LwDetrForObjectDetection": _Family(
        "LW-DETR", False, "DeformableDetrImageProcessor", encoder="model.backbone", head="class_embed", square=True
    ),
    "RfDetrForObjectDetection": _Family(
        "RF-DETR", False, "RfDetrImageProcessor", encoder="model.backbone", head="class_embed", square=True
    ),
    "RfDetrForInstanceSegmentation": _Family(
        "RF-DETR", False, "RfDetrImageProcessor", encoder="model.model.backbone", head="model.class_embed", square=True
    ),
    "YolosForObjectDetection": _Family("YOLOS", True, "YolosImageProcessor", encoder="vit", masked=False),
}


REFUSED = {
    "PPDocLayoutV2ForObjectDetection": (
        "it sorts the logits and boxes of its queries by thresholds of its own for a second network, which finds the "
        "reading order, and leaves their states unsorted; and it cannot be trained here"
    ),
}
"""By class, why a detector is not read."""


@dataclass
class _Inputs:
    """What one forward pass takes: positions in the batch, original sizes, pixels, and which of them are no padding."""

    rows: list[int]
    sizes: list[Size]
    pixels: Tensor
    mask: Tensor | None


class TransformersAdapter:
    """DETR, Conditional, Deformable and DAB-DETR, Table Transformer, RT-DETR v1 and v2, D-FINE, DEIMv2, LW-DETR,
    RF-DETR and YOLOS; of DETR and RF-DETR also the boxes of the models with masks.

    A detection is a query under its best class, so that a box is reported once; the host's own
    `post_process_object_detection` may repeat it under a second class where classes are sigmoids, and so does
    `every_class=True`. `probabilities` are the query's: a softmax whose last column is "no object" (DETR, Table
    Transformer, YOLOS), else independent sigmoids. `box_embeddings` are the decoder's last state of the query,
    `frame_embeddings` the mean of the encoder's output over the image without its padding; where the encoder has
    several maps, of the coarsest (RT-DETR, D-FINE, DEIMv2) or of all (Deformable DETR). LW-DETR and RF-DETR have no
    encoder; there it is the mean of the backbone's last map.

    A batch of an image processor (`pixel_values`, perhaps `pixel_mask` and `labels`) is taken as it is. Its boxes are
    in pixels of `labels[i]["orig_size"]`; without that, of the image as the model saw it, padding left out. Plain
    images (C, H, W), RGB in [0, 1], go through `processor` first. YOLOS is not told of padding, so there images of
    one size run together and none is padded.

    Args:
        threshold: keep queries whose best class scores above this, in [0, 1). Low on purpose: what the detector is
            unsure of is what selection looks for.
        top_k: most detections a frame, highest scores first.
        every_class: whether a query may be several detections, under each class above the threshold; see `QueryChoice`.
        processor: the image processor for plain images, such as `AutoImageProcessor.from_pretrained(checkpoint)`.
            None: the family's own with its default settings: resized to a shortest side of 800 and at most 1333,
            ImageNet statistics; for RT-DETR, D-FINE and DEIMv2 resized to 640 x 640, no statistics; for LW-DETR and
            RF-DETR stretched to the square of the backbone's configuration, ImageNet statistics.

    Raises:
        InvalidInputError: an option out of its range.
    """

    name = "transformers detectors"

    def __init__(
        self, *, threshold: float = 0.05, top_k: int = 100, every_class: bool = False, processor: Any = None
    ) -> None:
        self.choice = QueryChoice(threshold, top_k, every_class)
        if processor is not None and not callable(processor):
            raise InvalidInputError(f"`processor` must be an image processor; got {type(processor).__name__}")
        self.processor = processor

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is of one of `FAMILIES`, or of a class derived from one."""
        return _family_of(model) is not None

    def refusal(self, model: nn.Module) -> str | None:
        """Why a model of this host's is not read, for errors; None: no reason is known."""
        names = [kind.__name__ for kind in type(model).__mro__]
        if any(name in ZERO_SHOT for name in names):
            return (
                "its classes are prompts, so tell them: pass adapter=ZeroShotAdapter(processor, classes) of "
                "cval_torch.hooks.zero_shot"
            )
        return next((REFUSED[name] for name in names if name in REFUSED), None)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The encoder, whose output holds the image's features, and what makes the class logits.

        Raises:
            HookError: the model does not have them where its family has them.
        """
        family = _known(model)
        layer = _last_layer(model)
        head = family.head.format(layer=layer)
        places = {"encoder": family.encoder, "head": head, "logits": (family.logits or head).format(layer=layer)}
        return {name: _submodule(model, place, family) for name, place in places.items()}

    def split(self, batch: Any) -> BatchParts | None:
        """Read a batch of an image processor; None for a batch of another kind.

        Raises:
            InvalidInputError: `pixel_values` is no (N, C, H, W) tensor, or only some labels have an `orig_size`.
        """
        if not isinstance(batch, Mapping) or "pixel_values" not in batch:
            return None
        pixels, mask = batch["pixel_values"], batch.get("pixel_mask")
        if not isinstance(pixels, Tensor) or pixels.ndim != 4:
            got = tuple(pixels.shape) if isinstance(pixels, Tensor) else type(pixels).__name__
            raise InvalidInputError(f'`pixel_values` must be a tensor (N, C, H, W), `return_tensors="pt"`; got {got}')
        labels = batch.get("labels")
        targets = list(labels) if isinstance(labels, (list, tuple)) and len(labels) == len(pixels) else None
        sizes = _original_sizes(targets) or _unpadded_sizes(pixels, mask)
        return BatchParts({"pixel_values": pixels, "pixel_mask": mask, "sizes": sizes}, len(pixels), targets)

    def forward(self, model: nn.Module, images: Any) -> list[tuple[_Inputs, Any]]:
        """Run the model once, or once for each size where it must not see padding."""
        family = _known(model)
        if isinstance(images, Mapping):
            count = len(images["pixel_values"])
            batches = [_Inputs(list(range(count)), images["sizes"], images["pixel_values"], images["pixel_mask"])]
        else:
            batches = self._prepared(model, images)
        dtype = next(model.parameters()).dtype
        passes = []
        for inputs in batches:
            given = {"pixel_values": inputs.pixels.to(dtype), "return_dict": True}
            if family.masked and inputs.mask is not None:
                given["pixel_mask"] = inputs.mask
            passes.append((inputs, model(**given)))
        return passes

    def read(self, model: nn.Module, recording: Recording, output: list[tuple[_Inputs, Any]]) -> FrameBatch:
        """The best queries of each frame, boxes in original pixels and clipped to the image."""
        parts = [
            (inputs.rows, self._frames(model, calls, inputs, result))
            for calls, (inputs, result) in zip(calls_of_passes(recording, len(output)), output, strict=True)
        ]
        return in_order(parts)

    def _prepared(self, model: nn.Module, images: Sequence[Tensor]) -> list[_Inputs]:
        """Plain images through the processor: together where the model is told of padding or there is none."""
        family = _known(model)
        processor = self.processor or _default_processor(family, model)
        groups: dict[Size | None, list[int]] = {}
        for row, image in enumerate(images):
            size = (image.shape[-2], image.shape[-1])
            groups.setdefault(size if family.encoder == "vit" else None, []).append(row)
        batches = []
        for rows in groups.values():
            members = [unit_range(images[row]) for row in rows]
            sizes = [(image.shape[-2], image.shape[-1]) for image in members]
            made = processor(
                images=_for_backend(processor, members),
                do_rescale=False,
                input_data_format="channels_first",
                return_tensors="pt",
            )
            made = {key: value.to(members[0].device) for key, value in made.items() if isinstance(value, Tensor)}
            batches.append(_Inputs(rows, sizes, made["pixel_values"], made.get("pixel_mask")))
        return batches

    def _frames(self, model: nn.Module, calls: Mapping[str, Call], inputs: _Inputs, result: Any) -> FrameBatch:
        states, encoder = calls["head"].args[0], calls["encoder"]
        return read_queries(
            result.logits,
            result.pred_boxes,
            states,
            inputs.sizes,
            activation="softmax" if _known(model).softmax else "sigmoid",
            choice=self.choice,
            recorded=calls["logits"].output,
            frame_embeddings=Later(lambda: _frame_vectors(model, encoder, inputs, states.shape[1])),
            positions=inputs.rows,
        )


def _family_of(model: nn.Module) -> _Family | None:
    return row_of(model, "transformers", FAMILIES)


def _known(model: nn.Module) -> _Family:
    family = _family_of(model)
    if family is None:
        raise InvalidInputError(f"`model` must be one of {', '.join(FAMILIES)}; got {type(model).__name__}")
    return family


def _last_layer(model: Any) -> int:
    """The number of the decoder's layer that the output is made from. Without a decoder, 0."""
    decoder = getattr(getattr(model, "model", None), "decoder", None)
    layers = getattr(model.config, "decoder_layers", 1)
    return int(getattr(decoder, "eval_idx", layers - 1))  # D-FINE may answer with an earlier layer


def _submodule(model: nn.Module, place: str, family: _Family) -> nn.Module:
    try:
        return model.get_submodule(place)
    except AttributeError:
        raise HookError(
            f"{type(model).__name__} has no `{place}`, where {family.name} has the module that is recorded; read it by "
            "an adapter of your own (`adapter=`)"
        ) from None


def _default_processor(family: _Family, model: Any) -> Any:
    transformers = importlib.import_module("transformers")
    name = family.processor
    if int(transformers.__version__.split(".")[0]) < 5:  # there the plain name is the one that computes with numpy
        name = f"{name}Fast" if hasattr(transformers, f"{name}Fast") else name
    if not family.square:
        return getattr(transformers, name)()
    side = _side_of(model.config.backbone_config)
    return getattr(transformers, name)(size={"height": side, "width": side})


def _side_of(backbone: Any) -> int:
    """The side of the squares that a backbone was built for, rounded up to whole windows of whole patches."""
    size, patch = (
        max(value) if isinstance(value, (list, tuple)) else value
        for value in (backbone.image_size, backbone.patch_size)
    )
    windows = getattr(backbone, "num_windows_side", backbone.num_windows)  # of LW-DETR, `num_windows` counts all
    return int(math.ceil(size / (patch * windows)) * patch * windows)


def _for_backend(processor: Any, images: list[Tensor]) -> list[Tensor]:
    """Images where the processor can read them: one that computes with numpy cannot read a GPU's memory."""
    on_device = getattr(processor, "backend", None) == "torchvision" or getattr(processor, "is_fast", False)
    return images if on_device else [image.cpu() for image in images]


def _original_sizes(targets: Sequence[Any] | None) -> list[Size] | None:
    sizes = [target.get("orig_size") if isinstance(target, Mapping) else None for target in targets or ()]
    missing = [place for place, size in enumerate(sizes) if size is None]
    if len(missing) == len(sizes):
        return None
    if missing:
        raise InvalidInputError(f"either every label has an `orig_size` or none; label {missing[0]} has none")
    pairs = [tuple(int(side) for side in size) for size in sizes if size is not None]
    return [(height, width) for height, width in pairs]


def _unpadded_sizes(pixels: Tensor, mask: Tensor | None) -> list[Size]:
    if mask is None:
        return [(pixels.shape[-2], pixels.shape[-1])] * len(pixels)
    heights, widths = mask.bool().any(2).sum(1).tolist(), mask.bool().any(1).sum(1).tolist()
    return list(zip(heights, widths, strict=True))


def _frame_vectors(model: Any, call: Call, inputs: _Inputs, queries: int) -> Tensor:
    """(N, D), the mean of the encoder's output over what is no padding."""
    valid: Tensor | None = call.kwargs.get("attention_mask")  # of the flattened maps, True where an image is
    if isinstance(call.output, (list, tuple)):  # of a backbone: a map and its mask, or one such pair a level
        level, valid = call.output if isinstance(call.output[0], Tensor) else call.output[-1]
        return _mean(level.flatten(2).transpose(1, 2), valid)
    states: Any = call.output["last_hidden_state" if "last_hidden_state" in call.output else "feature_maps"]
    if isinstance(states, (list, tuple)):  # one map a level
        valid = _reduced(inputs.mask, (states[-1].shape[-2], states[-1].shape[-1]))
        states = states[-1].flatten(2).transpose(1, 2)
    elif valid is None:  # YOLOS: a class token, the patches, the queries
        patch = model.config.patch_size
        valid = _reduced(inputs.mask, (inputs.pixels.shape[-2] // patch, inputs.pixels.shape[-1] // patch))
        states = states[:, 1:-queries]
    return _mean(states, valid)


def _mean(states: Tensor, valid: Tensor | None) -> Tensor:
    """(N, D) of states (N, S, D), over those places of (N, ...) `valid` that are True; None: all."""
    features = states.float()
    if valid is None:
        return features.mean(1)
    weights = valid.flatten(1).to(features.dtype)[..., None]
    return (features * weights).sum(1) / weights.sum(1).clamp(min=1)


def _reduced(mask: Tensor | None, size: Size) -> Tensor | None:
    return None if mask is None else functional.interpolate(mask[:, None].float(), size=size)[:, 0]
