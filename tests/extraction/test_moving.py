"""A stored pass over a dataset to which files were added, or from which some were removed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_files import Photos, write_photos
from hypothesis import given, settings
from hypothesis import strategies as st
from one_box import OneBox
from tiny_torchvision import tiny
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset

from cval_torch import extract
from cval_torch.errors import ExtractionError, InvalidInputError
from cval_torch.extraction.pass_folder import PassCache
from cval_torch.pool.pool import Pool
from cval_torch.training import LabelPool

LEFT_OUT = pytest.mark.filterwarnings("ignore:.* frames were left out")


def shade(name: str) -> float:
    """What an image is full of: a function of its file's name."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:4], 16) / 0xFFFF


class Files(Dataset[Any]):
    """Images from a list of files, which remembers the files that were read."""

    def __init__(self, names: list[str], *, ids: str = "paths", broken: tuple[str, ...] = ()) -> None:
        self.root, self.broken = "data", frozenset(broken)
        if ids in ("paths", "listed"):
            setattr(self, {"paths": "files", "listed": "my_list"}[ids], [f"data/{name}" for name in names])
        self.numbers, self.targets, self.read = [int(name[:2]) for name in names], ids == "targets", list[str]()

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row: int) -> Any:
        name = f"{self.numbers[row]:02d}.jpg"
        if name in self.broken:
            raise OSError(f"{name} is broken")
        self.read.append(name)
        image = torch.full((3, 4, 5), shade(name))
        return (image, {"image_id": name}) if self.targets else image


class Shades(OneBox):
    """Reads what the image is full of, so that every frame's row tells which file it is of."""

    def __init__(self) -> None:
        super().__init__(
            scores=lambda output: output.flatten().clamp(0, 1),
            frame_embeddings=lambda output: output.reshape(-1, 1),
        )

    def forward(self, model: nn.Module, images: Any) -> Tensor:
        model(images[0].mean().reshape(1))
        return torch.stack([image.mean() for image in images])


def collate(samples: list[Any]) -> Any:
    if isinstance(samples[0], Tensor):
        return samples
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


@torch.no_grad()
def layer() -> nn.Module:
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def read(dataset: Any, folder: Path | None = None, **options: Any) -> Pool:
    loading = {name: options.pop(name) for name in ("batch_size", "shuffle", "sampler") if name in options}
    loader: DataLoader[Any] = DataLoader(dataset, **{"batch_size": 3, "collate_fn": collate, **loading})
    options = {"adapter": Shades(), "cache_dir": folder, "frames_per_shard": 4, "progress": False, **options}
    return extract(layer(), loader, **options)


def assert_same(pool: Pool, other: Pool) -> None:
    assert pool.frame_ids == other.frame_ids
    assert (pool.ids_from, pool.skipped) == (other.ids_from, other.skipped)
    for (name, column), (_, expected) in zip(pool.columns(), other.columns(), strict=True):
        assert torch.equal(column, expected), name


NAMES = [f"{number:02d}.jpg" for number in range(12)]


@given(
    then=st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    now=st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    third=st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    ids=st.sampled_from(["paths", "listed"]),
    batch_size=st.integers(1, 4),
    broken=st.sets(st.sampled_from(NAMES), max_size=3),
)
@settings(deadline=None, max_examples=60, derandomize=True)
@LEFT_OUT
def test_any_list_of_files_gives_the_pool_of_a_fresh_pass(
    tmp_path_factory: pytest.TempPathFactory,
    then: list[str],
    now: list[str],
    third: list[str],
    ids: str,
    batch_size: int,
    broken: set[str],
) -> None:
    """Or it is refused, where less than half of what is stored would count; and no file is read twice."""
    folder = tmp_path_factory.mktemp("pass")
    stored: set[str] = set()
    for names in (then, now, third):
        dataset, fresh = (Files(names, ids=ids, broken=tuple(broken)) for _ in range(2))
        options: dict[str, Any] = {"batch_size": batch_size, "on_error": "skip"}
        if set(names) <= broken:
            break
        kept = stored & set(names)
        if stored and (2 * len(kept) < len(stored) or not kept):
            with pytest.raises(InvalidInputError, match="holds another pass"):
                read(dataset, folder, **options)
            continue
        pool = read(dataset, folder, **options)
        assert_same(pool, read(fresh, **options))
        assert set(dataset.read).isdisjoint(kept)
        stored = set(names) - broken


@pytest.mark.parametrize("change", ["one less", "one more", "another order", "one exchanged", "a part", "two datasets"])
@pytest.mark.parametrize("ids", ["paths", "listed"])
def test_what_is_stored_is_not_inferred_again(tmp_path: Path, ids: str, change: str) -> None:
    first = Files(NAMES[:9], ids=ids)
    read(first, tmp_path)
    changes: dict[str, Callable[[], Any]] = {
        "one less": lambda: Files([*NAMES[:4], *NAMES[5:9]], ids=ids),
        "one more": lambda: Files([*NAMES[:4], NAMES[10], *NAMES[4:9]], ids=ids),
        "another order": lambda: Files(NAMES[8::-1], ids=ids),
        "one exchanged": lambda: Files([*NAMES[:4], NAMES[10], *NAMES[5:9]], ids=ids),
        "a part": lambda: Subset(Files(NAMES[:9], ids=ids), [8, 1, 3, 4, 2, 6]),
        "two datasets": lambda: ConcatDataset([Files(NAMES[:9], ids=ids), Files(NAMES[9:11], ids=ids)]),
    }
    dataset, fresh = changes[change](), changes[change]()
    pool = read(dataset, tmp_path)
    assert_same(pool, read(fresh))
    parts = [dataset.dataset] if change == "a part" else getattr(dataset, "datasets", [dataset])
    new = {"one more": [NAMES[10]], "one exchanged": [NAMES[10]], "two datasets": NAMES[9:11]}.get(change, [])
    assert [name for part in parts for name in part.read] == new
    again = changes[change]()
    assert_same(read(again, tmp_path), pool)
    assert not getattr(again, "read", [])
    assert {path.name.split("-")[0] for path in tmp_path.iterdir()} == {"lock", "manifest.json", "part", "frames"}


def test_rows_of_the_same_dataset_may_be_left_out_or_added(tmp_path: Path) -> None:
    """A loader whose sampler draws other rows; a dataset without any names will do."""
    for rows in (range(8), range(7), [6, 1, 2, 3, 4, 9, 10]):
        dataset = Files(NAMES, ids="none")
        pool = read(dataset, tmp_path, sampler=rows)
        assert_same(pool, read(Files(NAMES, ids="none"), sampler=rows))
    assert dataset.read == [NAMES[9], NAMES[10]]


@pytest.mark.parametrize("ids", ["none", "targets"])
def test_a_mere_row_is_not_taken_for_a_frame(tmp_path: Path, ids: str) -> None:
    """Nor is the row of a frame whose target names it: before it is loaded, nothing else tells which it is."""
    read(Files(NAMES[:9], ids=ids), tmp_path)
    with pytest.raises(InvalidInputError, match=r"holds another pass: .*the dataset's length was 9 and is 8 now"):
        read(Files(NAMES[1:9], ids=ids), tmp_path)


class Numbered(Files):
    """Frames with numbers for ids, as an annotation file has them."""

    def __init__(self, names: list[str], ids: list[int]) -> None:
        super().__init__(names, ids="none")
        self.ids = ids


def test_numbers_of_another_annotation_file_are_not_taken_for_frames(tmp_path: Path) -> None:
    read(Numbered(NAMES[:6], [1, 2, 3, 4, 5, 6]), tmp_path)
    with pytest.raises(InvalidInputError, match="holds another pass: the dataset"):
        read(Numbered(NAMES[5:10], [1, 2, 3, 4, 5]), tmp_path)


def test_the_same_names_in_another_folder_are_other_frames(tmp_path: Path) -> None:
    read(Files(NAMES[:6]), tmp_path)
    other = Files(NAMES[:7])
    other.root = "elsewhere"
    other.files = [f"elsewhere/{name}" for name in NAMES[:7]]  # type: ignore[attr-defined]
    with pytest.raises(InvalidInputError, match="holds another pass"):
        read(other, tmp_path)


def test_names_that_frames_share_tell_none_of_them(tmp_path: Path) -> None:
    class Captioned(Files):
        def __init__(self, names: list[str]) -> None:
            super().__init__(names, ids="none")
            self.captions = ["a cat" if row % 2 else "a dog" for row in range(len(names))]

    read(Captioned(NAMES[:6]), tmp_path)
    with pytest.raises(InvalidInputError, match="holds another pass"):
        read(Captioned(NAMES[1:6]), tmp_path)


def test_a_function_that_names_frames_may_go_by_rows(tmp_path: Path) -> None:
    def named(row: int, _: Any) -> str:
        return f"frame-{row}"

    read(Files(NAMES[:6]), tmp_path, frame_id=named)
    with pytest.raises(InvalidInputError, match="holds another pass"):
        read(Files(NAMES[1:6]), tmp_path, frame_id=named)


def test_less_than_half_of_what_is_stored_is_another_pass(tmp_path: Path) -> None:
    """A loader over a few frames, tried out with the folder of a long pass, does not throw that away."""
    whole = read(Files(NAMES), tmp_path)
    with pytest.raises(InvalidInputError, match=r"holds another pass: .*the dataset's length was 12 and is 5 now"):
        read(Files(NAMES[:5]), tmp_path)
    untouched = Files(NAMES)
    assert_same(read(untouched, tmp_path), whole)
    assert untouched.read == []


@pytest.mark.parametrize("option", [{"batch_size": 2}, {"embedding_dtype": torch.float16}, {"adapter": OneBox()}])
def test_what_else_differs_is_still_another_pass(tmp_path: Path, option: dict[str, Any]) -> None:
    read(Files(NAMES[:9]), tmp_path)
    with pytest.raises(InvalidInputError, match="holds another pass"):
        read(Files(NAMES[:8]), tmp_path, **option)


def test_a_shuffled_pass_keeps_its_order_and_goes_on_behind_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = read(Files(NAMES[:9]), tmp_path, shuffle=True)
    assert list(first.frame_ids) != NAMES[:9]
    names = [*NAMES[:4], *NAMES[5:11]]
    dataset = Files(names)
    pool = read(dataset, tmp_path, shuffle=True)
    kept = [name for name in first.frame_ids if name != NAMES[4]]
    assert list(pool.frame_ids[:8]) == kept
    assert set(pool.frame_ids[8:]) == set(NAMES[9:11]) == set(dataset.read)
    assert pool.indices is not None
    assert [names[row] for row in pool.indices.tolist()] == list(pool.frame_ids)
    assert_same(read(Files(names), tmp_path, shuffle=True), pool)


def test_an_unfinished_pass_goes_on_over_fewer_files(tmp_path: Path) -> None:
    with pytest.raises(ExtractionError, match=r"frame '07.jpg'.*07.jpg is broken"):
        read(Files(NAMES, broken=("07.jpg",)), tmp_path)
    names = [name for name in NAMES if name != "07.jpg"]
    dataset = Files(names)
    assert_same(read(dataset, tmp_path), read(Files(names)))
    assert dataset.read == ["06.jpg", *names[7:]]


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("step", ["begin", "remove_others"])
def test_a_pass_that_was_stopped_while_it_moved_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    first = read(Files(NAMES[:9]), tmp_path)
    names = [*NAMES[1:9], *NAMES[10:]]
    with monkeypatch.context() as patch:
        begin = getattr(PassCache, step)

        def stop(self: PassCache, *args: Any, **options: Any) -> Any:
            if self.folder == tmp_path:
                raise StoppedError
            return begin(self, *args, **options)

        patch.setattr(PassCache, step, stop)
        with pytest.raises(StoppedError):
            read(Files(names), tmp_path)
    dataset = Files(names)
    if step == "begin":  # the older pass is whole still, and so is what was inferred beside it
        untouched = Files(NAMES[:9])
        assert_same(read(untouched, tmp_path), first)
        assert untouched.read == []
    assert_same(read(dataset, tmp_path), read(Files(names)))
    assert dataset.read == []


def test_what_was_inferred_beside_a_stored_pass_survives(tmp_path: Path) -> None:
    read(Files(NAMES[:6]), tmp_path)
    with pytest.raises(ExtractionError, match=r"11\.jpg is broken"):
        read(Files(NAMES, broken=("11.jpg",)), tmp_path)
    assert (tmp_path / "more" / "manifest.json").exists()
    dataset = Files(NAMES[:11])  # the file that broke the pass is gone now
    assert_same(read(dataset, tmp_path), read(Files(NAMES[:11])))
    assert dataset.read == NAMES[9:11]
    assert not (tmp_path / "more").exists()


def test_joining_that_was_stopped_is_done_by_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after two processes of which the first was killed when all was inferred, and before it was joined."""
    with pytest.raises(ExtractionError):
        read(Files(NAMES, broken=("07.jpg",)), tmp_path)
    part = next(tmp_path.glob("part-*-0"))
    part.rename(f"{part}-other")
    with monkeypatch.context() as patch:
        patch.setattr(PassCache, "finish", lambda self, **_: (_ for _ in ()).throw(StoppedError()))
        with pytest.raises(StoppedError):
            read(Files(NAMES), tmp_path)
    dataset = Files(NAMES)
    assert_same(read(dataset, tmp_path), read(Files(NAMES)))
    assert dataset.read == []


@LEFT_OUT
def test_frames_that_were_left_out_are_tried_again_when_the_dataset_changed(tmp_path: Path) -> None:
    read(Files(NAMES[:9], broken=("02.jpg", "05.jpg")), tmp_path, on_error="skip")
    dataset = Files(NAMES[:10], broken=("05.jpg",))
    pool = read(dataset, tmp_path, on_error="skip")
    assert_same(pool, read(Files(NAMES[:10], broken=("05.jpg",)), on_error="skip"))
    assert set(dataset.read) == {"02.jpg", "09.jpg"}
    without = [name for name in NAMES[:10] if name != "05.jpg"]
    assert_same(read(Files(without), tmp_path), read(Files(without)))


def test_the_part_of_a_label_pool_that_shrinks_keeps_its_names(tmp_path: Path) -> None:
    labels = LabelPool(Files(NAMES, ids="listed"))
    assert read(labels.unlabeled, tmp_path).ids_from == "labels"
    labels.label(["3", "8"])
    dataset = labels.unlabeled
    dataset.dataset.read.clear()  # type: ignore[attr-defined]
    pool = read(dataset, tmp_path)
    assert dataset.dataset.read == []  # type: ignore[attr-defined]
    assert pool.frame_ids == labels.unlabeled_ids
    assert pool.scores is not None
    assert pool.scores.tolist() == pytest.approx([shade(NAMES[int(name)]) for name in pool.frame_ids], abs=1e-6)


def test_photographs_and_a_real_detector(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", NAMES, truncated=["07.jpg"])
    options: dict[str, Any] = {"progress": False, "cache_dir": tmp_path / "cache"}
    with pytest.raises(ExtractionError, match=r"07.jpg\) cannot be loaded: OSError: image file is truncated"):
        extract(tiny("rcnn"), DataLoader(Photos(tmp_path / "photos"), batch_size=2), **options)
    (tmp_path / "photos" / "07.jpg").unlink()
    write_photos(tmp_path / "photos", ["20.jpg"])
    dataset = Photos(tmp_path / "photos")
    pool = extract(tiny("rcnn"), DataLoader(dataset, batch_size=2), **options)
    fresh = extract(tiny("rcnn"), DataLoader(dataset, batch_size=2), progress=False)
    assert pool.frame_ids == fresh.frame_ids == (*NAMES[:7], *NAMES[8:], "20.jpg")
    torch.testing.assert_close(pool.boxes, fresh.boxes)
    torch.testing.assert_close(pool.box_embeddings, fresh.box_embeddings)
