"""Lists of frames, a line each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from annotated import HOSTILE, write_images
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_list, save_list


def of(frame_ids: list[str]) -> Annotations:
    count = len(frame_ids)
    return Annotations(
        [f"{number}.jpg" for number in range(count)],
        torch.zeros(count + 1, dtype=torch.int64),
        boxes=torch.empty(0, 4),
        labels=torch.empty(0, dtype=torch.int64),
        class_names={},
        frame_ids=frame_ids,
        sizes=torch.tensor([[4, 3]]).expand(count, 2),
    )


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.sampled_from(HOSTILE) | st.text(min_size=1), min_size=1, max_size=6, unique=True))
def test_ids_come_back_in_their_order_or_are_refused(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "list.txt"
    if any(set("\r\n") & set(each) or each.startswith("\ufeff") for each in ids):
        with pytest.raises(InvalidInputError, match="does not fit on a line of text"):
            save_list(of(ids), path, exist_ok=True)
    else:
        assert load_list(save_list(of(ids), path, exist_ok=True)) == ids


def test_paths_of_images(tmp_path: Path) -> None:
    frames = of(["b", "a"])
    files = write_images(frames, tmp_path / "in")
    path = save_list(frames, tmp_path / "new" / "list.txt", write="path", image_root=files)
    assert load_list(path) == [files["b"].as_posix(), files["a"].as_posix()]
    with pytest.raises(InvalidInputError, match=r"frame '0\.jpg' has no file\. Give the folder"):
        save_list(frames, tmp_path / "other.txt", write="path")


def test_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfb.jpg\r\n\r\n a.jpg\r\nc\xc3\xa4.jpg")
    assert load_list(path) == ["b.jpg", " a.jpg", "cä.jpg"]
    path.write_bytes(b"a\nb\na\n")
    with pytest.raises(InvalidInputError, match="has 'a' on line 1 and on line 3"):
        load_list(path)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(InvalidInputError, match="is not UTF-8: invalid start byte at byte 2"):
        load_list(path)


def test_annotations_without_ids_have_file_names(tmp_path: Path) -> None:
    assert load_list(save_list(of(["x", "y"]).replace(frame_ids=["x", None]), tmp_path / "l.txt")) == ["x", "1.jpg"]


def test_what_is_refused(tmp_path: Path) -> None:
    path = save_list(of(["a"]), tmp_path / "list.txt")
    with pytest.raises(InvalidInputError, match=r"list\.txt' is there already"):
        save_list(of(["b"]), path)
    assert load_list(path) == ["a"]
    assert load_list(save_list(of(["b"]), path, exist_ok=True)) == ["b"]
    with pytest.raises(InvalidInputError, match="at least one frame"):
        save_list(of([]), tmp_path / "empty.txt")
    with pytest.raises(InvalidInputError, match="`write` must be 'frame_id' or 'path'; got 'name'"):
        save_list(of(["a"]), tmp_path / "x.txt", write="name")  # type: ignore[arg-type]
