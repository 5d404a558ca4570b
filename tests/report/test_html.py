"""Reports, read as files and looked at in a real browser."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compared import trained
from opened_pages import HOSTILE, opened, serious_faults
from PIL import Image
from reported import Grey, choice, described, stage
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report import report
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import LearningCurve

POOL = described(120)
LABELED = described(12, seed=4, prefix="labeled")
NAMES = ["ant", "bee", "cow", "dog"]


class Photos(Dataset[Any]):
    """Photographs that packages ship, in many cuts."""

    def __init__(self, n: int) -> None:
        from skimage import data
        from sklearn.datasets import load_sample_images

        self.photos = [*load_sample_images().images, data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> Image.Image:
        photo = self.photos[row % len(self.photos)]
        height, width = photo.shape[:2]
        top, left = (row * 37) % (height // 3), (row * 53) % (width // 3)
        return Image.fromarray(np.ascontiguousarray(photo[top : top + height * 2 // 3, left : left + width * 2 // 3]))


def entropy_report(path: Path, **options: Any) -> Path:
    """A report of everything that there can be."""
    selected = choice(POOL, stage("entropy", 30), labeled=LABELED)
    given = {"pool": POOL, "labeled": LABELED, "class_names": NAMES, "comparison": trained((6, 16, 0.5), (10, 30, 0.7))}
    return report(selected, path / "report.html", progress=False, **{**given, **options})


def shown(page: Any, kind: str = "chosen") -> list[str]:
    """The ids of the cards of a kind that can be seen, in order."""
    found: list[str] = page.eval_on_selector_all(
        f'.card[data-k="{kind}"]',
        "cards => cards.filter(card => !card.hidden).map(card => card.querySelector('.id').textContent)",
    )
    return found


# ---- without a browser


def test_what_the_frames_may_gain_is_on_the_page(tmp_path: Path) -> None:
    curve = LearningCurve()
    selected = choice(POOL, stage("entropy", 5))
    assert "may gain" not in report(selected, tmp_path / "r.html", learning_curve=curve, progress=False).read_text()
    curve.add(100, {"map_50": 0.3})
    curve.add(200, {"map_50": 0.4})
    text = report(selected, tmp_path / "r.html", learning_curve=curve, progress=False).read_text()
    assert f"<li>{curve.forecast('map_50', 5)}</li>" in text


def test_the_file_is_whole_or_the_old_one_stays(tmp_path: Path) -> None:
    class Stops(Grey):
        def __getitem__(self, row: int) -> Any:
            raise KeyboardInterrupt

    path = tmp_path / "deeper" / "report.html"
    selected = choice(POOL, stage("entropy", 3))
    assert report(selected, path, progress=False) == path
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        report(choice(POOL, stage("entropy", 3), dataset=Stops(120)), path, progress=False)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_same_arguments_make_the_same_file(tmp_path: Path) -> None:
    first = entropy_report(tmp_path).read_bytes()
    assert entropy_report(tmp_path).read_bytes() == first


def test_bad_arguments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    selected = choice(POOL, stage("entropy", 3))
    path = tmp_path / "report.html"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"max_frames": 0}, "`max_frames` must be at least 1; got 0"),
        ({"min_score": 1.5}, "`min_score` must be in"),
        ({"map_method": "lda"}, "`map_method` must be one of"),
        ({"class_names": "cat"}, "`class_names` must be"),
        ({"pool": described(3, prefix="other")}, "`pool` must hold the frames that were chosen"),
        ({"labeled": POOL.take([100]), "pool": POOL}, "cannot be chosen again"),
    ]
    for options, message in wrong:
        with pytest.raises(InvalidInputError, match=message):
            report(selected, path, progress=False, **options)
    with pytest.raises(InvalidInputError, match="which is a folder"):
        report(selected, tmp_path, progress=False)
    selected.predictions = POOL.take([1])
    with pytest.raises(InvalidInputError, match="`predictions` must be of the 3 frames; got those of 1"):
        report(selected, path, progress=False)
    assert not path.exists()


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    text = entropy_report(tmp_path, max_frames=4).read_text()
    assert "4 of 30 chosen frames are shown, and 26 left out:" in text
    assert "max_frames=30" in text
    assert len(re.findall(r'data-k="chosen"', text)) == 4


@pytest.mark.filterwarnings("ignore:the stage")  # too few frames are that far apart
def test_two_hundred_photographs_full_of_boxes_take_six_megabytes(tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    crowded = described(900, most=100, classes=80)
    selected = choice(crowded, stage("entropy", 200, min_distance=2.1), dataset=Photos(900))
    path = report(
        selected, tmp_path / "r.html", pool=crowded, labeled=LabelPool(list(range(3))), min_score=0, progress=False
    )
    text = path.read_text()
    assert (text.count('<li class="card"'), text.count('class="twins"')) >= (224, 150)
    assert path.stat().st_size <= 6_000_000


def test_a_choice_alone_says_what_to_pass(tmp_path: Path) -> None:
    text = report(choice(POOL, stage("entropy", 5)), tmp_path / "r.html", progress=False).read_text()
    assert text.count("Pass `pool=`") >= 4
    assert "Pass `labeled=`" in text
    assert "not known" in text


# ---- in a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_pages_fit_and_have_no_serious_fault(browser: Any, axe: str, tmp_path: Path, width: int, scheme: str) -> None:
    with opened(browser, entropy_report(tmp_path), width=width, scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for details in page.query_selector_all("details")[:4]:
            details.evaluate("element => { element.open = true }")
        page.eval_on_selector_all(
            ".card", "cards => cards.forEach(card => { card.style.contentVisibility = 'visible' })"
        )
        assert serious_faults(page, axe) == []
        assert len(page.screenshot()) > 10_000


def test_hostile_names_stay_text(browser: Any, tmp_path: Path) -> None:
    pool = described(len(HOSTILE), names=HOSTILE, classes=len(HOSTILE))
    selected = choice(pool, stage("entropy", len(HOSTILE) - 2))
    path = report(
        selected, tmp_path / "r.html", pool=pool, labeled=[], class_names=HOSTILE, title=HOSTILE[0], progress=False
    )
    assert b"\x00" not in path.read_bytes()
    with opened(browser, path) as page:
        assert page.title() == HOSTILE[0]
        assert page.query_selector("h1").text_content() == HOSTILE[0]
        assert page.query_selector_all("main script, main b b, main img[src=x]") == []
        texts = shown(page)
        assert len(texts) == len(selected)
        assert any("</script><script>" in text for text in texts + shown(page, "below"))
        seen = "".join(texts)
        assert not {"\u202e", "\u2066", "\n", "\x00"} & set(seen)
        page.select_option("#class", index=1)
        page.click("#boxes")


def test_marked_ids_are_downloaded_as_they_are(browser: Any, tmp_path: Path) -> None:
    import json

    pool = described(len(HOSTILE), names=HOSTILE)
    selected = choice(pool, stage("entropy", len(HOSTILE)))
    path = report(selected, tmp_path / "r.html", progress=False)
    with opened(browser, path) as page:
        assert page.is_disabled("#save")
        page.click("#all")
        assert page.text_content("#marked") == str(len(HOSTILE))
        with page.expect_download() as download:
            page.click("#save")
        lines = Path(download.value.path()).read_bytes().decode().split("\n")
        assert download.value.suggested_filename == "marked.txt"
        assert lines.pop() == ""
        found = [json.loads(line) if line.startswith('"') else line for line in lines]
        expected = [name.replace("\ud800", "\ufffd") for name in selected.frame_ids]  # which no text file can hold
        assert found == expected
        page.click("#none")
        assert page.is_disabled("#save")


def test_filters_sorting_and_search(browser: Any, tmp_path: Path) -> None:
    selected = choice(POOL, stage("entropy", 30, null_policy="sample"), labeled=LABELED)
    path = report(selected, tmp_path / "r.html", pool=POOL, labeled=LABELED, class_names=NAMES, progress=False)
    ids, scores = list(selected.frame_ids), dict(zip(selected.frame_ids, selected.scores.tolist(), strict=True))
    costs = dict(zip(ids, selected.estimated_boxes.tolist(), strict=True))
    pool = selected.predictions
    with opened(browser, path) as page:

        def settled(check: Callable[[], bool]) -> bool:
            for _ in range(40):
                if check():
                    return True
                page.wait_for_timeout(50)
            return check()

        assert shown(page) == ids
        page.select_option("#class", "2")
        with_cows = [
            frame_id
            for row, frame_id in enumerate(ids)
            if any(
                int(pool.labels[box]) == 2 and float(pool.scores[box]) >= 0.3
                for box in range(int(pool.offsets[row]), int(pool.offsets[row + 1]))
            )
        ]
        assert shown(page) == with_cows
        assert 0 < len(with_cows) < 30
        page.select_option("#class", "")
        page.select_option("#stage", "entropy, set apart")
        assert shown(page) == [frame_id for frame_id in ids if math.isnan(scores[frame_id])]
        page.select_option("#stage", "")
        middle = sorted(score for score in scores.values() if not math.isnan(score))[10]
        page.fill("#from", f"{middle:.4f}")
        assert settled(lambda: shown(page) == [each for each in ids if scores[each] >= float(f"{middle:.4f}")])
        page.fill("#from", "")
        page.fill("#search", ids[7][-3:].upper())
        assert settled(lambda: shown(page) == [each for each in ids if ids[7][-3:] in each])
        page.fill("#search", "nothing like it")
        assert settled(lambda: shown(page) == [] and page.is_visible("#frames .empty"))
        page.fill("#search", "")
        assert settled(lambda: len(shown(page)) == 30)
        for value, key in (
            ("cost", lambda each: -round(costs[each], 2)),
            ("score-up", lambda each: 9 if math.isnan(scores[each]) else scores[each]),
            ("id", lambda each: each),
        ):
            page.select_option("#sort", value)
            keys = [key(each) for each in shown(page)]
            assert keys == sorted(keys, key=lambda number: number if isinstance(number, str) else round(number, 3))
        page.select_option("#sort", "rank")
        assert shown(page) == ids
        page.check("#f3 input[type=checkbox]")
        page.check("#only")
        assert shown(page) == [ids[3]]
        assert page.text_content("#marked") == "1"


def test_a_box_shows_its_class_vector(browser: Any, tmp_path: Path) -> None:
    selected = choice(POOL, stage("entropy", 8, null_policy="skip"))
    path = report(selected, tmp_path / "r.html", class_names=NAMES, progress=False)
    with opened(browser, path) as page:
        card = page.query_selector("#f0")
        card.scroll_into_view_if_needed()
        rect = page.query_selector("#f0 .over rect.decides")
        number = rect.get_attribute("data-b")
        told = page.text_content(f'#f0 tr[data-b="{number}"] td:last-child')
        rect.dispatch_event("pointerover", {"pointerType": "mouse", "bubbles": True})
        panel = page.query_selector("#f0 .vector")
        assert "decides" in panel.query_selector("p").text_content()
        bars = [
            (each.query_selector("span").text_content(), each.query_selector("b").text_content())
            for each in panel.query_selector_all("div")
        ]
        assert bars == [tuple(part.rsplit(" ", 1)) for part in told.split(", ")]
        width = float(panel.query_selector("rect").get_attribute("width"))
        assert width == pytest.approx(100 * float(bars[0][1]))
        page.keyboard.press("Escape")
        assert page.query_selector(".vector") is None
        page.click("#f0 summary")
        page.focus("#f0 tr[data-b] button")
        assert page.query_selector("#f0 .vector") is not None
        assert page.query_selector_all("#f0 .over rect.on") != []
        page.uncheck("#boxes")
        assert not page.is_visible("#f0 .over")


def test_the_map_shows_what_it_is_pointed_at(browser: Any, tmp_path: Path) -> None:
    with opened(browser, entropy_report(tmp_path)) as page:
        assert len(page.query_selector_all("svg.map a")) == 30
        assert len(page.query_selector_all('svg.map a[tabindex="0"]')) == 1
        page.focus('svg.map a[tabindex="0"]')
        first = page.text_content("#f0 .id")
        assert page.text_content("#tip bdi") == f"1. {first}"
        assert page.get_attribute("#tip img", "src") == page.get_attribute("#f0 .picture img", "src")
        page.keyboard.press("ArrowRight")
        assert page.text_content("#tip bdi") == f"2. {page.text_content('#f1 .id')}"
        page.keyboard.press("Enter")
        assert page.url.endswith("#f1")


@pytest.mark.parametrize("width", [360, 1280])
def test_without_script_every_frame_can_be_read(browser: Any, tmp_path: Path, width: int) -> None:
    with opened(browser, entropy_report(tmp_path), width=width, script=False) as page:
        assert not page.is_visible("#tools")
        cards = page.query_selector_all(".card")
        assert len(cards) == 54
        for card in cards:
            card.scroll_into_view_if_needed()
            assert card.query_selector(".picture img").is_visible()
            assert card.query_selector(".facts").is_visible()
        place = next(number for number in range(30) if page.query_selector(f"#f{number} details"))
        assert "Decided by" in page.text_content(f"#f{place} .why")
        page.click(f"#f{place} summary")
        assert page.is_visible(f"#f{place} .boxes table")


def bare(**columns: Any) -> Pool:
    return Pool(["a", "b"], torch.tensor([0, 2, 2]), indices=torch.arange(2), **columns)


@pytest.mark.parametrize(
    "pool",
    [
        bare(),
        bare(scores=torch.tensor([0.5, 0.5])),
        bare(boxes=torch.tensor([[1, 1, 9, 9], [0, 0, 0, 0.0]])),
        bare(labels=torch.tensor([3, 900]), scores=torch.tensor([0.5, 0.2])),
        POOL.take([9]),
        POOL.take(POOL.is_empty.nonzero().squeeze(1)),
        described(40, classes=400),
    ],
    ids=["ids alone", "equal scores", "boxes alone", "labels", "one frame", "no boxes", "many classes"],
)
@pytest.mark.parametrize("strategy", ["by_score", "random"])
def test_pools_of_all_kinds(browser: Any, tmp_path: Path, pool: Pool, strategy: str) -> None:
    how = stage("random" if strategy == "random" else lambda frames: frames.counts.double(), 1)
    selected = choice(pool, how, dataset=Grey(120))
    path = report(selected, tmp_path / "r.html", pool=pool, labeled=[], progress=False)
    with opened(browser, path, width=360) as page:
        assert shown(page) == list(selected.frame_ids)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_broken_images_are_said_on_their_card(browser: Any, tmp_path: Path) -> None:
    good = choice(POOL, stage("entropy", 3))
    selected = choice(POOL, stage("entropy", 3), dataset=Grey(120, broken=[good.indices[1]]))
    with opened(browser, report(selected, tmp_path / "r.html", progress=False)) as page:
        assert "is truncated" in page.text_content("#f1 .fault")
        assert page.query_selector("#f0 .fault") is None


def test_five_thousand_frames_stay_usable(browser: Any, tmp_path: Path) -> None:
    pool = described(5200)
    selected = choice(pool, stage("entropy", 5000), dataset=Grey(5200, size=(24, 32)))
    path = report(selected, tmp_path / "r.html", pool=pool.only(("scores", "labels")), max_frames=5000, progress=False)
    with opened(browser, path) as page:
        assert len(shown(page)) == 5000
        painted = page.evaluate(
            "[...document.querySelectorAll('.card')].filter(card => !card.checkVisibility || "
            "card.querySelector('.picture').checkVisibility({contentVisibilityAuto: true})).length"
        )
        assert painted < 100, "cards out of sight are not laid out"
        page.select_option("#sort", "cost")
        page.fill("#search", "-0042")
        page.wait_for_timeout(300)
        assert shown(page) in ([], ["frame-0042"])
        assert unescape(page.text_content("#status")).startswith(
            f"{len(shown(page)) + len(shown(page, 'other')) + len(shown(page, 'below'))} of "
        )
