"""Labels that look wrong, as records and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from opened_pages import HOSTILE, opened, serious_faults
from reported import Grey, choice, described, stage
from torch.utils.data import Dataset

from cval_torch.comparison import LabelIssues, label_issues
from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report import report
from cval_torch.report.suspected import MOST_ISSUES, Suspects
from cval_torch.report.wording import ClassNames

POOL = described(20)
A, B, C = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0], [0.0, 15.0, 12.0, 25.0]
MOVED = [5.0, 0.0, 15.0, 10.0]  # overlaps A by 50 of 150
NAMES = ["ant", "bee", "cow", "dog", "elk"]


class Named(Grey):
    """Images of 40 x 30 pixels whose ids the dataset has."""

    def __init__(self, frame_ids: Sequence[str], **options: Any) -> None:
        super().__init__(len(frame_ids), **options)
        self.frame_ids = list(frame_ids)


def issues_of(frame_ids: Sequence[str] = ("moved", "clean", "missed", "swapped"), **boxes: Any) -> LabelIssues:
    """The detector sees A, B and C everywhere; one frame has a moved box, one lacks B and C, one has a wrong class."""
    predicted = torch.tensor([A, B, C])
    said, sure = torch.tensor([1, 2, 4]), torch.tensor([0.97, 0.98, 0.99])
    count = len(frame_ids)
    pool = Pool(
        frame_ids,
        torch.arange(count + 1) * 3,
        boxes=predicted.repeat(count, 1),
        labels=said.repeat(count),
        scores=sure.repeat(count),
    )
    targets = [
        {"boxes": [MOVED, B, C], "labels": [1, 2, 4]},
        {"boxes": [A, B, C], "labels": [1, 2, 4]},
        {"boxes": [A], "labels": [1]},
        {"boxes": [A, B, C], "labels": [1, 2, 3]},
    ]
    return label_issues(pool, (targets * count)[:count], high_score=0.95, low_score=0.5, **boxes)


def nothing_found() -> LabelIssues:
    pool = Pool(
        ["a"], torch.tensor([0, 1]), boxes=torch.tensor([A]), labels=torch.tensor([1]), scores=torch.tensor([0.9])
    )
    return label_issues(pool, [{"boxes": [A], "labels": [1]}])


def shown(found: LabelIssues, images: Any = None, *, names: Any = NAMES, most: int = 24) -> Suspects:
    return Suspects(found, images, ClassNames(names), max_frames=most, step=lambda: None)


def test_the_frames_with_their_issues() -> None:
    found = issues_of()
    steps: list[int] = []
    suspects = Suspects(
        found,
        Named(["clean", "missed", "moved", "swapped"]),
        ClassNames(NAMES),
        max_frames=9,
        step=lambda: steps.append(1),
    )
    assert suspects.total == 3
    assert suspects.said == "2 overlooked, 1 badly located, 1 swapped, in 3 of 4 annotated frames."
    frames = list(suspects.frames())
    assert len(steps) == 3
    assert tuple(frame.frame_id for frame in frames) == found.for_review()
    assert [frame.rank for frame in frames] == [1, 2, 3]
    assert [frame.quality for frame in frames] == [f"{score:.3f}" for score in found.checked_scores[:3].tolist()]
    by_id = {frame.frame_id: frame for frame in frames}

    missed = by_id["missed"]  # 320 / 40 pixels of the overlay to one of the image
    assert (missed.boxes, missed.left_out, missed.others) == ("1 box", 0, ((0, 0, 80, 80),))
    assert [(issue.number, issue.title, issue.name) for issue in missed.issues] == [
        (1, "Overlooked", "elk"),
        (2, "Overlooked", "cow"),
    ]
    assert missed.issues[0].said == (0, 120, 96, 80)
    assert missed.issues[0].given is None
    assert missed.issues[0].text == "Nothing is annotated where the detector sees \u2068elk\u2069."
    assert missed.issues[0].sure == "0.99"

    (moved,) = by_id["moved"].issues
    assert (moved.given, moved.said) == ((40, 0, 80, 80), (0, 0, 80, 80))
    assert moved.text == "The annotated box of \u2068bee\u2069 and the suggested one overlap by 33 % (IoU)."
    assert by_id["moved"].others == ((160, 0, 80, 80), (0, 120, 96, 80))

    (swapped,) = by_id["swapped"].issues
    assert swapped.given == swapped.said == (0, 120, 96, 80)
    assert swapped.text == "Annotated as \u2068dog\u2069; suggested: \u2068elk\u2069."
    assert swapped.quality == f"{float(found.scores[found.kinds.index('swapped')]):.3f}"


def test_the_worst_frames_and_issues_come_first() -> None:
    found = issues_of()
    assert [frame.frame_id for frame in shown(found, most=1).frames()] == [found.for_review(1)[0]]
    many = torch.tensor([[float(x), 0.0, x + 4.0, 4.0] for x in range(0, 60, 5)])
    pool = Pool(
        ["a"],
        torch.tensor([0, 12]),
        boxes=many,
        labels=torch.zeros(12, dtype=torch.int64),
        scores=torch.linspace(0.96, 0.99, 12),
    )
    (frame,) = shown(label_issues(pool, [{"boxes": [], "labels": []}], high_score=0.95)).frames()
    assert (len(frame.issues), frame.left_out, frame.boxes) == (MOST_ISSUES, 12 - MOST_ISSUES, "0 boxes")
    assert [issue.number for issue in frame.issues] == list(range(1, MOST_ISSUES + 1))


def test_pictures_come_from_a_dataset_or_a_function() -> None:
    found = issues_of()
    asked: list[str] = []

    def image(frame_id: str) -> torch.Tensor:
        asked.append(frame_id)
        return torch.zeros(3, 30, 40)

    assert all(not frame.picture.fault for frame in shown(found, image).frames())
    assert asked == list(found.for_review())
    for frame in shown(found).frames():
        assert "Pass `issue_images=`" in frame.picture.fault
        assert all(issue.said is None and issue.given is None for issue in frame.issues)
    broken = Named(["clean", "missed", "moved", "swapped"], broken=[1])
    faults = {frame.frame_id: frame.picture.fault for frame in shown(found, broken).frames()}
    assert "is truncated" in faults["missed"]
    assert faults["moved"] == ""


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (
            Grey(4),
            "`issue_images` must have all frames with label issues. '.*' is not among its ids, such as '0'; pass",
        ),
        ("folder", "`issue_images` must be a dataset with a length, or a function .*; got str"),
        ({"missed": 1}, "got dict"),
        (7, "got int"),
    ],
)
def test_what_gives_no_pictures_is_refused(tmp_path: Path, images: Any, said: str) -> None:
    selected = choice(POOL, stage("entropy", 2))
    with pytest.raises(InvalidInputError, match=said):
        report(selected, tmp_path / "new" / "r.html", label_issues=issues_of(), issue_images=images, progress=False)
    assert not (tmp_path / "new").exists()


def test_options_are_checked(tmp_path: Path) -> None:
    selected = choice(POOL, stage("entropy", 2))
    with pytest.raises(InvalidInputError, match="`max_issue_frames` must be at least 1; got 0"):
        report(selected, tmp_path / "r.html", label_issues=issues_of(), max_issue_frames=0, progress=False)
    with pytest.raises(InvalidInputError, match="`issue_images` shows frames of `label_issues`"):
        report(selected, tmp_path / "r.html", issue_images=Grey(4), progress=False)


def written(path: Path, found: LabelIssues, images: Dataset[Any] | None, **options: Any) -> Path:
    selected = choice(POOL, stage("entropy", 2))
    given = {"class_names": NAMES, "progress": False, **options}
    return report(selected, path / "report.html", label_issues=found, issue_images=images, **given)


def test_the_section_is_there_if_issues_are_given(tmp_path: Path) -> None:
    text = written(tmp_path, issues_of(), None, max_issue_frames=2).read_text()
    assert "2 overlooked, 1 badly located, 1 swapped, in 3 of 4 annotated frames." in text
    assert "<strong>The worst 2 of 3 frames are shown:</strong> pass <code>max_issue_frames=3</code>" in text
    assert text.count('class="suspect"') == 2
    nothing = written(tmp_path, nothing_found(), None).read_text()
    assert "0 overlooked, 0 badly located, 0 swapped, in 0 of 1 annotated frame." in nothing
    assert 'class="suspect"' not in nothing
    without = report(choice(POOL, stage("entropy", 2)), tmp_path / "r.html", progress=False).read_text()
    assert "Labels that look wrong" not in without
    assert '#label-issues"' not in without


def test_pictures_are_drawn_one_after_another(tmp_path: Path) -> None:
    """The page has each frame's picture, once, and its boxes in two styles."""
    found = issues_of()
    text = written(tmp_path, found, Named(["clean", "missed", "moved", "swapped"])).read_text()
    part = text[text.index('id="label-issues"') : text.index('id="recipe"')]
    assert part.count("data:image/jpeg;base64,") == 3
    assert part.count('class="said ') == len(found)
    assert part.count('class="given dashes"') == sum(kind != "overlooked" for kind in found.kinds)


# ---- in a browser


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_the_section_fits_and_has_no_serious_fault(
    browser: Any, axe: str, tmp_path: Path, width: int, scheme: str
) -> None:
    path = written(tmp_path, issues_of(), Named(["clean", "missed", "moved", "swapped"]))
    with opened(browser, path, width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.eval_on_selector_all(
            ".card, .suspect", "cards => cards.forEach(card => { card.style.contentVisibility = 'visible' })"
        )
        assert serious_faults(page, axe) == []
        assert page.is_visible('nav a[href="#label-issues"]')


def test_the_two_boxes_are_told_apart(browser: Any, tmp_path: Path) -> None:
    path = written(tmp_path, issues_of(), Named(["clean", "missed", "moved", "swapped"]))
    with opened(browser, path) as page:
        style = "element => { const found = getComputedStyle(element); return [found.stroke, found.strokeDasharray] }"
        page.eval_on_selector_all(
            ".suspect", "cards => cards.forEach(card => { card.style.contentVisibility = 'visible' })"
        )
        said = page.eval_on_selector(".over rect.said", style)
        dashes = page.eval_on_selector(".over rect.dashes", style)
        assert said[1] == "none"
        assert dashes[1] != "none"
        assert said[0] != dashes[0]
        page.uncheck("#boxes")
        assert not page.is_visible(".suspect .over")


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    found = issues_of(HOSTILE)
    names = {1: HOSTILE[0], 2: HOSTILE[1], 3: HOSTILE[5], 4: HOSTILE[3]}
    path = written(tmp_path, found, Named(HOSTILE), class_names=names)
    assert b"\x00" not in path.read_bytes()
    with opened(browser, path) as page:
        assert page.title() == "2 frames worth annotating"
        assert page.query_selector_all("main script, main b b, main img[src=x]") == []
        cards = page.query_selector_all(".suspect")
        assert len(cards) == len(found.for_review())
        texts = [card.text_content() for card in cards]
        assert any("</script><script>" in text for text in texts)
        assert any("<img src=x" in text for text in texts)
        assert not {"\u202e", "\u2066", "\x00"} & set("".join(texts))


@pytest.mark.parametrize("width", [360, 1280])
def test_without_script_it_can_be_read(browser: Any, tmp_path: Path, width: int) -> None:
    found = issues_of()
    path = written(tmp_path, found, Named(["clean", "missed", "moved", "swapped"]))
    with opened(browser, path, width=width, script=False) as page:
        cards = page.query_selector_all(".suspect")
        assert [card.query_selector(".id").text_content() for card in cards] == list(found.for_review())
        for card in cards:
            card.scroll_into_view_if_needed()
            assert card.query_selector(".picture img").is_visible()
            assert card.query_selector(".issues li").is_visible()
        assert page.query_selector_all(".suspect .issues li")[0].text_content().startswith("Overlooked.")
