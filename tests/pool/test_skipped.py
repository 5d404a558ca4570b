"""The record of a frame that was left out."""

from __future__ import annotations

import json

import pytest

from cval_torch.pool.skipped import SkippedFrame


@pytest.mark.parametrize("path", [None, "images/ü\u2028.jpg"])
def test_it_survives_a_file(path: str | None) -> None:
    frame = SkippedFrame("7", 12, path, "OSError: cut\nshort")
    assert SkippedFrame.from_json(json.loads(json.dumps(frame.to_json()))) == frame


def test_what_it_says() -> None:
    frame = SkippedFrame("a.jpg", 3, "images/a.jpg", "OSError: image file is truncated")
    said = "frame 'a.jpg' (row 3 of the dataset, images/a.jpg) cannot be loaded: OSError: image file is truncated"
    assert str(frame) == said
    assert str(SkippedFrame("3", 3, None, "no")) == "frame '3' (row 3 of the dataset) cannot be loaded: no"
    assert str(SkippedFrame(None, 3, "b", "no")) == "the frame of row 3 of the dataset, b cannot be loaded: no"
