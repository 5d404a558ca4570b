"""The transformers adapter against the host's own post-processing, and against naive loops over its queries."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_detr import (
    CLASSES,
    MASKED,
    MODELS,
    QUERIES,
    SOFTMAX,
    SQUARE,
    built,
    frames_of,
    host_output,
    padded_batch,
    processor_of,
    run,
    run_batch,
    transformers,
)
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.finding import find_adapter
from cval_torch.hooks.transformers import TransformersAdapter

every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_detections_are_those_of_the_hosts_postprocessing(name: str) -> None:
    batch = padded_batch(name)
    sizes = torch.stack([label["orig_size"] for label in batch["labels"]])
    threshold = 0.7
    options = {"top_k": 10**6} if MODELS[name][2] in ("ConditionalDetr", "DeformableDetr", "RfDetr") else {}
    truths = processor_of(name).post_process_object_detection(
        host_output(name, batch), threshold=threshold, target_sizes=sizes, **options
    )
    found = frames_of(run_batch(TransformersAdapter(threshold=threshold), built(name), batch))
    assert sum(len(frame["scores"]) for frame in found) > 0
    for every, truth, size in zip(found, truths, sizes, strict=True):
        frame = every
        if MODELS[name][2] == "RTDetr" and len(truth["scores"]) == QUERIES:  # its 12 best pairs of query and class only
            seen = frame["scores"] >= truth["scores"].min()
            frame = {key: column[seen] for key, column in frame.items()}
        best: dict[tuple[float, ...], tuple[float, int]] = {}
        for score, label, box in zip(truth["scores"].tolist(), truth["labels"].tolist(), truth["boxes"], strict=True):
            query = tuple(box.tolist())  # a query's box is its own
            best[query] = max(best.get(query, (0.0, 0)), (score, label))
        height, width = size.tolist()
        expected = torch.tensor([[*query, score, label] for query, (score, label) in best.items()]).reshape(-1, 6)
        expected[:, :4] = expected[:, :4].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        rows = torch.cat([frame["boxes"], frame["scores"][:, None], frame["labels"][:, None]], dim=1)
        assert rows.shape == expected.shape
        if len(rows):  # equal scores may come in any order
            distances = (rows[:, None] - expected).abs().amax(2)
            assert float(distances.amin(0).max()) < 1e-3
            assert float(distances.amin(1).max()) < 1e-3


@pytest.mark.parametrize("name", [name for name in MODELS if name not in SOFTMAX])
@pytest.mark.parametrize("threshold", [0.05, 0.6])
def test_with_every_class_detections_are_the_hosts_own(name: str, threshold: float) -> None:
    """Each pair of a query and a class, in any order where scores are equal."""
    batch = padded_batch(name)
    sizes = torch.stack([label["orig_size"] for label in batch["labels"]])
    limit = QUERIES if MODELS[name][2] == "RTDetr" else 30
    options = {} if MODELS[name][2] == "RTDetr" else {"top_k": limit}
    truths = processor_of(name).post_process_object_detection(
        host_output(name, batch), threshold=threshold, target_sizes=sizes, **options
    )
    adapter = TransformersAdapter(threshold=threshold, top_k=limit, every_class=True)
    found = frames_of(run_batch(adapter, built(name), batch))
    for frame, truth, (height, width) in zip(found, truths, sizes.tolist(), strict=True):
        boxes = truth["boxes"].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
        assert torch.allclose(frame["scores"], truth["scores"], atol=1e-6)
        assert torch.equal(frame["labels"], truth["labels"])
        assert torch.allclose(frame["boxes"], boxes, atol=1e-3)
    if threshold < 0.1:
        assert max(len(frame["scores"]) for frame in found) == limit


@every_model
def test_every_row_is_its_querys(name: str) -> None:
    """Logits, boxes and the class head's own input, query by query, by loops."""
    batch = padded_batch(name)
    states: list[Tensor] = []
    watch = MODELS[name][3](built(name)).register_forward_pre_hook(lambda _, args: states.append(args[0]))
    try:
        output = host_output(name, batch)
    finally:
        watch.remove()
    if name == "YOLOS":  # its head has three layers, so look at the first one's input instead
        states = [output.last_hidden_state[:, -QUERIES:]]
    found = frames_of(run_batch(TransformersAdapter(threshold=0.2, top_k=9), built(name), batch))
    for row, frame in enumerate(found):
        expected = []
        for query in range(QUERIES):
            logits = output.logits[row, query].tolist()
            if name in SOFTMAX:
                total = sum(math.exp(logit) for logit in logits)
                vector = [math.exp(logit) / total for logit in logits]
                classes = vector[:-1]
            else:
                classes = vector = [1 / (1 + math.exp(-logit)) for logit in logits]
            if max(classes) > 0.2:
                expected.append((-max(classes), classes.index(max(classes)), query, vector))
        expected = sorted(expected)[:9]
        assert len(expected) == len(frame["scores"])
        for place, (score, label, query, vector) in enumerate(expected):
            assert frame["scores"][place].item() == pytest.approx(-score, abs=1e-5)
            assert frame["labels"][place].item() == label
            assert frame["probabilities"][place].tolist() == pytest.approx(vector, abs=1e-5)
            assert torch.equal(frame["box_embeddings"][place], states[-1][row, query])
            x, y, w, h = output.pred_boxes[row, query].tolist()
            height, width = batch["labels"][row]["orig_size"].tolist()
            box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            limits = [width, height, width, height]
            clipped = [min(max(side, 0), limit) for side, limit in zip(box, limits, strict=True)]
            assert frame["boxes"][place].tolist() == pytest.approx(clipped, abs=1e-2)


@every_model
def test_probabilities_scores_and_activation(name: str) -> None:
    batch = run_batch(TransformersAdapter(), built(name), padded_batch(name))
    softmax = name in SOFTMAX
    assert batch.activation == ("softmax" if softmax else "sigmoid")
    assert batch.probabilities.shape == (len(batch.scores), CLASSES + softmax)
    assert torch.equal(batch.probabilities.gather(1, batch.labels[:, None])[:, 0], batch.scores)
    assert int(batch.labels.max()) < CLASSES
    assert batch.labels.unique().numel() > 1
    if softmax:
        assert torch.allclose(batch.probabilities.sum(1), torch.ones(len(batch.scores)))


@every_model
def test_frame_embeddings_are_means_over_the_image_alone(name: str) -> None:
    batch = padded_batch(name)
    encoded: list[Any] = []
    places = {"YOLOS": "vit", "DETR with masks": "detr.model.encoder", "RF-DETR with masks": "model.model.backbone"}
    encoder = built(name).get_submodule(places.get(name, "model.backbone" if name in SQUARE else "model.encoder"))
    watch = encoder.register_forward_hook(
        lambda _, __, output: encoded.append(output if name in SQUARE else next(iter(output.values())))
    )
    try:
        output = host_output(name, batch)
    finally:
        watch.remove()
    found = run_batch(TransformersAdapter(), built(name), batch)
    if name == "YOLOS":
        truth = torch.stack([tokens[1 : 1 + 4 * 6].mean(0) for tokens in output.last_hidden_state])
    elif name in MASKED:
        tokens = encoded[0]
        if name in SQUARE:  # a map and its mask, or such pairs
            last = tokens[-1][0] if name == "LW-DETR" else tokens[0]
            tokens = last.flatten(2).transpose(1, 2)
        whole = {6: [(2, 3)], 96: [(8, 12)]}
        grids = whole.get(tokens.shape[1], [(8, 12), (4, 6), (2, 3), (1, 2)])
        cells = [(y / h, x / w) for h, w in grids for y in range(h) for x in range(w)]
        assert len(cells) == tokens.shape[1]
        rows = []
        for row, (height, width) in enumerate([(64, 96), (32, 64), (64, 32)]):
            inside = [place for place, (y, x) in enumerate(cells) if y * 64 < height and x * 96 < width]
            rows.append(tokens[row, inside].mean(0))
        truth = torch.stack(rows)
    else:
        truth = encoded[0][-1].mean((2, 3))
    assert torch.allclose(found.frame_embeddings, truth, atol=1e-5)


@pytest.mark.parametrize("name", ["RT-DETR", "YOLOS"])
def test_a_mask_that_the_model_does_not_take_still_tells_the_image_from_its_padding(name: str) -> None:
    batch = padded_batch("DETR")
    sizes = [label["orig_size"] for label in batch.pop("labels")]
    assert len(sizes) == 3
    parts = TransformersAdapter().split(batch)
    assert parts is not None
    assert parts.images["sizes"] == [(64, 96), (32, 64), (64, 32)]
    found = run_batch(TransformersAdapter(), built(name), batch)
    output = host_output(name, {"pixel_values": batch["pixel_values"]})
    if name == "YOLOS":
        second = output.last_hidden_state[1, 1:-QUERIES].reshape(4, 6, -1)[:2, :4].mean((0, 1))
    else:
        second = output.encoder_last_hidden_state[-1][1, :, :1, :2].mean((1, 2))
    assert torch.allclose(found.frame_embeddings[1], second, atol=1e-5)


@every_model
def test_plain_images_are_what_the_hosts_processor_makes_of_them(name: str) -> None:
    size = (
        {"height": 64, "width": 64}
        if name in ("RT-DETR", "RT-DETR v2", "D-FINE", "DEIMv2") or name in SQUARE
        else {"shortest_edge": 48, "longest_edge": 96}
    )
    processor = processor_of(name, size=size)
    images = [torch.rand(3, 40, 60), torch.rand(3, 80, 50), torch.rand(3, 40, 60)]
    adapter = TransformersAdapter(processor=processor, threshold=0.1)
    found = run(adapter, built(name), images)
    groups = [[0, 2], [1]] if name == "YOLOS" else [[0, 1, 2]]
    truths: dict[int, dict[str, Tensor]] = {}
    for rows in groups:
        members = [images[row] for row in rows]
        batch = dict(processor(images=members, do_rescale=False, return_tensors="pt"))
        batch["labels"] = [{"orig_size": torch.tensor(image.shape[1:])} for image in members]
        part = run_batch(adapter, built(name), batch)
        for row, frame, vector in zip(rows, frames_of(part), part.frame_embeddings, strict=True):
            truths[row] = frame | {"frame": vector}
    for row, frame in enumerate(frames_of(found)):
        assert len(frame["scores"]) > 0
        assert all(torch.allclose(frame[key].float(), truths[row][key].float(), atol=1e-4) for key in frame)
        assert torch.allclose(found.frame_embeddings[row], truths[row]["frame"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "shapes", "low"),
    [
        ("DETR", [(2, 3, 1066, 1066)], -2.2),
        ("RT-DETR", [(2, 3, 640, 640)], 0.0),
        ("YOLOS", [(1, 3, 800, 1056), (1, 3, 1056, 800)], -2.2),
        ("LW-DETR", [(2, 3, 64, 64)], -2.2),
        ("RF-DETR", [(2, 3, 64, 64)], -2.2),  # from 60, whole windows
    ],
)
def test_without_a_processor_the_familys_own_is_used(name: str, shapes: list[tuple[int, ...]], low: float) -> None:
    seen: list[Tensor] = []
    model = copy.deepcopy(built(name))
    model.register_forward_pre_hook(lambda _, __, given: seen.append(given["pixel_values"]), with_kwargs=True)
    run(TransformersAdapter(), model, [torch.zeros(3, 48, 64), torch.ones(3, 64, 48)])
    assert [tuple(pixels.shape) for pixels in seen] == shapes
    assert min(float(pixels.min()) for pixels in seen) == pytest.approx(low, abs=0.1)


def test_yolos_sees_no_padding_and_keeps_the_order() -> None:
    model = copy.deepcopy(built("YOLOS"))
    seen: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda _, __, given: seen.append(tuple(given["pixel_values"].shape)), with_kwargs=True
    )
    processor = processor_of("YOLOS", do_resize=False)
    images = [torch.rand(3, 64, 96), torch.rand(3, 96, 64), torch.rand(3, 64, 96), torch.rand(3, 32, 32)]
    adapter = TransformersAdapter(processor=processor, threshold=0.1)
    together = run(adapter, model, images)
    assert seen == [(2, 3, 64, 96), (1, 3, 96, 64), (1, 3, 32, 32)]
    for row, (image, frame) in enumerate(zip(images, frames_of(together), strict=True)):
        alone = run(adapter, model, [image])
        assert torch.allclose(alone.boxes, frame["boxes"], atol=1e-3)
        assert torch.allclose(alone.probabilities, frame["probabilities"], atol=1e-5)
        assert torch.allclose(alone.frame_embeddings[0], together.frame_embeddings[row], atol=1e-5)


def test_uint8_images_are_scaled() -> None:
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    adapter = TransformersAdapter(processor=processor_of("DETR", do_resize=False))
    found = run(adapter, built("DETR"), [image])
    assert torch.equal(found.boxes, run(adapter, built("DETR"), [image / 255]).boxes)


def test_batches_of_a_loader_are_read_with_their_ids() -> None:
    batch = padded_batch("Conditional DETR")
    samples = [
        {
            "pixel_values": batch["pixel_values"][row],
            "pixel_mask": batch["pixel_mask"][row],
            "labels": transformers.BatchFeature(batch["labels"][row]),
        }
        for row in range(3)
    ]

    def collate(members: list[dict[str, Any]]) -> Any:
        tensors = {key: torch.stack([member[key] for member in members]) for key in ("pixel_values", "pixel_mask")}
        return transformers.BatchFeature(tensors | {"labels": [member["labels"] for member in members]})

    model = built("Conditional DETR")
    assert isinstance(find_adapter(model), TransformersAdapter)
    pool = extract(model, DataLoader(samples, batch_size=2, collate_fn=collate), progress=False)  # type: ignore[arg-type]
    assert pool.frame_ids == ("40", "41", "42")
    truth = run_batch(TransformersAdapter(), model, batch)
    assert torch.equal(pool.counts, truth.counts)
    assert torch.allclose(pool.boxes, truth.boxes, atol=1e-2)
    assert torch.allclose(pool.probabilities, truth.probabilities, atol=1e-4)


def test_sizes_without_labels_are_those_of_the_image_the_model_saw() -> None:
    adapter = TransformersAdapter()
    pixels = torch.rand(2, 3, 40, 60)
    parts = adapter.split({"pixel_values": pixels})
    assert parts is not None
    assert (parts.images["sizes"], parts.count, parts.targets) == ([(40, 60), (40, 60)], 2, None)
    parts = adapter.split({"pixel_values": pixels, "labels": [{"image_id": 7}, {"image_id": 8}]})
    assert parts is not None
    assert parts.images["sizes"] == [(40, 60), (40, 60)]
    assert [target["image_id"] for target in parts.targets or ()] == [7, 8]


def test_batches_that_cannot_be_read_are_refused() -> None:
    adapter = TransformersAdapter()
    assert adapter.split([torch.rand(3, 8, 8)]) is None
    assert adapter.split({"images": torch.rand(1, 3, 8, 8)}) is None
    with pytest.raises(InvalidInputError, match=r"`pixel_values` must be a tensor \(N, C, H, W\).*got list"):
        adapter.split({"pixel_values": [torch.rand(3, 8, 8)]})
    labels = [{"orig_size": torch.tensor([8, 8])}, {"image_id": 3}]
    with pytest.raises(InvalidInputError, match="label 1 has none"):
        adapter.split({"pixel_values": torch.rand(2, 3, 8, 8), "labels": labels})


@every_model
def test_no_detections(name: str) -> None:
    batch = run_batch(TransformersAdapter(threshold=0.999999), built(name), padded_batch(name))
    assert batch.counts.tolist() == [0, 0, 0]
    width = CLASSES + (name in SOFTMAX)
    assert (batch.boxes.shape, batch.probabilities.shape, batch.box_embeddings.shape) == ((0, 4), (0, width), (0, 32))
    assert batch.frame_embeddings.shape == (3, 32)


def test_the_best_are_kept_first() -> None:
    few = run_batch(TransformersAdapter(top_k=3), built("RT-DETR"), padded_batch("RT-DETR"))
    many = run_batch(TransformersAdapter(), built("RT-DETR"), padded_batch("RT-DETR"))
    assert few.counts.tolist() == [3, 3, 3]
    for some, every in zip(frames_of(few), frames_of(many), strict=True):
        assert torch.equal(some["scores"], every["scores"].sort(descending=True).values[:3])


@pytest.mark.parametrize("name", ["DETR", "Deformable DETR", "RT-DETR", "YOLOS"])
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = built(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    images = [torch.rand(3, 64, 64) for _ in range(2)]
    adapter = TransformersAdapter(processor=processor_of(name, do_resize=False))
    extract(model, DataLoader(images, batch_size=2), adapter=adapter, progress=False)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [len(module._forward_hooks) for module in model.modules()] == hooks


def test_classes_derived_from_a_family_are_known_and_others_are_not() -> None:
    class Ours(transformers.DetrForObjectDetection):
        pass

    adapter = TransformersAdapter()
    assert adapter.matches(Ours(built("DETR").config))
    assert not adapter.matches(built("DETR").model)
    with pytest.raises(UnsupportedModelError, match="DETR"):
        find_adapter(built("DETR").model.encoder)
    with pytest.raises(InvalidInputError, match="`model` must be one of DetrForObjectDetection"):
        adapter.modules(nn.Linear(1, 1))


def changing(name: str, change: Callable[[Any], None]) -> Any:
    """A model of its own with a forward hook that changes the output."""
    model = copy.deepcopy(built(name))
    model.register_forward_hook(lambda _, __, output: change(output))
    return model


def keep_every_other_backwards(output: Any) -> None:
    order = torch.arange(QUERIES - 1, -1, -2)
    output.logits, output.pred_boxes = output.logits[:, order], output.pred_boxes[:, order]


@every_model
def test_queries_that_a_hook_sorts_and_filters_keep_their_states(name: str) -> None:
    batch = padded_batch(name)
    truths = frames_of(run_batch(TransformersAdapter(), built(name), batch))
    found = frames_of(run_batch(TransformersAdapter(), changing(name, keep_every_other_backwards), batch))
    seen = 0
    for truth, frame in zip(truths, found, strict=True):
        assert 0 < len(frame["scores"]) < len(truth["scores"])
        for box, vector, state in zip(frame["boxes"], frame["probabilities"], frame["box_embeddings"], strict=True):
            fitting = ((truth["boxes"] - box).abs().amax(1) < 1e-3) & (
                (truth["probabilities"] - vector).abs().amax(1) < 1e-5
            )
            (query,) = fitting.nonzero().flatten().tolist()
            assert torch.equal(state, truth["box_embeddings"][query])
            seen += 1
    assert seen > 5


def test_queries_that_a_hook_changes_are_an_error() -> None:
    def calibrate(output: Any) -> None:
        output.logits = output.logits / 2

    with pytest.raises(HookError, match=r"has the logits of no query.*Remove it, or read the output by an adapter"):
        run_batch(TransformersAdapter(), changing("RT-DETR", calibrate), padded_batch("RT-DETR"))


def test_boxes_with_nan_are_refused() -> None:
    def spoil(output: Any) -> None:
        output.pred_boxes[1, 3, 2] = torch.nan

    with pytest.raises(InvalidInputError, match="NaN or inf in the boxes of image 1"):
        run_batch(TransformersAdapter(), changing("DETR", spoil), padded_batch("DETR"))


def test_a_model_whose_class_head_is_elsewhere_is_an_error() -> None:
    model = copy.deepcopy(built("DETR"))
    model.another_head = model.class_labels_classifier
    del model.class_labels_classifier
    with pytest.raises(HookError, match="DetrForObjectDetection has no `class_labels_classifier`, where DETR has"):
        TransformersAdapter().modules(model)


def test_a_model_that_gives_nan_is_refused() -> None:
    model = copy.deepcopy(built("DETR"))
    model.class_labels_classifier.bias.data[2] = torch.nan
    with pytest.raises(InvalidInputError, match="NaN or inf in the class logits of image 0"):
        run_batch(TransformersAdapter(), model, padded_batch("DETR"))


@pytest.mark.parametrize("options", [{"threshold": -0.1}, {"threshold": 1.0}, {"top_k": 0}, {"processor": "detr"}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"`{next(iter(options))}` must be"):
        TransformersAdapter(**options)


def test_a_detector_whose_rows_are_not_its_queries_is_refused_with_the_reason() -> None:
    model = torch.nn.Module()
    model.__class__ = type("PPDocLayoutV2ForObjectDetection", (nn.Module,), {})
    for adapter in (None, TransformersAdapter()):
        with pytest.raises(UnsupportedModelError, match=r"PPDocLayoutV2.*: it sorts the logits and boxes"):
            find_adapter(model, adapter)
