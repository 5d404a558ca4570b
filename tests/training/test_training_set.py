"""Images with the annotations that people made of them: a torchvision detector trains on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cval_torch import LabelPool
from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, ImageFolder
from cval_torch.training import TrainingSet
from tests.worlds.tiny_rcnn import make_faster_rcnn

IDS = ["a.png", "b.png", "c.png"]


@pytest.fixture
def photos(tmp_path: Path) -> ImageFolder:
    for name in IDS:
        Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / name)
    return ImageFolder(tmp_path)


def marked(**columns: Any) -> Annotations:
    """a: a box, a crowd, and a box without an area; b: nothing; c: one box."""
    given = Annotations(
        IDS,
        torch.tensor([0, 3, 3, 4]),
        boxes=torch.tensor([[4.0, 6, 20, 30], [0, 0, 64, 48], [5, 5, 5, 9], [10, 12, 30, 24]]),
        labels=torch.tensor([1, 1, 1, 2]),
        class_names={1: "bolt", 2: "nut"},
        frame_ids=IDS,
        sizes=torch.tensor([[64, 48]] * 3),
        is_crowd=torch.tensor([False, True, False, False]),
    )
    return given.replace(**columns)


def test_items_are_what_detectors_train_on(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=["c.png", "a.png", "b.png"])
    found = labels.training_set(marked())
    assert isinstance(found, TrainingSet)
    assert found.frame_ids == ("c.png", "a.png", "b.png")
    image, target = found[1]
    assert torch.equal(image, photos[0][0])
    assert target["boxes"].tolist() == [[4, 6, 20, 30]]
    assert target["labels"].tolist() == [1]
    assert target["image_id"] == "a.png"
    assert found[2][1]["boxes"].shape == (0, 4)


def test_a_detector_trains_on_it(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=IDS)
    model = make_faster_rcnn().train()
    loader = DataLoader(
        labels.training_set(marked()), batch_size=3, collate_fn=lambda batch: tuple(zip(*batch, strict=True))
    )
    images, targets = next(iter(loader))
    loss = sum(model(list(images), list(targets)).values())
    loss.backward()
    assert loss.isfinite()
    assert any(each.grad is not None and bool(each.grad.any()) for each in model.parameters())


def test_boxes_follow_the_images_that_the_dataset_gives(photos: ImageFolder) -> None:
    class Changed(Dataset[Any]):
        def __init__(self, change: Any) -> None:
            self._change = change

        def __len__(self) -> int:
            return len(photos)

        def __getitem__(self, index: int) -> Tensor:
            changed: Tensor = self._change(photos[index][0])
            return changed

    labels = LabelPool(photos, labeled=IDS)
    half = labels.training_set(marked(), view=Changed(v2.Resize((24, 32))))
    assert half[2][1]["boxes"].tolist() == [[5, 6, 15, 12]]
    turned = labels.training_set(marked(), view=Changed(lambda image: image.transpose(1, 2)))
    with pytest.raises(InvalidInputError, match=r"frame 'a.png' was annotated with 64 x 48 pixels, .* gives 48 x 64"):
        turned[0]


def test_transforms_change_images_and_boxes_together(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=IDS)
    flipped = labels.training_set(marked(), transforms=v2.RandomHorizontalFlip(p=1.0))
    assert flipped[2][1]["boxes"].tolist() == [[34, 12, 54, 24]]


def test_labelled_frames_without_annotations(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=IDS)
    some = marked().take([0])
    with pytest.raises(InvalidInputError, match=r"frame 'b.png' has no annotations"):
        labels.training_set(some)
    assert labels.training_set(some, incomplete=True).frame_ids == ("a.png",)
    with pytest.raises(InvalidInputError, match="`view` must have the 3 rows"):
        labels.training_set(some, view=[1, 2], incomplete=True)  # type: ignore[arg-type]


def test_what_is_no_image_is_refused(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=IDS)
    broken = labels.training_set(marked(), view=[{"image": 1}] * 3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"frame 'a.png' is a dict"):
        broken[0]
