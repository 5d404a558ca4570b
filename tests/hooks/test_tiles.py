"""Large images in tiles: what is found is what a detector that sees everything finds, once, with its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from blobs import BlobAdapter, BlobNet, painted
from skimage.data import astronaut, coffee
from sklearn.datasets import load_sample_image
from tiny_torchvision import FAMILIES, images, tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from cval_torch import extract, select
from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.extraction import check_adapter
from cval_torch.hooks import FrameBatch, TiledAdapter, find_adapter
from cval_torch.hooks.recorder import Recorder

COLUMNS = ("counts", "boxes", "labels", "scores", "probabilities", "box_embeddings", "frame_embeddings")


def run(adapter: Any, model: nn.Module, pictures: list[Tensor]) -> FrameBatch:
    with torch.no_grad(), Recorder(dict(adapter.modules(model)), within=model) as recorder:
        output = adapter.forward(model.eval(), pictures)
        recorder.check()
        return adapter.read(model, recorder.recording, output).settle()


def assert_same(found: FrameBatch, expected: FrameBatch, columns: tuple[str, ...] = COLUMNS, **close: float) -> None:
    for name in columns:
        one, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(one, other, **(close or {"rtol": 0, "atol": 0}))
    assert found.activation == expected.activation


def photo(name: str = "china.jpg") -> Tensor:
    pixels = load_sample_image(name) if name.endswith(".jpg") else {"astronaut": astronaut, "coffee": coffee}[name]()
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


class Photos(Dataset[Any]):
    """Real photographs of several sizes; the first is smaller than a tile."""

    frame_ids = ("small", "china", "astronaut", "coffee")

    def __init__(self) -> None:
        self.pixels = [photo("flower.jpg")[:, :90, :80], photo(), photo("astronaut"), photo("coffee")]

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> Tensor:
        return self.pixels[row]


def loader_over(dataset: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(dataset, **{"batch_size": 2, "collate_fn": list, **options})


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_of_one_tile_is_read_as_without_tiles(family: str) -> None:
    model = tiny(family)
    for picture in images(4):
        plain = run(find_adapter(model), model, [picture])
        assert plain.counts.sum() > 0
        assert_same(run(TiledAdapter(tile=150), model, [picture]), plain)
        assert_same(run(TiledAdapter(find_adapter(model), tile=200, overlap=50), model, [picture]), plain)


def test_ultralytics_reads_an_image_of_one_tile_as_without_tiles() -> None:
    yolo = pytest.importorskip("tiny_yolo")
    network = yolo.built("yolov8n", False).model
    adapter = yolo.UltralyticsAdapter(conf=0.1, imgsz=64)
    picture = photo()[:, 100:180, 200:330]
    plain = yolo.run(adapter, network, [picture])
    assert plain.counts.sum() > 0
    assert_same(yolo.run(TiledAdapter(adapter, tile=130, overlap=30), network, [picture]), plain)


def test_ultralytics_in_tiles_is_what_it_says_of_the_tiles() -> None:
    """Without an overlap no box is suppressed."""
    yolo = pytest.importorskip("tiny_yolo")
    network = yolo.built("yolov8n", False).model
    adapter = yolo.UltralyticsAdapter(conf=0.1, imgsz=64)
    picture = photo()[:, :128, :256]
    tiled = yolo.run(TiledAdapter(adapter, tile=128, overlap=0, batch=1), network, [picture])
    left, right = (yolo.run(adapter, network, [part.contiguous()]) for part in picture.split(128, dim=2))
    both = torch.cat([left.boxes, right.boxes + torch.tensor([128.0, 0, 128, 0])])
    columns = [torch.cat([getattr(left, name), getattr(right, name)]) for name in COLUMNS[2:6]]
    rows = columns[1].argsort(descending=True, stable=True)
    assert len(rows) == len(tiled.boxes) > 5
    torch.testing.assert_close(tiled.boxes, both[rows], rtol=1e-4, atol=1e-2)
    for name, column in zip(COLUMNS[2:6], columns, strict=True):
        torch.testing.assert_close(getattr(tiled, name), column[rows], rtol=1e-4, atol=1e-4)
    mean = (left.frame_embeddings + right.frame_embeddings) / 2
    torch.testing.assert_close(tiled.frame_embeddings, mean, rtol=1e-4, atol=1e-4)


FAR_FROM_SEAMS = [(5, 6, 25, 20, 0), (120, 10, 140, 31, 1), (230, 70, 249, 99, 2), (10, 150, 41, 170, 1)]
ON_SEAMS = [(70, 40, 95, 60, 0), (150, 60, 165, 90, 2), (60, 75, 88, 96, 1), (82, 82, 98, 98, 0)]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_objects_are_found_once_wherever_they_lie(batch: int) -> None:
    """The detector sees the whole image as well, so it knows what there is."""
    pictures = [
        painted(180, 250, *FAR_FROM_SEAMS),
        painted(180, 250, *ON_SEAMS),
        painted(60, 50, (5, 5, 20, 30, 2)),
        painted(180, 250),
        painted(60, 250, *FAR_FROM_SEAMS[:2]),
    ]
    found = run(TiledAdapter(BlobAdapter(), tile=100, overlap=40, batch=batch), BlobNet(), pictures)
    expected = run(BlobAdapter(), BlobNet(), pictures)
    assert expected.counts.tolist() == [4, 4, 1, 0, 2]
    assert_same(found, expected, COLUMNS[:-1], rtol=1e-5, atol=1e-6)


def test_a_frame_is_the_mean_of_its_tiles_by_the_area_that_each_stands_for() -> None:
    picture = photo()[:, :180, :250]
    found = run(TiledAdapter(BlobAdapter(), tile=100, overlap=40), BlobNet(), [picture])
    tiles = [(top, left) for top in (0, 60, 80) for left in (0, 60, 120, 150)]
    times = torch.zeros(180, 250)
    for top, left in tiles:
        times[top : top + 100, left : left + 100] += 1
    mean = torch.zeros(3)
    for top, left in tiles:
        share = (1 / times[top : top + 100, left : left + 100]).sum() / (180 * 250)
        mean += share * picture[:, top : top + 100, left : left + 100].mean(dim=(1, 2))
    torch.testing.assert_close(found.frame_embeddings, mean[None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("left", range(30, 200, 7))
@pytest.mark.parametrize("top", [5, 55, 90])
def test_an_object_that_a_seam_cuts_is_reported_whole(left: int, top: int) -> None:
    pictures = [painted(180, 250, (left, top, left + 38, top + 30, 1))]
    found = run(TiledAdapter(BlobAdapter(), tile=100, overlap=40), BlobNet(), pictures)
    assert found.boxes.tolist() == [[left, top, left + 38, top + 30]]


def test_objects_of_two_classes_in_one_place_are_two() -> None:
    picture = painted(100, 180, (82, 10, 97, 40, 0), (82, 10, 97, 40, 2))
    found = run(TiledAdapter(BlobAdapter(), tile=100, overlap=20), BlobNet(), [picture])
    assert found.labels.sort().values.tolist() == [0, 2]


def test_tiles_of_one_size_run_together_and_no_more_than_asked() -> None:
    pictures = [painted(180, 250), painted(60, 50), painted(100, 180)]
    adapter = BlobAdapter()
    run(TiledAdapter(adapter, tile=100, overlap=20, batch=5), BlobNet(), pictures)
    assert [len(each) for each in adapter.seen] == [5, 3, 1]  # 2 x 3 tiles and 2 more; the small image
    assert {shape for each in adapter.seen[:2] for shape in each} == {(3, 100, 100)}
    assert adapter.seen[2] == [(3, 60, 50)]


@pytest.mark.parametrize("family", ["rcnn", "retinanet"])
def test_columns_stay_paired_in_torchvisions_detectors(family: str) -> None:
    """Each row of the result is a row of some tile, with everything that stood there."""
    model, picture = tiny(family), photo()[:, :160, :220]
    tiled = run(TiledAdapter(tile=100, overlap=40, batch=3), model, [picture])
    rows: list[tuple[Tensor, ...]] = []
    for top in (0, 60):
        for left in (0, 60, 120):
            alone = run(find_adapter(model), model, [picture[:, top : top + 100, left : left + 100]])
            boxes = alone.boxes + torch.tensor([left, top, left, top])
            rows += zip(boxes, alone.labels, alone.scores, alone.probabilities, alone.box_embeddings, strict=True)
    assert 3 < len(tiled.boxes) < len(rows)
    for index in range(len(tiled.boxes)):
        found = tuple(getattr(tiled, name)[index] for name in COLUMNS[1:6])
        near = [row for row in rows if torch.allclose(row[0], found[0], atol=0.01) and row[1] == found[1]]
        assert any(
            all(torch.allclose(one, other, atol=1e-3) for one, other in zip(row, found, strict=True)) for row in near
        )


@pytest.mark.parametrize("family", ["rcnn", "retinanet"])
def test_a_pass_gives_one_frame_an_image(family: str) -> None:
    pool = extract(
        tiny(family), loader_over(Photos()), adapter=TiledAdapter(tile=200, overlap=50, batch=4), progress=False
    )
    assert list(pool.frame_ids) == ["small", "china", "astronaut", "coffee"]
    plain = extract(tiny(family), loader_over(Photos()), progress=False)
    assert pool.counts[1:].sum() > plain.counts[1:].sum()
    for row, pixels in enumerate(Photos().pixels):
        boxes = pool.boxes[pool.offsets[row] : pool.offsets[row + 1]]
        assert boxes.min() >= 0
        assert (boxes.amax(0)[2:] <= torch.tensor([pixels.shape[2], pixels.shape[1]])).all()
    assert pool.frame_embeddings.shape == plain.frame_embeddings.shape


def test_a_choice_is_made_of_images() -> None:
    chosen = select(
        tiny("retinanet"),
        loader_over(Photos()),
        num_of_samples=2,
        adapter=TiledAdapter(tile=200, overlap=50),
        progress=False,
    )
    assert len(chosen) == 2
    assert set(chosen.frame_ids) <= set(Photos.frame_ids)


def test_embeddings_of_some_boxes_are_those_of_all() -> None:
    options = {"adapter": TiledAdapter(tile=200, overlap=50, batch=100), "progress": False}
    whole = extract(tiny("retinanet"), loader_over(Photos()), **options)
    some = extract(tiny("retinanet"), loader_over(Photos()), **options, top_boxes=3)
    torch.testing.assert_close(some.box_embeddings, whole.box_embeddings[some.embedded])
    assert int(some.embedded.sum()) == sum(min(3, int(count)) for count in whole.counts)


def test_the_model_is_left_without_hooks() -> None:
    model = tiny("rcnn")
    run(TiledAdapter(tile=100, overlap=20), model, [photo()[:, :150, :150]])
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("changed", [{"tile": 180}, {"overlap": 60}, {"iou": 0.6}])
def test_a_kept_pass_knows_the_options(changed: dict[str, Any], tmp_path: Path) -> None:
    options = {"tile": 200, "overlap": 50, "iou": 0.5, "batch": 4}
    model, loader = tiny("retinanet"), loader_over(Photos())

    def run_again(**others: Any) -> Any:
        adapter = TiledAdapter(**{**options, **others})
        return extract(model, loader, adapter=adapter, cache_dir=tmp_path, progress=False)

    first = run_again()
    again = run_again()
    torch.testing.assert_close(again.boxes, first.boxes)
    (name,) = changed
    with pytest.raises(InvalidInputError, match=name):
        run_again(**changed)


def test_a_kept_pass_knows_the_options_of_the_adapter_in_it(tmp_path: Path) -> None:
    class Painted(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, row: int) -> Tensor:
            return painted(120, 180, *ON_SEAMS[: row + 1])

    def run_with(least: int) -> Any:
        adapter = TiledAdapter(BlobAdapter(least=least), tile=100, overlap=40)
        return extract(BlobNet(), loader_over(Painted()), adapter=adapter, cache_dir=tmp_path, progress=False)

    run_with(4)
    with pytest.raises(InvalidInputError, match="least"):
        run_with(5)


def test_check_adapter_looks_through_tiles() -> None:
    batch = [painted(180, 250, *ON_SEAMS)]
    pool = check_adapter(BlobNet(), TiledAdapter(BlobAdapter(), tile=100, overlap=40), batch)
    assert pool.num_boxes == len(ON_SEAMS)

    class Wrong(BlobAdapter):
        def read(self, model: nn.Module, recording: Any, output: Any) -> FrameBatch:
            found = super().read(model, recording, output)
            found.labels = found.labels + 1
            return found

    with pytest.raises(HookError, match=r"`labels` must be columns|`scores` must be"):
        check_adapter(BlobNet(), TiledAdapter(Wrong(), tile=100, overlap=40), batch)


def test_a_damaged_image_is_named_and_not_its_tile() -> None:
    model = tiny("retinanet")
    with torch.no_grad():
        model.head.classification_head.cls_logits.bias.fill_(float("nan"))
    loader = loader_over(Subset(Photos(), [1, 2]))
    with pytest.raises(InvalidInputError, match="of frame 'china'"):
        extract(model, loader, adapter=TiledAdapter(tile=200), progress=False)


def test_which_models_are_known() -> None:
    assert TiledAdapter().matches(tiny("ssd"))
    assert not TiledAdapter().matches(nn.Linear(1, 1))
    assert TiledAdapter(BlobAdapter()).matches(BlobNet())
    assert TiledAdapter(BlobAdapter()).name == "blobs in tiles"
    with pytest.raises(UnsupportedModelError):
        extract(nn.Linear(1, 1), loader_over(Photos()), adapter=TiledAdapter(), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "`tile` must be at least 1"),
        ({"tile": 100, "overlap": 100}, "`overlap` must be from 0 to less than `tile`, which is 100; got 100"),
        ({"overlap": -1}, "`overlap` must be"),
        ({"iou": 0}, "`iou` must be in"),
        ({"batch": 0}, "`batch` must be at least 1"),
        ({"adapter": TiledAdapter()}, "got another TiledAdapter"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        TiledAdapter(**options)


def test_batches_of_a_host_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"takes a list of images \(C, H, W\); got dict"):
        TiledAdapter().forward(tiny("ssd"), {"img": torch.zeros(1, 3, 8, 8)})
