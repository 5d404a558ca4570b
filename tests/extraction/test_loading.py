"""Which rows a loader yields, whatever its order, and what the frames are called."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchvision.datasets import CocoDetection, ImageFolder, wrap_dataset_for_transforms_v2

from cval_torch.errors import InvalidInputError, LoaderOrderError
from cval_torch.extraction.batches import split_batch
from cval_torch.extraction.ids import FrameNames, frame_ids_of, own_ids
from cval_torch.extraction.loading import plan_loading


class Rows(Dataset[Tensor]):
    """Row `i` is an image full of `i`, so that the data themselves say which row they are."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: Any) -> Tensor:
        if isinstance(row, list):
            return torch.stack([self[each] for each in row])
        return torch.full((1, 2, 2), float(row))


class Stream(IterableDataset[Tensor]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.full((1, 2, 2), float(row)) for row in range(self.n))


class EveryOther(Sampler[list[int]]):
    """A custom batch sampler: odd rows downwards, in batches of 2, the last one short."""

    def __iter__(self) -> Iterator[list[int]]:
        yield from ([9, 7], [5, 3], [1])

    def __len__(self) -> int:
        return 3


def loaded_rows(loader: Any) -> tuple[list[int], list[int]]:
    """(rows that the plan says, rows that the data are)."""
    plan = plan_loading(loader)
    said: list[int] = []
    held: list[int] = []
    for indices, data in plan.load():
        parts = split_batch(data, single=plan.single)
        said += indices or []
        held += [int(image.flatten()[0]) for image in parts.images]
    return said, held


LOADERS = {
    "plain": lambda rows: DataLoader(rows, batch_size=3),
    "drop_last": lambda rows: DataLoader(rows, batch_size=4, drop_last=True),
    "shuffle": lambda rows: DataLoader(rows, batch_size=3, shuffle=True),
    "shuffle, own generator": lambda rows: DataLoader(
        rows, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(3)
    ),
    "random with replacement": lambda rows: DataLoader(rows, batch_size=3, sampler=RandomSampler(rows, True, 25)),
    "weighted": lambda rows: DataLoader(rows, batch_size=3, sampler=WeightedRandomSampler([1.0] * 10, 25)),
    "subset sampler": lambda rows: DataLoader(rows, batch_size=2, sampler=SubsetRandomSampler([8, 2, 5])),
    "custom batch sampler": lambda rows: DataLoader(rows, batch_sampler=EveryOther()),
    "batch sampler, drop_last": lambda rows: DataLoader(
        rows, batch_sampler=BatchSampler(SequentialSampler(rows), 4, drop_last=True)
    ),
    "one by one": lambda rows: DataLoader(rows, batch_size=None, shuffle=True),
    "lists of rows": lambda rows: DataLoader(
        rows, batch_size=None, sampler=BatchSampler(RandomSampler(rows), 4, drop_last=False)
    ),
    "workers": lambda rows: DataLoader(rows, batch_size=2, num_workers=2, shuffle=True),
    "persistent workers": lambda rows: DataLoader(rows, batch_size=2, num_workers=1, persistent_workers=True),
    "padded shard": lambda rows: DataLoader(
        Subset(rows, range(3)), batch_size=1, sampler=DistributedSampler(Subset(rows, range(3)), 2, 1, shuffle=False)
    ),
}
EXPECTED = {"subset sampler": {2, 5, 8}, "custom batch sampler": {1, 3, 5, 7, 9}, "padded shard": {0, 1}}


@pytest.mark.parametrize("name", LOADERS)
def test_every_row_is_the_one_that_the_data_came_from(name: str) -> None:
    said, held = loaded_rows(LOADERS[name](Rows(10)))
    assert said == held
    assert len(set(said)) == len(said)
    if name not in ("random with replacement", "weighted"):
        assert set(said) == EXPECTED.get(name, set(range(10)))


@given(
    n=st.integers(1, 12),
    batch_size=st.integers(1, 5),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    nested=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_rows_are_right_for_any_loader(n: int, batch_size: int, shuffle: bool, drop_last: bool, nested: bool) -> None:
    rows: Dataset[Tensor] = Rows(n)
    to_base = list(range(n))
    if nested:
        to_base = random.Random(n).sample(range(n), (n + 1) // 2)
        rows = Subset(rows, to_base)
    said, held = loaded_rows(DataLoader(rows, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last))
    assert [to_base[row] for row in said] == held
    assert sorted(held) == sorted(to_base)


def test_the_users_loader_and_random_numbers_are_left_alone() -> None:
    generator = torch.Generator().manual_seed(5)
    shuffled = DataLoader(Rows(10), batch_size=3, shuffle=True, generator=generator)
    torch.manual_seed(1)
    before, own_before = torch.get_rng_state(), generator.get_state()
    loaded_rows(shuffled)
    loaded_rows(DataLoader(Rows(10), batch_size=3, shuffle=True))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(own_before, generator.get_state())


def test_a_stream_has_no_rows_and_loses_no_frame() -> None:
    said, held = loaded_rows(DataLoader(Stream(7), batch_size=3, drop_last=True))
    assert (said, held) == ([], list(range(7)))
    assert loaded_rows(DataLoader(Stream(3), batch_size=None)) == ([], [0, 1, 2])
    batches = [torch.zeros(2, 1, 2, 2), torch.ones(1, 1, 2, 2)]
    assert loaded_rows(batches) == ([], [0, 0, 1])


class OwnWay(DataLoader[Any]):
    def __iter__(self) -> Any:
        return reversed(list(super().__iter__()))


class Endless(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(3)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (OwnWay(Rows(4), batch_size=2), "OwnWay, which iterates in a way of its own"),
        (DataLoader(Rows(4), sampler=Endless()), "does not end.*dataset of 4"),
        (DataLoader(Rows(4), sampler=["a", "b"]), "must yield rows of its dataset; got 'a'"),
        (DataLoader(Rows(4), sampler=[0, 4]), "yielded row 4, which a dataset of 4 frames does not have"),
        (DataLoader(Rows(4), sampler=[-1]), "yielded row -1"),
    ],
)
def test_an_order_that_cannot_be_told_is_refused(loader: Any, message: str) -> None:
    with pytest.raises(LoaderOrderError, match=message):
        plan_loading(loader)


@pytest.mark.parametrize("loader", [Rows(3), 5, torch.zeros(2, 1, 4, 4)])
def test_what_is_no_loader_is_refused(loader: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"got {type(loader).__name__}"):
        plan_loading(loader)


IMAGE = torch.zeros(3, 4, 5)


@pytest.mark.parametrize(
    ("batch", "count", "targets"),
    [
        (torch.zeros(2, 3, 4, 5), 2, None),
        ([IMAGE, IMAGE, IMAGE], 3, None),
        (((IMAGE, IMAGE), ({"a": 1}, {"a": 2})), 2, [{"a": 1}, {"a": 2}]),
        ([torch.zeros(2, 3, 4, 5), torch.tensor([0, 1])], 2, None),
        ([torch.zeros(2, 3, 4, 5), {"image_id": torch.tensor([7, 8])}], 2, [{"image_id": 7}, {"image_id": 8}]),
        ({"image": torch.zeros(2, 3, 4, 5), "image_id": ["x", "y"]}, 2, [{"image_id": "x"}, {"image_id": "y"}]),
        ({"images": [IMAGE], "targets": [{"image_id": 3}]}, 1, [{"image_id": 3}]),
    ],
)
def test_batches_of_the_usual_kinds_are_taken_apart(batch: Any, count: int, targets: Any) -> None:
    parts = split_batch(batch)
    assert (parts.count, len(parts.images)) == (count, count)
    assert all(image.shape == (3, 4, 5) for image in parts.images)
    assert parts.targets == targets


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(3, 4), r"got a tensor \(3, 4\)"),
        ({"pixels": 1}, r"a dict with \['pixels'\]"),
        ([[1, 2], [3]], r"got a list of a list of int, int"),
        ([], "a list of nothing"),
        ("text", "got str"),
    ],
)
def test_a_batch_of_no_known_kind_is_described(batch: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        split_batch(batch)


def test_a_single_sample_that_may_be_two_images_is_refused() -> None:
    assert split_batch([IMAGE, {"image_id": 1}], single=True).targets == [{"image_id": 1}]
    assert split_batch(IMAGE, single=True).count == 1
    with pytest.raises(InvalidInputError, match="may be 2 images or an image and what belongs to it"):
        split_batch([IMAGE, IMAGE], single=True)


@pytest.fixture
def coco(tmp_path: Path) -> CocoDetection:
    """Three images with ids 30, 10 and 20, the last without annotations."""
    import json

    images = []
    for image_id in (30, 10, 20):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{image_id}.png")
        images.append({"id": image_id, "file_name": f"{image_id}.png", "width": 8, "height": 6})
    box = {"bbox": [1, 1, 3, 3], "area": 9, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4]]}
    annotations = [{"id": number, "image_id": image_id, **box} for number, image_id in enumerate((30, 10))]
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]})
    )
    return CocoDetection(str(tmp_path), str(path))


def test_coco_images_are_called_by_their_ids(coco: CocoDetection) -> None:
    ids = [str(image_id) for image_id in coco.ids]
    assert sorted(ids) == ["10", "20", "30"]
    assert frame_ids_of(coco) == ids
    assert frame_ids_of(Subset(coco, [2, 0])) == [ids[2], ids[0]]
    wrapped = wrap_dataset_for_transforms_v2(coco, target_keys=("image_id", "boxes", "labels"))
    assert frame_ids_of(wrapped) == ids
    targets = [wrapped[row][1] for row in range(3)]  # the frame without annotations has an image_id only
    assert FrameNames(wrapped).name(range(3), targets) == ids


def test_files_are_called_by_their_stems_or_by_their_paths(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    assert frame_ids_of(ImageFolder(tmp_path)) == ["1", "2", "3"]
    Image.new("RGB", (4, 4)).save(tmp_path / "dog/1.png")
    assert frame_ids_of(ImageFolder(tmp_path)) == ["cat/1.png", "cat/2.png", "dog/1.png", "dog/3.png"]


def test_joined_datasets_keep_their_ids_or_say_that_they_clash(coco: CocoDetection) -> None:
    ids = frame_ids_of(coco)
    assert frame_ids_of(ConcatDataset([Subset(coco, [0]), Subset(coco, [2, 1])])) == [ids[0], ids[2], ids[1]]
    with pytest.raises(InvalidInputError, match=f"rows 0 and 3 are both '{ids[0]}'.*Pass `frame_id=`"):
        frame_ids_of(ConcatDataset([coco, coco]))
    assert frame_ids_of(ConcatDataset([coco, coco]), lambda row, _: f"{row // 3}-{row % 3}")[4] == "1-1"


def test_without_ids_of_any_kind_the_row_is_the_id() -> None:
    assert own_ids(Rows(3)) is None
    assert frame_ids_of(Rows(3)) == ["0", "1", "2"]
    assert FrameNames(Rows(9)).name([7, 4], None) == ["7", "4"]
    with pytest.raises(InvalidInputError, match="must have a length; got Stream"):
        frame_ids_of(Stream(3))


@pytest.mark.parametrize(
    "image_id", [5, torch.tensor(5), torch.tensor([5]), "5", [5], torch.tensor(5, dtype=torch.uint8)]
)
def test_image_ids_of_every_kind_become_strings(image_id: Any) -> None:
    assert FrameNames(None).name([0], [{"image_id": image_id}]) == ["5"]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([{"image_id": 1}, {"image_id": 1}], "rows 0 and 1 are both '1'"),
        ([{"image_id": 1}, {}], "the target of row 1 has none"),
        ([{}, {"image_id": 1}], "the target of row 1 has one"),
        ([{"image_id": "x" * 129}, {"image_id": 1}], r"1 to 128 characters; got 'xxx.*for row 0"),
        ([{"image_id": 1.5}, {"image_id": 1}], r"1 to 128 characters; got 1.5 for row 0"),
        ([{"image_id": ""}, {"image_id": 1}], r"1 to 128 characters; got '' for row 0"),
    ],
)
def test_ids_that_are_none_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FrameNames(None).name([0, 1], targets)


def test_the_users_own_names_come_first() -> None:
    names = FrameNames(Rows(3), lambda row, target: f"{row}:{target['image_id']}")
    assert names.name([2], [{"image_id": 9}]) == ["2:9"]
