"""The adapter of a detector that the library does not know, from its first check to chosen frames.

python examples/extend/detector.py
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the model, which stands for yours

from cval_torch import SelectedFrames, select
from cval_torch.extraction import check_adapter
from cval_torch.hooks import FrameBatch, QueryChoice, Recording, read_queries, register_adapter
from digits_on_photos import DIGIT_CLASSES, PoolSettings, pool_frames
from grid_detector import GridDetector
from small_detector import collate, train


@register_adapter  # from here on `select` finds it by itself
class GridAdapter:
    """Reads a `GridDetector`; `cval_torch.hooks.DetectorAdapter` says what each method is for."""

    name = "GridDetector"

    def matches(self, model: nn.Module) -> bool:
        """Whether this adapter knows `model`."""
        return isinstance(model, GridDetector)

    def modules(self, model: nn.Module) -> dict[str, nn.Module]:
        """What to record: the body, whose output holds what each cell knows."""
        return {"body": model.get_submodule("body")}

    def forward(self, model: nn.Module, images: list[Tensor]) -> Any:
        """Run the model as in ordinary inference."""
        return model(images)

    def read(self, model: nn.Module, recording: Recording, output: dict[str, Tensor]) -> FrameBatch:
        """The detections, each with the probabilities and the features of its cell."""
        features: Tensor = recording["body"][-1].output  # (N, 64, h, w)
        states = features.flatten(2).transpose(1, 2)  # (N, h * w, 64), one for each row of the output
        return read_queries(
            output["logits"],
            output["boxes"],
            states,
            recording.sizes,  # of the images as the loader gave them
            activation="sigmoid",
            choice=QueryChoice(threshold=0.05, top_k=10),
            frame_embeddings=features.mean((2, 3)),
        )


def main(arguments: list[str] | None = None) -> SelectedFrames:
    """Train a detector a little, check the adapter, and choose frames."""
    parser = argparse.ArgumentParser(description="A detector of one's own")
    parser.add_argument("--frames", type=int, default=12, help="frames to choose (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="training steps (%(default)s)")
    parser.add_argument("--pool", type=int, default=600, help="frames in the pool, 120 of them annotated (%(default)s)")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    pool, detector = pool_frames(PoolSettings(frames=options.pool), seed=0), GridDetector(len(DIGIT_CLASSES))
    annotated, rest = Subset(pool, range(120)), Subset(pool, range(120, options.pool))
    train(detector, annotated, steps=options.steps, progress="training")
    check_adapter(detector, GridAdapter(), [image for image, _ in (annotated[row] for row in range(8))])
    chosen = select(detector, DataLoader(rest, batch_size=32, collate_fn=collate), num_of_samples=options.frames)
    print("\n".join(chosen.frame_ids))
    return chosen


if __name__ == "__main__":
    main()
