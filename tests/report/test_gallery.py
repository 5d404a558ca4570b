"""Contact sheets, read back pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report import gallery
from cval_torch.report.gallery import contact_sheet
from cval_torch.report.palette import PALETTE

TILE = 100


@dataclass
class Chosen:
    items: list[Any]
    predictions: Pool
    scores: torch.Tensor

    @property
    def frame_ids(self):
        return self.predictions.frame_ids

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def chosen_of(items, boxes=(), labels=(), scores=(), *, counts=None, frame_ids=None) -> Chosen:
    """Frames whose boxes are `boxes`, all of the first frame unless `counts` says otherwise."""
    counts = [len(boxes)] + [0] * (len(items) - 1) if counts is None else counts
    pool = Pool(
        [f"frame-{number}" for number in range(len(items))] if frame_ids is None else frame_ids,
        torch.tensor([0, *np.cumsum(counts)]),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
    )
    return Chosen(items, pool, torch.linspace(1, 0.5, len(items), dtype=torch.float64))


def first_tile(path: Path) -> np.ndarray:
    """(100, 100, 3): the first image of a sheet without a title; the caption's light cell ends it below."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    top = next(row for row in range(len(pixels)) if not (pixels[row, 14 : 14 + TILE] > 100).any(axis=None))
    return pixels[top : top + TILE, 14 : 14 + TILE]


def draw(chosen: Chosen, path: Path, **options) -> np.ndarray:
    contact_sheet(chosen, path / "sheet.png", tile_size=TILE, **options)
    return first_tile(path / "sheet.png")


BLACK = torch.zeros(1, 50, 50)


def test_predicted_boxes_are_where_they_are(tmp_path: Path) -> None:
    tile = draw(chosen_of([BLACK], [[10, 20, 30, 45]], [3], [0.8]), tmp_path)
    coloured = tile[41:].any(axis=2)  # below the box's tag: from its first rows down, at twice the size
    rows, columns = np.flatnonzero(coloured.any(1)) + 41, np.flatnonzero(coloured.any(0))
    assert (columns[0], columns[-1], rows[-1]) == (20, 59, 89)
    assert not tile[46:86, 26:56].any()  # an outline, not a filling
    assert set(map(tuple, tile[60, [20, 59]])) == {PALETTE[3]}


def test_boxes_below_the_score_are_not_drawn(tmp_path: Path) -> None:
    frames = chosen_of([BLACK], [[10, 20, 30, 45]], [3], [0.29])
    assert not draw(frames, tmp_path).any()
    assert draw(frames, tmp_path, min_score=0.28).any()


def test_each_frame_has_its_own_boxes(tmp_path: Path) -> None:
    frames = chosen_of([BLACK, BLACK], [[10, 20, 30, 45]], [3], [0.8], counts=[0, 1])
    assert not draw(frames, tmp_path).any()


def test_the_surest_box_is_on_top(tmp_path: Path) -> None:
    box = [10, 20, 30, 45]
    tile = draw(chosen_of([BLACK], [box, box, box], [0, 1, 2], [0.5, 0.9, 0.7]), tmp_path)
    assert tuple(tile[60, 20]) == PALETTE[1]


def test_true_boxes_are_dashed_on_request(tmp_path: Path) -> None:
    item = (BLACK, {"boxes": torch.tensor([[10.0, 20, 30, 45]])})
    assert not draw(chosen_of([item]), tmp_path).any()
    tile = draw(chosen_of([item]), tmp_path, show_truth=True)
    side = {tuple(pixel) for pixel in tile[40:90, 20]}
    assert side == {gallery._PAPER, gallery._INK}  # to be seen on any ground
    assert not tile[45:85, 25:55].any()


@pytest.mark.parametrize(
    ("form", "box"), [("XYXY", [10, 20, 30, 45]), ("XYWH", [10, 20, 20, 25]), ("CXCYWH", [20, 32.5, 20, 25])]
)
def test_true_boxes_may_be_of_every_upright_format(form: str, box: list[float], tmp_path: Path) -> None:
    boxes = BoundingBoxes([[float(number) for number in box]], format=form, canvas_size=(50, 50))
    tile = draw(chosen_of([(BLACK, {"boxes": boxes})]), tmp_path, show_truth=True)
    rows, columns = np.flatnonzero(tile.any(axis=(1, 2))), np.flatnonzero(tile.any(axis=(0, 2)))
    assert (columns[0], columns[-1], rows[0], rows[-1]) == (20, 59, 40, 89)


def test_targets_that_hold_nothing_to_draw(tmp_path: Path) -> None:
    for target in ({"image_id": 7}, {"image_id": 7, "boxes": [], "labels": []}, [], None, 3):
        assert not draw(chosen_of([(BLACK, target)]), tmp_path, show_truth=True).any()


@pytest.mark.parametrize("form", [name for name in ("XYWHR", "CXCYWHR") if hasattr(BoundingBoxFormat, name)])
def test_rotated_boxes_are_refused_by_frame_and_format(form: str, tmp_path: Path) -> None:
    boxes = BoundingBoxes(torch.rand(1, 5), format=form, canvas_size=(50, 50))
    with pytest.raises(InvalidInputError, match=f"`boxes` of .* frame 'frame-0' must .* got the format {form}"):
        draw(chosen_of([(BLACK, {"boxes": boxes})]), tmp_path, show_truth=True)


@pytest.mark.parametrize(
    ("boxes", "got"),
    [
        (torch.rand(2, 6), r"must be \(n, 4\); got \(2, 6\)"),  # as many numbers as three boxes have
        (torch.rand(4), r"must be \(n, 4\); got \(4,\)"),
        (torch.rand(1, 4).to(torch.complex64), r"must be \(n, 4\); got Tensor"),
        ("none", r"must be \(n, 4\); got str"),
        ([[1, 2, 3, 4], [1, 2, float("nan"), 4]], r"must be finite; got \[1.0, 2.0, nan, 4.0\]"),
        ([[1, 2, float("inf"), 4]], r"must be finite; got \[1.0, 2.0, inf, 4.0\]"),
    ],
)
def test_true_boxes_that_cannot_be_drawn_are_refused_by_frame(boxes: Any, got: str, tmp_path: Path) -> None:
    chosen = chosen_of([BLACK, (BLACK, {"boxes": boxes})])
    with pytest.raises(InvalidInputError, match=f"^`boxes` of the target of frame 'frame-1' {got}$"):
        draw(chosen, tmp_path, show_truth=True)
    draw(chosen, tmp_path)  # not looked at


def test_images_keep_their_proportions(tmp_path: Path) -> None:
    wide = torch.zeros(3, 25, 50)
    tile = draw_cell(chosen_of([wide], [[0, 0, 50, 25]], [0], [0.9]), tmp_path)
    assert (tile[:25, 80:] == gallery._CELL).all()  # right of the box's tag
    assert (tile[75:] == gallery._CELL).all()
    assert tuple(tile[50, 0]) == tuple(tile[50, -1]) == tuple(tile[74, 50]) == PALETTE[0]


def draw_cell(chosen: Chosen, path: Path) -> np.ndarray:
    contact_sheet(chosen, path / "sheet.png", tile_size=TILE)
    with Image.open(path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)
    top = int(np.flatnonzero((pixels[:, 14] == gallery._CELL).all(1))[0])
    return pixels[top : top + TILE, 14 : 14 + TILE]


@pytest.mark.parametrize(
    "image",
    [
        torch.full((1, 8, 8), 0.25),
        torch.full((3, 8, 8), 64, dtype=torch.uint8),
        Image.new("L", (8, 8), 64),
        Image.new("RGB", (8, 8), (64, 64, 64)),
    ],
    ids=["grey float", "uint8", "PIL grey", "PIL RGB"],
)
def test_kinds_of_images(image, tmp_path: Path) -> None:
    assert (draw(chosen_of([(image, None)]), tmp_path) == 64).all()


def test_a_normalised_image_is_stretched(tmp_path: Path) -> None:
    ramp = torch.linspace(-2, 2, 50).expand(3, 50, 50)
    contact_sheet(chosen_of([ramp]), tmp_path / "sheet.png", tile_size=TILE)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet)[100, 14 : 14 + TILE, 0]
    assert pixels[0] < 8
    assert pixels[-1] > 247
    assert (np.diff(pixels.astype(int)) >= 0).all()


def test_rows_columns_and_the_cap(tmp_path: Path) -> None:
    frames = chosen_of([BLACK] * 8)

    def size(**options) -> tuple[int, int]:
        path = contact_sheet(frames, tmp_path / "deep" / "sheet.png", tile_size=TILE, **options)
        with Image.open(path) as sheet:
            return sheet.size

    assert size()[0] == 6 * 114 + 14
    assert size(columns=4)[0] == 4 * 114 + 14
    assert size(max_frames=3)[0] == 3 * 114 + 14
    two_rows, one_row = size(columns=4)[1], size(columns=8)[1]
    assert TILE < two_rows - one_row < TILE + 80
    assert size(title="What a picture")[1] > size()[1]


@pytest.mark.parametrize("frame_id", ["x" * 128, "a\nb\x00c", "näher/漢字.png", "<script>"])
def test_any_id_is_drawn(frame_id: str, tmp_path: Path) -> None:
    frames = chosen_of([BLACK], frame_ids=[frame_id])
    contact_sheet(frames, tmp_path / "sheet.png", title=frame_id, classes={0: frame_id})
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_long_texts_are_cut_in_the_middle() -> None:
    pen = ImageDraw.Draw(Image.new("L", (1, 1)))
    font = gallery.ImageFont.load_default(size=13)
    text = "camera-7/" + "0" * 200 + "/frame-0042.png"
    fitted = gallery._fitted(pen, text, font, 200)
    assert pen.textlength(fitted, font=font) <= 200
    begin, end = fitted.split("...")
    assert text.startswith(begin)
    assert text.endswith(end)
    assert min(len(begin), len(end)) > 5
    assert gallery._fitted(pen, "short", font, 200) == "short"


def test_boxes_beyond_the_edge_and_upside_down_do_not_hurt(tmp_path: Path) -> None:
    boxes = [[-20, -20, 80, 80], [30, 45, 10, 20], [60, 60, 70, 70], [5, 5, 5, 5]]
    contact_sheet(chosen_of([BLACK], boxes, [0, 1, 2, -1], [0.9] * 4), tmp_path / "sheet.png", show_truth=True)


coordinates = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(
    boxes=st.lists(st.tuples(*[coordinates] * 4, st.integers(-(2**62), 2**62), st.floats(0, 1, width=32)), max_size=5),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
)
@settings(max_examples=40, deadline=None)
def test_any_boxes_on_any_image_are_drawn(tmp_path_factory: pytest.TempPathFactory, boxes, size) -> None:
    path = tmp_path_factory.getbasetemp() / "any.png"
    corners, labels, scores = [list(box[:4]) for box in boxes], [box[4] for box in boxes], [box[5] for box in boxes]
    item = (torch.zeros(3, *size), {"boxes": torch.tensor(corners).reshape(-1, 4)})
    contact_sheet(chosen_of([item], corners, labels, scores), path, tile_size=TILE, min_score=0.1, show_truth=True)
    with Image.open(path) as sheet:
        assert sheet.width == TILE + 28


def test_without_scores_of_frames_or_boxes(tmp_path: Path) -> None:
    pool = Pool(["a"], torch.tensor([0, 1]), boxes=torch.tensor([[10.0, 20, 30, 45]]))
    frames = Chosen([BLACK], pool, torch.full((1,), torch.nan, dtype=torch.float64))
    assert draw(frames, tmp_path).any()


def test_errors_name_the_offender(tmp_path: Path) -> None:
    good = chosen_of([BLACK])
    for options, message in (
        ({"tile_size": 3000}, "`tile_size` must be at most 2048; got 3000"),
        ({"tile_size": 3}, "`tile_size` must be at least 32; got 3"),
        ({"max_frames": 0}, "`max_frames` must be at least 1; got 0"),
        ({"columns": 0}, "`columns` must be at least 1; got 0"),
        ({"min_score": 1.5}, r"`min_score` must be in \[0, 1\]; got 1.5"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            contact_sheet(good, tmp_path / "sheet.png", **options)
    with pytest.raises(InvalidInputError, match="at least one frame"):
        contact_sheet(Chosen([], good.predictions, torch.zeros(0)), tmp_path / "sheet.png")
    with pytest.raises(InvalidInputError, match="of the 2 frames; got those of 1"):
        contact_sheet(Chosen([BLACK, BLACK], good.predictions, torch.zeros(2)), tmp_path / "sheet.png")
    with pytest.raises(InvalidInputError, match="column `boxes`"):
        contact_sheet(Chosen([BLACK], Pool(["a"], torch.tensor([0, 0])), torch.zeros(1)), tmp_path / "sheet.png")
    for wrong in (torch.zeros(4, 8, 8), torch.zeros(8, 8), "an image", ()):
        with pytest.raises(InvalidInputError, match="'frame-0'"):
            contact_sheet(chosen_of([wrong]), tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_beyond_the_unit_range_are_stretched_and_do_not_wrap(tmp_path: Path, dtype: torch.dtype) -> None:
    """Slightly below 0, and far above 1: the least is black, the greatest white, and what lies between is between."""
    image = (
        torch.tensor([[-0.01, 0.5], [0.9, 1.0]], dtype=dtype).repeat_interleave(25, 0).repeat_interleave(25, 1)[None]
    )
    for factor in (1.0, 40.0):
        chosen = chosen_of([image * factor])
        contact_sheet(chosen, tmp_path / "sheet.png", tile_size=TILE)
        with Image.open(tmp_path / "sheet.png") as sheet:
            pixels = np.asarray(sheet.convert("L")).astype(int)
        grey = [255 * (value + 0.01) / 1.01 for value in (-0.01, 0.5, 0.9, 1.0)]
        corners = corners_of(pixels)
        assert corners == pytest.approx(grey, abs=3), factor


def corners_of(pixels: np.ndarray) -> list[float]:
    """The middles of the four quarters of the one tile of a sheet: the tile is where it is black above, at the left."""
    column = next(x for x in range(pixels.shape[1]) if (pixels[:, x] < 10).sum() > 30)
    row = next(y for y in range(pixels.shape[0]) if (pixels[y, column : column + 40] < 10).sum() > 30)
    return [float(pixels[row + y, column + x]) for y in (25, 75) for x in (25, 75)]


class Unloaded(Chosen):
    def __getitem__(self, index):
        raise AssertionError("a frame was loaded")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("sheet", {}, "must end in a suffix"),
        ("sheet.jepg", {}, r"\.jepg is not the suffix"),
        ("sheet.jpg", {"columns": 1, "tile_size": 2048}, "at most 65500 pixels a side.*more `columns`"),
        ("sheet.webp", {"columns": 40, "tile_size": 500}, "at most 16383 pixels a side.*fewer `columns`"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_frames_are_loaded(
    name: str, options: dict[str, int], said: str, tmp_path: Path
) -> None:
    frames = chosen_of([BLACK] * 40)
    frames = Unloaded(frames.items, frames.predictions, frames.scores)
    with pytest.raises(InvalidInputError, match=said):
        contact_sheet(frames, tmp_path / "new" / name, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (torch.ones(3, 8, 8, dtype=torch.bool), 255),
        (torch.full((1, 8, 8), 257 * 64, dtype=torch.int32), 64),
        (Image.fromarray(np.full((8, 8), 257 * 64, dtype=np.uint16)), 64),
        (torch.full((3, 8, 8), 64.0), 64),
    ],
    ids=["bool", "int32", "PIL 16 bits", "float to 255"],
)
def test_depths_of_images(image, grey: int, tmp_path: Path) -> None:
    contact_sheet(chosen_of([image]), tmp_path / "sheet.png", tile_size=TILE)
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert (pixels[60:90, 14 : 14 + TILE] == grey).all()
