"""A real browser for the tests of pages, and the accessibility checker axe."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


def missing(what: str) -> NoReturn:
    """Skip on a user's machine, and fail where every test has to run."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not there, and CI is set")
    pytest.skip(f"{what} is not there")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as the system has it."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core: that of `.ci/run`, or one that npm brings."""
    script = Path("node_modules", "axe-core", "axe.min.js")
    known = ROOT / "build" / "axe" / script
    if known.is_file():
        return known.read_text(encoding="utf-8")
    npm = shutil.which("npm")
    if npm is None:
        missing("npm, for axe-core,")
    folder = tmp_path_factory.mktemp("axe")
    command = [npm, "install", "--silent", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, "axe-core@4"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=200)
    if done.returncode:
        missing("axe-core")
    return (folder / script).read_text(encoding="utf-8")
