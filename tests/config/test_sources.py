"""From the `source` of a configuration to a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cval_torch.config.schema import SourceConfig
from cval_torch.config.sources import open_source
from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import frame_ids_of
from tests.worlds.clips import write_clip

NAMES = ["cam1/a.jpg", "cam2/a.jpg", "b.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


def ids(**source: Any) -> list[str]:
    return frame_ids_of(open_source(SourceConfig(**source)))


def test_a_folder_with_folders_below_it(photos: Path) -> None:
    assert ids(path=str(photos)) == sorted(NAMES)


def test_one_image(photos: Path) -> None:
    assert ids(path=str(photos / "b.png")) == ["b.png"]


def test_a_coco_file_and_a_list_keep_their_order(photos: Path, tmp_path: Path) -> None:
    (photos / "a.json").write_text(
        json.dumps({"images": [{"id": n, "file_name": each} for n, each in enumerate(NAMES)]})
    )
    assert ids(path=str(photos / "a.json")) == NAMES
    (tmp_path / "list.txt").write_text("\ufeff" + "\n".join([*NAMES[::-1], ""]), encoding="utf-8")
    assert ids(path=str(tmp_path / "list.txt"), images=str(photos)) == NAMES[::-1]


def test_a_dataset_of_the_users_own(photos: Path) -> None:
    dataset = open_source(SourceConfig(factory="cval_torch.formats:ImageFolder", args={"folder": str(photos)}))
    assert frame_ids_of(dataset) == sorted(NAMES)
    with pytest.raises(InvalidInputError, match="must return a dataset with a length; got int"):
        open_source(SourceConfig(factory="builtins:int"))


def test_videos(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", 60)
    at_one = ids(path=str(tmp_path / "clips"))
    assert at_one == ids(path=str(tmp_path / "clips" / "a.mp4"))
    assert at_one[0] == "a.mp4#t=0.000"
    assert len(ids(path=str(tmp_path / "clips"), rate=5)) > len(at_one)
    for key in ("rate", "thin"):
        with pytest.raises(InvalidInputError, match=f"`source.{key}` is for videos"):
            open_source(SourceConfig(path=str(photos), **{key: 0.5}))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone", None, r"no folder or file '.*gone'; '.*' has 'photos'"),
        ("empty", "", "there are no images or videos in .*empty.*An image's name ends in .bmp, .jpeg"),
        ("a.txt", "c.jpg\ncam1/a.jpg", r"2 of the 2 images in .* are not below .*such as 'c.jpg'.*source.images"),
        ("a.txt", "\n", "lists no images"),
        ("a.json", "{}", "has no `images`"),
        ("a.json", "[1", "is not JSON"),
        ("a.csv", "x", "`source` must be a folder, a COCO file"),
        ("a.mp4", "x", "a.mp4"),
    ],
)
def test_what_is_no_source(photos: Path, name: str, content: str | None, message: str) -> None:
    path = photos.parent / name
    if name == "empty":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        open_source(SourceConfig(path=str(path)))
