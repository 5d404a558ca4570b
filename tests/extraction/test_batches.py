"""Batches of every kind, taken apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_box import OneBox

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.batches import broken_images, parts_of, split_batch
from cval_torch.hooks.base import BatchParts

IMAGE = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("batch", "count", "targets"),
    [
        (torch.zeros(2, 3, 4, 5), 2, None),
        ([IMAGE, IMAGE, IMAGE], 3, None),
        (((IMAGE, IMAGE), ({"a": 1}, {"a": 2})), 2, [{"a": 1}, {"a": 2}]),
        ([torch.zeros(2, 3, 4, 5), torch.tensor([0, 1])], 2, None),
        ([torch.zeros(2, 3, 4, 5), {"image_id": torch.tensor([7, 8])}], 2, [{"image_id": 7}, {"image_id": 8}]),
        ({"image": torch.zeros(2, 3, 4, 5), "image_id": ["x", "y"]}, 2, [{"image_id": "x"}, {"image_id": "y"}]),
        ({"images": [IMAGE], "targets": [{"image_id": 3}]}, 1, [{"image_id": 3}]),
    ],
)
def test_batches_of_the_usual_kinds_are_taken_apart(batch: Any, count: int, targets: Any) -> None:
    parts = split_batch(batch)
    assert (parts.count, len(parts.images)) == (count, count)
    assert all(image.shape == (3, 4, 5) for image in parts.images)
    assert parts.targets == targets


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 4), r"got a tensor \(3, 4\)"),
        ({"pixels": 1}, r"a dict with \['pixels'\]"),
        ([[1, 2], [3]], r"got a list of a list of int, int"),
        ([], "a list of nothing"),
        ("text", "got str"),
    ],
)
def test_a_batch_of_no_known_kind_is_described(batch: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split_batch(batch)


def parts(batch: Any, *, largest: int | None) -> BatchParts:
    return parts_of(batch, OneBox(), None, single=False, largest=largest)


@pytest.mark.parametrize("size", [2, 3])
def test_samples_of_as_many_images_as_the_batch_is_large_are_refused(size: int) -> None:
    batch = [(IMAGE,) * size] * size
    with pytest.raises(InvalidInputError, match=rf"may be {size} samples of {size} images each, or {size} images and"):
        parts(batch, largest=size)
    with pytest.raises(InvalidInputError, match="pass `split=`"):
        parts(tuple(map(list, batch)), largest=None)


def test_columns_of_images_are_told_by_the_size_of_the_batch() -> None:
    left, right = torch.zeros(3, 4, 5), torch.ones(3, 4, 5)
    for count in (1, 2, 3, 4):  # two is the size of an incomplete last batch
        taken = parts(((left,) * count, (right,) * count), largest=4)
        assert taken.count == count
        assert all(torch.equal(image, left) for image in taken.images)
    with pytest.raises(InvalidInputError, match="may be 2 samples of 3 images each, or 3 images and"):
        parts(((left,) * 3, (right,) * 3), largest=None)  # a stream: nobody says how large its batches are


@given(sides=st.integers(0, 3), place=st.integers(0, 3))
def test_images_that_are_not_finite_are_told_by_their_place(sides: int, place: int) -> None:
    images = [torch.zeros(3, 2 + sides, 3) for _ in range(4)]
    images[place][1, 1, 2] = torch.nan
    assert broken_images(images, 4) == [place]
    if not sides:
        stacked = torch.stack(images)
        assert broken_images(list(stacked), 4) == [place]
        assert broken_images({"pixel_values": stacked, "mask": torch.zeros(4, 2, 3), "sizes": [(2, 3)] * 4}, 4) == [
            place
        ]


def test_images_of_other_kinds_are_left_to_the_adapter() -> None:
    assert broken_images([torch.zeros(3, 2, 2, dtype=torch.uint8)], 1) == []
    assert broken_images({"paths": ["a"], "all": torch.full((1, 3, 2, 2), torch.nan)}, 2) == []
    assert broken_images(["a.jpg"], 1) == []


def test_a_single_sample_that_may_be_two_images_is_refused() -> None:
    assert split_batch([IMAGE, {"image_id": 1}], single=True).targets == [{"image_id": 1}]
    assert split_batch(IMAGE, single=True).count == 1
    with pytest.raises(InvalidInputError, match="may be 2 images or an image and what belongs to it"):
        split_batch([IMAGE, IMAGE], single=True)


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_column_of_another_length_names_nobody(length: int) -> None:
    column = torch.arange(length) + 7
    targets = split_batch([torch.zeros(2, 3, 4, 5), {"image_id": column}]).targets
    assert targets == ([{"image_id": 7}, {"image_id": 8}] if length == 2 else None)
    given = split_batch([torch.zeros(2, 3, 4, 5), [{"a": row} for row in range(length)]]).targets
    assert given == ([{"a": 0}, {"a": 1}] if length == 2 else None)
    assert split_batch([torch.zeros(2, 3, 4, 5), {"image_id": 3}]).targets is None


@given(
    images=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4),
    form=st.sampled_from(["list", "tuple", "first", "images", "image", "tensor"]),
)
def test_images_come_out_as_they_went_in(images: list[tuple[int, int, int]], form: str) -> None:
    if form == "tensor":
        images = images[:1] * len(images)
    tensors = [torch.full(size, float(row)) for row, size in enumerate(images)]
    batch = {
        "list": tensors,
        "tuple": tuple(tensors),
        "first": (tensors, [None] * len(tensors)),
        "images": {"images": tensors},
        "image": {"image": tuple(tensors)},
        "tensor": torch.stack(tensors) if form == "tensor" else None,
    }[form]
    parts = split_batch(batch)
    assert parts.count == len(tensors)
    assert all(torch.equal(one, other) for one, other in zip(parts.images, tensors, strict=True))


def test_who_takes_a_batch_apart() -> None:
    """The user's `split`; else the adapter's, which may leave it to the ordinary one."""
    mine, theirs = BatchParts("mine", 1), BatchParts("theirs", 1)

    class Splitting(OneBox):
        def split(self, batch: Any) -> BatchParts | None:
            return theirs if isinstance(batch, str) else None

    assert parts_of("text", Splitting(), lambda batch: mine, single=False) is mine
    assert parts_of("text", Splitting(), None, single=False) is theirs
    assert parts_of([IMAGE, IMAGE], Splitting(), None, single=False).count == 2
    assert parts_of(IMAGE, OneBox(), None, single=True).count == 1
    with pytest.raises(InvalidInputError, match="got str"):
        parts_of("text", OneBox(), None, single=False)
