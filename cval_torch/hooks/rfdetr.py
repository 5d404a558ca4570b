"""RF-DETR, by the package `rfdetr`: its own object, the network inside, and what its training holds.

Nothing of the package is imported here. Leaned on are, of the object, `model` (with `model`, `resolution` and
`postprocess.num_select`), `means` and `stds`; of the network, `backbone`, `class_embed`, `num_queries` and the output's
`pred_logits` and `pred_boxes`; of networks with keypoints, `bbox_embed` and the second output of `transformer`, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.hooks.base import Call, FrameBatch, Later, Recording
from cval_torch.hooks.hosts import classes_of, parts_of_network
from cval_torch.hooks.queries import QueryChoice, read_queries
from cval_torch.hooks.regrouping import MEAN, STD, normalized, stretched


class RFDETRAdapter:
    """RF-DETR of every size, and the boxes of its segmentation and keypoint models.

    Takes an object such as `rfdetr.RFDETRNano`, whose `train` starts a training and is never called; the network inside
    (`model.model.model`); and the Lightning module of its training. Detections are those of `predict`, each query once:
    `predict` reports a query under each class above the threshold, and so does `every_class=True`. Labels are the class
    ids of `predict`: columns of the head, which has one more than there are classes. `probabilities` are independent
    sigmoids, one for each column. `box_embeddings` are the decoder's last state of the query, `frame_embeddings` the
    mean of the backbone's last map.

    Keypoint models have the scores of their classes. `predict` goes on to lower these where keypoints are uncertain.

    Images (C, H, W) are RGB in [0, 1]. Each is stretched to a square of `resolution`, as `predict` does.

    Args:
        threshold: keep detections that score above this, in [0, 1). Low on purpose: what the detector is unsure of is
            what selection looks for (`predict`'s own is 0.5).
        top_k: most detections a frame, highest scores first. None: as many as `predict` looks at.
        every_class: whether a query may be several detections, under each class above the threshold; see `QueryChoice`.
        resolution: side of the square in pixels. None: the object's own, or what the network was built for.
        mean: of each channel, for the normalization. None: the object's own, or ImageNet's.
        std: the same.

    Raises:
        InvalidInputError: an option out of its range.
    """

    name = "RF-DETR"

    def __init__(
        self,
        *,
        threshold: float = 0.05,
        top_k: int | None = None,
        every_class: bool = False,
        resolution: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        QueryChoice(threshold, 1 if top_k is None else top_k, every_class)  # its checks
        if resolution is not None and resolution < 1:
            raise InvalidInputError(f"`resolution` must be at least 1 pixel; got {resolution}")
        self.threshold, self.top_k, self.every_class = threshold, top_k, every_class
        self.resolution = resolution
        self.mean, self.std = (None if each is None else tuple(each) for each in (mean, std))

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is the network of an RF-DETR."""
        return "LWDETR" in classes_of(model, "rfdetr")

    def open(self, holder: Any) -> tuple[nn.Module, RFDETRAdapter] | None:
        """The network in an object of `rfdetr`, and an adapter with what that object says of images and detections.

        Raises:
            UnsupportedModelError: the object has given its network up.
        """
        if "RFDETR" not in classes_of(holder, "rfdetr"):
            return None
        held = holder.model
        if not isinstance(held.model, nn.Module):
            raise UnsupportedModelError(
                f"`model`, a {type(holder).__name__}, has no network any more, since `inference(inplace=True)` traded "
                "it for a compiled one, whose inner modules run no hooks. Make the object anew from its checkpoint"
            )
        adapter = RFDETRAdapter(
            threshold=self.threshold,
            top_k=held.postprocess.num_select if self.top_k is None else self.top_k,
            every_class=self.every_class,
            resolution=held.resolution if self.resolution is None else self.resolution,
            mean=holder.means if self.mean is None else self.mean,
            std=holder.stds if self.std is None else self.std,
        )
        return held.model, adapter

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The backbone, and the class head, which is given the decoder's states.

        Raises:
            HookError: the network does not have them.
        """
        names = ["backbone", "class_embed"]
        if getattr(model, "use_grouppose_keypoints", False):
            names += ["bbox_embed", "transformer"]
        return parts_of_network(model, {name: name for name in names}, built_as="RF-DETR's networks are")

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Any:
        """Stretch and normalize the images, and run the network once."""
        side = self.resolution or _built_for(model)
        batch = normalized(stretched(images, (side, side)), self.mean or MEAN, self.std or STD)
        return model(batch.to(next(model.parameters()).dtype))

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        """The best queries of each frame, boxes in pixels of the loader's images and clipped to them."""
        head = recording["class_embed"][-1]
        logits, boxes = _columns(output)
        recorded, told_by = head.output[-1], logits
        if "bbox_embed" in recording:  # keypoints change the logits after the class head, but not the boxes
            recorded, told_by = _boxes_of(model, recording["bbox_embed"][-1], recording["transformer"][-1]), boxes
        last_map: Tensor = recording["backbone"][-1].output[0][-1].tensors
        queries: Any = model.num_queries if self.top_k is None else self.top_k
        return read_queries(
            logits,
            boxes,
            head.args[0][-1],
            recording.sizes,
            activation="sigmoid",
            choice=QueryChoice(self.threshold, queries, self.every_class),
            recorded=recorded,
            told_by=told_by,
            frame_embeddings=Later(lambda: last_map.float().mean((2, 3))),
        )


def _built_for(model: nn.Module) -> int:
    """The side of the square images that the network was built for."""
    backbone: Any = model.get_submodule("backbone.0.encoder")
    shape = getattr(backbone, "shape", None)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise HookError(
            "this network does not say for what size it was built; pass adapter=RFDETRAdapter(resolution=...), or the "
            "object of `rfdetr` that holds it"
        )
    return int(shape[0])


def _columns(output: Any) -> tuple[Tensor, Tensor]:
    if not isinstance(output, dict) or not {"pred_logits", "pred_boxes"} <= output.keys():
        got = sorted(output) if isinstance(output, dict) else type(output).__name__
        raise HookError(f"an RF-DETR must answer with a dict of `pred_logits` and `pred_boxes`; got {got}")
    return output["pred_logits"], output["pred_boxes"]


def _boxes_of(model: Any, head: Call, transformer: Call) -> Tensor:
    """(N, Q, 4), the boxes of the decoder's queries, as the network computes them from its box head's output."""
    deltas: Tensor = head.output[-1]
    references: Tensor = transformer.output[1][-1]
    if not model.bbox_reparam:
        return (deltas + references).sigmoid()
    centres = deltas[..., :2] * references[..., 2:] + references[..., :2]
    return torch.cat([centres, deltas[..., 2:].exp() * references[..., 2:]], dim=-1)
