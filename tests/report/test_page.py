"""The file around a report: its policy, its data, and what no text may do to it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cval_torch.errors import MissingExtraError
from cval_torch.report.page import check_jinja, content_policy, json_for_html, page_file, write_page


@pytest.mark.parametrize(
    "value",
    ["</script><script>alert(1)</script>", "<!--", "\u2028\u2029", "\x00", "\ud800", "&lt;", 'a"b\\c', ["x", 1, None]],
)
def test_data_is_json_that_html_cannot_read_otherwise(value: object) -> None:
    text = json_for_html({"it": value})
    assert json.loads(text) == {"it": value}
    assert text.isascii()
    assert not set("<>&\x00") & set(text)


def test_data_has_no_numbers_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_for_html(float("nan"))


def test_the_policy_names_the_hashes_of_the_two_texts() -> None:
    policy = content_policy("a { }", "1")
    for text, name in (("a { }", "style-src"), ("1", "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy


def test_files_of_the_page_have_no_carriage_returns_and_name_no_address() -> None:
    for name in ("page.html", "parts.html", "suspected.html", "page.css", "suspected.css", "page.js"):
        text = page_file(name)
        assert "\r" not in text
        found = set(re.findall(r"https?://[^\s\"')]+", text))
        assert found <= {"http://www.w3.org/2000/svg"}, "a name space is no address"
        assert not re.search(r"\bstyle=|\son\w+=|javascript:|@import|url\(", text)


def test_what_goes_into_the_page_by_itself_cannot_end_its_element() -> None:
    assert "</style" not in (page_file("page.css") + page_file("suspected.css")).lower()
    assert "</script" not in page_file("page.js").lower()


def test_a_page_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(Exception, match="title"):
        write_page(path, {}, {})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_jinja_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cval_torch\[report\]"'):
        check_jinja()


def test_templates_are_html_that_closes_what_it_opens() -> None:
    """Of the parts that are not inside of a choice of the template's own."""
    void = {"meta", "link", "input", "img", "br"}

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attributes: object) -> None:
            if tag not in void:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    for name in ("page.html", "parts.html", "suspected.html"):
        reader = Reader()
        reader.feed(re.sub(r"\{%.*?%\}|\{\{.*?\}\}", "", page_file(name), flags=re.DOTALL))
        assert reader.open == [], name
