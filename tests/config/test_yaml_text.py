"""YAML as people mean it."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.config.yaml_text import parse_yaml
from cval_torch.errors import InvalidInputError

TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF, exclude_categories=["Cc", "Zl", "Zp"]))
NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=3),
    max_leaves=8,
)


@given(value=VALUES)
def test_json_is_yaml(value: Any) -> None:
    assert parse_yaml(json.dumps(value, ensure_ascii=False), "a.yaml") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("-2.5E4", -25000.0),
        (".5", 0.5),
        ("3", 3),
        ("-0", 0),
        ("010", "010"),
        ("0x1F", "0x1F"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("'no'", "no"),
        ('"1e-3"', "1e-3"),
        ("norway", "norway"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    found = parse_yaml(f"key: {text}", "a.yaml")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "N", "Yes", "OFF"])
@pytest.mark.parametrize("form", ["key: {}", "- {}", "{}: 1", "key: [a, {}]"])
def test_words_that_some_take_for_booleans_are_refused(word: str, form: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"line 2 of a.yaml has a bare '{word}'.*in quotes: '{word}'"):
        parse_yaml("# a comment\n" + form.format(word), "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2", r"line 4 of a.yaml has the key 'c' again, after line 3"),
        ("a: &x 1\nb: *x", r"line 2 of a.yaml has an alias"),
        ("a: [1", "a.yaml is not YAML: .*line 1"),
        ("a: 1\n\tb: 2", "a.yaml is not YAML"),
        ("? [1, 2]\n: 3", "keys are names or integers"),
        ("1.5: 3", "keys are names or integers"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("a: \0", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("x" * (1 << 21), "a configuration has at most"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        parse_yaml(text, "a.yaml")


@given(text=st.text())
def test_any_text_is_a_value_or_an_error_of_ours(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        parse_yaml(text, "a.yaml")
