"""Files that cannot be read: the pass names them, or leaves them out, and no other frame takes their place."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_files import Photos, write_photos
from PIL import Image
from tiny_torchvision import tiny
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

from cval_torch import PassOptions, extract, select
from cval_torch.errors import ExtractionError, InvalidInputError, LoaderOrderError
from cval_torch.formats import ImageFolder, collate_images
from cval_torch.pool.pool import Pool

NAMES = [f"{number}.jpg" for number in range(10)]
BAD = ["3.jpg", "6.jpg", "7.jpg"]
GOOD = [name for name in NAMES if name not in BAD]
WORKERS = pytest.mark.parametrize("workers", [0, 2])
LEFT_OUT = pytest.mark.filterwarnings("ignore:.* frames were left out")


@pytest.fixture(autouse=True)
def pixels_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Pillow has it; some packages take the limit away when they are imported."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", NAMES, truncated=BAD[:2], bombs=BAD[2:])
    return tmp_path / "photos"


def loader_over(dataset: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 2, **options})


def read(loader: Any, **options: Any) -> Pool:
    return extract(tiny("ssd"), loader, progress=False, **options)


def assert_same(pool: Pool, other: Pool) -> None:
    assert pool.frame_ids == other.frame_ids
    assert torch.equal(pool.counts, other.counts)
    for name in ("boxes", "labels", "scores", "probabilities", "box_embeddings", "frame_embeddings"):
        torch.testing.assert_close(getattr(pool, name), getattr(other, name))


def good_ones(folder: Path) -> Pool:
    """The oracle: a pass over the files that can be read, and no others."""
    dataset = Photos(folder)
    dataset.paths = [str(folder / name) for name in GOOD]
    return read(loader_over(dataset))


@WORKERS
def test_a_truncated_image_is_named(folder: Path, workers: int) -> None:
    with pytest.raises(ExtractionError, match="image file is truncated") as caught:
        read(loader_over(Photos(folder), num_workers=workers))
    said = (
        f"batch 1, after 2 frames: frame '3.jpg' (row 3 of the dataset, {folder / '3.jpg'}) cannot be loaded: OSError: "
    )
    assert str(caught.value).startswith(said)
    assert str(caught.value).endswith("or leave out what cannot be loaded, by on_error='skip'")
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.batch, caught.value.frames_done) == (1, 2)


@WORKERS
def test_a_decompression_bomb_is_named_wherever_its_row_stands(folder: Path, workers: int) -> None:
    dataset = Subset(ConcatDataset([Photos(folder), Photos(folder)]), [0, 17, 1])
    with pytest.raises(ExtractionError, match=r"\(row 1 of the dataset, .*/7\.jpg\) .*DecompressionBomb") as caught:
        read(loader_over(dataset, num_workers=workers, batch_size=3))
    assert isinstance(caught.value.__cause__, Image.DecompressionBombError)


@WORKERS
def test_images_that_cannot_be_stacked_are_no_bad_files(folder: Path, workers: int) -> None:
    with Image.open(folder / "1.jpg") as image:
        image.resize((32, 48)).save(folder / "1.jpg")
    for on_error in ("raise", "skip"):
        with pytest.raises(
            ExtractionError, match=r"batch 0, after 0 frames: RuntimeError: ((?s:.*)resizable|stack expects)"
        ):
            read(loader_over(Photos(folder), num_workers=workers), on_error=on_error)


def test_an_error_of_the_model_tells_which_frames_it_was_given(folder: Path) -> None:
    model = tiny("ssd")
    model.backbone.layers[0].register_forward_hook(lambda *call: 1 / 0)  # type: ignore[union-attr]
    message = r"ZeroDivisionError: .*\(when the model was given frames '0.jpg' to '1.jpg'\)"
    with pytest.raises(ExtractionError, match=message):
        extract(model, loader_over(Photos(folder)), progress=False)


LOADERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "batches": lambda _: {},
    "workers": lambda _: {"num_workers": 2},
    "large batches": lambda _: {"batch_size": 10},
    "single frames": lambda _: {"batch_size": 1},
    "without batches": lambda _: {"batch_size": None},
    "lists of rows": lambda dataset: {"batch_size": None, "sampler": [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]},
    "lists of rows, workers": lambda _: {
        "batch_size": None,
        "sampler": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]],
        "num_workers": 1,
    },
    "its own batches": lambda _: {"batch_size": 1, "batch_sampler": [[0, 1, 2], [3], [4, 5, 6, 7, 8, 9]]},
}


class Listed(Photos):
    """Photographs that are asked for by rows or by lists of rows."""

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, list):
            return torch.stack([super(Listed, self).__getitem__(each) for each in row])
        return super().__getitem__(row)


@pytest.mark.parametrize("how", LOADERS)
def test_what_cannot_be_read_is_left_out_and_listed(folder: Path, how: str) -> None:
    dataset = Listed(folder)
    with pytest.warns(UserWarning, match=r"3 of 10 frames were left out; the first: frame '3.jpg' \(row 3.*`skipped`"):
        pool = read(loader_over(dataset, **LOADERS[how](dataset)), on_error="skip")
    assert_same(pool, good_ones(folder))
    assert pool.indices is not None
    assert pool.indices.tolist() == [NAMES.index(name) for name in GOOD]
    assert [frame.frame_id for frame in pool.skipped] == BAD
    assert [frame.index for frame in pool.skipped] == [3, 6, 7]
    assert [frame.path for frame in pool.skipped] == [str(folder / name) for name in BAD]
    assert pool.skipped[0].reason.startswith("OSError: image file is truncated")
    assert "DecompressionBombError" in pool.skipped[2].reason
    assert all("\n" not in frame.reason for frame in pool.skipped)


@LEFT_OUT
@WORKERS
def test_shuffled_rows_and_frames_do_not_part(folder: Path, workers: int) -> None:
    loader = loader_over(Photos(folder), shuffle=True, num_workers=workers, batch_size=3)
    pool = read(loader, on_error="skip")
    assert pool.indices is not None
    assert pool.frame_ids == tuple(NAMES[row] for row in pool.indices.tolist())
    order = [pool.frame_ids.index(name) for name in GOOD]
    assert_same(pool.take(order), good_ones(folder))


@LEFT_OUT
def test_the_chosen_subset_holds_the_frames_that_were_chosen(folder: Path) -> None:
    dataset = Photos(folder)
    options = {"num_of_samples": 4, "selection_strategy": "entropy", "progress": False}
    chosen = select(tiny("ssd"), loader_over(dataset), on_error="skip", **options)
    alone = Photos(folder)
    alone.paths = [str(folder / name) for name in GOOD]
    expected = select(tiny("ssd"), loader_over(alone), **options)
    assert chosen.frame_ids == expected.frame_ids
    assert [Path(dataset.paths[row]).name for row in chosen.indices] == list(chosen.frame_ids)
    assert [frame.frame_id for frame in chosen.predictions.skipped] == BAD
    for image, other in zip(chosen, expected, strict=True):
        assert torch.equal(image, other)


class Spoiled(Dataset[Tensor]):
    """Images of which some are not finite, or not there at all."""

    def __init__(self, faults: Mapping[int, float | None], length: int = 6) -> None:
        self.faults, self.length = faults, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, row: int) -> Tensor:
        image = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(row))
        fault = self.faults.get(row, 0.0)
        if fault is None:
            raise ValueError("no such image")
        image[1, 2, 3] += fault
        return image


@LEFT_OUT
@WORKERS
def test_images_with_nan_are_left_out_too(workers: int) -> None:
    faults = {0: float("nan"), 3: float("inf"), 2: None}
    pool = read(loader_over(Spoiled(faults), batch_size=4, num_workers=workers), on_error="skip")
    assert pool.frame_ids == ("1", "4", "5")
    assert sorted((frame.index, frame.reason.split(": ")[1]) for frame in pool.skipped) == [
        (0, "NaN or inf in the image"),
        (2, "no such image"),
        (3, "NaN or inf in the image"),
    ]
    expected = read(loader_over(Subset(Spoiled({}), [1, 4, 5])))
    torch.testing.assert_close(pool.boxes, expected.boxes)


@WORKERS
def test_if_nothing_can_be_read_that_is_an_error(tmp_path: Path, workers: int) -> None:
    everything = Spoiled(dict.fromkeys(range(6)))
    for cache_dir in (None, tmp_path):
        with pytest.raises(
            InvalidInputError, match=r"6 of 6 frames were left out; the first: frame '0' .*no such image"
        ):
            read(loader_over(everything, num_workers=workers), on_error="skip", cache_dir=cache_dir)


def test_a_stream_cannot_leave_frames_out() -> None:
    class Stream(IterableDataset[Tensor]):
        def __iter__(self) -> Any:
            return iter([torch.rand(3, 48, 64)])

    with pytest.raises(LoaderOrderError, match="on_error='skip' needs a loader whose frames have rows"):
        read(loader_over(Stream()), on_error="skip")


def test_the_option_is_one_of_two() -> None:
    with pytest.raises(InvalidInputError, match="`on_error` must be 'raise' or 'skip'; got 'ignore'"):
        PassOptions(on_error="ignore")  # type: ignore[arg-type]


def test_a_lack_of_memory_is_no_fault_of_the_file(folder: Path) -> None:
    class Short(Photos):
        def __getitem__(self, row: int) -> Any:
            raise MemoryError("no room")

    with pytest.raises(ExtractionError, match=r"batch 0, after 0 frames: MemoryError: no room"):
        read(loader_over(Short(folder)), on_error="skip")


class Hanging(Photos):
    def __getitem__(self, row: int) -> Any:
        if row == 5:
            threading.Event().wait()
        return super().__getitem__(row)


def test_a_worker_that_hangs_is_no_fault_of_the_file(folder: Path) -> None:
    loader = loader_over(Hanging(folder), num_workers=1, timeout=1)
    with pytest.raises(ExtractionError, match="batch 2, after 4 frames: RuntimeError: DataLoader timed out"):
        read(loader, on_error="skip")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_error_that_does_not_come_again_is_still_one(folder: Path, on_error: str) -> None:
    class Passing(Photos):
        failures = 1

        def __getitem__(self, row: int) -> Any:
            if row == 1 and self.failures:
                self.failures -= 1
                raise OSError("the network is away")
            return super().__getitem__(row)

    with pytest.raises(ExtractionError, match="batch 0, after 0 frames: OSError: the network is away"):
        read(loader_over(Passing(folder)), on_error=on_error)


@LEFT_OUT
def test_the_record_is_saved_taken_and_joined(folder: Path, tmp_path: Path) -> None:
    pool = read(loader_over(Photos(folder)), on_error="skip")
    pool.save(tmp_path / "pool.pt")
    assert Pool.load(tmp_path / "pool.pt").skipped == pool.skipped
    assert pool.take([1, 0]).skipped == pool.skipped
    assert pool.to("cpu").skipped == pool.skipped
    assert Pool.cat([pool.take([0]), pool.take([1]).with_skipped(())]).skipped == pool.skipped


@LEFT_OUT
@WORKERS
def test_a_cache_remembers_what_was_left_out(folder: Path, tmp_path: Path, workers: int) -> None:
    fresh = read(loader_over(Photos(folder)), on_error="skip")
    loader = loader_over(Photos(folder), num_workers=workers)
    for _ in range(2):
        pool = read(loader, on_error="skip", cache_dir=tmp_path / "cache", frames_per_shard=3)
        assert_same(pool, fresh)
        assert pool.skipped == fresh.skipped or workers
        assert [frame.index for frame in pool.skipped] == [3, 6, 7]
    with pytest.raises(
        ExtractionError, match=r"frame '3.jpg' .*truncated"
    ):  # asked for all frames, it tries them again
        read(loader, cache_dir=tmp_path / "cache")
    write_photos(folder, BAD)
    mended = read(loader, cache_dir=tmp_path / "cache")
    assert mended.skipped == ()
    assert_same(mended, read(loader_over(Photos(folder))))


@LEFT_OUT
def test_a_folder_of_images_is_read_around_what_is_damaged(folder: Path) -> None:
    pool = read(loader_over(ImageFolder(folder), collate_fn=collate_images), on_error="skip")
    assert_same(pool, good_ones(folder))
    assert pool.skipped[0].path == str(folder / "3.jpg")


def test_the_bar_counts_what_is_left_out(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="left out"):
        extract(tiny("ssd"), loader_over(Photos(folder)), on_error="skip")
    last = capfd.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert "10/10" in last
    assert "skipped=3" in last
