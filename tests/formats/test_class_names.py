"""Names of classes and their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.class_names import as_names, names_for, renumbered

names = st.text(min_size=1, max_size=5).filter(str.strip)


def test_a_list_counts_from_0_and_a_mapping_keeps_its_gaps() -> None:
    assert as_names(["bolt", "nut"]) == {0: "bolt", 1: "nut"}
    assert as_names(("bolt",)) == {0: "bolt"}
    assert as_names({90: "nut", -1: "bolt"}) == {90: "nut", -1: "bolt"}
    assert as_names(None) == {}
    assert as_names([]) == {}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("bolt", "must be names by label, or a list of names; got 'bolt'"),
        (5, "must be names by label, or a list of names; got 5"),
        ({"1": "bolt"}, "must map integers to names; got '1': 'bolt'"),
        ({True: "bolt"}, "must map integers to names; got True: 'bolt'"),
        ({1.0: "bolt"}, "must map integers to names; got 1.0: 'bolt'"),
        ({1: 2}, "must map integers to names; got 1: 2"),
        ({1: None}, "must map integers to names; got 1: None"),
        ([""], "must map integers to names; got 0: ''"),
        ([" \t"], "must map integers to names"),
        (["bolt", "nut", "bolt"], "gives the name 'bolt' to 0 and to 2"),
    ],
)
def test_what_is_no_name(value: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        as_names(value)  # type: ignore[arg-type]


def test_names_to_write() -> None:
    assert names_for([3, 1, 3], None) == {1: "1", 3: "3"}
    assert names_for([], None) == {}
    assert names_for([1], {1: "bolt", 5: "gap"}) == {1: "bolt", 5: "gap"}
    with pytest.raises(InvalidInputError, match="label 3 has no name among those of 1, 5"):
        names_for([1, 3], {1: "bolt", 5: "gap"})
    with pytest.raises(InvalidInputError, match="label 0 has no name among those of no labels"):
        names_for([0], {})


def test_without_names_the_file_decides() -> None:
    assert renumbered({9: "b", 4: "a"}, None, "FILE") == ({9: "b", 4: "a"}, {"b": 9, "a": 4})
    assert renumbered(["b", "a", "b"], None, "FILE") == ({1: "a", 2: "b"}, {"a": 1, "b": 2})
    assert renumbered([], None, "FILE") == ({}, {})
    with pytest.raises(InvalidInputError, match="FILE gives the name 'a' to the classes 4 and 9"):
        renumbered({4: "a", 9: "a"}, None, "FILE")


def test_with_names_they_alone_decide() -> None:
    assert renumbered({9: "b", 4: "a"}, ["a", "b", "c"], "FILE") == ({0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2})
    with pytest.raises(InvalidInputError, match=r"FILE has the class 'bold', .* Did you mean 'bolt'\? Add it there"):
        renumbered({1: "bold"}, ["bolt", "nut"], "FILE")
    with pytest.raises(
        InvalidInputError, match="FILE has the class 'zebra', which is not among `class_names`"
    ) as raised:
        renumbered(["zebra"], ["bolt"], "FILE")
    assert "Did you mean" not in str(raised.value)


@settings(max_examples=100, deadline=None)
@given(found=st.lists(names, unique=True, max_size=6), more=st.lists(names, unique=True, max_size=3))
def test_every_name_of_the_file_gets_the_label_that_has_this_name(found: list[str], more: list[str]) -> None:
    given_names = {label * 3: name for label, name in enumerate(dict.fromkeys([*more, *found]))}
    for class_names in (None, given_names):
        by_label, label_of = renumbered(found, class_names, "FILE")
        assert all(by_label[label_of[name]] == name for name in found)
        assert len(set(label_of.values())) == len(label_of)
