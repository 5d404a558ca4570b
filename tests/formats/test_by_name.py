"""The formats by their names, and which one a file is in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cval_torch.formats
from cval_torch.errors import InvalidInputError
from cval_torch.formats import by_name
from cval_torch.formats.by_name import LOADERS, guess_format, load_annotations
from tests.worlds.annotated import annotations, assert_same, write_images


def saved(name: str, folder: Path) -> tuple[Path, Any]:
    marked = annotations().example()
    files = write_images(marked, folder / "in")
    save: Callable[..., Path] = getattr(cval_torch.formats, f"save_{name}")
    return save(marked, folder / "out", image_root=files, images="copy", progress=False), marked


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
@pytest.mark.parametrize("name", LOADERS)
def test_every_format_is_told_from_its_file_folder_and_zip(name: str, tmp_path: Path) -> None:
    path, marked = saved(name, tmp_path)
    shutil.make_archive(str(tmp_path / "zipped"), "zip", path.parent)
    for place in (path, path.parent, tmp_path / "zipped.zip"):
        assert guess_format(place) == name
        assert_same(load_annotations(place), marked, within=0.02, travels=place != tmp_path / "zipped.zip")


def test_names_may_have_hyphens_and_capitals(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"`format` must be one of coco, .*; got 'voc'"):
        load_annotations(tmp_path, format="voc")
    with pytest.raises(InvalidInputError, match=r"no `data\.yaml`"):
        load_annotations(tmp_path, format="YOLO")


def test_what_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    for place in (tmp_path / "a.json", tmp_path):
        with pytest.raises(InvalidInputError, match="say which by `format`"):
            guess_format(place)
    with pytest.raises(FileNotFoundError, match="gone"):
        guess_format(tmp_path / "gone")


@pytest.mark.parametrize("name", LOADERS)
def test_empty_is_checked_by_every_format(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`empty` must be"):
        by_name.load_annotations(tmp_path, format=name, empty="perhaps")  # type: ignore[arg-type]
