"""Names of images as tools write them, and what frames they lead back to."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.formats import load_coco
from cval_torch.formats.tool_paths import exported_paths, plain_paths

PATHS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/data/local-files/?d=cam1/0001.jpg", "cam1/0001.jpg"),
        ("/data/local-files?d=cam1/0001.jpg", "cam1/0001.jpg"),
        ("http://localhost:8080/data/local-files/?d=cam%201/a%26b.jpg", "cam 1/a&b.jpg"),
        ("https://host/labels/data/local-files/?d=a%2Bb.jpg", "a+b.jpg"),
        ("/data/upload/3/1f0c2a9b-0001.jpg", "0001.jpg"),
        ("/data/upload/1f0c2a9b-0001.jpg", "0001.jpg"),
        ("http://host:80/data/upload/3/1f0c2a9b-%C3%BC.jpg", "ü.jpg"),
        ("/data/upload/3/plain.jpg", "plain.jpg"),
        ("/data/upload/3/1f0c2a9b-", "1f0c2a9b-"),
        ("https://host/cam1/0001%20a.jpg?token=1", "host/cam1/0001 a.jpg"),
        ("s3://bucket/cam%201/a.jpg", "s3://bucket/cam%201/a.jpg"),
        ("cam1/1f0c2a9b-0001.jpg", "cam1/1f0c2a9b-0001.jpg"),
        ("100%25.jpg", "100%25.jpg"),
        ("/data/other/a.jpg", "/data/other/a.jpg"),
        ("/data/local-files/?x=1", "/data/local-files/?x=1"),
        ("/data/local-files/?d=a.jpg&d=b.jpg", "/data/local-files/?d=a.jpg&d=b.jpg"),
        ("https://host/?image=7", "https://host/?image=7"),
        ("http://[::1/a.jpg", "http://[::1/a.jpg"),
        ("C:\\images\\a.jpg", "C:\\images\\a.jpg"),
    ],
)
def test_one_name(name: str, path: str) -> None:
    assert plain_paths([name]) == [path]


@settings(max_examples=200, deadline=None)
@given(paths=st.lists(PATHS, unique=True, max_size=4), host=st.sampled_from(["", "http://host:8080", "https://a/b"]))
def test_local_files_come_back_whatever_they_are_called(paths: list[str], host: str) -> None:
    assert plain_paths([f"{host}/data/local-files/?d={quote(path, safe='/')}" for path in paths]) == paths


@settings(max_examples=200, deadline=None)
@given(names=st.lists(PATHS, max_size=4))
def test_any_text_gives_a_path(names: list[str]) -> None:
    for decode in (plain_paths, exported_paths):
        found = decode(names)
        assert len(found) == len(names)
        assert all(found)


def test_uploads_with_one_name_keep_their_digits() -> None:
    names = ["/data/upload/1/1f0c2a9b-a.jpg", "/data/upload/1/00c2a9bf-a.jpg", "/data/upload/2/11111111-b.jpg"]
    assert plain_paths(names) == ["1f0c2a9b-a.jpg", "00c2a9bf-a.jpg", "b.jpg"]
    assert plain_paths(["a.jpg", names[0]]) == ["a.jpg", "1f0c2a9b-a.jpg"]
    assert plain_paths([names[0], names[0]]) == ["a.jpg", "a.jpg"], "the same image twice"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../srv/ls/media/upload/2/1f0c2a9b-a.jpg", "a.jpg"),
        ("/data/upload/2/4b4e2710-%C3%BC.png", "ü.png"),
        ("images/99d09a77-a.png", "a.png"),
        ("images/eed292cf__a&b.png", "a&b.png"),
        ("../../home/me/in/cam 1/1f0c2a9b-a.jpg", "home/me/in/cam 1/1f0c2a9b-a.jpg"),
        ("images/99D09A77-a.png", "images/99D09A77-a.png"),
        ("images/99d09a7-a.png", "images/99d09a7-a.png"),
        ("/data/local-files/?d=in/a.png", "in/a.png"),
        ("s3://bucket/a.png", "s3://bucket/a.png"),
        ("..", ".."),
    ],
)
def test_one_name_in_what_is_exported_for_other_tools(name: str, path: str) -> None:
    assert exported_paths([name]) == [path]


def test_exported_names_that_are_one_without_their_digits_keep_them() -> None:
    names = ["images/eed292cf__a.png", "images/fd1c0d19__a.png", "images/fd1c0d19__b.png", "images/fd1c0d19__b.png"]
    assert exported_paths(names) == ["eed292cf__a.png", "fd1c0d19__a.png", "b.png", "b.png"]


def test_coco_of_label_studio_has_its_names_taken_apart_and_others_have_not(tmp_path: Path) -> None:
    names = ["../srv/media/upload/2/99d09a77-a.png", "/data/upload/2/4b4e2710-%C3%BC.png", "images/eed292cf__c.png"]
    images = [{"id": row, "file_name": name, "width": None, "height": None} for row, name in enumerate(names)]
    document = {"images": images, "annotations": [], "categories": [], "info": {"contributor": "Label Studio"}}
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    found = load_coco(path)
    assert found.file_names == ("a.png", "ü.png", "c.png")
    assert found.sizes.tolist() == [[0, 0]] * 3
    path.write_text(json.dumps({**document, "images": [*images, {**images[0], "id": 7}]}))
    again = load_coco(path)
    assert again.file_names[0] == again.file_names[3] == "a.png"
    assert "1 images stand there again" in again.notes[0]
    for info in ({}, None, {"contributor": "me"}):
        path.write_text(json.dumps({**document, "info": info}))
        assert load_coco(path).file_names == tuple(names)
