"""Which frame a path of an annotation file means, beside a comparison of every entry with every frame."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats.matching import PathMatches, match_paths

FRAMES = ["cam1/0001.jpg", "cam1/0002.jpg", "cam2/0001.jpg", "top.jpg", "deep/er/x.png"]


def naive(entries: list[str], frames: list[str]) -> list[str | None] | None:
    """The frame of each entry, by looking at all pairs; None where the entries are ambiguous."""

    def agreeing(entry: str, frame: str) -> tuple[int, bool]:
        ends = list(zip(reversed(entry.split("/")), reversed(frame.split("/")), strict=False))
        length = next((number for number, (one, other) in enumerate(ends) if one != other), len(ends))
        return length, length == len(frame.split("/"))

    found = []
    for entry in entries:
        ranked = sorted(frames, key=lambda frame: agreeing(entry, frame), reverse=True)
        if not ranked or agreeing(entry, ranked[0])[0] == 0:
            found.append(None)
        elif len(ranked) > 1 and agreeing(entry, ranked[0]) == agreeing(entry, ranked[1]):
            return None
        else:
            found.append(ranked[0])
    for frame in frames:
        if len({entry for entry, match in zip(entries, found, strict=True) if match == frame}) > 1:
            return None
    return found


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(entries=st.lists(paths, max_size=5), frames=st.lists(paths, max_size=6, unique=True))
@settings(max_examples=1000, deadline=None)
def test_it_matches_as_a_comparison_of_all_pairs(entries: list[str], frames: list[str]) -> None:
    expected = naive(entries, frames)
    if expected is None:
        with pytest.raises(InvalidInputError, match=r"equally well|both match"):
            match_paths(entries, frames)
        return
    matches = match_paths(entries, frames)
    assert list(matches.frame_ids) == expected
    assert matches.matched == set(expected) - {None}
    assert list(matches.unmatched) == [entry for entry, frame in zip(entries, expected, strict=True) if frame is None]


names = st.text(st.characters(blacklist_characters="/\\", blacklist_categories=["Cs"]), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..")
)


@given(frames=st.lists(st.lists(names, min_size=1, max_size=3).map("/".join), min_size=1, max_size=6, unique=True))
@settings(max_examples=300, deadline=None)
def test_every_frame_matches_its_own_path_in_every_spelling(frames: list[str]) -> None:
    assert match_paths(frames, frames).frame_ids == tuple(frames)
    if len({unicodedata.normalize("NFC", frame) for frame in frames}) < len(frames):
        return
    for spelling in (
        lambda frame: f"images/{frame}",
        lambda frame: f"./{frame}",
        lambda frame: f"/home/someone/data set/{frame}",
        lambda frame: "C:\\data\\" + frame.replace("/", "\\"),
        lambda frame: f"images//../{frame}",
        lambda frame: unicodedata.normalize("NFD", frame),
        lambda frame: unicodedata.normalize("NFC", frame),
    ):
        assert match_paths(map(spelling, frames), frames).frame_ids == tuple(frames)


@pytest.mark.parametrize(
    "entry",
    [
        "cam1/0001.jpg",
        "images/cam1/0001.jpg",
        "./cam1/0001.jpg",
        "../cam1/0001.jpg",
        "cam1\\0001.jpg",
        ".\\images\\cam1\\0001.jpg",
        str(PurePosixPath("/mnt/disk 2/set/cam1/0001.jpg")),
        str(PureWindowsPath("D:/set/cam1/0001.jpg")),
        "cam1//0001.jpg",
        "cam2/../cam1/0001.jpg",
    ],
)
def test_real_spellings(entry: str) -> None:
    assert match_paths([entry], FRAMES).frame_ids == ("cam1/0001.jpg",)


@pytest.mark.parametrize(("entry", "frame"), [("0002.jpg", "cam1/0002.jpg"), ("er/x.png", "deep/er/x.png")])
def test_a_part_of_the_path_is_enough_if_it_is_the_only_one(entry: str, frame: str) -> None:
    assert match_paths([entry], FRAMES).frame_ids == (frame,)


@pytest.mark.parametrize("entry", ["1.jpg", "xcam1/x0001.jpg", "top.jpg.png", "top", "cam1"])
def test_whole_components_are_compared(entry: str) -> None:
    assert match_paths([entry], FRAMES).unmatched == (entry,)


def test_names_in_another_normal_form() -> None:
    composed, decomposed = "Köln/Ça.jpg", unicodedata.normalize("NFD", "Köln/Ça.jpg")
    assert composed != decomposed
    assert match_paths([composed], [decomposed]).frame_ids == (decomposed,)
    assert match_paths([decomposed], [composed]).frame_ids == (composed,)
    assert match_paths([decomposed, composed], [composed, decomposed]).frame_ids == (decomposed, composed)
    with pytest.raises(InvalidInputError, match="matches 2 images equally well"):
        match_paths([f"images/{composed}"], [composed, decomposed])


def test_a_name_in_many_folders_needs_its_folder() -> None:
    frames = [f"cam{number}/0001.jpg" for number in range(5)]
    with pytest.raises(InvalidInputError) as raised:
        match_paths(["0001.jpg"], frames, source="known.json")
    assert str(raised.value) == (
        "'0001.jpg' of known.json matches 5 images equally well: 'cam0/0001.jpg', 'cam1/0001.jpg', 'cam2/0001.jpg' and "
        "2 more. Write more of its path there, such as 'cam0/0001.jpg', or give the folder of one of them"
    )
    assert match_paths(["cam3/0001.jpg"], frames).matched == {"cam3/0001.jpg"}


@pytest.mark.parametrize("prefix", ["", "images/", "/data/"])
def test_a_frame_on_top_has_no_more_of_its_path_to_write(prefix: str) -> None:
    entries = [f"{prefix}0001.jpg", f"{prefix}cam1/0001.jpg"]
    assert match_paths(entries, ["cam1/0001.jpg", "0001.jpg"]).frame_ids == ("0001.jpg", "cam1/0001.jpg")


@pytest.mark.parametrize("entries", [("a/0001.jpg", "b/0001.jpg"), ("0001.jpg", "images/0001.jpg")])
def test_two_paths_for_one_frame(entries: tuple[str, str]) -> None:
    with pytest.raises(InvalidInputError) as raised:
        match_paths(entries, ["0001.jpg"], source="known.json")
    assert str(raised.value).startswith(
        f"{entries[0]!r} and {entries[1]!r} of known.json both match the image '0001.jpg'. Remove the entry"
    )


def test_one_path_twice_is_one_path() -> None:
    matches = match_paths(["cam1/0001.jpg", "./cam1/0001.jpg", "cam1\\0001.jpg"], FRAMES)
    assert matches.frame_ids == ("cam1/0001.jpg",) * 3


def test_remarks() -> None:
    assert match_paths(FRAMES, FRAMES).remarks() == []
    entries = ["gone.jpg", "cam1/0001.jpg", "Top.JPG", "other/0002.jpg"]
    assert match_paths(entries, FRAMES, source="known.json").remarks() == [
        "2 of 4 entries of known.json match no image, the first is 'gone.jpg'",
        "'Top.JPG' and the image 'top.jpg' differ only in upper and lower case, so they do not match",
        "1 of 4 entries of known.json match an image in another folder, by the file name only, "
        "the first is 'other/0002.jpg' for 'cam1/0002.jpg'",
    ]


def test_nothing_to_match() -> None:
    assert match_paths([], FRAMES) == PathMatches((), (), (), (), "the annotation file")
    assert match_paths(["a.jpg"], []).unmatched == ("a.jpg",)


@pytest.mark.parametrize("entry", ["", ".", "/", "a/..", "\\"])
def test_what_is_no_path_of_a_file(entry: str) -> None:
    with pytest.raises(InvalidInputError, match=r"entry 1 of known\.json must be a path that ends in a file name; got"):
        match_paths(["a.jpg", entry], FRAMES, source="known.json")


def test_what_is_no_path_at_all() -> None:
    with pytest.raises(InvalidInputError, match="entry 0 of the annotation file must be a path; got 7"):
        match_paths([7], FRAMES)  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="frame id 1 must be a path; got None"):
        match_paths([], ["a", None])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match=r"distinct; got 'a\.jpg' twice"):
        match_paths([], ["a.jpg", "a.jpg"])


def test_many_frames_of_one_name_are_not_compared_pair_by_pair() -> None:
    """A comparison of all pairs would be ten thousand million comparisons here."""
    frames = [f"scene/{number:06}/left/rgb.png" for number in range(100_000)]
    entries = [f"/mnt/images/{frame}" for frame in reversed(frames)]
    assert match_paths(entries, frames).frame_ids == tuple(reversed(frames))
