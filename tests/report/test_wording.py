"""Ids, names and numbers as text."""

from __future__ import annotations

import pytest

from cval_torch.errors import InvalidInputError
from cval_torch.report.wording import ClassNames, counted, decimal, isolated, ordinal, shortened, visible


@pytest.mark.parametrize(
    "text", ["plain", "日本/写真 1.jpg", "\N{HEBREW LETTER SHIN}\N{HEBREW LETTER LAMED}", "é</script>\"'", " "]
)
def test_what_can_be_seen_stays(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", r"a\nb"), ("\x00", r"\x00"), ("\u202egpj", r"\u202egpj"), ("\u2066", r"\u2066"), ("\ud800", r"\ud800")],
)
def test_what_moves_or_hides_text_becomes_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown
    visible(text).encode("utf-8")


def test_isolated_text_cannot_turn_its_surroundings() -> None:
    assert isolated("\N{HEBREW LETTER SHIN}") == "\u2068\N{HEBREW LETTER SHIN}\u2069"


@pytest.mark.parametrize("longest", [4, 5, 9])
def test_long_ids_keep_both_ends(longest: int) -> None:
    found = shortened("abcdefghij", longest)
    assert len(found) == longest
    assert (found[0], found[-1]) == ("a", "j")
    assert shortened("abc", longest) == "abc"


def test_classes_without_a_name_have_their_number() -> None:
    assert [ClassNames(["cat", ""])(label) for label in (0, 1, 2)] == ["cat", "class 1", "class 2"]
    assert ClassNames({7: "a\nb"})(7) == r"a\nb"
    assert ClassNames(None)(3) == "class 3"
    assert len(ClassNames({0: "x" * 90}).short(0)) == 24


@pytest.mark.parametrize("given", ["cat", 3])
def test_names_are_a_dict_or_a_list(given: object) -> None:
    with pytest.raises(InvalidInputError, match="`class_names` must be"):
        ClassNames(given)  # type: ignore[arg-type]


def test_numbers() -> None:
    assert decimal(1234567.891, 2) == "1,234,567.89"
    assert counted(2, "box", "boxes") == "2 boxes"
    assert ordinal(22) == "22nd"
