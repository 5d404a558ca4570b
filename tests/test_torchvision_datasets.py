"""torchvision's own `CocoDetection` and `VOCDetection`, wrapped and not, through all that reads a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from annotated_files import COCO_OBJECTS, IMAGE, VOC_OBJECTS, coco, voc, with_boxes
from PIL import Image
from tiny_rcnn import pairs
from tiny_torchvision import tiny
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2

from cval_torch import DetectionSampling, LabelPool, PassOptions, compare, extract, select
from cval_torch.errors import InvalidInputError
from cval_torch.report import contact_sheet
from cval_torch.training import ClassDifficulty

COCO_IDS = ["10", "20", "35", "40", "51", "60"]
VOC_CLASSES = {"aeroplane": 1, "bicycle": 2, "bird": 3, "boat": 4}
EMPTY = ("2010_000001", "2010_000002")
FORMATS = ["XYXY", "XYWH", "CXCYWH"]
TARGET_KEYS = [None, ("boxes", "labels"), ("image_id", "boxes", "labels", "iscrowd", "bbox")]

Objects = dict[str, list[tuple[int, list[float]]]]
"""By frame id: the label and the corners of each object."""


def path_of(stem: str) -> str:
    return f"VOCdevkit/VOC2012/JPEGImages/{stem}.jpg"


def coco_truth(*, crowds: bool = True) -> Objects:
    return {
        str(image_id): [(label, [x, y, x + w, y + h]) for label, (x, y, w, h), crowd in objects if crowds or not crowd]
        for image_id, objects in COCO_OBJECTS.items()
    }


VOC_TRUTH: Objects = {
    path_of(stem): [(VOC_CLASSES[name], list(corners)) for name, corners in objects]
    for stem, objects in VOC_OBJECTS.items()
}


def wrapped_coco(folder: Path, *, keys: Any = None, form: str = "XYXY") -> Any:
    return wrap_dataset_for_transforms_v2(coco(folder, transforms=with_boxes(form)), target_keys=keys)


def wrapped_voc(folder: Path, *, keys: Any = None, form: str = "XYXY") -> Any:
    return wrap_dataset_for_transforms_v2(voc(folder, transforms=with_boxes(form)), target_keys=keys)


DATASETS = {
    "COCO": wrapped_coco,
    "COCO, boxes and labels": lambda folder: wrapped_coco(folder, keys=("boxes", "labels")),
    "COCO, not wrapped": lambda folder: coco(folder, transform=IMAGE),
    "VOC": wrapped_voc,
    "VOC, all keys": lambda folder: wrapped_voc(folder, keys="all"),
    "VOC, not wrapped": lambda folder: voc(folder, empty=EMPTY, transform=IMAGE),
    "VOC, the annotation alone": lambda folder: wrap_dataset_for_transforms_v2(
        voc(folder, empty=EMPTY, transforms=IMAGE), target_keys=["annotation"]
    ),
}


def ids_of(kind: str) -> list[str]:
    if kind.startswith("COCO"):
        return COCO_IDS
    return [path_of(stem) for stem in (*VOC_OBJECTS, *(EMPTY if kind.endswith(("wrapped", "alone")) else ()))]


def loader_of(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 2, "collate_fn": pairs, **options})


@pytest.mark.parametrize("kind", DATASETS)
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_frame_is_extracted_under_the_datasets_id(kind: str, batch_size: int, tmp_path: Path) -> None:
    dataset, model = DATASETS[kind](tmp_path), tiny("rcnn")
    generator = torch.Generator().manual_seed(batch_size)
    options = {"batch_size": batch_size, "shuffle": True, "generator": generator}
    pool = extract(model, loader_of(dataset, **options), progress=False)
    assert pool.indices is not None
    assert [ids_of(kind)[row] for row in pool.indices] == list(pool.frame_ids)
    assert sorted(pool.frame_ids) == sorted(ids_of(kind))
    assert pool.ids_from == "dataset"
    for row in range(len(pool)):
        with torch.no_grad():
            (found,) = model([dataset[int(pool.indices[row])][0]])
        boxes = pool.take([row]).boxes
        assert boxes is not None
        torch.testing.assert_close(boxes, found["boxes"], rtol=0, atol=0.01)


@pytest.mark.parametrize("kind", DATASETS)
def test_a_part_of_a_dataset_has_the_same_ids(kind: str, tmp_path: Path) -> None:
    part = Subset(Subset(DATASETS[kind](tmp_path), [3, 1, 0]), [2, 0])
    assert extract(tiny("ssd"), loader_of(part), progress=False).frame_ids == (ids_of(kind)[0], ids_of(kind)[3])


@pytest.mark.parametrize("kind", DATASETS)
def test_labels_are_kept_of_what_was_selected(kind: str, tmp_path: Path) -> None:
    dataset, model = DATASETS[kind](tmp_path), tiny("rcnn")
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=1, null_policy="last")
    labels = LabelPool(dataset, labeled=[ids_of(kind)[1]])
    with_labels = select(model, loader_of(labels.unlabeled), stages=stage, progress=False)
    labels.label(with_labels)
    assert labels.labeled_ids == (ids_of(kind)[1], *with_labels.frame_ids)
    plain = select(model, loader_of(Subset(dataset, labels.unlabeled_indices)), stages=stage, progress=False)
    labels.label(plain)
    assert sorted(labels.labeled_ids) == sorted({*labels.labeled_ids})
    assert [ids_of(kind)[row] for row in labels.labeled_indices] == list(labels.labeled_ids)


@pytest.mark.parametrize("keys", TARGET_KEYS, ids=str)
def test_a_pass_that_was_interrupted_goes_on(keys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, model = wrapped_coco(tmp_path, keys=keys), tiny("ssd")
    whole = extract(model, loader_of(dataset, batch_size=1), progress=False)
    inside = CocoDetection._load_image
    calls: list[int] = []

    def failing(dataset: CocoDetection, image_id: int) -> Any:
        calls.append(image_id)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return inside(dataset, image_id)

    monkeypatch.setattr(CocoDetection, "_load_image", failing)  # of the class: the dataset itself must stay the same
    options: dict[str, Any] = {"progress": False, "cache_dir": tmp_path / "pass", "frames_per_shard": 1}
    with pytest.raises(KeyboardInterrupt):
        extract(model, loader_of(dataset, batch_size=1), **options)
    pool = extract(model, loader_of(dataset, batch_size=1), **options)
    assert calls == [10, 20, 35, 40, 40, 51, 60]
    assert pool.frame_ids == whole.frame_ids == tuple(COCO_IDS)
    assert torch.equal(pool.boxes, whole.boxes)


@pytest.mark.parametrize("workers", [0, 1])
def test_one_image_a_batch_by_torchs_own_collation(workers: int, tmp_path: Path) -> None:
    """An image with one annotation then looks like a target with an `image_id`, and others do not."""
    loader = DataLoader(coco(tmp_path, transform=IMAGE), batch_size=1, num_workers=workers)
    assert extract(tiny("ssd"), loader, progress=False).frame_ids == tuple(COCO_IDS)


def naive_counts(truth: Objects, frame_ids: Any) -> dict[str, float]:
    labels = [label for frame_id in frame_ids for label, _ in truth[frame_id]]
    empty = sum(not truth[frame_id] for frame_id in frame_ids)
    return {"objects": len(labels), "empty_share": empty / len(frame_ids), "classes": len(set(labels))}


def naive_misses(model: Any, dataset: Any, truth: Objects, chosen: list[int], ids: list[str]) -> int:
    """Objects that no detection overlaps by half."""
    missed = 0
    for row in chosen:
        with torch.no_grad():
            (found,) = model([dataset[row][0]])
        for _, box in truth[ids[row]]:
            missed += not any(naive_iou(box, corners) >= 0.5 for corners in found["boxes"].tolist())
    return missed


def naive_iou(a: Any, b: Any) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    return float(common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("keys", TARGET_KEYS, ids=str)
def test_compare_counts_what_the_coco_file_says(keys: Any, form: str, tmp_path: Path) -> None:
    dataset, model = wrapped_coco(tmp_path, keys=keys, form=form), tiny("rcnn")
    truth = coco_truth(crowds=keys is None or "iscrowd" not in keys)
    check_comparison(model, dataset, truth, COCO_IDS)


@pytest.mark.parametrize("form", FORMATS)
def test_compare_counts_what_the_voc_files_say(form: str, tmp_path: Path) -> None:
    check_comparison(tiny("rcnn"), wrapped_voc(tmp_path, form=form), VOC_TRUTH, list(VOC_TRUTH))


def test_compare_reads_what_comes_from_a_worker(tmp_path: Path) -> None:
    check_comparison(tiny("rcnn"), wrapped_coco(tmp_path, form="CXCYWH"), coco_truth(), COCO_IDS, num_workers=1)


@pytest.mark.parametrize("form", FORMATS)
def test_compare_reads_targets_before_their_memory_is_pinned(form: str, tmp_path: Path) -> None:
    """Pinning makes plain tensors of them. Where torch cannot pin, it warns, which is an error in these tests."""
    dataset = wrapped_coco(tmp_path, form=form)
    check_comparison(tiny("rcnn"), dataset, coco_truth(), COCO_IDS, pin_memory=True)


def test_compare_over_a_label_pool_does_so_too(tmp_path: Path) -> None:
    dataset, model = wrapped_coco(tmp_path, form="XYWH"), tiny("rcnn")
    labels = LabelPool(dataset, labeled=COCO_IDS)
    made: list[DataLoader[Any]] = []

    def make_loader(frames: Any) -> DataLoader[Any]:
        made.append(loader_of(frames, pin_memory=True))
        return made[-1]

    options = PassOptions(progress=False)
    found = compare(model, labels, ["least"], num_of_samples=3, draws=2, options=options, make_loader=make_loader)
    for choice in (*found.strategies.values(), *found.random):
        expected = naive_counts(coco_truth(), choice.frame_ids)
        assert {name: choice.values[name] for name in expected} == expected
    assert made[0].pin_memory, "the loader of the user is left alone"


def check_comparison(model: Any, dataset: Any, truth: Objects, ids: list[str], **how: Any) -> None:
    options = PassOptions(progress=False)
    found = compare(
        model, loader_of(dataset, **how), ["entropy", "least"], num_of_samples=3, draws=4, min_score=0, options=options
    )
    objects = sum(map(len, truth.values()))
    assert 0 < naive_misses(model, dataset, truth, list(range(len(ids))), ids) < objects, "both kinds occur"
    for choice in (*found.strategies.values(), *found.random):
        expected = naive_counts(truth, choice.frame_ids)
        assert {name: choice.values[name] for name in expected} == expected
        rows = [ids.index(frame_id) for frame_id in choice.frame_ids]
        assert choice.values["misses"] == naive_misses(model, dataset, truth, rows, ids)


def test_compare_says_how_to_read_datasets_that_are_not_wrapped(tmp_path: Path) -> None:
    options = PassOptions(progress=False)
    with pytest.raises(InvalidInputError, match=r"torchvision.datasets.wrap_dataset_for_transforms_v2"):
        compare(tiny("ssd"), loader_of(coco(tmp_path, transform=IMAGE)), ["least"], num_of_samples=1, options=options)
    with pytest.raises(InvalidInputError, match=r"torchvision.datasets.wrap_dataset_for_transforms_v2"):
        compare(tiny("ssd"), loader_of(voc(tmp_path, transform=IMAGE)), ["least"], num_of_samples=1, options=options)


def test_compare_does_not_take_joined_targets_for_empty_ones(tmp_path: Path) -> None:
    loader = DataLoader(wrapped_coco(tmp_path), batch_size=1)
    with pytest.raises(
        InvalidInputError, match=r"target of frame '10' .* a row of columns, which a `collate_fn` joined"
    ):
        compare(tiny("ssd"), loader, ["least"], num_of_samples=1, options=PassOptions(progress=False))


@pytest.mark.parametrize("kind", ["COCO, not wrapped", "VOC, not wrapped", "VOC, the annotation alone"])
def test_the_contact_sheet_says_how_to_read_datasets_that_are_not_wrapped(kind: str, tmp_path: Path) -> None:
    dataset = Subset(DATASETS[kind](tmp_path), [1])
    stage = DetectionSampling(selection_strategy="random", num_of_samples=1)
    chosen = select(tiny("ssd"), loader_of(dataset), stages=stage, progress=False)
    contact_sheet(chosen, tmp_path / "sheet.png")
    message = f"frame '{ids_of(kind)[1]}' must be a dict with `boxes`; .*wrap_dataset_for_transforms_v2"
    with pytest.raises(InvalidInputError, match=message):
        contact_sheet(chosen, tmp_path / "sheet.png", show_truth=True)


def difficulty_of(predictions: list[dict[str, Tensor]], truth: Objects) -> ClassDifficulty:
    """From targets written out by hand: plain corners, and empty tensors."""
    difficulty = ClassDifficulty(min_iou=0.1)
    targets = [
        {
            "boxes": torch.tensor([box for _, box in objects], dtype=torch.float64).reshape(-1, 4),
            "labels": torch.tensor([label for label, _ in objects], dtype=torch.int64),
        }
        for objects in truth.values()
    ]
    difficulty.update(predictions, targets)
    return difficulty


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("keys", [*TARGET_KEYS, "VOC"], ids=str)
def test_class_difficulty_reads_their_targets(keys: Any, form: str, tmp_path: Path) -> None:
    if keys == "VOC":
        dataset, truth = wrapped_voc(tmp_path, form=form), VOC_TRUTH
    else:
        dataset = wrapped_coco(tmp_path, keys=keys, form=form)
        truth = coco_truth(crowds=keys is None or "iscrowd" not in keys)
    images, targets = zip(*(dataset[row] for row in range(len(dataset))), strict=True)
    with torch.no_grad():
        predictions = tiny("rcnn")(list(images))
    difficulty = ClassDifficulty(min_iou=0.1)
    difficulty.update(predictions, targets)
    expected = difficulty_of(predictions, truth).difficulties
    assert any(value < 1 for value in expected.values()), "something is found"
    assert difficulty.difficulties == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["COCO", "VOC"])
def test_the_contact_sheet_draws_boxes_of_every_format_alike(kind: str, tmp_path: Path) -> None:
    model, truth = tiny("rcnn"), coco_truth() if kind == "COCO" else VOC_TRUTH
    stage = DetectionSampling(selection_strategy="least", num_of_samples=len(truth), null_policy="last")
    pictures = []
    for form in FORMATS:
        folder = tmp_path / form
        folder.mkdir()
        dataset = wrapped_coco(folder, form=form) if kind == "COCO" else wrapped_voc(folder, form=form)
        chosen = select(model, loader_of(dataset), stages=stage, progress=False)
        assert sorted(chosen.frame_ids) == sorted(truth)
        sheets = [contact_sheet(chosen, folder / f"{show}.png", show_truth=show, min_score=1) for show in (False, True)]
        pictures.append([Image.open(sheet).tobytes() for sheet in sheets])
    assert all(with_truth != without for without, with_truth in pictures)
    assert pictures[0] == pictures[1] == pictures[2]
