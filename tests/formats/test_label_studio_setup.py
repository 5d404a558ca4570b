"""The labelling interface, where images are served from, and the steps."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.label_studio_setup import Served, label_config, readme, serve

XML_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff", min_codepoint=32)
    | st.sampled_from("\t\n\r<>&\"'"),
    min_size=1,
)


@settings(max_examples=200, deadline=None)
@given(names=st.dictionaries(st.integers(0, 90), XML_TEXT, min_size=1, max_size=5))
def test_an_xml_parser_reads_every_name_as_it_was(names: dict[int, str]) -> None:
    root = ET.fromstring(label_config(names))
    tags = root.findall("./RectangleLabels/Label")
    assert [tag.get("value") for tag in tags] == [names[label] for label in sorted(names)]
    colors = [tag.get("background", "") for tag in tags]
    assert len(set(colors)) == len(colors)
    assert all(len(color) == 7 and int(color[1:], 16) >= 0 for color in colors)
    image, boxes = root.find("./Image"), root.find("./RectangleLabels")
    assert image is not None
    assert boxes is not None
    assert (image.get("name"), image.get("value"), boxes.get("toName")) == ("image", "$image", "image")


@pytest.mark.parametrize("name", ["a\x00b", "\x1b[0m", "\ud800", "\ufffe"])
def test_names_that_xml_cannot_hold(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"of class 7 has the character .* Rename the class in `class_names`"):
        label_config({7: name})


def test_no_classes() -> None:
    with pytest.raises(InvalidInputError, match="at least one class"):
        label_config({})


def below(served: Served) -> list[str]:
    assert all(url.startswith("/data/local-files/?d=") for url in served.urls)
    return [parse_qs(urlsplit(url).query)["d"][0] for url in served.urls]


@settings(max_examples=100, deadline=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)))
def test_every_name_comes_back_from_its_url(names: list[str]) -> None:
    names = [name for name in names if name not in (".", "..")]
    served = serve([Path("/data/in", name) for name in names], names, None)
    if names:
        assert below(served) == [f"in/{name}" for name in names]
        assert (served.root, served.storages) == (Path("/data"), (Path("/data/in"),))


def test_the_root_is_above_the_folder_that_holds_all_images() -> None:
    served = serve([Path("/data/a/x/1.jpg"), Path("/data/a/y/2.jpg")], ["1", "2"], None)
    assert below(served) == ["a/x/1.jpg", "a/y/2.jpg"]
    assert (served.root, served.storages) == (Path("/data"), (Path("/data/a"),))
    with pytest.raises(InvalidInputError, match=r"no folder holds all images.*images='copy'.*document_root"):
        serve([Path("/one/1.jpg"), Path("/two/2.jpg")], ["1", "2"], None)
    served = serve([Path("/one/x/1.jpg"), Path("/two/2.jpg"), Path("/one/3.jpg")], ["1", "2", "3"], "/")
    assert below(served) == ["one/x/1.jpg", "two/2.jpg", "one/3.jpg"]
    assert served.storages == (Path("/one"), Path("/two")), "the root itself cannot be a storage"


def test_urls_stay_as_they_are_beside_local_files() -> None:
    served = serve(["https://host/a.jpg", Path("/data/in/b.jpg")], ["a", "b"], None)
    assert served.urls == ("https://host/a.jpg", "/data/local-files/?d=in/b.jpg")
    assert serve(["s3://bucket/a.jpg"], ["a"], None) == Served(("s3://bucket/a.jpg",), None, ())


def test_the_steps_name_what_has_to_be_set() -> None:
    served = serve([Path("/da ta/in/b.jpg")], ["b"], None)
    text = readme(served, folder=Path("/out/x"), model_version="epoch 3", annotated=False)
    for line in (
        "     export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true\n",
        "     export LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT='/da ta'\n",
        "-v '/da ta:/label-studio/files:ro'",
        "\n     /da ta/in\n",
        "\n     /label-studio/files/in\n",
        "/out/x/label_config.xml",
        "/out/x/tasks.json",
        "'epoch 3'",
    ):
        assert line in text
    assert "annotated already" not in text
    assert "annotated already" in readme(served, folder=Path("/out"), model_version="m", annotated=True)
    assert all(len(line) <= 130 for line in text.splitlines())
