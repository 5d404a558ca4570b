"""Letterboxes against the host's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_yolo import as_tensor, noise
from ultralytics.data.augment import LetterBox

from cval_torch.hooks.letterbox import fit, letterbox


@given(height=st.integers(1, 300), width=st.integers(1, 300), side=st.sampled_from([64, 96, 160]), rect=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_layout_is_that_of_the_hosts_letterbox(height: int, width: int, side: int, rect: bool) -> None:
    white = np.full((height, width, 3), 255, dtype=np.uint8)
    truth = LetterBox(side, auto=rect, stride=32)(image=white)[..., 0] == 255
    layout, size = fit((height, width), (side, side), stride=32, rect=rect)
    rows, columns = truth.any(1).nonzero()[0], truth.any(0).nonzero()[0]
    assert tuple(size) == truth.shape
    assert (layout.top, layout.left) == (rows[0], columns[0])
    assert layout.content == (len(rows), len(columns))
    # The image's own corners come back from where they were put.
    corners = layout.to_original(torch.tensor([layout.bounds(), [-9.0, -9.0, 999.0, 999.0]]))
    assert torch.allclose(corners, torch.tensor([0.0, 0.0, width, height]).expand(2, 4), atol=1e-3)


@pytest.mark.parametrize("size", [(50, 80), (200, 130), (33, 97)])
def test_resized_pixels_are_the_hosts_within_a_grey_level(size: tuple[int, int]) -> None:
    (image,) = noise([size])
    image = np.asarray(image // 4 + np.linspace(0, 190, size[1], dtype=np.uint8)[None, :, None])
    truth = LetterBox(96, auto=True, stride=32)(image=image)
    boxed, _ = letterbox(as_tensor(image), (96, 96))
    assert boxed.shape[1:] == truth.shape[:2]
    assert float((boxed * 255 - torch.from_numpy(truth).permute(2, 0, 1)).abs().max()) < 1.01
