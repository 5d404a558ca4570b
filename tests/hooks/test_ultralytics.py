"""The Ultralytics adapter against the host's own predictor and dataset, and against planted and naive truths."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_yolo import MODELS, SIZES, as_tensor, built, frames_of, noise, predicted, run, ultralytics
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.hooks.ultralytics import UltralyticsAdapter


@pytest.mark.parametrize(("name", "end2end"), MODELS)
def test_detections_are_those_of_the_hosts_predict(name: str, end2end: bool) -> None:
    yolo = built(name, end2end)
    images = noise(SIZES)
    fused = copy.deepcopy(yolo.model).fuse(verbose=False)  # as `predict` does to its own copy
    frames = frames_of(
        run(UltralyticsAdapter(conf=0.1, iou=0.5, max_det=40, imgsz=128), fused, list(map(as_tensor, images)))
    )
    labels = set()
    for image, frame in zip(images, frames, strict=True):
        truth = predicted(yolo, image, conf=0.1, iou=0.5, max_det=40, imgsz=128, nms=False if end2end else None)
        assert 5 < len(truth) <= 40
        assert torch.equal(frame["boxes"], truth.xyxy)
        assert torch.equal(frame["scores"], truth.conf)
        assert torch.equal(frame["labels"], truth.cls.long())
        labels |= set(frame["labels"].tolist())
    assert len(labels) > 5


@pytest.mark.parametrize(("name", "end2end"), MODELS)
def test_the_unfused_model_finds_the_same_and_stays_unfused(name: str, end2end: bool) -> None:
    model = copy.deepcopy(built(name, end2end).model).train()  # as in a training; others predict with the one shared
    images = [as_tensor(image) for image in noise(SIZES)]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapter = UltralyticsAdapter(conf=0.1, imgsz=128)
    batch = run(adapter, model, images)
    fused = run(adapter, copy.deepcopy(model).fuse(verbose=False), images)
    assert abs(batch.counts - fused.counts).max() <= 2  # a score or an overlap may lie on its threshold
    assert not model.is_fused()
    assert model.training
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    picked = batch.probabilities.gather(1, batch.labels[:, None])[:, 0]
    assert torch.equal(picked, batch.scores)
    assert batch.activation == "sigmoid"
    assert batch.probabilities.shape == (batch.counts.sum(), 80)


@pytest.mark.parametrize(("name", "end2end"), MODELS)
def test_rows_are_recovered_where_every_score_is_one(name: str, end2end: bool) -> None:
    """Every anchor's box is a point at its centre, its score is 1.0, and its last class tells its number."""
    model = copy.deepcopy(built(name, end2end).model)
    head = model.model[-1]
    grid = [(8, 8), (4, 4), (2, 2)]
    starts = [0, 64, 80]

    def to_point(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        planted = torch.zeros_like(output)
        if head.reg_max > 1:
            planted.view(len(output), 4, head.reg_max, -1)[:, :, 0] = 60.0
        return planted

    def to_marker(level: int, output: Tensor) -> Tensor:
        planted = torch.full_like(output, -30.0)
        planted[:, 0] = 40.0
        number = starts[level] + torch.arange(math.prod(grid[level])).view(grid[level])
        planted[:, -1] = torch.logit((number + 1) / 200)
        return planted

    for level in range(3):
        boxes, classes = (head.one2one_cv2, head.one2one_cv3) if end2end else (head.cv2, head.cv3)
        boxes[level].register_forward_hook(to_point)
        classes[level].register_forward_hook(lambda _, __, output, level=level: to_marker(level, output))
    batch = run(UltralyticsAdapter(conf=0.6, imgsz=64), model, [torch.rand(3, 64, 64), torch.rand(3, 64, 64)])
    centres = torch.tensor(
        [
            [(x + 0.5) * 64 / width, (y + 0.5) * 64 / height]
            for height, width in grid
            for y in range(height)
            for x in range(width)
        ]
    )
    for frame in frames_of(batch):
        assert bool((frame["scores"] == 1).all())
        assert bool((frame["labels"] == 0).all())
        numbers = (frame["probabilities"][:, -1] * 200 - 1).round().long()
        assert sorted(numbers.tolist()) == list(range(84))
        assert torch.allclose(frame["boxes"][:, :2], centres[numbers], atol=1e-4)


def test_an_nms_free_head_may_report_an_anchor_under_two_classes() -> None:
    model = copy.deepcopy(built("yolov10n", True).model)
    for branch in model.model[-1].one2one_cv3:
        branch[-1].weight.data.zero_()
        branch[-1].bias.data.fill_(-30.0)
        branch[-1].bias.data[3] = 1.0
        branch[-1].bias.data[5] = 2.0
    batch = run(UltralyticsAdapter(imgsz=32, max_det=12), model, [torch.rand(3, 32, 32)])
    assert set(batch.labels.tolist()) <= {3, 5}
    assert torch.equal(batch.probabilities.gather(1, batch.labels[:, None])[:, 0], batch.scores)
    assert torch.allclose(batch.probabilities[:, [3, 5]], torch.tensor([1.0, 2.0]).sigmoid().expand(12, 2))


def naive_roi_mean(level: Tensor, box: list[float], scale: float) -> Tensor:
    """Mean of 2 x 2 bilinear samples at the middles of the box's quarters, by loops."""
    total = torch.zeros(level.shape[0], dtype=torch.float64)
    x1, y1, x2, y2 = (side * scale - 0.5 for side in box)
    height, width = level.shape[1:]
    for i in range(2):
        for j in range(2):
            y, x = y1 + (i + 0.5) * (y2 - y1) / 2, x1 + (j + 0.5) * (x2 - x1) / 2
            if not (-1 <= y <= height and -1 <= x <= width):
                continue
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            top, left = min(int(y), height - 1), min(int(x), width - 1)
            for row, row_weight in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                for column, weight in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                    total += row_weight * weight * level[:, row, column].double()
    return total / 4


@pytest.mark.parametrize(("name", "end2end"), [("yolov8n", False), ("yolo26n", True)])
def test_embeddings_are_means_of_the_necks_maps(name: str, end2end: bool) -> None:
    model = built(name, end2end).model
    images = [as_tensor(image) for image in noise([(64, 128), (100, 90)])]
    necks: list[list[Tensor]] = []
    watch = model.model[-1].register_forward_pre_hook(lambda _, args: necks.append([each.clone() for each in args[0]]))
    try:
        batch = run(UltralyticsAdapter(imgsz=128), model, images)
    finally:
        watch.remove()
    assert len(necks) == 2  # the letterboxes have two sizes
    placing = [((1.0, 1.0), (0, 0)), ((115 / 90, 1.28), (6, 0))]  # scale and border in x and y, by hand
    assert batch.box_embeddings.shape[1] == sum(level.shape[1] for level in necks[0])
    for (gain, border), frame, levels in zip(placing, frames_of(batch), necks, strict=True):
        for box, vector in list(zip(frame["boxes"].tolist(), frame["box_embeddings"], strict=True))[:4]:
            placed = [side * gain[axis % 2] + border[axis % 2] for axis, side in enumerate(box)]
            truth = torch.cat([naive_roi_mean(level[0], placed, level.shape[3] / 128) for level in levels])
            assert torch.allclose(vector.double(), truth, atol=1e-4)
    # The first image fills whole cells of the coarsest map, so its mean is theirs; the border is left out of it.
    assert torch.allclose(batch.frame_embeddings[0], necks[0][-1][0].mean((1, 2)), atol=1e-5)


def test_the_frame_embedding_leaves_the_border_out() -> None:
    model = built("yolov8n", False).model
    necks: list[Tensor] = []
    watch = model.model[-1].register_forward_pre_hook(lambda _, args: necks.append(args[0][-1].clone()))
    try:
        batch = run(UltralyticsAdapter(imgsz=128, rect=False), model, [torch.rand(3, 64, 128)])
    finally:
        watch.remove()
    assert necks[0].shape[2:] == (4, 4)
    assert torch.allclose(batch.frame_embeddings[0], necks[0][0, :, 1:3].mean((1, 2)), atol=1e-5)


@pytest.mark.parametrize("rect", [True, False])
def test_a_frames_result_does_not_depend_on_its_neighbours(rect: bool) -> None:
    model = built("yolo11n", False).model
    images = [as_tensor(image) for image in noise([(50, 80), (80, 50), (50, 80), (31, 17)])]
    adapter = UltralyticsAdapter(imgsz=96, rect=rect, iou=1.0)  # no overlap that lies on its threshold
    together = frames_of(run(adapter, model, images))
    names = ("boxes", "probabilities", "box_embeddings")
    for image, frame in zip(images, together, strict=True):
        (alone,) = frames_of(run(adapter, model, [image]))
        # Which of two nearly equal scores comes first is a matter of the last bit, so rows are compared as a set.
        mine, its = (
            torch.cat([part["labels"][:, None] * 1000, *(part[name] for name in names)], dim=1)
            for part in (frame, alone)
        )
        assert mine.shape == its.shape
        assert float(torch.cdist(mine, its, p=1).amin(0).max()) < 0.05
        assert float(torch.cdist(mine, its, p=1).amin(1).max()) < 0.05
        height, width = image.shape[1:]
        assert float(frame["boxes"].min()) >= 0
        assert bool((frame["boxes"] <= torch.tensor([width, height, width, height])).all())


def test_uint8_images_are_scaled() -> None:
    model = built("yolov8n", False).model
    (image,) = noise([(64, 64)])
    whole = run(UltralyticsAdapter(imgsz=64), model, [torch.from_numpy(image).permute(2, 0, 1)])
    assert torch.equal(whole.boxes, run(UltralyticsAdapter(imgsz=64), model, [as_tensor(image)]).boxes)


def write_dataset(folder: Path, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    from PIL import Image

    images = noise(sizes, seed=3)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for row, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"frame_{row}.png")
        (folder / "labels" / f"frame_{row}.txt").write_text("1 0.5 0.5 0.25 0.25\n")
    return images


def host_dataset(folder: Path, *, augment: bool) -> Any:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    data = {"names": dict(enumerate(map(str, range(80)))), "nc": 80, "channels": 3}
    return YOLODataset(
        img_path=str(folder / "images"), imgsz=128, augment=augment, hyp=get_cfg(), data=data, task="detect", prefix=""
    )


def test_the_hosts_own_batches_are_read(tmp_path: Path) -> None:
    images = write_dataset(tmp_path, [(96, 128), (128, 70), (128, 128)])
    dataset = host_dataset(tmp_path, augment=False)
    loader = DataLoader(dataset, batch_size=2, collate_fn=dataset.collate_fn)
    yolo = built("yolov8n", False)
    adapter = UltralyticsAdapter(imgsz=128, rect=False)
    pool = extract(yolo, loader, adapter=adapter, progress=False)
    assert pool.frame_ids == ("frame_0.png", "frame_1.png", "frame_2.png")
    tensors = [as_tensor(image) for image in images]
    truths = [run(adapter, yolo.model, tensors[:2]), run(adapter, yolo.model, tensors[2:])]
    assert torch.equal(pool.boxes, torch.cat([truth.boxes for truth in truths]))
    assert torch.equal(pool.frame_embeddings, torch.cat([truth.frame_embeddings for truth in truths]))
    parts = adapter.split(next(iter(loader)))
    assert parts is not None
    assert [Path(target["im_file"]).name for target in parts.targets or ()] == ["frame_0.png", "frame_1.png"]


def test_boxes_of_a_host_batch_are_scaled_as_the_hosts_validator_does(tmp_path: Path) -> None:
    from ultralytics.utils.ops import scale_boxes

    write_dataset(tmp_path, [(40, 70), (190, 130)])  # scaled up or down, and bordered
    dataset = host_dataset(tmp_path, augment=False)
    batch = dataset.collate_fn([dataset[0], dataset[1]])
    parts = UltralyticsAdapter().split(batch)
    assert parts is not None
    boxes = torch.tensor([[30.0, 40.0, 90.0, 80.0], [-5.0, -5.0, 140.0, 150.0]])
    for row, layout in enumerate(parts.images["layouts"]):
        truth = scale_boxes(batch["img"].shape[2:], boxes.clone(), batch["ori_shape"][row], batch["ratio_pad"][row])
        assert torch.allclose(layout.to_original(boxes), truth, atol=0.02)  # the host's gain is not rounded to pixels


def test_augmented_batches_are_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path, [(96, 128), (128, 70)])
    dataset = host_dataset(tmp_path, augment=True)
    with pytest.raises(InvalidInputError, match=r"`ratio_pad`.*augment=False"):
        UltralyticsAdapter().split(dataset.collate_fn([dataset[0], dataset[1]]))


def test_other_batches_are_left_to_the_extraction() -> None:
    assert UltralyticsAdapter().split([torch.rand(3, 8, 8)]) is None
    assert UltralyticsAdapter().split({"images": torch.rand(1, 3, 8, 8)}) is None


def test_the_wrapper_is_accepted_and_left_as_it_was() -> None:
    yolo = built("yolo11n", False)
    modes = [module.training for module in yolo.model.modules()]  # other tests share the model
    loader = DataLoader([torch.rand(3, 64, 64) for _ in range(3)], batch_size=2)
    adapter = find_adapter(unwrap(yolo))
    assert isinstance(adapter, UltralyticsAdapter)
    pool = extract(yolo, loader, progress=False)
    assert len(pool) == 3
    assert pool.activation == "sigmoid"
    assert yolo.predictor is None
    assert all(not module._forward_hooks for module in yolo.model.modules())
    assert [module.training for module in yolo.model.modules()] == modes


def test_images_are_scaled_to_what_the_model_was_trained_with() -> None:
    model = copy.deepcopy(built("yolov8n", False).model)
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.args = {"imgsz": 160}
    run(UltralyticsAdapter(), model, [torch.rand(3, 60, 80)])
    model.args = type("Namespace", (), {"imgsz": 96})()
    run(UltralyticsAdapter(), model, [torch.rand(3, 60, 80)])
    run(UltralyticsAdapter(imgsz=(64, 130)), model, [torch.rand(3, 60, 80)])
    del model.args
    run(UltralyticsAdapter(), model, [torch.rand(3, 16, 320)])
    assert [tuple(images.shape[2:]) for images in seen] == [(128, 160), (96, 96), (64, 96), (32, 640)]


def test_no_detections_and_few() -> None:
    model = built("yolov8n", False).model
    images = [torch.rand(3, 64, 96), torch.rand(3, 96, 64)]
    empty = run(UltralyticsAdapter(conf=0.999999, imgsz=96), model, images)
    assert empty.counts.tolist() == [0, 0]
    assert (empty.boxes.shape, empty.probabilities.shape, empty.box_embeddings.shape) == ((0, 4), (0, 80), (0, 448))
    assert empty.frame_embeddings.shape == (2, 256)
    few = run(UltralyticsAdapter(imgsz=96, max_det=2), model, images)
    assert few.counts.tolist() == [2, 2]
    free = built("yolo26n", True).model
    assert run(UltralyticsAdapter(conf=0.999999, imgsz=96), free, images).box_embeddings.shape == (0, 448)


@pytest.mark.parametrize(("name", "end2end"), [("yolov8n", False), ("yolo26n", True)])
def test_autocast(name: str, end2end: bool) -> None:
    loader = DataLoader([torch.rand(3, 64, 64) for _ in range(2)], batch_size=2)
    yolo = built(name, end2end)
    pool = extract(yolo, loader, adapter=UltralyticsAdapter(imgsz=64), autocast=torch.bfloat16, progress=False)
    assert pool.num_boxes > 0
    assert torch.equal(pool.probabilities.gather(1, pool.labels[:, None])[:, 0], pool.scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("name", "end2end"), [("yolov8n", False), ("yolo26n", True)])
def test_models_of_other_precision(name: str, end2end: bool, dtype: torch.dtype) -> None:
    model = copy.deepcopy(built(name, end2end).model).to(dtype)
    batch = run(UltralyticsAdapter(imgsz=96), model, [torch.rand(3, 70, 96), torch.rand(3, 96, 96)])
    assert min(batch.counts.tolist()) > 0
    assert {getattr(batch, name).dtype for name in ("boxes", "scores", "probabilities")} == {torch.float32}
    assert torch.equal(batch.probabilities.gather(1, batch.labels[:, None])[:, 0], batch.scores)


@pytest.mark.parametrize("name", ["yolov8n-seg", "yolov8n-pose"])
def test_boxes_of_segmentation_and_pose_models_are_read(name: str) -> None:
    yolo = built(name, False)
    (image,) = noise([(128, 128)])
    adapter = UltralyticsAdapter(conf=0.1, imgsz=128)
    assert adapter.matches(yolo.model)
    fused = copy.deepcopy(yolo.model).fuse(verbose=False)
    batch = run(adapter, fused, [as_tensor(image)])
    assert batch.probabilities.shape == (len(batch.boxes), yolo.model.model[-1].nc)
    truth = predicted(yolo, image, conf=0.1, iou=0.7, imgsz=128)
    mine = {tuple(row) for row in torch.cat([batch.boxes, batch.scores[:, None]], dim=1).tolist()}
    its = {tuple(row) for row in torch.cat([truth.xyxy, truth.conf[:, None]], dim=1).tolist()}
    assert its
    assert its <= mine  # the host leaves out boxes whose mask is empty


@pytest.mark.parametrize("name", ["yolov8n-obb", "yolov8n-cls"])
def test_models_of_other_tasks_are_not_known(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="no adapter knows"):
        find_adapter(unwrap(ultralytics.YOLO(f"{name}.yaml")))


def test_a_model_that_gives_nan_is_refused() -> None:
    model = copy.deepcopy(built("yolov8n", False).model)
    model.model[-1].cv3[1][-1].bias.data[7] = torch.nan
    with pytest.raises(InvalidInputError, match=r"NaN or inf in the model's output of image 0"):
        run(UltralyticsAdapter(imgsz=64), model, [torch.rand(3, 64, 64)])


@pytest.mark.parametrize(("name", "end2end"), [("yolov8n", False), ("yolo26n", True)])
def test_detections_that_a_hook_sorts_and_filters_keep_their_rows(name: str, end2end: bool) -> None:
    images = [as_tensor(image) for image in noise(SIZES)]
    adapter = UltralyticsAdapter(imgsz=128, conf=0.2)
    model = copy.deepcopy(built(name, end2end).model)
    truths = frames_of(run(adapter, model, images))

    def every_other_backwards(_: Any, __: Any, output: Any) -> Any:  # anchors, or with the NMS-free head detections
        return (output[0].flip(1)[:, ::2] if end2end else output[0].flip(2)[:, :, ::2], output[1])

    model.model[-1].register_forward_hook(every_other_backwards)
    found = frames_of(run(adapter, model, images))
    for truth, frame in zip(truths, found, strict=True):
        assert len(frame["scores"]) > 0
        known = 0
        for place in range(len(frame["scores"])):
            same = [
                (truth[column] - frame[column][place]).abs().reshape(len(truth["scores"]), -1).amax(1) < 1e-6
                for column in ("boxes", "labels", "scores")
            ]
            for row in (same[0] & same[1] & same[2]).nonzero().flatten().tolist()[:1]:
                assert torch.allclose(frame["probabilities"][place], truth["probabilities"][row], atol=1e-5)
                assert torch.allclose(frame["box_embeddings"][place], truth["box_embeddings"][row], atol=1e-5)
                known += 1
        assert known > 0


def test_a_head_whose_output_is_not_its_branches_is_refused() -> None:
    model = copy.deepcopy(built("yolo26n", True).model)
    model.model[-1].register_forward_hook(lambda _, __, output: (output[0] * 0.9, output[1]))
    with pytest.raises(HookError, match="no row of the recorded logits"):
        run(UltralyticsAdapter(imgsz=64, conf=0.1), model, [torch.rand(3, 64, 64)])


@pytest.mark.parametrize(
    "options",
    [{"conf": -0.1}, {"conf": 1.0}, {"iou": 0.0}, {"iou": 1.1}, {"max_det": 0}, {"imgsz": 0}, {"imgsz": (64,)}],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"`{next(iter(options))}` must be"):
        UltralyticsAdapter(**options)


def test_letterboxes_are_multiples_of_the_deepest_stride() -> None:
    """A model with a sixth level has cells of 64 pixels: the shorter side grows to a multiple of that."""
    with torch.random.fork_rng(devices=[]):
        model = ultralytics.YOLO("yolov8n-p6.yaml").model.eval()
    assert int(model.model[-1].stride.max()) == 64
    adapter = UltralyticsAdapter(imgsz=128)
    with torch.no_grad():
        (one,) = adapter.forward(model, [torch.rand(3, 80, 128)])
        (other,) = adapter.forward(built("yolov8n", False).model.eval(), [torch.rand(3, 80, 128)])
    assert (one.size, other.size) == ((128, 128), (96, 128))
