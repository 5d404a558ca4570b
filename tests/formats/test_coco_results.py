"""Predictions of other programs as a pool: read as pycocotools reads them, selected from, and refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from cval_torch import DetectionSampling, LocalBackend
from cval_torch.errors import InvalidInputError
from cval_torch.formats import load_coco_instances, load_coco_results

IMAGES = [{"id": 9, "file_name": "cam1/b.jpg"}, {"id": 2, "file_name": "Köln/c.jpg"}, {"id": 5, "file_name": "a.jpg"}]


def result(**changes: Any) -> dict[str, Any]:
    return {"image_id": 5, "category_id": 17, "bbox": [10, 20, 30, 40], "score": 0.5} | changes


def document() -> dict[str, Any]:
    return {"images": IMAGES, "annotations": [], "categories": [{"id": 17, "name": "bolt"}, {"id": 3, "name": "nut"}]}


def many(count: int) -> list[dict[str, Any]]:
    rng = random.Random(0)
    return [
        result(
            image_id=rng.choice([9, 5]),
            category_id=rng.choice([3, 17]),
            bbox=[rng.uniform(0, 90) for _ in range(4)],
            score=rng.random(),
        )
        for _ in range(count)
    ]


def test_it_reads_what_pycocotools_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    (tmp_path / "known.json").write_text(json.dumps(document()))
    (tmp_path / "results.json").write_text(json.dumps(many(50)))
    theirs = pycocotools.COCO(tmp_path / "known.json").loadRes(str(tmp_path / "results.json"))
    capsys.readouterr()
    pool = load_coco_results(tmp_path / "results.json", images=tmp_path / "known.json")
    assert pool.frame_ids == ("cam1/b.jpg", "Köln/c.jpg", "a.jpg")
    assert pool.is_empty.tolist() == [False, True, False]
    assert pool.ids_from == "dataset"
    assert pool.boxes is not None
    for row, image in enumerate(IMAGES):
        expected = theirs.loadAnns(theirs.getAnnIds(imgIds=[image["id"]]))
        rows = slice(int(pool.offsets[row]), int(pool.offsets[row + 1]))
        boxes = [[x, y, x + width, y + height] for x, y, width, height in (each["bbox"] for each in expected)]
        assert torch.equal(pool.boxes[rows], torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4).float())
        assert pool.labels[rows].tolist() == [each["category_id"] for each in expected]
        assert torch.equal(pool.scores[rows], torch.tensor([each["score"] for each in expected]))


def test_every_way_to_give_the_images(tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_text(json.dumps(document()), encoding="utf-8-sig")
    instances = load_coco_instances(path)
    only_images = {"images": IMAGES}  # as COCO's own files of test images
    for images in (path, str(path), document(), only_images, IMAGES, tuple(IMAGES), instances):
        for ids, names in (("file_name", [each["file_name"] for each in IMAGES]), ("image_id", ["9", "2", "5"])):
            pool = load_coco_results([result()], images=images, frame_ids=ids)
            assert pool.frame_ids == tuple(names)
            assert pool.counts.tolist() == [0, 0, 1]
            assert pool.ids_from == ("dataset" if ids == "file_name" else "target")
    bare = [{"id": "x"}, {"id": "y"}]
    assert load_coco_results([result(image_id="y")], images=bare, frame_ids="image_id").counts.tolist() == [0, 1]


def test_frames_are_selected_from_it() -> None:
    sure, unsure = result(image_id=9, score=0.99), result(image_id=5, score=0.5)
    pool = load_coco_results([sure, unsure], images=IMAGES)
    stage = DetectionSampling(selection_strategy="least", num_of_samples=1, null_policy="last")
    assert LocalBackend().select(pool, stage).frame_ids == ("a.jpg",)


def test_no_results_at_all() -> None:
    pool = load_coco_results([], images=IMAGES)
    assert pool.is_empty.all()
    assert pool.boxes is not None
    assert pool.boxes.shape == (0, 4)


def test_what_libraries_write_beside_the_four_keys_is_passed_over() -> None:
    more = {"id": 1, "area": 3.0, "iscrowd": 0, "segmentation": {}, "file_name": "a.jpg", "category_name": "bolt"}
    assert load_coco_results([result(**more), result()], images=IMAGES).num_boxes == 2


def refused(results: Any, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as raised:
        load_coco_results(results, **{"images": IMAGES, **options})
    return str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scores": 0.5}, "number 1 of `results` has the key `scores`, which is not read; do you mean `score`? Those"),
        ({"confidence": 0.5}, "number 1 of `results` has the key `confidence`, which is not read. Those that are read"),
        ({"score": 1.5}, "number 1 of `results` must have a `score` in [0, 1]; got 1.5"),
        ({"score": float("nan")}, "number 1 of `results` must have a `score` in [0, 1]; got nan"),
        ({"score": None}, "number 1 of `results` must have a number as `score`; got None"),
        ({"image_id": 6}, "number 1 of `results` has the `image_id` 6, which is not among the 3 ids of `images=`"),
        (
            {"image_id": "5"},
            "number 1 of `results` has the `image_id` '5', which is not among the 3 ids of `images=",
        ),
        ({"bbox": [1, 2, -3, 4]}, "number 1 of `results` must have a width and a height of 0 or more in `bbox`"),
        ({"bbox": [1, 2, float("nan"), 4]}, "number 1 of `results` must have finite numbers in `bbox`"),
        ({"category_id": "bolt"}, "number 1 of `results` must have an integer as `category_id`; got 'bolt'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], said: str) -> None:
    assert refused([result(), result(**changes)]).startswith(said)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_key(key: str) -> None:
    rows = [result(), result()]
    del rows[1][key]
    assert refused(rows).startswith(f"number 1 of `results` has no `{key}`; its keys are ")


def test_a_number_beyond_float32_is_refused_by_its_frame() -> None:
    assert "`boxes` must be finite; got inf in row 0, of frame 'a.jpg'" in refused([result(bbox=[1e39, 0, 1, 1])])


def test_one_file_in_place_of_the_other(tmp_path: Path) -> None:
    instances, results = tmp_path / "known.json", tmp_path / "results.json"
    instances.write_text(json.dumps(document()))
    results.write_text(json.dumps([result()]))
    assert refused(instances) == (
        f"{instances} is a COCO instances file, and not a list of results. Pass the detector's predictions, a list of "
        "objects with image_id, category_id, bbox, score, and the instances file as `images=`"
    )
    assert refused({"results": []}).startswith("`results` is an object, and not a list of results")
    assert refused(results, images=results).startswith(f"{results} is a list of results, and not a COCO instances file")
    assert refused([result()], images=[result()]).startswith("`images=` is a list of results")
    assert refused(7) == "`results` must be a list; got int"
    assert refused([7]) == "number 0 of `results` must be an object; got 7"
    assert refused([], images=[7]) == "number 0 of `images=` must be an object; got 7"
    assert refused([], images=7) == "`images=` must be an object with `images`; got int"


def test_frame_ids_that_cannot_be(tmp_path: Path) -> None:
    long = [{"id": 1, "file_name": "x" * 129}]
    assert refused([], images=long).endswith("of `images=` has 129. Shorten it, or pass frame_ids='image_id'")
    assert load_coco_results([], images=long, frame_ids="image_id").frame_ids == ("1",)
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]
    assert refused([], images=twice) == (
        "`images=` must have distinct `file_name`s; got 'a.jpg' twice. Remove one of them, or pass frame_ids='image_id'"
    )
    assert refused([], images=[{"id": 1}], frame_ids="file_name").startswith("number 0 of `images=` has no `file_name`")
    assert refused([], frame_ids="path") == "`frame_ids` must be 'file_name' or 'image_id'; got 'path'"


def test_a_hundred_thousand_records_are_those_of_a_loop() -> None:
    rows = many(100_000)
    pool = load_coco_results(rows, images=IMAGES)
    ordered = [row for image in IMAGES for row in rows if row["image_id"] == image["id"]]
    assert pool.labels is not None
    assert pool.labels.tolist() == [row["category_id"] for row in ordered]
    assert torch.equal(pool.scores, torch.tensor([row["score"] for row in ordered]))
