"""Images that are not in the detector's range: told once a pass, by the first frame that shows it."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from one_box import OneBox
from tiny_rcnn import pairs
from tiny_torchvision import FAMILIES, tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cval_torch import extract
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.image_range import LARGEST, RangeCheck
from cval_torch.hooks.finding import find_adapter
from cval_torch.hooks.torchvision import SSDAdapter

NOT_SCALED, SCALED, BYTES = v2.ToDtype(torch.float32), v2.ToDtype(torch.float32, scale=True), v2.Identity()


class Photos(Dataset[Any]):
    """Noise in uint8 through a transform: up to 7 in the first three frames, and up to 255 in the others."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 7

    def __getitem__(self, row: int) -> tuple[Tensor, dict[str, Any]]:
        generator = torch.Generator().manual_seed(row)
        noise = torch.randint(0, 8 if row < 3 else 256, (3, 48, 64), generator=generator, dtype=torch.uint8)
        noise[0, 0, 0] = 7 if row < 3 else 255
        return self.transform(noise), {"image_id": f"photo-{row}"}


def loader_of(transform: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(Photos(transform), **{"batch_size": 2, "collate_fn": pairs, **options})


@pytest.fixture
def warned() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_0_to_255_are_warned_of_once(family: str, warned: list[warnings.WarningMessage]) -> None:
    pool = extract(tiny(family), loader_of(NOT_SCALED), progress=False)
    assert len(pool) == 7
    (warning,) = warned
    assert warning.filename == __file__
    assert "the image of frame 'photo-3' has values up to 255, and the detector expects" in str(warning.message)
    assert "`torchvision.transforms.v2.ToDtype(torch.float32, scale=True)`" in str(warning.message)
    extract(tiny(family), loader_of(NOT_SCALED), progress=False)
    assert len(warned) == 2  # once a pass


def test_every_kind_of_batch_is_looked_at(warned: list[warnings.WarningMessage]) -> None:
    model = tiny("ssd")
    extract(model, loader_of(NOT_SCALED, collate_fn=None), progress=False)  # one tensor (N, C, H, W)
    extract(model, loader_of(NOT_SCALED, batch_size=None, collate_fn=None), progress=False)  # sample by sample
    assert [str(warning.message).split("'")[1] for warning in warned] == ["photo-3"] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_images_in_0_to_1_pass_in_silence(family: str, warned: list[warnings.WarningMessage]) -> None:
    extract(tiny(family), loader_of(SCALED), progress=False)
    assert warned == []


@pytest.mark.parametrize("family", FAMILIES)
def test_images_of_integers_are_refused_with_the_remedy(family: str) -> None:
    message = (
        r"batch 0, .*images for torchvision's detectors must be floats in \[0, 1\]; got torch.uint8. Convert .*ToDt"
    )
    with pytest.raises(InvalidInputError, match=message):
        extract(tiny(family), loader_of(BYTES), progress=False)


def test_detectors_that_expect_0_to_255_are_given_it(warned: list[warnings.WarningMessage]) -> None:
    model: Any = tiny("rcnn")
    model.transform.image_mean = [123.7, 116.3, 103.5]
    model.transform.image_std = [58.4, 57.1, 57.4]
    extract(model, loader_of(NOT_SCALED), progress=False)
    assert warned == []


def test_nobody_knows_what_a_detector_of_ones_own_expects(warned: list[warnings.WarningMessage]) -> None:
    extract(nn.Linear(1, 1), loader_of(NOT_SCALED), adapter=OneBox(), progress=False)
    assert warned == []


class DividesBy255(SSDAdapter):
    """A whole adapter of this library, but for the scale of the images that it wants."""

    def forward(self, model: nn.Module, images: Any) -> Any:
        return super().forward(model, [image / 255 for image in images])


def test_who_changes_what_the_detector_is_given_is_not_warned(warned: list[warnings.WarningMessage]) -> None:
    found = extract(tiny("ssd"), loader_of(NOT_SCALED), adapter=DividesBy255(), progress=False)
    assert warned == []
    torch.testing.assert_close(found.boxes, extract(tiny("ssd"), loader_of(SCALED), progress=False).boxes)


@pytest.mark.parametrize("world", ["tiny_yolo", "tiny_detr"])
def test_detectors_of_other_vendors_are_looked_at_too(world: str, warned: list[warnings.WarningMessage]) -> None:
    host = importlib.import_module(world)  # skips the test where the vendor's package is not installed
    options: dict[str, Any] = {"progress": False}
    if world == "tiny_yolo":
        model = host.built("yolo11n", False).model
    else:
        model = host.built("DETR")
        options["adapter"] = host.TransformersAdapter(processor=host.small_processor("DETR"))
    for transform in (SCALED, BYTES):  # integers are scaled by the adapter
        extract(model, loader_of(transform), **options)
        assert [warning for warning in warned if "has values up to" in str(warning.message)] == []
    extract(model, loader_of(NOT_SCALED), **options)
    (told,) = [str(warning.message) for warning in warned if "has values up to" in str(warning.message)]
    assert "'photo-3' has values up to 255" in told


def look(*images: Any) -> None:
    model = tiny("ssd")
    check = RangeCheck(model, find_adapter(model))
    for batch in images:
        count = len(next(iter(batch.values()))) if isinstance(batch, dict) else len(batch)
        check.look(batch, [f"frame-{place}" for place in range(count)])


def test_batches_of_image_processors_are_looked_at(warned: list[warnings.WarningMessage]) -> None:
    normalised = torch.randn(3, 3, 8, 8).clamp(-3, 3)
    mask = torch.full((3, 8, 8), 1000.0)  # no image: three axes
    look({"pixel_values": normalised, "pixel_mask": mask, "sizes": [(8, 8)] * 3})
    assert warned == []
    not_rescaled = normalised.clone()
    not_rescaled[2, 1, 0, 0] = 950
    look({"pixel_values": not_rescaled, "sizes": [(8, 8)] * 3})
    assert ["'frame-2' has values up to 950" in str(warning.message) for warning in warned] == [True]


@pytest.mark.parametrize(
    ("image", "warns"),
    [
        (torch.full((3, 2, 2), LARGEST), False),
        (torch.full((3, 2, 2), LARGEST + 0.1), True),
        (torch.full((3, 2, 2), LARGEST + 0.1).half(), True),
        (torch.full((3, 2, 2), 255, dtype=torch.uint8), False),  # who takes integers scales them
        (torch.full((3, 2, 2), -200.0), False),
        (torch.zeros(3, 0, 2), False),
        ("no tensor", False),
    ],
)
def test_what_is_warned_of(image: Any, warns: bool, warned: list[warnings.WarningMessage]) -> None:
    look([torch.zeros(3, 2, 2), image])
    assert ["'frame-1'" in str(warning.message) for warning in warned] == [True] * warns
