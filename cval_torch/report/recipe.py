"""How a choice can be made again: its stages, what was installed, and the lines of Python that make it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cval_torch.errors import dotted_name
from cval_torch.report.wording import visible
from cval_torch.selection.stage import DetectionSampling

_SHOWN = ("cval_torch", "torch", "torchvision", "numpy", "pillow")


def stage_rows(stages: Sequence[DetectionSampling]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Of each stage its name and what is set in it, as names and values, `seed` always among them."""
    return [(visible(stage.name), [*_set(stage), ("seed", str(stage.seed))]) for stage in stages]


def versions() -> list[tuple[str, str]]:
    """Names and versions of Python and of the packages that a choice depends on, as far as they are installed."""
    found = [("Python", platform.python_version())]
    for name in _SHOWN:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # run from a folder of sources
            continue
    return found


def snippet(stages: Sequence[DetectionSampling], *, labeled: bool, num_annotated: int | None) -> str:
    """Lines of Python that make the same choice again, for who has the model and the loaders.

    Args:
        stages: that were run.
        labeled: whether the choice may have known what the detector says of annotated frames.
        num_annotated: how many frames were annotated; None: not known.
    """
    functions = [
        value
        for stage in stages
        for value in (stage.selection_strategy, stage.bbox_selection_policy)
        if callable(value)
    ]
    lines = ["from cval_torch import DetectionSampling, LocalBackend, SelectedFrames, extract", ""]
    lines += [f"# {_name(each)} is your own {visible(dotted_name(each))}: import it" for each in functions]
    lines.append("pool = extract(model, unlabeled_loader)")
    lines.append("stages = [")
    for stage in stages:
        arguments = [f"selection_strategy={_value(stage.selection_strategy)}", *(f"{n}={v}" for n, v in _code(stage))]
        lines += [
            "    DetectionSampling(",
            *(f"        {each}," for each in [*arguments, f"seed={stage.seed}"]),
            "    ),",
        ]
    lines.append("]")
    if labeled:
        many = "" if num_annotated is None else f"  # {num_annotated:,} frames"
        lines.append(f"annotated = extract(model, labeled_loader){many}")
        lines.append("selection = LocalBackend(labeled=annotated).select(pool, stages)")
    else:
        lines.append("selection = LocalBackend().select(pool, stages)")
    lines.append("selected = SelectedFrames(unlabeled_loader.dataset, selection, pool)")
    return "\n".join(lines) + "\n"


def _fields(stage: DetectionSampling) -> list[tuple[str, object]]:
    """What is set to another value than the default, but for strategy and seed."""
    return [
        (name, getattr(stage, name))
        for name, field in DetectionSampling.model_fields.items()
        if name not in ("selection_strategy", "seed") and getattr(stage, name) != field.default
    ]


def _set(stage: DetectionSampling) -> list[tuple[str, str]]:
    return [(name, visible(dotted_name(value) if callable(value) else str(value))) for name, value in _fields(stage)]


def _code(stage: DetectionSampling) -> list[tuple[str, str]]:
    return [(name, _value(value)) for name, value in _fields(stage)]


def _value(value: object) -> str:
    return _name(value) if callable(value) else repr(value)


def _name(function: object) -> str:
    """What to call a function in a script: its own name, where it has one that Python takes."""
    name = dotted_name(function).rpartition(".")[2]
    return name if name.isidentifier() else "your_function"
