"""The picture of a comparison, read back."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from compared import RANDOM, choice, made
from PIL import Image

from cval_torch.comparison import Comparison, MeasuredChoice
from cval_torch.comparison.measures import MEASURES
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
