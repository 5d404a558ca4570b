"""The floors of the package: a wing imports only from floors below its own, and modules import in no circle."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cval_torch"

FLOORS = {
    "errors": 0,
    "lazy": 0,
    "pool": 1,
    "hooks": 2,
    "strategies": 2,
    "extraction": 3,
    "selection": 3,
    "pipeline": 4,
    "report": 4,
    "service": 4,
    "formats": 5,
    "training": 6,
    "comparison": 7,
    "config": 7,
    "cli": 8,
    "__init__": 8,
    "__main__": 9,
}
CORE = {"torch", "torchvision", "requests", "pydantic", "pydantic_core", "tqdm", "numpy", "PIL", "urllib3"}
IMPORT_TORCHVISION = {"hooks/effdet", "hooks/regions", "hooks/torchvision", "hooks/ultralytics", "cli/drawn"}
"""Modules that are only imported where a detector of such a package is. All others do without, for it takes seconds."""
EXTRAS = {
    "config": {"yaml", "transformers", "ultralytics"},
    "formats": {"yaml", "defusedxml", "av"},
    "comparison": {"matplotlib"},
    "report": {"jinja2", "markupsafe", "openTSNE"},
    "service": {"fastapi", "uvicorn", "starlette"},
    "cli": {"uvicorn", "argcomplete"},
    "training": {"lightning", "transformers", "ultralytics"},
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
        if not (below or target == part):
            found.append(f"{part} (floor {FLOORS[part]}) imports {name} (floor {FLOORS[target]})")
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    assert part in FLOORS, f"{path} is on no floor: give it one"
    imported = imports_of(path)
    if path.name in {"stage.py", "protocol.py"}:
        assert not any(name.split(".")[0] == "torch" for name in imported)
    assert breaches(part, imported) == []


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_third_parties_are_the_declared_ones(path: Path) -> None:
    import sys

    roots = {name.split(".")[0] for name in imports_of(path)}
    allowed = CORE | EXTRAS.get(part_of(path), set()) | set(sys.stdlib_module_names) | {"cval_torch"}
    assert roots <= allowed


def test_torchvision_is_imported_when_it_is_needed() -> None:
    at_once = set()
    for path in modules():
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        if any("torchvision" in ast.unparse(node).split()[1] for node in top if "cval_torch" not in ast.unparse(node)):
            at_once.add(path.relative_to(PACKAGE).with_suffix("").as_posix())
    assert at_once == IMPORT_TORCHVISION


def test_the_check_finds_a_breach() -> None:
    assert breaches("pool", {"cval_torch.selection.stages.run_stages"}) == [
        "pool (floor 1) imports cval_torch.selection.stages.run_stages (floor 3)"
    ]
    assert breaches("extraction", {"cval_torch.selection.Selection"}) == [
        "extraction (floor 3) imports cval_torch.selection.Selection (floor 3)"
    ]
    assert breaches("selection", {"cval_torch.Pool"}) == ["selection (floor 3) imports cval_torch.Pool (floor 8)"]
    assert breaches("selection", {"cval_torch.pool.Pool", "torch.nn"}) == []


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, however far around, by Tarjan's algorithm."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = low[module] = len(order)
        path.append(module)
        for other in imports[module]:
            if other not in order:
                visit(other)
            if other in path:
                low[module] = min(low[module], low[other])
        if low[module] == order[module]:
            group = path[path.index(module) :]
            del path[path.index(module) :]
            if len(group) > 1:
                found.append(sorted(group))

    for module in imports:
        if module not in order:
            visit(module)
    return found


def module_imports() -> dict[str, set[str]]:
    """By module the modules of the package that it imports; a package stands for its `__init__`."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    found = {}
    for name, path in names.items():
        imported = imports_of(path)  # of `from a.b import c` it is a.b.c, which may be a module or a name of a.b
        found[name] = {each if each in names else each.rpartition(".")[0] for each in imported} & set(names) - {name}
    return found


def test_no_modules_import_in_a_circle() -> None:
    assert circles(module_imports()) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_the_contributing_guide_names_every_module_on_its_floor() -> None:
    rows = re.findall(r"^\| (\d) \| (.*?) \|", (PACKAGE.parent / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
    said = {name.strip("`/ "): int(floor) for floor, names in rows for name in names.split(",")}
    assert said == FLOORS


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
