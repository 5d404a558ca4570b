"""What a `Comparison` says: ranges, agreement and savings by hand, tables and files read back, pictures looked into."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from compared import START, choice, curve, made, points, trained
from hypothesis import given, settings

from cval_torch.comparison import CurvePoint, MeasuredChoice, Saving
from cval_torch.comparison.result import cost_to_reach
from cval_torch.errors import InvalidInputError


def test_ranges_and_what_lies_outside() -> None:
    found = made()
    assert found.random_range("objects") == (12, 10, 14)
    assert found.outside("entropy", "objects") == 1
    assert found.outside("=1+1|x", "objects") == 0  # equal to the least draw
    assert found.outside("entropy", "duplicate_share") == 1
    assert made(strategies={"few": choice("abcd", 9.5)}).outside("few", "objects") == -1
    assert found.value("entropy", "objects") == 21


def test_names_that_are_not_there() -> None:
    with pytest.raises(
        InvalidInputError, match=r"`measure` must be one of frames, objects, duplicate_share; got 'mAP'"
    ):
        made().random_range("mAP")
    for ask in (lambda c: c.value("x", "objects"), lambda c: c.saving("x"), lambda c: c.verdict("x")):
        with pytest.raises(InvalidInputError, match=r"`strategy` must be one of entropy, .*; got 'x'"):
            ask(made())


def test_agreement_by_hand() -> None:
    matrix = made().agreement()
    assert matrix.diagonal()[:2].tolist() == [1, 1]
    assert matrix[0, 1] == matrix[1, 0] == 2 / 6
    assert float(matrix[0, 2]) == pytest.approx((2 / 6 + 2 / 6 + 2 / 6) / 3)
    assert float(matrix[1, 2]) == pytest.approx((2 / 6 + 2 / 6 + 2 / 6) / 3)
    assert float(matrix[2, 2]) == pytest.approx((0 + 2 / 6 + 2 / 6) / 3)
    assert torch.equal(matrix, matrix.T)


def test_what_is_saved_by_hand() -> None:
    # random ends at 0.5 with 10 frames and 25 boxes; halfway between the first two points it is reached
    saving = trained((6, 23, 0.75), (10, 43, 0.7)).saving("entropy")
    assert saving == Saving(frames=6, boxes=12, frames_share=6 / 8, boxes_share=12 / 22)
    costly = trained((6, 23, 0.25), (10, 43, 0.75)).saving("entropy")
    assert costly == Saving(frames=2, boxes=25 - 33, frames_share=2 / 8, boxes_share=-8 / 22)
    assert trained((6, 23, 0.3), (10, 43, 0.4)).saving("entropy") is None
    flat = (curve(START, (6, 13, 0.2), (10, 23, 0.2)), curve(START, (6, 13, 0.2), (10, 23, 0.3)))
    assert trained((6, 23, 0.75), (10, 43, 0.7), random=flat).saving("entropy") is None
    assert made().saving("entropy") is None


def test_the_headline_goes_by_scarce_objects() -> None:
    def with_scarce(worth: float, objects: float) -> MeasuredChoice:
        return MeasuredChoice(tuple("abcd"), {"frames": 4, "scarce_objects": worth, "objects": objects})

    draws = (with_scarce(1.0, 10), with_scarce(2.0, 14))
    options: dict[str, Any] = {"random": draws, "measures": ("frames", "scarce_objects", "objects")}
    found = made(strategies={"good": with_scarce(3.0, 21), "poor": with_scarce(1.5, 12)}, **options)
    assert found.headline("good") == (
        "good: 2.00 times random's mean of scarce objects (3.00; above random's 1.00 to 2.00), with 21 objects to "
        "annotate in place of 12."
    )
    assert "1.00 times random's mean of scarce objects (1.50; within random's" in found.headline("poor")
    assert f"- {found.headline('good')}\n- {found.headline('poor')}" in found.table()
    nothing = made(strategies={"one": with_scarce(3.0, 21)}, **(options | {"random": (with_scarce(0.0, 0),) * 2}))
    assert nothing.headline("one").startswith("one: more than random's mean")


def test_verdicts_are_no_bolder_than_the_draws() -> None:
    better = trained((6, 23, 0.75), (10, 43, 0.7)).verdict("entropy")
    assert better == (
        "entropy: better than each of 2 random draws (0.700 after 10 frames, random 0.450 to 0.550). It comes to "
        "random's last mean with 6 fewer frames (75% of those added) and 12 fewer boxes (55%)."
    )
    assert "2 fewer frames (25% of those added) and 8 more boxes (-36%)" in trained(
        (6, 23, 0.25), (10, 43, 0.75)
    ).verdict("entropy")
    for metric in (0.45, 0.5, 0.55):  # 0.55 is what one draw had too
        assert "no better than random" in trained((6, 23, 0.6), (10, 43, metric)).verdict("entropy")
    assert "worse than each of 2" in trained((6, 23, 0.6), (10, 43, 0.4)).verdict("entropy")
    flat = (curve(START, (6, 13, 0.2), (10, 23, 0.2)), curve(START, (6, 13, 0.2), (10, 23, 0.3)))
    assert "random choice gained nothing" in trained((6, 23, 0.75), (10, 43, 0.7), random=flat).verdict("entropy")
    assert made().verdict("entropy") == ""


@given(steps=points, target=st.integers(0, 8))
@settings(deadline=None)
def test_cost_to_reach(steps: list[tuple[int, int, int]], target: int) -> None:
    """Beside walking along the curve in small steps."""
    frames, boxes = np.cumsum([[step[0], step[1]] for step in steps], axis=0).T
    metrics = [step[2] for step in steps]
    found = cost_to_reach(
        [CurvePoint(int(f), int(b), float(m)) for f, b, m in zip(frames, boxes, metrics, strict=True)], target
    )
    walk = np.union1d(np.linspace(frames[0], frames[-1], 20_001), frames)
    height = np.interp(walk, frames, metrics)
    over = np.flatnonzero(height >= target - 1e-9)
    if max(metrics) < target:
        assert found is None
        return
    assert found is not None
    assert found[0] == pytest.approx(walk[over[0]], abs=0.01)
    assert found[1] == pytest.approx(np.interp(found[0], frames, boxes), abs=1e-6)


def cells(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table that begins with `heading`, by their first cell; checked to be aligned."""
    block = next(part for part in text.split("\n\n") if part.startswith(f"| {heading}")).splitlines()
    assert len({len(line) for line in block}) == 1
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    assert len({len(row) for row in rows}) == 1
    assert all(set(cell) <= set("-:") for cell in rows[1])
    return {row[0]: row[1:] for row in rows}


def test_the_table_read_back() -> None:
    text = str(made())
    assert text.startswith("4 of 8 frames, 3 random draws; 2 frames were labelled before\n")
    rows = cells(text, "strategy")
    assert rows["strategy"] == ["frames", "objects", "near-duplicates"]
    assert rows["entropy"] == ["4", "21 ↑", "50% ↑"]
    assert rows["=1+1?x"] == ["4", "10", "25%"]
    assert rows["random, mean"] == ["4", "12", "17%"]
    assert rows["random, range"] == ["4 to 4", "10 to 14", "0% to 25%"]
    assert "2 of 4 values; if every choice were random, up to 2.0 would be" in text
    assert "Trained" not in text
    noted = made(notes=("mind this",)).table()
    assert noted.endswith("Note: mind this\n")


def test_the_table_of_curves_claims_no_saving_within_the_draws() -> None:
    text = trained((6, 23, 0.75), (10, 43, 0.7)).table()
    part = text[text.index("Trained on") :]
    rows = cells(part, "strategy")
    assert rows["strategy"] == ["2 frames", "6 frames", "10 frames", "boxes", "frames saved", "boxes saved"]
    assert rows["entropy"] == ["0.250", "0.750", "0.700", "43", "+6", "+12"]
    assert rows["=1+1?x"][-3:] == ["23", "-", "-"]  # it reaches random's mean, and so does one draw
    assert rows["random, mean"][:4] == ["0.250", "0.300", "0.500", "25.0"]
    assert rows["random, range"][:4] == ["0.250 to 0.250", "0.250 to 0.350", "0.450 to 0.550", "23 to 27"]
    assert "above all of 2 draws 1 time in 3" in part
    assert "- =1+1?x: no better than random" in part


def test_the_file_read_back(tmp_path: Path) -> None:
    found = trained((6, 23, 0.75), (10, 43, 0.7))
    assert found.to_csv(tmp_path / "all.csv") == tmp_path / "all.csv"
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["strategy"] for row in rows} == {"entropy", "'=1+1|x", "random"}
    values = {(row["strategy"], row["draw"], row["round"], row["measure"]): row for row in rows}
    assert len(values) == len(rows) == 3 * (2 + 3) + 3 * 3 * (2 + 2)
    assert float(values["entropy", "", "1", "objects"]["value"]) == 21
    assert values["entropy", "", "1", "objects"]["outside_random"] == "1"
    assert float(values["random", "2", "1", "duplicate_share"]["value"]) == 0
    assert float(values["random", "1", "2", "metric"]["value"]) == 0.55
    assert float(values["'=1+1|x", "", "2", "labelled_boxes"]["value"]) == 23
    assert list(tmp_path.iterdir()) == [tmp_path / "all.csv"]


@pytest.mark.parametrize("name", ["=1", "+1", "-1", "@x", "\tx", "\rx", "\nx"])
def test_no_formula_in_the_file(tmp_path: Path, name: str) -> None:
    made(strategies={name: choice("abcd", 3)}).to_csv(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        assert {row[0] for row in csv.reader(file)} == {"strategy", "random", f"'{name}"}


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made().to_csv(tmp_path / "all.csv")
    before = (tmp_path / "all.csv").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        trained((6, 23, 0.75), (10, 43, 0.7)).to_csv(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "all.csv"]


def test_what_it_says_of_itself() -> None:
    assert repr(made()) == "Comparison(entropy, =1+1|x: 4 of 8 frames, 3 random draws)"


def test_a_saving_where_random_choice_added_no_object() -> None:
    """There is no share of nothing."""
    empty = ((0, 0, 0.0), (4, 0, 0.5))
    found = made(
        curves={"entropy": curve((0, 0, 0.0), (2, 0, 0.5), (4, 0, 0.75)), "=1+1|x": curve(*empty)},
        random_curves=(curve(*empty), curve(*empty)),
    )
    assert found.saving("entropy") == Saving(2, 0, 0.5, 0.0)
