"""Rounds of a Hugging Face `Trainer`: each stops after choosing its frames, and the next one trains on more.

    pip install -e ".[examples,transformers]" && python examples/hosts/transformers_trainer.py

The detector is a YOLOS of a few hundred thousand weights, made from a configuration: nothing is downloaded, and
nothing much is learned in so short a time. Put `from_pretrained("hustvl/yolos-tiny")` in its place, and your data.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainingArguments, YolosConfig, YolosForObjectDetection
from transformers.utils import logging

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, PassOptions
from cval_torch.training import AtEpochs, SamplerCallback
from cval_torch.training.labels import LabelPool
from cval_torch.training.transformers import TransformersSampler
from digits_on_photos import DIGIT_CLASSES, FRAME_SIZE, PoolSettings, pool_frames
from small_detector import collate


def main() -> None:
    """Train in rounds, and say what each began and ended with."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="epochs a round")
    parser.add_argument("--frames", type=int, default=400, help="size of the pool")
    options = parser.parse_args()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    pool = pool_frames(PoolSettings(frames=options.frames))
    first = [pool.frame_ids[row] for row in torch.randperm(len(pool))[:40]]

    labels = LabelPool(pool, labeled=first)
    sampler = SamplerCallback(
        labels,
        make_loader,
        DetectionSampling(selection_strategy="entropy", num_of_samples=20),
        schedule=AtEpochs(options.epochs - 1),  # at the end of a round
        annotate=lambda chosen: chosen.frame_ids,  # the pool has every label
        options=PassOptions(progress=False),
    )
    model = small_yolos()
    for number in range(options.rounds):
        callback = TransformersSampler(sampler)
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=8,
                learning_rate=1e-3,
                remove_unused_columns=False,  # the images are one
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
            )
            frames = len(labels.labeled)
            trainer = Trainer(
                model, arguments, data_collator=for_yolos, train_dataset=labels.labeled, callbacks=[callback]
            )
            trainer.pop_callback(PrinterCallback)
            loss = trainer.train().training_loss
        chosen = () if callback.chosen is None else callback.chosen.frame_ids
        print(f"round {number}: {frames} frames, loss {loss:.3f}; labelled {len(chosen)} more: {', '.join(chosen[:2])}")
    print(labels)


def small_yolos() -> YolosForObjectDetection:
    """Three blocks over 8 x 8 patches."""
    return YolosForObjectDetection(
        YolosConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=[FRAME_SIZE, FRAME_SIZE],
            patch_size=12,
            num_detection_tokens=10,
            id2label=dict(enumerate(DIGIT_CLASSES)),
        )
    )


def for_yolos(samples: list[Any]) -> dict[str, Any]:
    """What the model takes: grey made RGB; boxes as centre, width and height, in units of the image."""
    images, targets = collate(samples)
    return {
        "pixel_values": torch.stack(images).expand(-1, 3, -1, -1),
        "labels": [labels_of(target) for target in targets],
    }


def labels_of(target: dict[str, Tensor]) -> dict[str, Tensor]:
    """One frame's."""
    x1, y1, x2, y2 = (target["boxes"] / FRAME_SIZE).unbind(1)
    boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
    return {"class_labels": target["labels"], "boxes": boxes}


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at, in the host's own kind of batches; images and targets would do as well."""
    return DataLoader(unlabeled, batch_size=50, collate_fn=for_yolos)


if __name__ == "__main__":
    main()
