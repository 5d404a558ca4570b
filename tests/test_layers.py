"""The floors of the package: a module imports only from its own package or from floors below it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cval_torch"

FLOORS = {
    "errors": 0,
    "wire": 0,
    "files": 1,
    "fingerprint": 1,
    "naming": 1,
    "distributed": 1,
    "pool": 1,
    "scores": 1,
    "reduce": 1,
    "costs": 1,
    "class_weights": 1,
    "difficulty": 1,
    "rounds": 1,
    "diversity": 1,
    "codec": 2,
    "ranking": 2,
    "screening": 2,
    "constraints": 2,
    "stages": 2,
    "signals": 2,
    "hooks": 2,
    "gathering": 2,
    "identity": 2,
    "extraction": 3,
    "inference": 3,
    "sharing": 3,
    "choosing": 3,
    "cache": 3,
    "loading": 3,
    "labels": 3,
    "backends": 3,
    "report": 3,
    "client": 3,
    "pipeline": 4,
    "callbacks": 4,
    "comparison": 4,
    "server": 4,
    "cli": 5,
    "__init__": 5,
}
# Neighbours on one floor that one may use, in one direction only.
NEIGHBOURS = {
    ("extraction", "loading"),
    ("extraction", "inference"),
    ("extraction", "sharing"),
    ("extraction", "cache"),
    ("choosing", "sharing"),
    ("choosing", "backends"),
    ("inference", "loading"),
    ("sharing", "loading"),
    ("cache", "loading"),
    ("callbacks", "pipeline"),
    ("backends", "client"),
    ("diversity", "pool"),
    ("diversity", "reduce"),
    ("diversity", "scores"),
    ("scores", "pool"),
    ("reduce", "pool"),
    ("class_weights", "pool"),
    ("costs", "pool"),
    ("costs", "reduce"),
    ("constraints", "ranking"),
    ("stages", "constraints"),
    ("ranking", "screening"),
    ("stages", "ranking"),
    ("signals", "ranking"),
}
CORE = {"torch", "torchvision", "requests", "pydantic", "pydantic_core", "tqdm", "numpy", "PIL", "urllib3"}
EXTRAS = {
    "report": {"matplotlib"},
    "server": {"fastapi", "uvicorn", "starlette"},
    "cli": {"uvicorn"},
    "callbacks": {"lightning", "transformers", "ultralytics"},
}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def breaches(part: str, imported: set[str]) -> list[str]:
    found = []
    for name in sorted(imported):
        parts = name.split(".")
        if parts[0] != "cval_torch":
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in FLOORS else "__init__"
        below = FLOORS[target] < FLOORS[part]
        if not (below or target == part or (part, target) in NEIGHBOURS):
            found.append(f"{part} (floor {FLOORS[part]}) imports {name} (floor {FLOORS[target]})")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in FLOORS, f"{path} is on no floor: give it one"
    imported = imports_of(path)
    if part == "wire":
        assert not any(name.split(".")[0] == "torch" for name in imported)
    assert breaches(part, imported) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_are_the_declared_ones(path: Path) -> None:
    import sys

    roots = {name.split(".")[0] for name in imports_of(path)}
    allowed = CORE | EXTRAS.get(part_of(path), set()) | set(sys.stdlib_module_names) | {"cval_torch"}
    assert roots <= allowed


def test_the_check_finds_a_breach() -> None:
    assert breaches("pool", {"cval_torch.stages.select_rows"}) == [
        "pool (floor 1) imports cval_torch.stages.select_rows (floor 2)"
    ]
    assert breaches("scores", {"cval_torch.reduce.mean"}) == [
        "scores (floor 1) imports cval_torch.reduce.mean (floor 1)"
    ]
    assert breaches("stages", {"cval_torch.Pool"}) == ["stages (floor 2) imports cval_torch.Pool (floor 5)"]
    assert breaches("stages", {"cval_torch.pool.Pool", "torch.nn"}) == []


def test_the_contributing_guide_names_every_module_on_its_floor() -> None:
    rows = re.findall(r"^\| (\d) \| (.*?) \|", (PACKAGE.parent / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    said = {name.strip("`/ "): int(floor) for floor, names in rows for name in names.split(",")}
    assert said == FLOORS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
