"""The picture of a comparison, read back."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from compared import RANDOM, START, choice, made, trained
from PIL import Image

from cval_torch.comparison import Comparison, MeasuredChoice, picture
from cval_torch.comparison.measures import MEASURES
from cval_torch.comparison.picture import _draw_curves, draw_comparison
from cval_torch.errors import MissingExtraError


def coloured(path: Path, colour: str) -> int:
    """How many pixels of a picture are of a colour."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(pixels - wanted).max(axis=2) <= 2).sum())


def test_pictures_show_what_is_outside(tmp_path: Path) -> None:
    from cval_torch.comparison.picture import _BETTER, _OTHER, _WORSE

    def with_duplicates(share: float, objects: float = 12) -> Comparison:
        return made(
            strategies={"one": choice("abcd", objects, share)}, random=(choice("a", 10, 0.2), choice("b", 14, 0.4))
        )

    def bars(found: Comparison) -> list[int]:
        path = found.plot(tmp_path / "deep" / "picture.png")
        return [coloured(path, colour) for colour in (_BETTER, _WORSE, _OTHER)]

    inside = bars(with_duplicates(0.3))  # the legend alone
    more, fewer, many = (bars(with_duplicates(*values)) for values in ((0.8,), (0.0,), (0.3, 90)))
    assert [value > before + 2000 for value, before in zip(more, inside, strict=True)] == [False, True, False]
    assert [value > before + 2000 for value, before in zip(fewer, inside, strict=True)] == [True, False, False]
    assert [value > before + 2000 for value, before in zip(many, inside, strict=True)] == [False, False, True]


@pytest.mark.parametrize("measures", [tuple(MEASURES), tuple(MEASURES)[:6], ("frames", "objects")])
@pytest.mark.parametrize("with_curves", [False, True])
def test_pictures_of_any_comparison(tmp_path: Path, measures: tuple[str, ...], with_curves: bool) -> None:
    names = ["$x_1$ | very " + "long " * 20, "plain\n", "漢字", *map(str, range(9))]
    values = dict.fromkeys(measures, 1.0)
    found = made(
        strategies={name: MeasuredChoice(("a", "b"), values) for name in names},
        random=(MeasuredChoice(("a", "c"), values), MeasuredChoice(("b", "c"), values)),
        measures=measures,
        curves=dict.fromkeys(names, RANDOM[0]) if with_curves else {},
        random_curves=RANDOM if with_curves else (),
    )
    with pytest.MonkeyPatch.context() as patch:
        import warnings

        patch.setattr(warnings, "showwarning", lambda *_, **__: None)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            found.plot(tmp_path / "picture.png", title="50 $ | <x>")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 1000
        assert len(set(picture.convert("L").resize((80, 60)).tobytes())) > 10


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=re.escape('pip install "cval_torch[report]"')):
        made().plot(tmp_path / "picture.png")
    assert list(tmp_path.iterdir()) == []


class Axes:
    """Stands for matplotlib's, and remembers what was plotted."""

    def __init__(self) -> None:
        self.lines: list[tuple[list[float], list[float]]] = []
        self.bands: list[tuple[list[float], list[float], list[float]]] = []
        self.ticks: list[float] | None = None
        self.titles: list[str] = []

    def plot(self, x: Any, y: Any, *_: Any, **__: Any) -> None:
        self.lines.append((list(x), list(y)))

    def fill_between(self, x: Any, low: Any, high: Any, **_: Any) -> None:
        self.bands.append((list(x), list(low), list(high)))

    def set_xticks(self, ticks: Any) -> None:
        self.ticks = list(ticks)

    def set_title(self, title: str, **_: Any) -> None:
        self.titles.append(title)

    def __getattr__(self, name: str) -> Any:
        return mock.MagicMock()


@pytest.mark.parametrize(("cost", "place"), [("frames", 0), ("boxes", 1)])
def test_curves_are_drawn_over_what_they_say(cost: str, place: int) -> None:
    """The metric over frames, or over the objects in them: random as the mean of its draws, within their range."""
    found = trained((6, 20, 0.5), (10, 31, 0.75))
    axes = Axes()
    _draw_curves(axes, found, cost)
    spent = [sum(curve[point][place] for curve in POINTS) / 2 for point in range(3)]
    metrics = [[curve[point][2] for curve in POINTS] for point in range(3)]
    assert axes.bands == [(spent, [min(each) for each in metrics], [max(each) for each in metrics])]
    assert axes.lines[0] == (spent, pytest.approx([sum(each) / 2 for each in metrics]))
    first = [START, (6, 20, 0.5), (10, 31, 0.75)]
    assert axes.lines[1] == ([point[place] for point in first], [point[2] for point in first])
    assert axes.titles == [f"metric over {'frames' if cost == 'frames' else 'objects'} labelled"]
    assert axes.ticks == (spent if cost == "frames" else None)


POINTS = [[START, (6, 13, 0.35), (10, 23, 0.45)], [START, (6, 15, 0.25), (10, 27, 0.55)]]


def test_both_costs_are_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    draw = _draw_curves

    def noting(axes: Any, compared: Any, cost: str) -> None:
        drawn.append(cost)
        draw(axes, compared, cost)

    monkeypatch.setattr(picture, "_draw_curves", noting)
    assert draw_comparison(trained((6, 20, 0.5), (10, 31, 0.75)), tmp_path / "a.png") == tmp_path / "a.png"
    assert drawn == ["frames", "boxes"]
    drawn.clear()
    draw_comparison(made(), tmp_path / "a.png")
    assert drawn == []
