"""The map of a pool."""

from __future__ import annotations

import re

import pytest
import torch
from reported import described

from cval_torch.report import map_view as module
from cval_torch.report.map_view import SIDE, map_view
from cval_torch.report.neighbours import Places
from cval_torch.report.plane import plane_of

POOL = described(60)
LABELED = described(9, seed=3, prefix="labeled")
CHOSEN = torch.tensor([3, 50, 20])


def dots(path: str) -> list[tuple[int, int]]:
    assert re.fullmatch(r"(M\d+ \d+h0)*", path)
    return [(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h0", path)]


def test_every_frame_is_a_dot_where_the_plane_has_it() -> None:
    places = Places(POOL, LABELED)
    view = map_view(places, POOL, CHOSEN, LABELED, method="pca", seed=0)
    rest = [row for row in range(60) if row not in CHOSEN.tolist()]
    rows = torch.tensor([*rest, *CHOSEN.tolist()])
    expected = (12 + plane_of(places.vectors(rows, list(range(9))), "pca", seed=0).points * (SIDE - 24)).round()
    found = [*dots(view.pool), *view.chosen, *dots(view.annotated)]
    assert found == [(int(x), int(y)) for x, y in expected.tolist()]
    assert view.names == (*(POOL.frame_ids[row] for row in rest), *LABELED.frame_ids)
    assert [*zip(view.points[::2], view.points[1::2], strict=True)] == [*dots(view.pool), *dots(view.annotated)]
    assert view.num_pool == 57
    assert "are shown" not in view.said


def test_many_frames_are_thinned_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_POOL", 20)
    monkeypatch.setattr(module, "MOST_ANNOTATED", 4)
    monkeypatch.setattr(module, "MOST_CHOSEN", 2)
    view = map_view(Places(POOL, LABELED), POOL, CHOSEN, LABELED, method="pca", seed=5)
    assert (len(dots(view.pool)), len(dots(view.annotated)), len(view.chosen)) == (20, 4, 2)
    assert "20 are shown, drawn with seed 5, and 37 not." in view.said
    assert "Of 9 annotated frames 4 are shown." in view.said
    assert "Of 3 chosen frames the first 2 are shown." in view.said
    turned = list(range(59, -1, -1))
    other = POOL.take(turned)
    again = map_view(Places(other, LABELED), other, 59 - CHOSEN, LABELED, method="pca", seed=5)
    assert set(again.names) == set(view.names)


def test_one_frame_is_a_dot_in_the_middle() -> None:
    one = POOL.take([4])
    view = map_view(Places(one, None), one, torch.tensor([0]), None, method="pca", seed=0)
    assert view.chosen == ((SIDE // 2, SIDE // 2),)
    assert view.names == ()
