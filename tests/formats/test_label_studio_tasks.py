"""Exports of Label Studio: who annotated what, what counts, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, load_label_studio
from cval_torch.formats.label_studio_tasks import read_tasks


def box(left: float, top: float, right: float, bottom: float, name: str = "bolt", **more: Any) -> dict[str, Any]:
    """A region in an image of 100 x 100 pixels, in which percent are pixels."""
    value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rectanglelabels": [name]}
    return {"type": "rectanglelabels", "original_width": 100, "original_height": 100, "value": value, **more}


def vote(*result: dict[str, Any], by: Any = 1, at: int = 0, **more: Any) -> dict[str, Any]:
    return {"completed_by": by, "updated_at": f"2026-01-01T00:00:{at:02}.5Z", "result": list(result), **more}


def task(*annotations: dict[str, Any], name: str = "/data/local-files/?d=a.jpg", **more: Any) -> dict[str, Any]:
    return {"id": 17, "data": {"image": name}, "annotations": list(annotations), **more}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def of(*tasks: Any, **options: Any) -> Annotations:
        path = tmp_path / "export.json"
        path.write_text(json.dumps(list(tasks)))
        return load_label_studio(path, **options)

    return of


def test_annotated_empty_skipped_and_not_annotated_are_told_apart(load: Any) -> None:
    skip = vote(by=2, was_cancelled=True)
    found = load(
        task(vote(box(0, 0, 10, 10)), name="boxes.jpg"),
        task(vote(), name="empty.jpg"),
        task(skip, name="skipped.jpg"),
        task(name="nobody.jpg", drafts=[{"result": [box(0, 0, 1, 1)]}]),
        task(skip, vote(box(0, 0, 5, 5)), name="skipped by one.jpg"),
        task(name="prediction.jpg", predictions=[{"result": [box(0, 0, 9, 9, score=0.5)]}]),
        task(name="ids.jpg", predictions=[4, 5]),
    )
    columns = zip(found.file_names, found.is_annotated.tolist(), found.counts.tolist(), strict=True)
    assert {name: (annotated, count) for name, annotated, count in columns} == {
        "boxes.jpg": (True, 1),
        "empty.jpg": (True, 0),
        "nobody.jpg": (False, 0),
        "skipped by one.jpg": (True, 1),
        "prediction.jpg": (False, 1),
        "ids.jpg": (False, 0),
    }
    assert found.skipped == ("skipped.jpg",)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [0, 0, 5, 5], [0, 0, 9, 9]]
    assert found.sizes.tolist() == [[100, 100], [0, 0], [0, 0], [100, 100], [100, 100], [0, 0]]
    assert "1 tasks were skipped" in found.notes[-1]


def test_the_newest_of_several_predictions_is_read(load: Any) -> None:
    old = {"created_at": "2026-01-01T00:00:00Z", "result": [box(0, 0, 1, 1)]}
    new = {"created_at": "2026-01-02T00:00:00Z", "result": [box(0, 0, 2, 2)]}
    for several in ([old, new], [new, old], [{"result": [box(0, 0, 1, 1)]}, {"result": [box(0, 0, 2, 2)]}]):
        found = load(task(predictions=several))
        assert found.boxes.tolist() == [[0, 0, 2, 2]]
        assert "1 tasks have several predictions" in found.notes[0]


VOTES = [
    vote(box(0, 0, 10, 10), box(50, 50, 60, 60, "nut"), by=1, at=3),
    vote(box(1, 0, 11, 10), by={"id": 2, "email": "b@example.org"}, at=9),
    vote(box(2, 0, 12, 10), box(50, 50, 60, 60), by="c@example.org", at=5),
]


def test_several_people(load: Any) -> None:
    majority = load(task(*VOTES))
    assert majority.boxes.tolist() == [[1, 0, 11, 10]]
    assert "joined by `join='majority'`" in majority.notes[0]
    union = load(task(*VOTES), join="union")
    assert union.boxes.tolist() == [[1, 0, 11, 10], [50, 50, 60, 60], [50, 50, 60, 60]]
    assert [union.class_names[label] for label in union.labels.tolist()] == ["bolt", "nut", "bolt"]
    latest = load(task(*VOTES), join="latest")
    assert latest.boxes.tolist() == [[1, 0, 11, 10]]
    refused = r"task 0 \(id 17\) of .*export.json has annotations of 3 people: 1, 2, c@example.org.*`join`"
    with pytest.raises(InvalidInputError, match=refused):
        load(task(*VOTES), join="refuse")
    assert load(task(VOTES[0]), join="refuse").boxes.shape == (2, 4)
    with pytest.raises(InvalidInputError, match="`join` must be one of"):
        load(task(), join="mean")


def test_somebody_who_drew_nothing_counts_and_somebody_who_skipped_does_not(load: Any) -> None:
    drew = vote(box(0, 0, 10, 10), by=1)
    assert load(task(drew, vote(by=2))).counts.tolist() == [0], "one of two is no majority"
    assert load(task(drew, vote(by=2, was_cancelled=True))).counts.tolist() == [1]
    assert load(task(drew, vote(by=2), vote(box(0, 0, 10, 10), by=3))).counts.tolist() == [1]
    assert load(task(drew, vote(by=2), vote(box(0, 0, 10, 10), by=3), vote(by=4))).counts.tolist() == [0]


def test_rotated_boxes_turn_about_their_left_upper_corner_before_they_are_joined(load: Any) -> None:
    """Of two people, one drew the box upright, and the other one as a box that is turned by a quarter."""
    turned = box(40, 10, 60, 40)
    turned["value"]["rotation"] = 90
    assert load(task(vote(turned))).boxes[0].tolist() == pytest.approx([10, 10, 40, 30], abs=1e-4)
    both = load(task(vote(turned, by=1), vote(box(10, 10, 40, 30), by=2)))
    assert both.boxes.tolist() == [pytest.approx([10, 10, 40, 30], abs=1e-4)]
    assert load(task(predictions=[{"result": [turned]}])).boxes[0].tolist() == pytest.approx([10, 10, 40, 30], abs=1e-4)


def test_of_several_annotations_of_one_person_the_last_counts(load: Any) -> None:
    first, second = vote(box(0, 0, 10, 10), at=1), vote(box(0, 0, 20, 20), at=2)
    for several in ((first, second), (second, first)):
        for join in ("majority", "union", "latest", "refuse"):
            found = load(task(*several), join=join)
            assert found.boxes.tolist() == [[0, 0, 20, 20]]
    assert "several annotations of one person" in found.notes[0]
    for annotation in (first, second):
        del annotation["updated_at"]
    assert load(task(first, second)).boxes.tolist() == [[0, 0, 20, 20]], "without times, the last one in the file"
    nobody = [vote(box(0, 0, 10, 10), by=None), vote(box(0, 0, 10, 10), by=None)]
    assert "several people" in load(task(*nobody)).notes[0], "who is not named is somebody else"


def test_scores_and_crowds_of_joined_boxes(load: Any) -> None:
    scored = [vote(box(0, 0, 10, 10, score=score), by=number) for number, score in enumerate((0.2, 0.4, 0.9))]
    assert load(task(*scored)).scores.tolist() == pytest.approx([0.4])
    assert load(task(*scored[:2], vote(box(0, 0, 10, 10), by=9))).scores.isnan().all()
    crowd = {"meta": {"text": ["crowd"]}}
    crowds = [vote(box(0, 0, 10, 10, **crowd), by=1), vote(box(0, 0, 10, 10, **crowd), by=2)]
    assert load(task(*crowds, vote(box(0, 0, 10, 10), by=3))).is_crowd.tolist() == [True]


def test_what_travels_along_is_read_where_it_is_what_it_should_be(load: Any) -> None:
    data = {"image": "a.jpg", "frame_id": "cam/a", "rank": 3, "uncertainty": 1.0000000001, "round": 2}
    other = {"image": "b.jpg", "frame_id": 7, "rank": "first", "uncertainty": None, "round": 10**400}
    found = load({"data": data}, {"data": other})
    assert found.frame_ids == ("cam/a", None)
    assert found.ranks.tolist() == [3, 0]
    assert found.rounds.tolist() == [2, -1]
    assert found.uncertainties[0].item() == 1.0000000001
    assert found.uncertainties[1].isnan()
    assert load().file_names == ()


def test_other_names_for_the_image_and_uploads(load: Any) -> None:
    rows = [{"data": {"photo": f"/data/upload/1/1f0c2a9b-{name}.jpg", "x": 1}} for name in "ab"]
    with pytest.raises(InvalidInputError, match=r"task 0 of .* has no `image` in `data`; its keys are photo, x. Name"):
        load(*rows)
    assert load(*rows, image_key="photo").file_names == ("a.jpg", "b.jpg")


def test_other_files_are_refused_with_what_to_do(load: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"was exported as JSON-MIN.*Export the project as JSON"):
        load({"image": "a.jpg", "id": 1, "label": [], "annotator": 1, "annotation_id": 1})
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(InvalidInputError, match="a COCO instances file; read it by `load_coco`"):
        load_label_studio(path)
    path.write_text("{}")
    with pytest.raises(InvalidInputError, match="must be a list of tasks, as Label Studio exports them as JSON"):
        load_label_studio(path)


def test_a_frame_that_was_imported_twice(load: Any) -> None:
    rows = [{"id": number, "data": {"image": "a.jpg", "frame_id": "a"}} for number in (4, 9)]
    with pytest.raises(InvalidInputError, match=r"task 1 \(id 9\) of .* frame 'a', as is task 0 \(id 4\).*Delete one"):
        load(*rows)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (7, "task 1 of .* must be an object; got 7"),
        ({"id": 3}, r"task 1 \(id 3\) of .* has no `data`; its keys are id"),
        ({"data": None}, "must have an object as `data`; got None"),
        ({"data": {"image": ["a.jpg"]}}, r"must have a path or URL as `image` in `data`; got \['a.jpg'\]"),
        ({"data": {"image": ""}}, "must have a path or URL"),
        (task(name="x") | {"annotations": {}}, "must have a list as `annotations`; got {}"),
        (task("x"), "annotation 0 of task 1 .* must be an object; got 'x'"),
        (task({"completed_by": 1}), "annotation 0 of task 1 .* has no `result`; its keys are completed_by"),
        (task({"result": {}}), "annotation 0 of task 1 .* must have a list as `result`"),
        (task(vote(was_cancelled="no")), "true or false as `was_cancelled`; got 'no'"),
        (task(vote() | {"updated_at": "yesterday"}), "must have a time as `updated_at`; got 'yesterday'"),
        (task(vote() | {"updated_at": 5}), "must have a time as `updated_at`; got 5"),
        (task(vote(box(0, 0, 1, 1)), vote(box(0, 0, 1, 1, original_width=9), by=2)), "the image was exchanged"),
        (task(vote(box(0, 0, 1, 1), {})), "region 1 of annotation 0 of task 1"),
        (task(predictions="x"), "must have a list as `predictions`; got 'x'"),
        (task(predictions=[{}]), "prediction 0 of task 1 .* must be an object with `result`"),
        (task(predictions=[{"result": [{}]}]), "region 0 of prediction 0 of task 1"),
    ],
)
def test_what_is_malformed_is_refused_by_task_and_key(load: Any, broken: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load({"data": {"image": "fine.jpg"}}, broken)
    assert "export.json" in str(caught.value)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_file_with_anything_in_it_is_read_or_refused(data: st.DataObject) -> None:
    """One value somewhere in a whole export is exchanged by another one, or a key is taken away."""
    document: Any = [
        task(vote(box(0, 0, 10, 10, score=0.5, meta={"text": ["crowd"]}), by=1), vote(box(0, 0, 9, 9), by={"id": 2})),
        task(name="b.jpg", predictions=[{"created_at": "2026-01-01T00:00:00Z", "result": [box(0, 0, 9, 9)]}]),
        task(
            vote(
                box(0, 0, 1, 1) | {"type": "polygonlabels", "value": {"points": [[1, 2]], "polygonlabels": ["a"]}},
                box(0, 0, 1, 1)
                | {"type": "labels", "value": {"x": 1, "y": 1, "radiusX": 1, "radiusY": 2, "labels": []}},
            ),
            name="c.jpg",
        ),
    ]
    document[2]["annotations"][0]["result"][1]["value"]["labels"] = ["b"]
    document[0]["data"] |= {"frame_id": "a", "rank": 1, "uncertainty": 0.5, "round": 0}
    read_tasks(json.loads(json.dumps(document)), "FILE", join="union", image_key="image")
    node = document
    while True:
        keys = list(range(len(node))) if isinstance(node, list) else list(node)
        key = data.draw(st.sampled_from(keys))
        inner = node[key]
        if not isinstance(inner, (dict, list)) or not inner or data.draw(st.booleans()):
            break
        node = inner
    if isinstance(node, dict) and data.draw(st.booleans()):
        del node[key]
    else:
        node[key] = data.draw(values)
    refused = None
    try:
        tasks = read_tasks(document, "FILE", join="union", image_key="image")
        names = {name: number for number, name in enumerate(sorted(set(tasks.names)))}
        tasks.annotations({number: name for name, number in names.items()}, [names[each] for each in tasks.names], [])
    except InvalidInputError as error:
        refused = str(error)
    assert refused is None or "FILE" in refused
