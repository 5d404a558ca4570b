"""Annotations come back: frames are found, become labelled, and are trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cval_torch import LabelPool
from cval_torch.errors import InvalidInputError
from cval_torch.formats import Annotations, ImageFolder, save_coco
from cval_torch.training.annotate import frames_of, latest

IDS = ["cam1/a.jpg", "cam1/b.jpg", "cam2/a.jpg", "cam2/b.jpg", "c.jpg"]


@pytest.fixture
def photos(tmp_path: Path) -> ImageFolder:
    for name in IDS:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((64, 48), 40).convert("RGB").save(tmp_path / "photos" / name)
    return ImageFolder(tmp_path / "photos", frame_ids=IDS)


def marked(names: list[str], *, ids: Any = (), annotated: list[bool] | None = None, **columns: Any) -> Annotations:
    """Each frame with one box, of class 1, as wide as its number."""
    count = len(names)
    return Annotations(
        names,
        torch.arange(count + 1),
        boxes=torch.tensor([[0.0, 0.0, 1.0 + row, 2.0] for row in range(count)]).reshape(-1, 4),
        labels=torch.ones(count, dtype=torch.int64),
        class_names={1: "bolt"},
        frame_ids=ids,
        is_annotated=torch.tensor([True] * count if annotated is None else annotated, dtype=torch.bool),
        **columns,
    )


def test_frames_become_labelled_in_rank_order_with_their_scores(photos: ImageFolder) -> None:
    labels = LabelPool(photos, labeled=["c.jpg"])
    given = marked(
        ["x.jpg", "y.jpg", "z.jpg", "w.jpg"],
        ids=["cam2/a.jpg", "cam1/b.jpg", "c.jpg", "cam1/a.jpg"],
        annotated=[True, True, True, False],
        ranks=torch.tensor([2, 1, 3, 4]),
        uncertainties=torch.tensor([0.25, 0.5, 0.125, 1.0]),
    )
    result = labels.annotate_from(given, epoch=7)
    assert result.round is not None
    assert result.round.frame_ids == ("cam1/b.jpg", "cam2/a.jpg")
    assert result.round.scores == (0.5, 0.25)
    assert result.round.epoch == 7
    assert result.relabeled == ("c.jpg",)
    assert result.unannotated == ("cam1/a.jpg",)
    assert labels.labeled_ids == ("c.jpg", "cam1/b.jpg", "cam2/a.jpg")
    assert result.annotations.frame_ids == ("cam1/b.jpg", "cam2/a.jpg", "c.jpg")
    again = labels.annotate_from(given)
    assert again.round is None
    assert len(labels.rounds) == 2
    assert len(again.relabeled) == 3


def test_frames_are_found_by_the_end_of_their_paths(photos: ImageFolder) -> None:
    labels = LabelPool(photos)
    with pytest.warns(UserWarning, match="gone.jpg"):
        result = labels.annotate_from(marked(["images/cam1/a.jpg", "gone.jpg", "/data/photos/c.jpg"]))
    assert labels.labeled_ids == ("cam1/a.jpg", "c.jpg")
    assert result.unmatched == ("gone.jpg",)


def test_files_of_the_dataset_are_found_where_ids_are_no_paths(photos: ImageFolder) -> None:
    class Numbered(ImageFolder):
        def __init__(self) -> None:
            super().__init__(photos.folder, frame_ids=IDS)
            self.paths = [str(photos.folder / name) for name in IDS]

    labels = LabelPool(Numbered(), frame_ids=["10", "11", "12", "13", "14"])
    labels.annotate_from(marked(["cam1/b.jpg", "c.jpg"]))
    assert labels.labeled_ids == ("11", "14")


@pytest.mark.parametrize(
    ("names", "ids", "message"),
    [
        (["a.jpg"], (), "matches 2 images equally well"),
        (["x/cam1/a.jpg", "y/cam1/a.jpg"], (), "both match the image"),
        (["x.jpg", "cam1/a.jpg"], ["cam1/a.jpg", None], "are both the frame 'cam1/a.jpg'"),
        (["u.jpg", "v.jpg"], ["u", "v"], "none of the 2 frames .* is in the dataset"),
    ],
)
def test_what_is_not_clear_is_refused_and_nothing_recorded(
    photos: ImageFolder, names: list[str], ids: Any, message: str
) -> None:
    labels = LabelPool(photos)
    with pytest.raises(InvalidInputError, match=message):
        labels.annotate_from(marked(names, ids=ids))
    assert labels.rounds == ()


def test_a_file_is_read_by_its_format(photos: ImageFolder, tmp_path: Path) -> None:
    labels = LabelPool(photos)
    path = save_coco(marked(IDS[:2], ids=IDS[:2]), tmp_path / "out", image_root=photos.folder, progress=False)
    result = labels.annotate_from(path, class_names={7: "bolt", 8: "nut"})
    assert result.annotations.labels.tolist() == [7, 7]
    assert labels.labeled_ids == tuple(IDS[:2])


def test_frames_without_boxes_are_what_the_user_says(photos: ImageFolder, tmp_path: Path) -> None:
    document = {
        "images": [{"id": 1, "file_name": IDS[0]}, {"id": 2, "file_name": IDS[1]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "bolt"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    labels = LabelPool(photos)
    with pytest.warns(UserWarning, match="1 frame has no boxes"):
        result = labels.annotate_from(tmp_path / "a.json")
    assert result.unannotated == (IDS[1],)
    with pytest.warns(UserWarning, match="annotated, with nothing in it"):
        labels.annotate_from(tmp_path / "a.json", empty="annotated")
    assert labels.labeled_ids == tuple(IDS[:2])


def test_the_last_annotations_of_a_frame_count() -> None:
    first, second = marked(["a", "b"], ids=["a", "b"]), marked(["x", "y", "b"], ids=["c", "d", "b"])
    joined = latest([first, second])
    assert joined.frame_ids == ("a", "c", "d", "b")
    assert joined.boxes[:, 2].tolist() == [1, 1, 2, 3]
    with pytest.raises(InvalidInputError, match="frames without ids"):
        latest(marked(["a"]))
    with pytest.raises(InvalidInputError, match=r"label 1 is 'bolt' in .* and 'nut' in"):
        latest([first, marked(["c"], ids=["c"]).replace(class_names={1: "nut"})])


def test_a_hundred_thousand_frames_are_matched() -> None:
    ids = [f"cam{number % 7}/{number:06d}.jpg" for number in range(100_000)]
    found, _ = frames_of(
        marked([f"images/{each}" for each in ids[::100]]), {each: row for row, each in enumerate(ids)}, []
    )
    assert found == ids[::100]
