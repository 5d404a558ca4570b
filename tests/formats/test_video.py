"""Videos as datasets: ids, workers, folders with damaged files, thinning, and the way to annotators and back."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import coffee
from tiny_torchvision import tiny
from torch.utils.data import ConcatDataset, DataLoader, Subset

from cval_torch import LabelPool, extract, select
from cval_torch.errors import ExtractionError, InvalidInputError, MissingExtraError
from cval_torch.extraction.listing import path_of
from cval_torch.formats import (
    VideoFrames,
    collate_images,
    load_coco,
    load_cvat,
    load_yolo,
    save_coco,
    save_cvat,
    save_yolo,
)
from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH

pytest.importorskip("av")
from clips import HEIGHT, WIDTH, cut, damage, number_in, write_clip


def videos(path: Path, **options: Any) -> VideoFrames:
    return VideoFrames(path, **{"progress": False, **options})


def loader_over(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 4, "collate_fn": collate_images, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cameras; the second has two clips, one of which begins at 12.48 s."""
    root = tmp_path_factory.mktemp("videos")
    (root / "cam1").mkdir()
    (root / "cam2").mkdir()
    write_clip(root / "cam1" / "a.mp4", 30)
    write_clip(root / "cam2" / "a.mkv", 30, times=range(312, 342))
    write_clip(root / "cam2" / "b.webm", 12)
    (root / "cam1" / ".hidden.mp4").write_text("no video")
    (root / "notes.txt").write_text("no video")
    return root


def test_an_item_is_an_image_and_a_target_with_its_id(folder: Path) -> None:
    dataset = videos(folder / "cam2" / "a.mkv", rate=5)
    assert dataset.frame_ids == [f"a.mkv#t={12.48 + number / 5:.3f}" for number in range(6)]
    image, target = dataset[2]
    assert (image.shape, image.dtype) == ((3, HEIGHT, WIDTH), torch.float32)
    assert image.min() >= 0
    assert image.max() <= 1
    assert target == {"image_id": "a.mkv#t=12.880"}
    assert number_in(image) == 10
    assert number_in(dataset[-1][0]) == 25
    with pytest.raises(IndexError):
        dataset[6]


def test_a_folder_has_the_frames_of_all_its_videos(folder: Path) -> None:
    dataset = videos(folder, rate=2)
    assert dataset.frame_ids == [
        "cam1/a.mp4#t=0.000",
        "cam1/a.mp4#t=0.520",
        "cam1/a.mp4#t=1.000",
        "cam2/a.mkv#t=12.480",
        "cam2/a.mkv#t=13.000",
        "cam2/a.mkv#t=13.480",
        "cam2/b.webm#t=0.000",
    ]
    assert dataset.notes == ()
    assert [number_in(dataset[row][0]) for row in (6, 1, 4, 0, 2, 5, 3)] == [0, 13, 13, 0, 25, 25, 0]


def test_an_id_depends_on_no_other_file_and_on_no_rate(folder: Path, tmp_path: Path) -> None:
    everything = videos(folder, rate=None).frame_ids
    assert len(everything) == len(set(everything)) == 72
    assert set(videos(folder, rate=1.7).frame_ids) < set(everything)
    assert [f"cam2/{name}" for name in videos(folder / "cam2", rate=2).frame_ids] == videos(folder, rate=2).frame_ids[
        3:
    ]


def test_frames_are_found_again_by_their_ids(folder: Path) -> None:
    wanted = ["cam2/a.mkv#t=13.480", "cam1/a.mp4#t=0.080", "cam2/a.mkv#t=12.520"]
    dataset = videos(folder, frame_ids=wanted)
    assert dataset.frame_ids == wanted
    assert [number_in(image) for image, _ in (dataset[row] for row in range(3))] == [25, 2, 1]
    with pytest.raises(
        InvalidInputError, match=r"has no frame 'cam1/a.mp4#t=0.081'; it has frames from 0.000 to 1.160"
    ):
        videos(folder, frame_ids=["cam1/a.mp4#t=0.081"])
    with pytest.raises(InvalidInputError, match=r"such as 'clip\.mp4#t=12\.480'; got '0001.jpg'"):
        videos(folder, frame_ids=["0001.jpg"])
    with pytest.raises(InvalidInputError, match="give one of them"):
        videos(folder, frame_ids=wanted, thin=0.1)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_open_files_of_their_own(folder: Path, context: str) -> None:
    dataset = videos(folder, rate=None)
    assert number_in(dataset[20][0]) == 20  # the file is open here before the workers start
    loader = loader_over(dataset, num_workers=2, multiprocessing_context=context, shuffle=True)
    shown = {
        target["image_id"]: number_in(image)
        for images, targets in loader
        for image, target in zip(images, targets, strict=True)
    }
    numbers = [*range(30), *range(30), *range(12)]
    assert shown == dict(zip(dataset.frame_ids, numbers, strict=True))
    assert number_in(dataset[21][0]) == 21  # and the place here has not moved


def test_a_forked_process_frees_what_its_parent_left(folder: Path) -> None:
    """Threads of a decoder would not be there, and freeing it would wait for them."""
    for name in ("a.mkv", "b.webm"):
        assert number_in(videos(folder / "cam2" / name, rate=None)[3][0]) == 3
    process = multiprocessing.get_context("fork").Process(target=gc.collect)
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_fork_goes_on_after_its_parent(folder: Path) -> None:
    dataset = videos(folder / "cam1", rate=None)
    assert number_in(dataset[3][0]) == 3
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(_Numbers(dataset), [4, 25, 2]) == [4, 25, 2]
    assert number_in(dataset[4][0]) == 4


class _Numbers:
    def __init__(self, dataset: VideoFrames) -> None:
        self._dataset = dataset

    def __call__(self, index: int) -> int:
        return number_in(self._dataset[index][0])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))])
def test_copies_open_files_of_their_own(folder: Path, copied: Callable[[VideoFrames], VideoFrames]) -> None:
    dataset = videos(folder, rate=None)
    assert number_in(dataset[7][0]) == 7
    other = copied(dataset)
    assert (other.frame_ids, len(other)) == (dataset.frame_ids, 72)
    assert number_in(other[9][0]) == 9
    assert number_in(dataset[8][0]) == 8


def test_thinning_keeps_what_differs_from_the_last_frame_of_the_same_clip(tmp_path: Path) -> None:
    picture = np.ascontiguousarray(coffee()[:96, :160])
    changed = picture.copy()
    changed[30:60, 60:90] = 255
    options = {"crf": "4", "preset": "ultrafast"}
    write_clip(tmp_path / "a.mp4", [picture] * 10 + [changed] * 10, options=options)
    write_clip(tmp_path / "b.mp4", [changed] * 5, options=options)
    assert videos(tmp_path, rate=None, thin=0.05).frame_ids == ["a.mp4#t=0.000", "a.mp4#t=0.400", "b.mp4#t=0.000"]
    assert videos(tmp_path, rate=2, thin=0.05).frame_ids == ["a.mp4#t=0.000", "a.mp4#t=0.520", "b.mp4#t=0.000"]
    assert len(videos(tmp_path, rate=None)) == 25


def test_a_bar_counts_the_frames(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    VideoFrames(folder, rate=5, thin=0.5)
    shown = capfd.readouterr().err
    assert "videos: 100%" in shown
    assert "15/15" in shown
    assert "video 3 of 3" in shown


def test_damaged_files_of_a_folder_are_noted(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", 10)
    cut(write_clip(tmp_path / "b.mp4", 10), 0.5)
    cut(write_clip(tmp_path / "c.mkv", 40), 0.6)
    with pytest.warns(
        UserWarning, match=r"not all of the videos can be read: 'b.mp4' cannot be read as a video"
    ) as caught:
        dataset = videos(tmp_path, rate=None)
    assert caught[0].filename == __file__
    assert {name.partition("#")[0] for name in dataset.frame_ids} == {"a.mp4", "c.mkv"}
    assert len(dataset.notes) >= 2
    assert dataset.notes[0].startswith("'b.mp4' cannot be read as a video: ")
    assert dataset.notes[-1].startswith("'c.mkv': the file ends at ")
    assert number_in(dataset[10 + 12][0]) == 12


def test_a_pass_skips_frames_whose_data_are_damaged_or_names_the_first(tmp_path: Path) -> None:
    path = damage(write_clip(tmp_path / "a.mp4", 40), 0.6, 300)
    dataset = videos(path, rate=5)
    with pytest.raises(ExtractionError, match=r"'a.mp4' cannot be read at \d\.\d00 s: "):
        extract(tiny("ssd"), loader_over(dataset), progress=False)
    with pytest.warns(UserWarning, match="frames? w[ae][sr]e? left out"):
        pool = extract(tiny("ssd"), loader_over(dataset), progress=False, on_error="skip")
    left_out = [frame.frame_id for frame in pool.skipped]
    assert left_out
    assert sorted([*pool.frame_ids, *left_out]) == dataset.frame_ids
    with pytest.warns(UserWarning, match="cannot be read at"):
        thinned = videos(path, rate=5, thin=0.0001)
    assert thinned.frame_ids == list(pool.frame_ids)
    assert len(videos(path, rate=5, thin=0.0001, strict=False)) == len(dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, r"`rate` must be in \(0, 1000\] .* got 0"),
        ({"rate": float("nan")}, r"`rate` must be"),
        ({"thin": 0}, r"`thin` must be in \(0, 1\]"),
        ({"thin": 1.5}, r"`thin` must be in \(0, 1\]"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        videos(folder, **options)


def test_a_path_without_videos(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no video below"):
        videos(tmp_path)
    with pytest.raises(FileNotFoundError):
        videos(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(InvalidInputError, match=r"no frame of .* can be read: 'a.mp4' cannot be read as a video"):
        videos(tmp_path)
    with pytest.raises(InvalidInputError, match=r"^'a.mp4' cannot be read as a video"):
        videos(tmp_path / "a.mp4")


def test_ids_have_a_length_that_pools_take(tmp_path: Path) -> None:
    fits = "a" * (MAX_FRAME_ID_LENGTH - len(".mp4#t=0.000"))
    write_clip(tmp_path / f"{fits}.mp4", 3)
    assert len(videos(tmp_path).frame_ids[0]) == MAX_FRAME_ID_LENGTH
    write_clip(tmp_path / f"{fits}a.mp4", 3)
    with pytest.raises(InvalidInputError, match="a frame id has at most 128 characters"):
        videos(tmp_path)


def test_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cval_torch\[video\]"'):
        videos(folder)


def test_a_frame_has_no_file_even_where_there_is_one_frame_a_video(folder: Path) -> None:
    """An export that copied files would copy videos."""
    dataset = videos(folder, rate=0.001)
    assert len(dataset) == 3
    assert [path_of(dataset, row) for row in range(3)] == [None] * 3


def test_frames_are_named_within_views_and_chains(folder: Path) -> None:
    parts = ConcatDataset([Subset(videos(folder / "cam1", rate=2), [2, 0]), videos(folder / "cam2" / "b.webm", rate=5)])
    pool = extract(tiny("ssd"), loader_over(parts, num_workers=1), progress=False)
    assert list(pool.frame_ids) == ["a.mp4#t=1.000", "a.mp4#t=0.000", *(f"b.webm#t={t:.3f}" for t in (0, 0.2, 0.4))]


@pytest.mark.parametrize(
    ("save", "load"),
    [(save_coco, load_coco), (save_yolo, load_yolo), (save_cvat, load_cvat)],
    ids=["coco", "yolo", "cvat"],
)
def test_to_annotators_and_back(save: Any, load: Any, folder: Path, tmp_path: Path) -> None:
    dataset = videos(folder, rate=5)
    labels = LabelPool(dataset)
    chosen = select(
        tiny("ssd"),
        loader_over(labels.unlabeled),
        num_of_samples=5,
        progress=False,
    )
    save(chosen, tmp_path / "out", images="pixels", min_score=0.0, progress=False)
    files = sorted((tmp_path / "out").rglob("*.png"))
    assert len(files) == 5
    assert not any(character in file.name for file in files for character in "#?%")
    loaded = load(tmp_path / "out")
    assert set(loaded.frame_ids) == set(chosen.frame_ids)
    for frame_id, name in zip(loaded.frame_ids, loaded.file_names, strict=True):
        path = next(file for file in files if file.as_posix().endswith(name.removeprefix("images/")))
        pixels = np.asarray(Image.open(path), dtype=np.float32) / 255
        again = videos(folder, frame_ids=[frame_id])[0][0]
        assert np.abs(pixels - again.permute(1, 2, 0).numpy()).max() < 0.003
    labels.annotate_from(loaded.replace(is_annotated=torch.ones(5, dtype=torch.bool)))
    assert set(labels.labeled.frame_ids) == set(chosen.frame_ids)
