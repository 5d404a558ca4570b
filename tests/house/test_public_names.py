"""What `import cval_torch` offers: listed, documented, and nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import cval_torch

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(page for page in (ROOT / "examples" / "guide").glob("*.md") if page.name != "api.md")]


PACKAGE = Path(cval_torch.__file__).parent


def imports_in(node: ast.AST) -> dict[str, list[str]]:
    return {
        each.module or "": [name.name for name in each.names]
        for each in ast.walk(node)
        if isinstance(each, ast.ImportFrom)
    }


def parts_that_are_lazy(path: Path) -> list[tuple[dict[str, list[str]], dict[str, list[str]]]]:
    """What an `__init__` imports for type checkers, and what it says that it imports when a name is asked for."""
    found = []
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            tables = [ast.literal_eval(each) for each in ast.walk(node.orelse[0]) if isinstance(each, ast.Dict)]
            found.append((imports_in(node), tables[0]))
    return found


def public_names() -> set[str]:
    """What the source of `cval_torch` imports to offer it."""
    ((imported, _),) = parts_that_are_lazy(PACKAGE / "__init__.py")
    return {name for names in imported.values() for name in names}


def test_names_are_listed_and_sorted() -> None:
    listed = [name for name in cval_torch.__all__ if name != "__version__"]
    assert set(listed) == public_names()
    assert listed == sorted(listed)
    assert set(cval_torch.__all__) <= set(dir(cval_torch))


def test_type_checkers_see_what_is_imported_when_it_is_asked_for() -> None:
    lazy = {path.parent.name: parts_that_are_lazy(path) for path in PACKAGE.rglob("__init__.py")}
    both = {name: part for name, parts in lazy.items() for part in parts}
    assert {"cval_torch", "config", "pool", "selection", "service", "client"} == set(both)
    for name, (imported, said) in both.items():
        assert imported == said, name


def test_a_star_imports_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in public_names():
        monkeypatch.delattr(cval_torch, name, raising=False)
    names: dict[str, object] = {}
    exec("from cval_torch import *", names)
    assert set(cval_torch.__all__) <= set(names)
    assert names["Pool"] is cval_torch.Pool is cval_torch.pool.Pool


def test_the_wings_need_no_import_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for wing in {*WINGS, "errors", "pipeline"} - {"cli"}:
        monkeypatch.delattr(cval_torch, wing, raising=False)
        assert getattr(cval_torch, wing).__name__ == f"cval_torch.{wing}"


def test_every_name_is_documented() -> None:
    for name in cval_torch.__all__:
        value = getattr(cval_torch, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, f"{name} has no docstring"
            assert value.__doc__.strip()[0].isupper() or value.__doc__.strip()[0] == "`", name


def test_every_public_method_is_documented() -> None:
    for name in cval_torch.__all__:
        value = getattr(cval_torch, name)
        if not inspect.isclass(value):
            continue
        for attribute, method in vars(value).items():
            if inspect.isfunction(method) and not attribute.startswith("_"):
                assert inspect.getdoc(method), f"{name}.{attribute} has no docstring"


WINGS = {
    "cli": ["main"],
    "comparison": ["Comparison", "CurvePoint", "LabelIssues", "MeasuredChoice", "Saving", "compare", "label_issues"],
    "config": ["Config", "Work", "choose", "load_config", "named_configs", "open_work"],
    "extraction": [
        "BatchParts",
        "FrameIdOf",
        "PassOptions",
        "Split",
        "check_adapter",
        "extract",
        "model_fingerprint",
        "split_batch",
    ],
    "formats": [
        "Annotations",
        "CocoInstances",
        "ImageFolder",
        "PathMatches",
        "VideoFrames",
        "collate_images",
        "list_images",
        "load_annotations",
        "load_coco",
        "load_coco_instances",
        "load_coco_results",
        "load_csv",
        "load_cvat",
        "load_label_studio",
        "load_list",
        "load_yolo",
        "match_paths",
        "read_image",
        "save_coco",
        "save_csv",
        "save_cvat",
        "save_label_studio",
        "save_list",
        "save_yolo",
    ],
    "hooks": [
        "ADAPTERS",
        "DetectorAdapter",
        "FrameBatch",
        "KnownAdapter",
        "Later",
        "LaterRows",
        "QueryChoice",
        "Recording",
        "TiledAdapter",
        "find_adapter",
        "read_queries",
        "register_adapter",
        "unwrap",
    ],
    "pool": ["Activation", "Layout", "Pool", "SkippedFrame"],
    "report": ["ChosenFrames", "contact_sheet", "report"],
    "selection": [
        "Backend",
        "DetectionSampling",
        "LocalBackend",
        "Scored",
        "Selection",
        "balanced_class_weights",
        "choose_frames",
        "choose_from_parts",
        "max_zscore",
        "score_frames",
    ],
    "service": [
        "CVALConnection",
        "DetectionSamplingRequest",
        "RestBackend",
        "pool_from_payloads",
        "pool_to_payloads",
    ],
    "strategies": ["STRATEGIES", "Strategy", "find_strategy", "frame_descriptors", "names_served", "needs"],
    "training": [
        "Annotated",
        "AtEpochs",
        "ClassDifficulty",
        "EveryEpochs",
        "FoundFrames",
        "GainForecast",
        "LabelPool",
        "LearningCurve",
        "Round",
        "RoundLogger",
        "SamplerCallback",
        "Schedule",
        "TrainingSet",
        "WhenStalled",
        "as_round_logger",
        "found_in",
    ],
}
"""What each wing exports. A name that joins or leaves is a change that users see."""


def test_every_wing_is_listed() -> None:
    packages = {path.parent.name for path in Path(cval_torch.__file__).parent.glob("*/__init__.py")}
    assert packages == set(WINGS)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_exports_what_is_listed_and_documents_it(wing: str) -> None:
    module = importlib.import_module(f"cval_torch.{wing}")
    assert sorted(module.__all__) == WINGS[wing]
    assert module.__doc__
    for name in WINGS[wing]:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{wing}.{name} has no docstring"


def test_what_the_package_exports_is_what_its_wings_export() -> None:
    exported = {name for names in WINGS.values() for name in names} | {"CvalError", "SelectedFrames", "select"}
    assert {name for name in cval_torch.__all__ if name != "__version__"} <= exported


def test_a_page_names_every_public_function_and_class() -> None:
    prose = "".join(page.read_text() for page in PAGES)
    public = [name for name in cval_torch.__all__ if not name.endswith("Error") and not name.startswith("_")]
    assert [name for name in public if name not in prose] == []


def test_the_reference_has_every_public_name() -> None:
    """Those of the package and of its wings; the command line has its own help."""
    reference = (ROOT / "examples" / "guide" / "api.md").read_text()
    listed = {
        line.split("::")[1].strip().split(".")[-1] for line in reference.splitlines() if line.startswith(".. auto")
    }
    wings = {name for wing, names in WINGS.items() if wing != "cli" for name in names}
    assert sorted((wings | set(cval_torch.__all__)) - listed - {"__version__", "CvalError"}) == []
