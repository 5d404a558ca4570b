"""Batches of every kind, taken apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.batches import split_batch

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


def test_a_single_sample_that_may_be_two_images_is_refused() -> None:
    assert split_batch([IMAGE, {"image_id": 1}], single=True).targets == [{"image_id": 1}]
    assert split_batch(IMAGE, single=True).count == 1
    with pytest.raises(InvalidInputError, match="may be 2 images or an image and what belongs to it"):
        split_batch([IMAGE, IMAGE], single=True)
