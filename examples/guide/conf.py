"""How Sphinx builds these pages: `sphinx-build -W -b html examples/guide build/docs`."""

from __future__ import annotations

import re

from sphinx.application import Sphinx

from cval_torch import __version__

project = "cval_torch"
author = "the developers of cval_torch"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
html_theme = "furo"
html_show_copyright = False
html_title = f"cval_torch {__version__}"

python_maximum_signature_line_length = 100
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
default_role = "code"  # docstrings are written in Markdown's way: `name` is code

_PAGE_ELSEWHERE = re.compile(r"\[([^\]]+)\]\((\.\./[^)#]+\.md)\)")


def setup(app: Sphinx) -> None:
    """Tables of results are Markdown files beside the benchmarks: in HTML, a link to one downloads it."""
    app.connect("source-read", _link_to_files)


def _link_to_files(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = _PAGE_ELSEWHERE.sub(r"{download}`\1 <\2>`", source[0])
