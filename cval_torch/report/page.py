"""From what a report says to one HTML file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from cval_torch.errors import MissingExtraError
from cval_torch.pool.files import replacing
from cval_torch.report.palette import palette_css
from cval_torch.report.wording import decimal

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = "page_files"


def page_file(name: str) -> str:
    """The text of one of the files that a page is made of, with plain line ends: browsers hash it like this."""
    return (files("cval_torch.report") / _FOLDER / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def check_jinja() -> None:
    """Raise a `MissingExtraError` where jinja2 is not installed."""
    try:
        import jinja2  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError("report", needed_for="`report`") from error


def content_policy(style: str, script: str) -> str:
    """The policy of a page with one style sheet and one script: these two run, `data:` pictures show, nothing else.

    Args:
        style: the text of the style sheet, as it stands in the page.
        script: the text of the script.
    """
    hashed = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    style_hash, script_hash = hashed
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )


def json_for_html(value: Any) -> str:
    """JSON that can stand in a `script` element: ASCII, and nothing in it that HTML takes for a tag."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_page(path: str | os.PathLike[str], said: Mapping[str, Any], data: Any) -> None:
    """Write a page, whole or not at all.

    Args:
        path: in a folder that is there.
        said: what the template is given.
        data: what the script is given, as plain values.

    Raises:
        OSError: the disk is full or read-only.
    """
    with replacing(path) as file:
        for part in page_parts(said, data):
            file.write(part)


def page_parts(said: Mapping[str, Any], data: Any) -> Iterator[str]:
    """The text of a page, bit by bit."""
    from markupsafe import Markup  # noqa: PLC0415  # comes with jinja2

    style = page_file("page.css") + page_file("suspected.css") + palette_css()
    script = page_file("page.js")
    return (
        _environment()
        .get_template("page.html")
        .generate(
            said,
            policy=content_policy(style, script),
            style=Markup(style),  # noqa: S704  # a file of ours
            script=Markup(script),  # noqa: S704
            data=Markup(json_for_html(data)),  # noqa: S704  # escaped for this place
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # noqa: PLC0415

    environment = Environment(
        loader=FunctionLoader(page_file),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["decimal"] = decimal
    return environment
