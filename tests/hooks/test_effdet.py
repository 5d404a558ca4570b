"""The adapter of EfficientDet against the package's own benches."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("tiny_effdet")

import torch
from tiny_effdet import CLASSES, SIDE, built, effdet, host_detections, pictures
from torch import Tensor, nn

from cval_torch.errors import HookError, InvalidInputError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.effdet import EffDetAdapter
from cval_torch.pool.pool import Pool


def read(model: Any, images: list[Tensor] | None = None, autocast: Any = None, **options: Any) -> Pool:
    adapter = EffDetAdapter(**options)
    return extract(model, [images or pictures()], adapter=adapter, autocast=autocast, progress=False)


def of_frame(pool: Pool, row: int) -> dict[str, Tensor]:
    mine = slice(*pool.offsets[row : row + 2].tolist())
    names = ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    return {name: getattr(pool, name)[mine] for name in names}


def assert_same(found: dict[str, Tensor], truth: dict[str, Tensor], threshold: float) -> None:
    kept = truth["scores"] > threshold
    assert torch.allclose(found["scores"], truth["scores"][kept], atol=1e-6)
    assert torch.equal(found["labels"], truth["labels"][kept])
    assert torch.allclose(found["boxes"], truth["boxes"][kept], atol=1e-3)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9999999])
def test_detections_are_those_of_the_bench(soft: bool, threshold: float) -> None:
    generator = torch.Generator().manual_seed(4)
    large = [torch.rand(3, 300, 200, generator=generator), torch.rand(3, 60, 50, generator=generator)]
    for images in (pictures(), pictures()[1:2], large):
        pool = read(built(soft), images, threshold=threshold)
        for row, truth in enumerate(host_detections(built(soft), images)):
            assert_same(of_frame(pool, row), truth, threshold)
        assert bool(pool.num_boxes) == (threshold < 0.9)
        if threshold == 0:
            assert pool.counts.tolist() == [30] * len(images)
            assert pool.labels.min() >= 1
            assert pool.labels.max() == CLASSES


@pytest.mark.parametrize("soft", [False, True])
def test_every_row_is_its_anchors(soft: bool) -> None:
    """By a search through all anchors of the network's own outputs."""
    network = built(soft).model
    pool = read(built(soft), threshold=0.3)
    image = pictures()[0]
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        classes, _ = network(((image - mean) / std)[None])
    vectors = torch.cat([level[0].permute(1, 2, 0).reshape(-1, CLASSES) for level in classes]).sigmoid()
    found = of_frame(pool, 0)
    assert len(found["scores"]) > 3
    assert bool((found["probabilities"][:, 0] == 0).all())
    for vector, label, score in zip(found["probabilities"][:, 1:], found["labels"], found["scores"], strict=True):
        assert vector[label - 1] == pytest.approx(float(score), abs=1e-6)
        if soft:  # lowered as a whole
            shares = vector / vectors
            assert float((shares.amax(1) - shares.amin(1)).min()) < 1e-4
        else:
            assert float((vectors - vector).abs().amax(1).min()) < 1e-5
    distinct = {tuple(box.tolist()) for box in found["boxes"]}  # an anchor may be reported under two classes
    assert len({tuple(row.tolist()) for row in found["box_embeddings"]}) == len(distinct) > 3


def test_embeddings_are_read_from_the_map_of_the_anchor() -> None:
    model = copy.deepcopy(built().model)

    def number_levels(_: nn.Module, args: Any) -> Any:
        return ([torch.full_like(level, float(place)) for place, level in enumerate(args[0])],)

    plain = read(built(), threshold=0.0)
    model.class_net.register_forward_pre_hook(number_levels)
    levels = read(model, threshold=0.0).box_embeddings
    assert levels is not None
    assert set(levels[:, 0].tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert plain.box_embeddings is not None
    assert plain.box_embeddings.shape[1] == built().model.config.fpn_channels
    vectors = plain.frame_embeddings
    assert vectors is not None
    alone = read(built(), pictures()[2:]).frame_embeddings
    assert torch.allclose(vectors[2], alone[0], atol=1e-4)  # type: ignore[index]


def test_a_bench_for_training_and_the_network_are_read_alike() -> None:
    bench = built()
    plain = read(bench)
    training = effdet.DetBenchTrain(bench.model, create_labeler=False)
    for held in (bench.model, training, nn.ModuleDict({"net": bench.model})):
        assert torch.equal(read(held).boxes, plain.boxes)  # type: ignore[arg-type]
    fewer = copy.deepcopy(bench)
    fewer.max_det_per_image = 5
    assert read(fewer, threshold=0.0).counts.tolist() == [5, 5, 5]
    assert extract(bench, [pictures()], progress=False).num_boxes == plain.num_boxes


def test_integers_and_half_precision() -> None:
    images = [(image * 255).to(torch.uint8) for image in pictures()]
    assert torch.equal(read(built(), images).boxes, read(built(), [image / 255 for image in images]).boxes)  # type: ignore[arg-type]
    half = read(built(), images, autocast=torch.bfloat16)
    assert half.num_boxes > 0


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="images must have 3 channels; got 1"):
        read(built(), [torch.rand(1, SIDE, SIDE)])
    with pytest.raises(InvalidInputError, match="`threshold` must be in"):
        EffDetAdapter(threshold=1.0)
    model = copy.deepcopy(built().model)
    model.class_net.register_forward_hook(lambda _, __, levels: levels[:-1])
    with pytest.raises(HookError, match=r"the heads have \d+ cells, and there are \d+ anchors"):
        read(model)
    del model.box_net
    with pytest.raises(HookError, match=r"not built as EfficientDet is: .*box_net"):
        read(model)
