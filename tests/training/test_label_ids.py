"""Ids of the frames of a `LabelPool`: what can be a round, and what cannot."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cval_torch.errors import InvalidInputError
from cval_torch.training.label_ids import as_ids, check_new_ids, ids_fingerprint, rows_by_id

IDS = st.lists(st.text(min_size=1, max_size=20), unique=True)


@given(ids=IDS, data=st.data())
def test_the_fingerprint_is_of_the_set(ids: list[str], data: st.DataObject) -> None:
    assert ids_fingerprint(data.draw(st.permutations(ids))) == ids_fingerprint(ids)
    assert ids_fingerprint([*ids, "one more than before, longer"]) != ids_fingerprint(ids)


def test_the_fingerprint_does_not_join_ids() -> None:
    assert ids_fingerprint(["a", "bc"]) != ids_fingerprint(["ab", "c"])


@given(ids=IDS)
def test_rows_by_id(ids: list[str]) -> None:
    assert rows_by_id(ids) == {name: row for row, name in enumerate(ids)}


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "a"], "'a' for row 0 and for row 1"), (["a", ""], "got '' for row 1"), ([3], "got 3 for row 0")],
)
def test_what_is_no_id(ids: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        rows_by_id(ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "at least one frame"),
        (["z"], "frame 'z' is not in the dataset, which has 2 frames: 'a', 'b'"),
        (["a", "a"], "'a' is named twice"),
        (["b"], "'b' is labelled already, since round 4"),
        ([3], "Ids are strings"),
    ],
)
def test_what_is_no_round(ids: list[str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        check_new_ids(ids, {"a": 0, "b": 1}, {"b": 4})


@pytest.mark.parametrize("frames", ["abc", 3])
def test_one_string_is_not_several_ids(frames: object) -> None:
    with pytest.raises(InvalidInputError, match="`frames` must be several frame ids"):
        as_ids(frames, name="frames")  # type: ignore[arg-type]
