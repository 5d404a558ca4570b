"""Every module has a file of tests where one looks for it, or stands in a short list that says where it is tested."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "cval_torch"
TESTS = ROOT / "tests"

ELSEWHERE = {
    "__main__.py": ("cli/test_main.py", "it calls the command line, and is run there as `python -m` runs it"),
    "cli/__main__.py": ("cli/test_main.py", "it calls the command line, and is run there as `python -m` runs it"),
    "pool/limits.py": ("extraction/test_ids.py", "one number, which is a bound of the ids that are made there"),
}
"""Module -> the file with its tests, and why they are not in one of their own."""

MOST_ELSEWHERE = 12


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def own_file(place: str) -> Path:
    """Where the tests of a module belong: `pool/files.py` has them in `tests/pool/test_files.py`."""
    path = TESTS / place
    return path.with_name(f"test_{path.name}")


def only_exports(path: Path) -> bool:
    """Whether an `__init__` has imports, names and words only: then `test_public_names` sees all of it."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    body = ast.parse(path.read_text()).body
    for node in list(body):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            body += [*node.body, *node.orelse]
            body.remove(node)
    return all(isinstance(node, allowed) or is_text(node) for node in body)


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def names_of(path: Path) -> set[str]:
    """What a test has to say to mean this module: a public name that is made there, or how it is run."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    public = {name for name in names if not name.startswith("_")}
    if path.stem == "__main__":
        public.add(".".join(path.parent.relative_to(ROOT).parts))
    return public


def mentions(tests: Path, module: Path) -> bool:
    return re.search(rf"\b({'|'.join(map(re.escape, names_of(module)))})\b", tests.read_text()) is not None


def complaint(place: str, elsewhere: dict[str, tuple[str, str]]) -> str | None:
    """What is wrong with the tests of a module; None if nothing is."""
    path, own = PACKAGE / place, own_file(place)
    if place not in elsewhere:
        if path.name == "__init__.py":
            return None if only_exports(path) else f"{place} is more than exports: move what it does to a module"
        return None if own.is_file() else f"{place} has no tests: they belong in {own.relative_to(ROOT)}"
    other = TESTS / elsewhere[place][0]
    if own.is_file():
        return f"{place} has a file of its own, {own.relative_to(ROOT)}: take it off the list"
    if not other.is_file():
        return f"{place} is said to be tested in {other.relative_to(ROOT)}, which is not there"
    if not mentions(other, path):
        return f"{place} is said to be tested in {other.relative_to(ROOT)}, which mentions none of its names"
    return None


@pytest.mark.parametrize("place", [place_of(path) for path in modules()])
def test_it_has_its_tests(place: str) -> None:
    assert complaint(place, ELSEWHERE) is None


def test_a_file_of_tests_mentions_what_it_tests() -> None:
    silent = [
        place
        for place in map(place_of, modules())
        if own_file(place).is_file()
        and not any(name in own_file(place).read_text() for name in names_of(PACKAGE / place))
    ]
    assert silent == []


def test_the_list_is_short_and_of_modules_that_exist() -> None:
    assert len(ELSEWHERE) < MOST_ELSEWHERE
    assert all((PACKAGE / place).is_file() for place in ELSEWHERE)
    assert all(reason for _, reason in ELSEWHERE.values())


def test_the_check_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, tests = tmp_path / "cval_torch", tmp_path / "tests"
    for name, value in (("ROOT", tmp_path), ("PACKAGE", package), ("TESTS", tests)):
        monkeypatch.setitem(globals(), name, value)
    (package / "wing").mkdir(parents=True)
    (tests / "wing").mkdir(parents=True)
    (package / "wing" / "__init__.py").write_text('"""Words."""\n\nfrom wing.made import make\n\n__all__ = ["make"]\n')
    (package / "wing" / "made.py").write_text("def make(): ...\ndef _hidden(): ...\n")
    (tests / "wing" / "test_others.py").write_text("_hidden\n")
    listed = {"wing/made.py": ("wing/test_others.py", "")}
    assert complaint("wing/__init__.py", {}) is None
    assert complaint("wing/made.py", {}) == "wing/made.py has no tests: they belong in tests/wing/test_made.py"
    assert "mentions none of its names" in str(complaint("wing/made.py", listed))
    assert "is not there" in str(complaint("wing/made.py", {"wing/made.py": ("wing/test_none.py", "")}))
    (tests / "wing" / "test_others.py").write_text("make(3)\n")
    assert complaint("wing/made.py", listed) is None
    (tests / "wing" / "test_made.py").write_text("make\n")
    assert complaint("wing/made.py", {}) is None
    assert "take it off the list" in str(complaint("wing/made.py", listed))
    (package / "wing" / "__init__.py").write_text("def make(): ...\n")
    assert "is more than exports" in str(complaint("wing/__init__.py", {}))
