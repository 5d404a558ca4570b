"""A YOLOS of a few thousand weights, and a Trainer of Transformers that trains it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from squares import Squares
from torch import Tensor

from cval_torch.training import SamplerCallback


def make_yolos() -> Any:
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[48, 48],
        patch_size=16,
        num_detection_tokens=5,
        num_labels=3,
        auxiliary_loss=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.YolosForObjectDetection(config)


def collate(samples: list[Any]) -> dict[str, Any]:
    """What the model trains on: boxes as centre, width and height, in units of the image."""

    def label(target: dict[str, Tensor]) -> dict[str, Tensor]:
        x1, y1, x2, y2 = (target["boxes"] / 48).unbind(1)
        boxes = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], dim=1)
        return {"class_labels": target["labels"], "boxes": boxes}

    return {
        "pixel_values": torch.stack([image for image, _ in samples]),
        "labels": [label(target) for _, target in samples],
    }


def trainer_of(
    model: Any,
    sampler: SamplerCallback,
    folder: Path,
    *callbacks: Any,
    epochs: int,
    batch_size: int = 4,
    eval_dataset: Any = None,
    **options: Any,
) -> Any:
    arguments = transformers.TrainingArguments(
        str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )
    return transformers.Trainer(
        model,
        arguments,
        data_collator=collate,
        train_dataset=sampler.labels.labeled,
        eval_dataset=Squares(2) if eval_dataset is None else eval_dataset,
        callbacks=list(callbacks),
    )
