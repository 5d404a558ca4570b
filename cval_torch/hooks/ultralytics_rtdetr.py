"""Ultralytics' RT-DETR: every query with its class probabilities and the decoder's state.

Nothing of Ultralytics is imported here. Leaned on are the head's `dec_score_head`, `decoder.eval_idx` and `input_proj`,
and the raw boxes and logits that the network returns beside its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from cval_torch.errors import HookError
from cval_torch.hooks.base import FrameBatch, Later, Recording
from cval_torch.hooks.queries import QueryChoice, read_queries
from cval_torch.hooks.regrouping import stretched
from cval_torch.hooks.ultralytics import head_of, host_classes, trained_size, two_sides, wrapped_network


class UltralyticsRTDETRAdapter:
    """RT-DETR as Ultralytics has it: an `ultralytics.RTDETR`, its network, or the copy that a training averages.

    Detections are those of the host's `predict`, each query once: the host reports a query under each class above the
    threshold, and so does `every_class=True`. `probabilities` are the query's independent sigmoids, `box_embeddings`
    the decoder's last state of it, `frame_embeddings` the mean of the neck's coarsest map.

    Images (C, H, W) are RGB in [0, 1]. Each is stretched to `imgsz`, as the host does; its resize rounds to whole grey
    levels.

    Args:
        conf: keep detections above this score, in [0, 1). Low on purpose (the host's 0.25 hides most of them).
        max_det: most detections a frame, highest scores first; the host looks at as many as there are queries.
        every_class: whether a query may be several detections, under each class above the threshold; see `QueryChoice`.
        imgsz: side, or (height, width), that images are stretched to; None: what the model was trained with, else 640.

    Raises:
        InvalidInputError: an option out of its range.
    """

    name = "Ultralytics RT-DETR"

    def __init__(
        self,
        *,
        conf: float = 0.05,
        max_det: int = 300,
        every_class: bool = False,
        imgsz: int | tuple[int, int] | None = None,
    ) -> None:
        self.choice = QueryChoice(conf, max_det, every_class)
        self.imgsz = None if imgsz is None else two_sides(imgsz)

    def matches(self, model: nn.Module) -> bool:
        """Whether `model` is one of Ultralytics' networks that ends in a decoder of queries."""
        return "BaseModel" in host_classes(model) and "RTDETRDecoder" in host_classes(head_of(model))

    def open(self, holder: object) -> tuple[nn.Module, UltralyticsRTDETRAdapter] | None:
        """The network in an `ultralytics.RTDETR`, or in the `ModelEMA` of a training."""
        inner = wrapped_network(holder)
        return None if inner is None else (inner, self)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """The class head that is given the decoder's last states, and what is given the neck's coarsest map.

        Raises:
            HookError: the network does not have them.
        """
        head = head_of(model)
        try:
            return {"head": head.dec_score_head[head.decoder.eval_idx], "coarsest": head.input_proj[-1]}
        except AttributeError as error:
            raise HookError(
                f"this RT-DETR is not built as Ultralytics' are: {error}. Read it by an adapter of your own "
                "(`adapter=`)"
            ) from None

    def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Any:
        """Stretch the images, and run the network once."""
        size = self.imgsz or trained_size(model)
        return model(stretched(images, size).to(next(model.parameters()).dtype))

    def read(self, model: nn.Module, recording: Recording, output: Any) -> FrameBatch:
        """The best queries of each frame, boxes in pixels of the loader's images and clipped to them."""
        try:
            boxes, logits = (each.squeeze(0) for each in output[1][:2])
        except (TypeError, IndexError, AttributeError):
            raise HookError(
                "the network must return its answer and beside it the raw boxes and logits, as in eval mode; got "
                f"{type(output).__name__}"
            ) from None
        head, coarsest = recording["head"][-1], recording["coarsest"][-1].args[0]
        return read_queries(
            logits,
            boxes,
            head.args[0],
            recording.sizes,
            activation="sigmoid",
            choice=self.choice,
            recorded=head.output,
            frame_embeddings=Later(lambda: coarsest.float().mean((2, 3))),
        )
