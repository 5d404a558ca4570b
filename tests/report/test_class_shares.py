"""Classes of pool, annotated and chosen frames."""

from __future__ import annotations

from cval_torch.report.class_shares import MOST_CLASSES, class_shares
from cval_torch.report.wording import ClassNames

NAMES = ClassNames(["cat", "dog", "emu"])


def test_shares_are_of_the_objects_of_each_kind() -> None:
    found = class_shares({"pool": {0: 2.0, 1: 6.0}, "chosen": {2: 5.0}}, NAMES)
    assert [(row.name, row.shares) for row in found.rows] == [
        ("dog", (("pool", 0.75, 6.0), ("chosen", 0.0, 0.0))),
        ("cat", (("pool", 0.25, 2.0), ("chosen", 0.0, 0.0))),
        ("emu", (("pool", 0.0, 0.0), ("chosen", 1.0, 5.0))),
    ]
    assert found.most == 1.0
    assert found.rows[0].width(0.75, 1.0) == 75


def test_hundreds_of_classes_are_listed_and_some_drawn() -> None:
    found = class_shares({"pool": {label: 1.0 + label for label in range(500)}}, NAMES)
    assert len(found.rows) == len(found.listed) == 500
    assert [row.name for row in found.drawn[:2]] == ["class 499", "class 498"]
    assert len(found.drawn) == MOST_CLASSES


def test_nothing_has_no_share() -> None:
    assert class_shares({"pool": {}, "chosen": {}}, NAMES).rows == ()
    empty = class_shares({"pool": {0: 0.0}}, NAMES)
    assert empty.rows[0].width(0.0, empty.most) == 0.0
