"""Where a picture can be written, beside what Pillow itself does."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cval_torch.errors import InvalidInputError
from cval_torch.report.picture_file import check_picture_file


@pytest.mark.parametrize(
    "name", ["a.png", "a.PNG", "a.jpg", "a.jpeg", "a.webp", "a.tiff", "a.bmp", "new/a.gif", "a.pdf"]
)
def test_usual_pictures(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert check_picture_file(path, width=800, height=600) == check_picture_file(str(path), width=8, height=6) == path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sheet", "must end in a suffix, such as `.png`; got .*sheet'"),
        (".png", "must end in a suffix"),
        ("sheet.jpgg", r"\.jpgg is not the suffix of a format that Pillow writes RGB pictures in. Take `.png`"),
        ("sheet.json", r"\.json is not the suffix"),
        ("sheet.psd", r"\.psd is not the suffix"),  # Pillow reads it, but does not write it
        ("sheet.xbm", r"\.xbm is not the suffix"),  # it writes black and white only
    ],
)
def test_what_is_no_picture(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=said):
        check_picture_file(tmp_path / name, width=8, height=6)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InvalidInputError, match="which is a folder"):
        check_picture_file(tmp_path / "a.png", width=8, height=6)


@pytest.mark.parametrize(("suffix", "longest"), [(".jpg", 65_500), (".webp", 16_383), (".gif", 65_535)])
@pytest.mark.parametrize("wide", [True, False])
def test_the_limits_are_those_of_the_format(suffix: str, longest: int, wide: bool, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"

    def size(side: int) -> tuple[int, int]:
        return (side, 1) if wide else (1, side)

    width, height = size(longest)
    check_picture_file(path, width=width, height=height)
    Image.new("RGB", (width, height)).save(path)  # so many fit
    width, height = size(longest + 1)
    with pytest.raises(Exception, match=r".") as raised:  # one more does not, whatever the encoder calls it
        Image.new("RGB", (width, height)).save(path)
    assert not isinstance(raised.value, InvalidInputError)
    remedy = "fewer `columns`" if wide else "more `columns`"
    with pytest.raises(InvalidInputError, match=f"at most {longest} pixels a side.*{width} x {height}.*{remedy}"):
        check_picture_file(path, width=width, height=height)
    check_picture_file(tmp_path / "a.png", width=width, height=height)
