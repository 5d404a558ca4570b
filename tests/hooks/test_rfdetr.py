"""The adapter of RF-DETR against the package's own `predict`, and against the network's own answers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytest.importorskip("tiny_rfdetr")

import torch
from tiny_rfdetr import CLASSES, QUERIES, SIDE, built, pictures, shallow, training_module
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch import DetectionSampling, LabelPool, PassOptions, SamplerCallback, select
from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.finding import find_adapter, unwrap
from cval_torch.hooks.holding import find_detector
from cval_torch.hooks.rfdetr import RFDETRAdapter
from cval_torch.hooks.tiles import TiledAdapter
from cval_torch.pool.pool import Pool
from cval_torch.training import EveryEpochs

MODELS = ["RFDETRNano", "RFDETRSegNano", "RFDETRKeypointPreview"]
every_model = pytest.mark.parametrize("name", MODELS)


def read(model: Any, images: list[Tensor] | None = None, autocast: Any = None, **options: Any) -> Pool:
    adapter = RFDETRAdapter(**options)
    return extract(model, [images or pictures()], adapter=adapter, autocast=autocast, progress=False)


def predicted(model: Any, images: list[Tensor], threshold: float) -> list[dict[str, Tensor]]:
    """What the package reports: boxes, labels and scores of each image."""
    rows = []
    for found in model.predict(images, threshold=threshold):
        keypoints = hasattr(found, "detection_confidence")
        boxes, scores = (
            (found.data["xyxy"], found.detection_confidence) if keypoints else (found.xyxy, found.confidence)
        )
        rows.append({"boxes": boxes, "labels": found.class_id, "scores": scores})
    return [{key: torch.as_tensor(column) for key, column in row.items()} for row in rows]


def of_frame(pool: Pool, row: int) -> dict[str, Tensor]:
    mine = slice(*pool.offsets[row : row + 2].tolist())
    return {
        name: getattr(pool, name)[mine] for name in ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    }


@pytest.mark.parametrize(
    ("name", "threshold"),
    # keypoints lower scores before the package looks at the threshold, so there it must be low
    [(name, threshold) for name in MODELS[:2] for threshold in (0.05, 0.65, 0.999999)] + [(MODELS[2], 0.05)],
)
def test_detections_are_those_of_predict_to_the_bit(name: str, threshold: float) -> None:
    model, images = built(name), pictures()
    keypoints = name == "RFDETRKeypointPreview"
    together = read(model, images, threshold=threshold, every_class=True)
    assert bool(together.num_boxes) == (threshold < 0.9)
    for pool, truths in (
        (together, predicted(model, images, threshold)),
        (read(model, images[1:2], threshold=threshold, every_class=True), predicted(model, images[1:2], threshold)),
    ):
        for row, truth in enumerate(truths):
            found = of_frame(pool, row)
            assert torch.equal(found["boxes"], truth["boxes"])
            assert torch.equal(found["labels"], truth["labels"])
            if not keypoints:
                assert torch.equal(found["scores"], truth["scores"])


def test_a_query_is_reported_once_unless_asked_otherwise() -> None:
    model = built()
    several, once = read(model, every_class=True, top_k=10**6, threshold=0.3), read(model, threshold=0.3)
    assert several.num_boxes > once.num_boxes > 20
    for row in range(4):
        best: dict[tuple[float, ...], float] = {}
        every = of_frame(several, row)
        for box, score in zip(every["boxes"].tolist(), every["scores"].tolist(), strict=True):
            best[tuple(box)] = max(best.get(tuple(box), 0.0), score)
        found = of_frame(once, row)
        assert found["scores"].tolist() == sorted(best.values(), reverse=True)
        assert {tuple(box) for box in found["boxes"].tolist()} == set(best)
        assert torch.equal(found["probabilities"].max(1).values, found["scores"])


@every_model
def test_every_row_is_its_querys_even_if_a_hook_sorts_the_output(name: str) -> None:
    network = copy.deepcopy(built(name).model.model)
    states: list[Tensor] = []
    network.class_embed.register_forward_pre_hook(lambda _, args: states.append(args[0][-1]))
    plain = read(network)
    outputs: list[Any] = []

    def backwards(_: nn.Module, __: Any, output: Any) -> None:
        output["pred_logits"], output["pred_boxes"] = output["pred_logits"].flip(1), output["pred_boxes"].flip(1)
        outputs.append(output)

    network.register_forward_hook(backwards)
    sorted_otherwise = read(network)
    for row in range(4):
        one, other = of_frame(plain, row), of_frame(sorted_otherwise, row)
        assert len(one["scores"]) > 5
        for query_scores, state, box in zip(
            other["probabilities"], other["box_embeddings"], other["boxes"], strict=True
        ):
            place = (outputs[-1]["pred_logits"][row].sigmoid() - query_scores).abs().amax(1).argmin()
            assert torch.equal(state, states[-1][row, QUERIES - 1 - place])
            assert bool((one["boxes"] == box).all(1).any())
        assert len({tuple(state.tolist()) for state in one["box_embeddings"]}) == len(one["scores"])


def test_a_changed_output_is_an_error() -> None:
    network = copy.deepcopy(built().model.model)

    def halve(_: nn.Module, __: Any, output: Any) -> None:
        output["pred_logits"] = output["pred_logits"] * 0.5

    network.register_forward_hook(halve)
    with pytest.raises(HookError, match="has the logits of no query"):
        read(network)


def test_columns_and_frame_embeddings() -> None:
    pool = read(built())
    assert pool.probabilities is not None
    assert pool.probabilities.shape[1] == CLASSES + 1
    assert pool.activation == "sigmoid"
    assert pool.frame_embeddings is not None
    maps: list[Tensor] = []
    backbone = built().model.model.backbone
    watch = backbone.register_forward_hook(lambda _, __, output: maps.append(output[0][-1].tensors))
    built().predict(pictures())
    watch.remove()
    assert torch.allclose(pool.frame_embeddings, maps[0].mean((2, 3)), atol=1e-5)


def test_the_object_its_network_and_its_training_are_read_alike() -> None:
    model = built()
    network = model.model.model
    flags = [module.training for module in network.modules()]
    model.train = None  # to call it would start a training
    try:
        plain = extract(model, [pictures()], progress=False)
    finally:
        del model.train
    assert plain.num_boxes
    assert [module.training for module in network.modules()] == flags
    assert unwrap(model) is network
    assert find_adapter(network).name == "RF-DETR"
    for held in (network, training_module(network), nn.DataParallel(network)):
        found = extract(held, [pictures()], progress=False)
        assert all(
            torch.equal(one, other) for (_, one), (_, other) in zip(plain.columns(), found.columns(), strict=True)
        )


def test_the_object_goes_where_a_detector_goes() -> None:
    """Through tiles, `select` and a callback, which look for its network by themselves."""
    model, images = built(), pictures()
    whole = TiledAdapter(RFDETRAdapter(threshold=0.6), tile=300, overlap=0)
    tiled = extract(model, [images], adapter=whole, progress=False)
    plain = read(model, images, threshold=0.6)
    assert torch.allclose(tiled.scores, plain.scores, atol=1e-5)  # type: ignore[arg-type]
    frames: Any = images * 2

    def loader_of(part: Any) -> DataLoader[Any]:
        return DataLoader(part, batch_size=2, collate_fn=list)

    assert len(select(model, loader_of(frames), num_of_samples=2, progress=False)) == 2
    sampler = SamplerCallback(
        LabelPool(frames, labeled=["0"]),
        make_loader=loader_of,
        stages=DetectionSampling(selection_strategy="auto", num_of_samples=2),
        schedule=EveryEpochs(1),
        options=PassOptions(progress=False),
    )
    chosen = sampler.on_epoch_end(model, 0)  # type: ignore[arg-type]
    assert chosen is not None
    assert len(chosen) == 2


def test_what_the_object_says_of_images_counts() -> None:
    model = copy.deepcopy(built())
    model.model.resolution, model.means, model.stds = SIDE + 32, [0.4, 0.5, 0.6], [0.3, 0.2, 0.1]
    model.model.postprocess.num_select = 7
    pool = extract(model, [pictures()], progress=False, adapter=RFDETRAdapter(every_class=True))
    for row, truth in enumerate(predicted(model, pictures(), 0.05)):
        assert torch.equal(of_frame(pool, row)["boxes"], truth["boxes"])
    assert pool.counts.tolist() == [7] * 4
    adapter = find_detector(model, adapter=RFDETRAdapter(resolution=SIDE, top_k=3)).adapter
    assert (adapter.resolution, adapter.top_k, adapter.mean) == (SIDE, 3, (0.4, 0.5, 0.6))  # type: ignore[attr-defined]


def test_integers_and_half_precision() -> None:
    images = [(image * 255).to(torch.uint8) for image in pictures()]
    exact = read(built(), images)
    assert torch.equal(exact.boxes, read(built(), [image / 255 for image in images]).boxes)
    half = read(built(), images, autocast=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        truths = predicted(built(), [image / 255 for image in images], 0.05)
    pairs = read(built(), images, autocast=torch.bfloat16, every_class=True)
    assert [len(truth["scores"]) for truth in truths] == pairs.counts.tolist()
    for row, truth in enumerate(truths):
        assert torch.allclose(of_frame(pairs, row)["scores"], truth["scores"], atol=0.01)
    assert half.num_boxes


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="images must have 3 channels; got 1"):
        read(built(), [torch.rand(1, 40, 40)])
    traded = copy.copy(built())
    traded.model = copy.copy(traded.model)
    traded.model.model = None
    with pytest.raises(UnsupportedModelError, match=r"a RFDETRNano, has no network any more, since"):
        read(traded)
    for options, message in (
        ({"threshold": 1.0}, "`threshold`"),
        ({"top_k": 0}, "`top_k`"),
        ({"resolution": 0}, "`resolution` must be at least 1"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            RFDETRAdapter(**options)  # type: ignore[arg-type]
    network = copy.deepcopy(built().model.model)
    network.backbone[0].encoder.shape = None
    with pytest.raises(HookError, match=r"does not say for what size .*RFDETRAdapter\(resolution"):
        read(network)
    del network.class_embed
    with pytest.raises(HookError, match=r"not built as RF-DETR's networks are: .*class_embed"):
        read(network)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_a_network_with_lora_layers_says_its_size() -> None:
    pytest.importorskip("peft")
    model = shallow(backbone_lora=True)
    assert len(extract(model, [pictures()], progress=False, adapter=RFDETRAdapter(threshold=0.0))) == 4
    assert len(extract(model.model.model, [pictures()], progress=False, adapter=RFDETRAdapter(threshold=0.0))) == 4
