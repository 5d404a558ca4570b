"""Comparisons as tables and charts."""

from __future__ import annotations

from compared import made, trained

from cval_torch.report.compared import compared_view


def test_the_table_has_every_value_and_says_what_is_outside_of_random() -> None:
    found = made()
    view = compared_view(found)
    assert view.head == ("frames", "objects", "near-duplicates")
    cells = {name: [(cell.text, cell.mark, cell.tone) for cell in row] for name, row in view.rows}
    assert cells == {
        "entropy": [("4", "", ""), ("21", "↑", ""), ("50%", "↑", "bad")],
        "=1+1|x": [("4", "", ""), ("10", "", ""), ("25%", "", "")],
        "random, mean": [("4", "", ""), ("12", "", ""), ("17%", "", "")],
        "random, range": [("4 to 4", "", ""), ("10 to 14", "", ""), ("0% to 25%", "", "")],
    }
    assert view.verdicts == ()
    assert view.charts == ()
    assert view.title == found.title


def test_the_agreement_is_that_of_the_comparison() -> None:
    view = compared_view(made())
    assert view.agreement_head == ("entropy", "=1+1|x", "random")
    expected = [[f"{value:.2f}" for value in row] for row in made().agreement().tolist()]
    assert [list(values) for _, values in view.agreement] == expected


def test_trainings_have_a_verdict_and_two_charts() -> None:
    found = trained((6, 16, 0.5), (10, 30, 0.7))
    view = compared_view(found)
    assert view.verdicts == tuple(found.verdict(name) for name in found.names)
    over_frames, over_boxes = view.charts
    assert [dot[2] for dot in over_frames.lines[1].dots] == [
        "entropy: 0.250 at 2",
        "entropy: 0.500 at 6",
        "entropy: 0.700 at 10",
    ]
    assert [dot[2] for dot in over_boxes.lines[1].dots][-1] == "entropy: 0.700 at 30"
    assert view.lines == ("entropy", "=1+1|x")


def test_names_and_notes_are_made_visible() -> None:
    found = made(notes=("a\u202eb",), strategies={"a\nb": made().strategies["entropy"]})
    view = compared_view(found)
    assert view.rows[0][0] == r"a\nb"
    assert view.notes == (r"a\u202eb",)
