"""Comparisons made by hand."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from cval_torch.comparison import Comparison, CurvePoint, MeasuredChoice


def choice(names: str, objects: float, duplicates: float = 0.25) -> MeasuredChoice:
    return MeasuredChoice(tuple(names), {"frames": len(names), "objects": objects, "duplicate_share": duplicates})


def curve(*points: tuple[int, int, float]) -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(*point) for point in points)


def made(**options: Any) -> Comparison:
    """Two strategies beside three draws."""
    given = {
        "strategies": {"entropy": choice("abcd", 21, 0.5), "=1+1|x": choice("abef", 10, 0.25)},
        "random": (choice("aceg", 10), choice("bdfh", 14), choice("abgh", 12, 0.0)),
        "measures": ("frames", "objects", "duplicate_share"),
        "rare_classes": (3,),
        **options,
    }
    return Comparison(candidates=8, start=2, num_of_samples=4, **given)


START = (2, 3, 0.25)


RANDOM = (curve(START, (6, 13, 0.35), (10, 23, 0.45)), curve(START, (6, 15, 0.25), (10, 27, 0.55)))


def trained(*last: tuple[int, int, float], random: Any = RANDOM) -> Comparison:
    """The first strategy as asked for; the second one as random is."""
    return made(
        curves={"entropy": curve(START, *last), "=1+1|x": curve(START, (6, 13, 0.3), (10, 23, 0.5))},
        random_curves=random,
    )


points = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9), st.integers(0, 8)), min_size=1, max_size=6)
