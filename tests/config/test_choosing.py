"""A selection as a configuration describes it is the one that Python makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from cval_torch import DetectionSampling, LocalBackend, extract, select
from cval_torch.config import choose, choosing, load_config, open_work
from cval_torch.config.choosing import is_record, pass_options
from cval_torch.config.detectors import Detector
from cval_torch.errors import InvalidInputError
from cval_torch.formats import ImageFolder, collate_images
from cval_torch.hooks import TiledAdapter
from tests.worlds.first_user import BUILDER, make_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/` and `detector.pt`."""
    return make_place(tmp_path_factory.mktemp("user"))


def values(place: Path, **more: Any) -> dict[str, Any]:
    return {
        "source": str(place / "photos" / "cats"),
        "model.builder": BUILDER,
        "model.checkpoint": str(place / "detector.pt"),
        "model.num_classes": 3,
        "workers": 0,
        "batch": 4,
        "device": "cpu",
        "stages.0.num_of_samples": 3,
        **more,
    }


@pytest.mark.parametrize("keep", [False, True])
def test_it_is_the_choice_of_python(place: Path, keep: bool) -> None:
    work = open_work(load_config(None, values=values(place)))
    chosen, pool, _ = choose(work, progress=False, keep=keep)
    loader = DataLoader(ImageFolder(place / "photos" / "cats"), batch_size=4, collate_fn=collate_images)
    expected = select(work.detector.model, loader, num_of_samples=3, progress=False)
    assert chosen.frame_ids == expected.frame_ids
    torch.testing.assert_close(chosen.scores, expected.scores, equal_nan=True)
    assert (pool is not None and len(pool) == 8) == keep


def test_it_keeps_away_from_what_is_annotated(place: Path, tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"chelsea {number}.jpg"} for number in range(3)]
    rows = [{"image_id": number, "category_id": 1, "bbox": [5, 5, 50, 50]} for number in range(3)]
    document = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "done.json").write_text(json.dumps(document))
    work = open_work(load_config(None, values=values(place, labeled=str(tmp_path / "done.json"))))
    assert work.class_names == {1: "cat"}, "the annotations name the classes where nothing else does"
    chosen, _, nothing = choose(work, progress=False)
    same, pool, labeled = choose(work, progress=False, keep=True)
    folder = ImageFolder(place / "photos" / "cats")
    parts = [torch.utils.data.Subset(folder, rows) for rows in ([0, 1, 2], list(range(3, 8)))]
    known, others = (
        extract(work.detector.model, DataLoader(part, batch_size=4, collate_fn=collate_images), progress=False)
        for part in parts
    )
    stage = DetectionSampling(selection_strategy="auto", num_of_samples=3)
    assert chosen.frame_ids == same.frame_ids == LocalBackend(labeled=known).select(others, stage).frame_ids
    assert (nothing, pool is None, labeled is None) == (None, False, False)
    assert pool is not None
    assert labeled is not None
    assert (tuple(pool.frame_ids), tuple(labeled.frame_ids)) == (tuple(others.frame_ids), tuple(known.frame_ids))
    for name, column in known.columns():
        torch.testing.assert_close(getattr(labeled, name), column)


def test_annotated_objects_are_counted_by_the_detectors_labels(place: Path, tmp_path: Path) -> None:
    images = [{"id": number, "file_name": f"chelsea {number}.jpg"} for number in range(2)]
    rows = [{"image_id": number, "category_id": 7, "bbox": [5, 5, 50, 50], "iscrowd": number} for number in (0, 0, 1)]
    categories = [{"id": 7, "name": "cat"}, {"id": 9, "name": "never seen"}]
    path = tmp_path / "done.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    given = values(place, labeled=str(path), **{"stages.0.selection_strategy": "auto"})

    def counts(**names: Any) -> dict[int, float] | None:
        work = open_work(load_config(None, values=given | names))
        backend = choosing._backend(work, work.config.sampling(), work.options(progress=False), keep=False)
        assert isinstance(backend, LocalBackend)
        assert backend.labeled is not None
        return backend.labeled_counts

    assert counts(class_names={1: "cat", 2: "dog", 9: "never seen"}) == {1: 2, 2: 0, 9: 0}, "a crowd is no object"
    assert counts() is None, "nobody says which of the detector's labels a cat has"


def test_what_cannot_be_chosen(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="`source` must be given"):
        open_work(load_config(None))
    given = values(place)
    del given["stages.0.num_of_samples"]
    with pytest.raises(InvalidInputError, match=r"`stages` must say how many frames to choose: `--num-of-samples"):
        choose(open_work(load_config(None, values=given)))
    images = [{"id": number, "file_name": f"chelsea {number}.jpg", "annotated": True} for number in range(8)]
    (tmp_path / "all.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    with pytest.raises(InvalidInputError, match="all 8 images are annotated already"):
        choose(open_work(load_config(None, values=values(place, labeled=str(tmp_path / "all.json")))))


def test_every_option_of_the_pass_is_taken_over() -> None:
    config = load_config(
        None,
        ["device=cpu", "autocast=bfloat16", "embedding_dtype=float16", "top_boxes=5", "memory_limit_gb=0.5"],
        values={"on_error": "raise"},
    )
    options = pass_options(config, Detector(torch.nn.Identity(), None, None), progress=False)
    assert (options.device, options.autocast, options.embedding_dtype) == ("cpu", torch.bfloat16, torch.float16)
    assert (options.top_boxes, options.memory_limit, options.on_error) == (5, 500_000_000, "raise")
    assert not options.progress


def test_large_images_are_inferred_in_tiles(place: Path) -> None:
    whole = open_work(load_config(None, values=values(place)))
    tiled = open_work(load_config(None, values=values(place, **{"source.tile": 100, "source.overlap": 20})))
    adapter: Any = tiled.options(progress=False).adapter
    assert isinstance(adapter, TiledAdapter)
    assert (adapter.tile, adapter.overlap) == (100, 20)
    assert not isinstance(whole.options(progress=False).adapter, TiledAdapter)
    chosen, _, _ = choose(tiled, progress=False)
    assert len(chosen) == 3
    assert all(frame_id.startswith("chelsea") for frame_id in chosen.frame_ids), "ids stay those of the images"


def test_records_are_told_from_annotations(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"format": "cval_torch.labels/1"}')
    (tmp_path / "b.json").write_text('{"images": []}')
    assert is_record(tmp_path / "a.json")
    assert not is_record(tmp_path / "b.json")
    assert not is_record(tmp_path)
