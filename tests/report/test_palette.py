"""Colours of classes."""

from __future__ import annotations

import re

from cval_torch.report.palette import PALETTE, is_bright, palette_css, place_of


def luminance(colour) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [value / 255 for value in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_classes_take_the_colours_in_turn() -> None:
    assert [place_of(label) for label in (0, 11, 12, 25)] == [0, 11, 0, 1]
    assert len(set(PALETTE)) == 12


def test_the_style_sheet_has_every_colour_and_ink_that_reads_on_it() -> None:
    rules = re.findall(r"\.k(\d+) \{ --class: #(\w{6}); --on-class: #(\w{6}); \}", palette_css())
    assert [int(place) for place, _, _ in rules] == list(range(12))
    for (_, found, ink), colour in zip(rules, PALETTE, strict=True):
        assert tuple(bytes.fromhex(found)) == colour
        bright, dark = sorted((luminance(colour), luminance(bytes.fromhex(ink))), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 2.5, "large bold text on the colour"


def test_bright_colours_take_dark_ink() -> None:
    assert is_bright((255, 205, 25))
    assert not is_bright((160, 60, 200))
