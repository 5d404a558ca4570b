"""Real digits pasted on real photos: a detection data set made in seconds, with nothing to download.

The digits are those of `sklearn.datasets.load_digits`, 20 to 36 pixels large; the photos ship inside the wheels of
scikit-image and scikit-learn. Frames are grey, 96 x 96. A pool has what makes real pools hard, and each property can be
switched off on its own: the classes are unbalanced (frequency falls as rank^-1.5), 40 % of the sequences are empty, and
frames come in sequences of about ten near-duplicates, as from a video. The test set has none of these, other instances
of the digits, and crops from a part of the photos that no pool sees.

Another kind of pool is balanced, and shows one class a frame, as sets of pictures of defects do: of its six classes one
is plain to see, one is faint, and the boxes of one are drawn so carelessly that no detector can learn them.

Letters pasted in the same way, drawn in Pillow's own font, serve for pre-training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor
from torch.utils.data import Dataset

FRAME_SIZE = 96
DIGIT_CLASSES = tuple("0123456789")
LETTER_CLASSES = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
ONE_CLASS_CLASSES = DIGIT_CLASSES[:6]

# Of the images in scikit-image's wheel, the photos; `coins` is left out, since coins look like zeros.
_PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "moon", "retina", "rocket")
_GLYPH_SIZE = 8  # pixels: the size of scikit-learn's digits, to which letters are reduced too
_POOL_SHARE_OF_PHOTO = 0.7  # of the width: the left part is for pools, the rest for tests
_OPACITIES = (0.6, 1.0)  # between these, how much of the photo a digit's ink covers
_ONE_CLASS_OPACITIES = {0: (1.0, 1.0), 1: (0.25, 0.45)}  # the class that is plain to see, and the faint one
_CARELESS_CLASS = 5
_LIGHT, _NOISE = 0.1, 0.02  # per frame: brightness within 10 %, and normal noise a pixel, of white = 1
_DIGIT_SPLIT_SEED = 1_797  # one split for all pools: a test digit is in no pool of any seed

Array = NDArray[np.floating[Any]]
Item = tuple[Tensor, dict[str, Any]]


@dataclass(frozen=True)
class PoolSettings:
    """What a pool is like.

    Attributes:
        frames: number of frames.
        long_tail: class frequencies fall as rank^-1.5, in an order of the classes drawn by the seed; else balanced.
        empties: 40 % of the sequences show no digit; else every frame has one or more.
        duplicates: frames come in sequences of 8 to 12 that drift by a pixel or two; else each stands alone.
        one_class: every frame stands alone and shows one of six classes, all as often; the others do not matter then.
    """

    frames: int = 2000
    long_tail: bool = True
    empties: bool = True
    duplicates: bool = True
    one_class: bool = False


@dataclass(frozen=True, eq=False)
class Glyphs:
    """What is pasted.

    Attributes:
        pixels: (G, 8, 8) float32 in [0, 1], 1 = ink.
        labels: (G,) int64 class of each glyph.
        instances: (G,) int64, the row in the source; no two splits share one.
    """

    pixels: Array
    labels: NDArray[np.int64]
    instances: NDArray[np.int64]


class DigitFrames(Dataset[Item]):
    """Frames in memory, as a map-style dataset.

    An item is `(image, target)`: image (1, 96, 96) float32 in [0, 1]; target `boxes` (n, 4) float32 xyxy in pixels,
    tight around the pasted pixels, `labels` (n,) int64, `image_id` a string such as `"sequence-0012/frame-03"`.

    Attributes:
        images: (N, 1, 96, 96) uint8.
        boxes, labels: N tensors each.
        frame_ids: N distinct strings; the same seed gives the same ids.
        sequences: (N,) int64, the sequence that each frame belongs to.
        instances: N tuples, which glyphs (`Glyphs.instances`) were pasted.
        classes: names of the classes, by label.
    """

    def __init__(self, frames: list[_Frame], classes: tuple[str, ...]) -> None:
        self.images = torch.from_numpy(np.stack([frame.image for frame in frames]))[:, None]
        self.boxes = [torch.from_numpy(frame.boxes) for frame in frames]
        self.labels = [torch.from_numpy(frame.labels) for frame in frames]
        self.frame_ids = [f"sequence-{frame.sequence:04d}/frame-{frame.position:02d}" for frame in frames]
        self.sequences = torch.tensor([frame.sequence for frame in frames])
        self.instances = [frame.instances for frame in frames]
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        target = {"boxes": self.boxes[index], "labels": self.labels[index], "image_id": self.frame_ids[index]}
        return self.images[index].float() / 255, target


def pool_frames(settings: PoolSettings | None = None, *, seed: int = 0) -> DigitFrames:
    """A pool to train on and choose from. The same settings and seed give the same frames."""
    settings = settings or PoolSettings()
    if settings.one_class:
        return _one_class_frames(settings.frames, "pool", np.random.default_rng([seed, 4]))
    rng = np.random.default_rng([seed, 0])
    frequencies = np.arange(1, 11.0) ** -1.5 if settings.long_tail else np.ones(10)
    frequencies = rng.permutation(frequencies / frequencies.sum())
    painter = _Painter(rng, digit_glyphs("pool"), photo_crops("pool"))
    frames: list[_Frame] = []
    sequence = 0
    while len(frames) < settings.frames:
        empty = settings.empties and rng.random() < 0.4
        labels = [] if empty else rng.choice(10, size=rng.integers(1, 4), p=frequencies).tolist()
        length = int(rng.integers(8, 13)) if settings.duplicates else 1
        frames.extend(painter.sequence(sequence, labels, length))
        sequence += 1
    return DigitFrames(frames[: settings.frames], DIGIT_CLASSES)


def unseen_frames(frames: int = 400, *, seed: int = 0, one_class: bool = False) -> DigitFrames:
    """Frames to measure on: balanced classes, no near-duplicates, one to three digits, none of them in any pool.

    With `one_class`, frames as in a pool of that kind, careless boxes included.
    """
    if one_class:
        return _one_class_frames(frames, "test", np.random.default_rng([seed, 5]))
    rng = np.random.default_rng([seed, 1])
    painter = _Painter(rng, digit_glyphs("test"), photo_crops("test"))
    return DigitFrames(_alone(rng, painter, frames, classes=10), DIGIT_CLASSES)


def letter_frames(frames: int = 2000, *, seed: int = 0) -> DigitFrames:
    """Frames with letters in place of digits, for pre-training; crops as in a pool."""
    rng = np.random.default_rng([seed, 2])
    painter = _Painter(rng, letter_glyphs(seed=seed), photo_crops("pool"))
    return DigitFrames(_alone(rng, painter, frames, classes=26), LETTER_CLASSES)


def _one_class_frames(frames: int, part: Literal["pool", "test"], rng: np.random.Generator) -> DigitFrames:
    """Frames with one to three digits of one class, in a random order of classes."""
    painter = _Painter(rng, digit_glyphs(part), photo_crops(part), opacities=_ONE_CLASS_OPACITIES)
    made = []
    for number, label in enumerate((rng.permutation(frames) % len(ONE_CLASS_CLASSES)).tolist()):
        [frame] = painter.sequence(number, [label] * int(rng.integers(1, 4)), 1)
        made.append(_with_careless_boxes(frame, rng) if label == _CARELESS_CLASS else frame)
    return DigitFrames(made, ONE_CLASS_CLASSES)


def _with_careless_boxes(frame: _Frame, rng: np.random.Generator) -> _Frame:
    sizes, middles = frame.boxes[:, 2:] - frame.boxes[:, :2], (frame.boxes[:, 2:] + frame.boxes[:, :2]) / 2
    middles = middles + rng.uniform(-0.45, 0.45, middles.shape) * sizes
    sizes = sizes * rng.uniform(0.55, 1.8, sizes.shape)
    corners = np.concatenate([middles - sizes / 2, middles + sizes / 2], axis=1)
    return replace(frame, boxes=corners.clip(0, FRAME_SIZE).astype(np.float32))


def digit_glyphs(part: Literal["pool", "test"]) -> Glyphs:
    """Half of scikit-learn's 1,797 digits for all pools, the other half for all tests."""
    pixels, labels = load_digits(return_X_y=True)
    shuffled = np.random.default_rng(_DIGIT_SPLIT_SEED).permutation(len(labels))
    rows = np.sort(shuffled[::2] if part == "pool" else shuffled[1::2])
    return Glyphs(
        (pixels[rows] / 16).reshape(-1, _GLYPH_SIZE, _GLYPH_SIZE).astype(np.float32),
        labels[rows].astype(np.int64),
        rows,
    )


def letter_glyphs(*, each: int = 20, seed: int = 0) -> Glyphs:
    """`each` slightly turned, slanted and thickened copies of the 26 capitals, reduced to the digits' 8 x 8 pixels."""
    rng = np.random.default_rng([seed, 3])
    font = ImageFont.load_default(size=48)  # Pillow's own; nothing is read from the system
    pixels = [
        _slanted(rng, letter, font, stroke=int(rng.integers(0, 3))) for letter in LETTER_CLASSES for _ in range(each)
    ]
    labels = np.repeat(np.arange(26), each)
    return Glyphs(np.stack(pixels), labels, np.arange(len(labels)))


def photo_crops(part: Literal["pool", "test"]) -> list[Array]:
    """The photos, grey float32 in [0, 1], cut to the part (left or right) that pools or tests may crop from."""
    colour = [getattr(skimage.data, name)() for name in _PHOTOS] + list(load_sample_images().images)
    grey = [np.asarray(Image.fromarray(photo).convert("L"), dtype=np.float32) / 255 for photo in colour]
    borders = [int(photo.shape[1] * _POOL_SHARE_OF_PHOTO) for photo in grey]
    if part == "pool":
        return [photo[:, :border] for photo, border in zip(grey, borders, strict=True)]
    return [photo[:, border:] for photo, border in zip(grey, borders, strict=True)]


@dataclass(frozen=True, eq=False)
class _Frame:
    image: NDArray[np.uint8]
    boxes: Array
    labels: NDArray[np.int64]
    instances: tuple[int, ...]
    sequence: int
    position: int


@dataclass(frozen=True, eq=False)
class _Stamp:
    """A glyph at its final size: `alpha` (h, w) is how much ink covers a pixel; no outer row or column is without."""

    alpha: Array
    ink: float
    label: int
    instance: int
    left: float
    top: float


class _Painter:
    """Draws sequences from one random stream, one set of glyphs and one set of photos."""

    def __init__(
        self,
        rng: np.random.Generator,
        glyphs: Glyphs,
        photos: list[Array],
        *,
        opacities: Mapping[int, tuple[float, float]] | None = None,
    ) -> None:
        self.rng = rng
        self.opacities = opacities or {}
        self.glyphs = glyphs
        self.photos = photos

    def sequence(self, number: int, labels: list[int], length: int) -> Iterator[_Frame]:
        """`length` frames of the same place and digits; camera and digits drift slowly, noise and light vary."""
        rng = self.rng
        photo = self.photos[rng.integers(len(self.photos))]
        camera = rng.uniform(-1.5, 1.5, 2) * (length - 1)  # (x, y) in pixels, from the first frame to the last
        drift = rng.uniform(-1.5, 1.5, 2) * (length - 1)
        corner = np.array([_start(rng, photo.shape[1 - axis] - FRAME_SIZE, camera[axis]) for axis in (0, 1)])
        stamps = self._stamps(labels, drift, _crop(photo, corner))
        for position in range(length):
            done = position / max(1, length - 1)
            crop = _crop(photo, corner + done * camera).copy()
            boxes = [_paste(crop, stamp, done * drift) for stamp in stamps]
            crop = crop * rng.uniform(1 - _LIGHT, 1 + _LIGHT) + rng.normal(0, _NOISE, crop.shape)
            yield _Frame(
                image=(crop.clip(0, 1) * 255).round().astype(np.uint8),
                boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
                labels=np.array([stamp.label for stamp in stamps], dtype=np.int64),
                instances=tuple(stamp.instance for stamp in stamps),
                sequence=number,
                position=position,
            )

    def _stamps(self, labels: list[int], drift: Array, crop: Array) -> list[_Stamp]:
        """One stamp a label, placed so that none overlaps another or leaves the frame while all drift together.

        A label for which no place is found is left out; the first always has one.
        """
        rng = self.rng
        stamps: list[_Stamp] = []
        for label in labels:
            row = int(rng.choice(np.flatnonzero(self.glyphs.labels == label)))
            alpha = _enlarged(self.glyphs.pixels[row], size=int(rng.integers(20, 37)))
            opacity = rng.uniform(*self.opacities.get(label, _OPACITIES))
            for _ in range(50):
                left, top = (_start(rng, FRAME_SIZE - alpha.shape[1 - axis], drift[axis]) for axis in (0, 1))
                ink = _ink(rng, crop[int(top) :, int(left) :][: alpha.shape[0], : alpha.shape[1]])
                stamp = _Stamp(alpha * opacity, ink, label, int(self.glyphs.instances[row]), left, top)
                if not any(_overlap(stamp, other) for other in stamps):
                    stamps.append(stamp)
                    break
        return stamps


def _alone(rng: np.random.Generator, painter: _Painter, frames: int, *, classes: int) -> list[_Frame]:
    """Frames that each stand alone, with one to three glyphs; every class is pasted about equally often."""
    deck: list[int] = []
    made: list[_Frame] = []
    for number in range(frames):
        count = int(rng.integers(1, 4))
        if len(deck) < count:
            deck.extend(rng.permutation(classes).tolist())
        made.extend(painter.sequence(number, deck[:count], 1))
        del deck[:count]
    return made


def _crop(photo: Array, corner: Array) -> Array:
    left, top = np.round(corner).astype(int)
    return photo[top : top + FRAME_SIZE, left : left + FRAME_SIZE]


def _ink(rng: np.random.Generator, ground: Array) -> float:
    """Light or dark, at random where both can be seen on the ground; else the one that can."""
    ink = rng.uniform(0.0, 0.25)
    mean = float(ground.mean())
    light = mean < 0.4 or (mean <= 0.6 and rng.random() < 0.5)
    return float(1 - ink if light else ink)


def _start(rng: np.random.Generator, room: int, move: float) -> float:
    """A random start in [0, room] from which a move of `move` ends in [0, room] too."""
    low, high = max(0.0, -move), room - max(0.0, move)
    return float(rng.uniform(low, max(low, high)))


def _paste(crop: Array, stamp: _Stamp, moved: Array) -> tuple[int, int, int, int]:
    """Blend the stamp into the crop, in place; returns its box, xyxy."""
    height, width = stamp.alpha.shape
    left = int(np.clip(round(stamp.left + moved[0]), 0, FRAME_SIZE - width))
    top = int(np.clip(round(stamp.top + moved[1]), 0, FRAME_SIZE - height))
    view = crop[top : top + height, left : left + width]
    view += stamp.alpha * (stamp.ink - view)
    return left, top, left + width, top + height


def _overlap(one: _Stamp, other: _Stamp, *, gap: int = 2) -> bool:
    (height, width), (other_height, other_width) = one.alpha.shape, other.alpha.shape
    apart_x = one.left + width + gap <= other.left or other.left + other_width + gap <= one.left
    apart_y = one.top + height + gap <= other.top or other.top + other_height + gap <= one.top
    return not (apart_x or apart_y)


def _enlarged(pixels: Array, *, size: int) -> Array:
    """The glyph, its 8 rows enlarged to `size` pixels, without the faint rim, cut to its ink."""
    large = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
    alpha = np.asarray(large, dtype=np.float32).clip(0, 1)
    return _cut(np.where(alpha < 0.15, 0, alpha).astype(np.float32))


def _cut(alpha: Array) -> Array:
    rows, columns = (np.flatnonzero(alpha.any(axis=axis)) for axis in (1, 0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _slanted(rng: np.random.Generator, letter: str, font: Any, *, stroke: int) -> Array:
    canvas = Image.new("L", (96, 96))
    ImageDraw.Draw(canvas).text((48, 48), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
    shear, turn = rng.uniform(-0.25, 0.25), rng.uniform(-12, 12)
    canvas = canvas.transform((96, 96), Image.Transform.AFFINE, (1, shear, -48 * shear, 0, 1, 0))
    ink = Image.fromarray(_cut(np.asarray(canvas.rotate(turn, Image.Resampling.BILINEAR), dtype=np.float32) / 255))
    # As in the digits, the height fills the 8 rows, and the width keeps its proportion.
    width = min(_GLYPH_SIZE, max(2, round(_GLYPH_SIZE * ink.width / ink.height)))
    small = np.asarray(ink.resize((width, _GLYPH_SIZE), Image.Resampling.BOX))
    pixels = np.zeros((_GLYPH_SIZE, _GLYPH_SIZE), dtype=np.float32)
    left = (_GLYPH_SIZE - width) // 2
    pixels[:, left : left + width] = small
    return pixels
