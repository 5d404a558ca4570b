"""Names of files for frames: safe on every file system, distinct, and the ids themselves where they can be."""

from __future__ import annotations

import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.formats.file_names import file_names_for
from tests.worlds.annotated import HOSTILE


@given(ids=st.lists(st.one_of(st.text(min_size=1, max_size=128), st.sampled_from(HOSTILE)), min_size=1, unique=True))
def test_any_ids_become_distinct_names_below_a_folder(ids: list[str]) -> None:
    names = file_names_for(ids, [".jpg"] * len(ids))
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names}
    assert len(folded) == len(ids), "also where upper and lower case are the same"
    stems = {PurePosixPath(name).with_suffix("") for name in folded}
    assert len(stems) == len(ids), "label files are named after images"
    for name in names:
        path = PurePosixPath(name)
        assert not path.is_absolute()
        assert path.suffix == ".jpg"
        assert not {"..", "."} & set(name.split("/"))
        assert "" not in name.split("/")
        assert not PureWindowsPath(name).is_reserved()
        assert not set('<>:"|?*\\%#\n\r\t\0') & set(name)
        assert all(len(part.encode()) < 240 for part in path.parts)
        assert not any(str(other) != name and path in PurePosixPath(other).parents for other in names)


@given(ids=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=8, unique=True))
def test_every_name_can_be_a_file(ids: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("names")
    for name in file_names_for(ids, [".png"] * len(ids)):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(exist_ok=False)
        assert file.resolve().is_relative_to(folder.resolve())


def test_ids_that_are_paths_stay_as_they_are() -> None:
    ids = ["cam1/0001.jpg", "cam 2/Ünï.PNG", "a.b.jpeg", "397133"]
    assert file_names_for(ids, [".jpg", ".png", ".jpeg", ".jpg"]) == [
        "cam1/0001.jpg",
        "cam 2/Ünï.png",
        "a.b.jpeg",
        "397133.jpg",
    ]


def test_the_name_of_an_id_does_not_depend_on_its_neighbours_without_need() -> None:
    alone = file_names_for(["../x.jpg"], [".jpg"])
    assert file_names_for(["../x.jpg", "y.jpg"], [".jpg", ".jpg"])[:1] == alone


@pytest.mark.parametrize(
    "ids", [["a.jpg", "A.jpg"], ["a.jpg", "a.png"], ["a", "a.jpg"], ["x.jpg", "x.jpg/y.jpg"], ["é", "e\u0301"]]
)
def test_names_that_would_be_one_get_digests(ids: list[str]) -> None:
    names = file_names_for(ids, [Path(each).suffix or ".jpg" for each in ids])
    assert len({PurePosixPath(name).with_suffix("").as_posix().casefold() for name in names}) == 2
    assert any("-" in name for name in names)
