"""The configurations that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from cval_torch.errors import InvalidInputError

_PACKAGE = Path(__file__).resolve().parents[1]


def configs_folder() -> Path:
    """Where they are: beside the package in a checkout, in it where it was installed from a wheel."""
    for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs"):
        if (folder / "schema.json").is_file():
            return folder
    raise InvalidInputError("the configurations of the package are not there: install cval_torch again")


def named_configs() -> dict[str, Path]:
    """The files by name, such as `rare_classes`."""
    return {path.stem: path for path in sorted(configs_folder().glob("*.yaml"))}
