"""Near-duplicates of a clip, by thumbnails, against means and loops of numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cval_torch.formats.video_clip import ClipReader, list_frames
from cval_torch.formats.video_thinning import CELLS, difference, thumbnail, without_near_duplicates

pytest.importorskip("av")
import av
from clips import damage, picture, write_clip
from skimage.data import coffee

SHARP = {"crf": "4", "preset": "ultrafast", "g": "10"}


def still(spot: int | None, level: int = 255) -> np.ndarray:
    """A cup of coffee; a bright square of 1.4 % of the picture may lie on it."""
    pixels = coffee()[:192, :320].copy()
    if spot is not None:
        pixels[24:52, spot : spot + 30] = level
    return pixels


@pytest.mark.parametrize("shape", [(96, 160), (100, 250)])
def test_a_thumbnail_has_the_means_of_cells(shape: tuple[int, int]) -> None:
    grey = coffee()[: shape[0], : shape[1]].mean(axis=2).astype(np.uint8)
    found = thumbnail(av.VideoFrame.from_ndarray(grey, "gray"))
    assert (found.shape, found.dtype) == ((CELLS, CELLS), np.float32)
    rows = np.linspace(0, shape[0], CELLS + 1)
    columns = np.linspace(0, shape[1], CELLS + 1)
    for row in range(CELLS):
        for column in range(CELLS):
            cell = grey[
                int(rows[row]) : int(np.ceil(rows[row + 1])), int(columns[column]) : int(np.ceil(columns[column + 1]))
            ]
            assert abs(found[row, column] - cell.mean() / 255) < 0.04


def test_the_difference_is_that_of_the_cell_that_changed_most() -> None:
    one = np.random.default_rng(0).random((CELLS, CELLS)).astype(np.float32)
    other = np.random.default_rng(1).random((CELLS, CELLS)).astype(np.float32)
    largest = max(abs(float(a) - float(b)) for a, b in zip(one.flat, other.flat, strict=True))
    assert difference(one, other) == pytest.approx(largest)
    assert difference(one, one) == 0


def kept_of(path: Path, threshold: float) -> tuple[list[int], list[str]]:
    frames = list_frames(path, path.name)
    reader = ClipReader(path, path.name)
    return without_near_duplicates(reader, frames, range(len(frames.times)), threshold)


def test_frames_without_change_are_dropped(tmp_path: Path) -> None:
    """A small thing that comes, stays and goes is seen, though the mean over the picture hardly changes."""
    spots = [None, None, None, 100, 100, 100, None, None, 200, 200]
    path = write_clip(tmp_path / "a.mp4", [still(spot) for spot in spots], options=SHARP)
    assert kept_of(path, 0.05) == ([0, 3, 6, 8], [])


def test_slow_change_adds_up_against_the_last_frame_that_was_kept(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", [still(100, level) for level in range(0, 250, 10)], options=SHARP)
    kept, _ = kept_of(path, 0.2)
    assert kept[0] == 0
    steps = np.diff(kept)
    assert len(kept) > 2
    assert steps.min() > 1  # two frames in a row differ by a 25th alone


def test_what_cannot_be_read_is_noted_and_not_kept(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", [picture(number) for number in range(40)]), 0.6, 300)
    kept, notes = kept_of(path, 0.0001)
    assert kept
    assert len(kept) + len(notes) == 40
    assert all(note.startswith("'a.mp4' cannot be read at ") for note in notes)
    assert notes
