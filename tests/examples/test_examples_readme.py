"""`examples/README.md`: every script is in its tables, and every command in them is one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| (.+?) \| (.+?) \| (.*?)\|$", PAGE, flags=re.MULTILINE)


def scripts() -> list[str]:
    """What a user starts: a file with a main part that is not in `data/` or `guide/`."""
    found = [path for path in EXAMPLES.rglob("*.py") if '__name__ == "__main__"' in path.read_text()]
    return sorted(str(path.relative_to(ROOT)) for path in found if path.parent.name not in ("data", "guide"))


def test_every_script_is_in_a_table() -> None:
    commands = [command for command, *_ in ROWS]
    assert [script for script in scripts() if not any(script in command for command in commands)] == []


def test_every_other_file_is_named() -> None:
    others = {path.name for path in EXAMPLES.rglob("*.py")} - {Path(script).name for script in scripts()}
    assert [name for name in sorted(others) if f"`{name}`" not in PAGE] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.findall(r"examples/\S+", row[0])[0])
def test_a_row_is_whole(row: tuple[str, ...]) -> None:
    command, purpose, time, needs = row
    [script] = re.findall(r"examples/\S+\.py", command)
    assert (ROOT / script).exists()
    assert purpose.endswith(".")
    assert time.strip()
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert [extra for extra in re.findall(r"\[(\w+)\]", needs) if extra not in extras] == []
    source = (ROOT / script).read_text()
    for option in re.findall(r"(?<![-\w])--[a-z][a-z-]*", f"{command} {purpose}"):
        assert option in source or option == "--nproc-per-node", f"{script} has no {option}"
