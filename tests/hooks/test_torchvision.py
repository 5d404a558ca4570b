"""Every torchvision detector beside a postprocessing that carries its rows along: see carried_rows.py."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
import torchvision
from carried_rows import Truth, carry_rows
from tiny_torchvision import FAMILIES, FEW, NUM_CLASSES, SMALL, class_layers, images, spread_logits, tiny
from torch import nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor

import cval_torch.hooks.torchvision as adapters
from cval_torch.errors import HookError, InvalidInputError
from cval_torch.hooks.finding import find_adapter
from cval_torch.hooks.recorder import Recorder

BUILDERS = {
    "fasterrcnn_resnet50_fpn": SMALL | FEW,
    "fasterrcnn_resnet50_fpn_v2": SMALL | FEW,
    "fasterrcnn_mobilenet_v3_large_fpn": SMALL | FEW,
    "fasterrcnn_mobilenet_v3_large_320_fpn": SMALL | FEW,
    "maskrcnn_resnet50_fpn": SMALL | FEW | {"box_detections_per_img": 4},
    "maskrcnn_resnet50_fpn_v2": SMALL | FEW | {"box_detections_per_img": 4},
    "keypointrcnn_resnet50_fpn": SMALL | FEW | {"box_detections_per_img": 3},
    "retinanet_resnet50_fpn": SMALL | {"topk_candidates": 50, "detections_per_img": 30},
    "retinanet_resnet50_fpn_v2": SMALL | {"topk_candidates": 50, "detections_per_img": 30},
    "fcos_resnet50_fpn": SMALL | {"topk_candidates": 50, "detections_per_img": 30},
    "ssd300_vgg16": {"detections_per_img": 60},
    "ssdlite320_mobilenet_v3_large": {"detections_per_img": 60},
}


def build(name: str) -> nn.Module:
    """A detector that detects: random weights, with batch statistics of random images, and spread-out logits."""
    torch.manual_seed(0)
    model = getattr(torchvision.models.detection, name)(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, **BUILDERS[name]
    )
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.momentum = 1.0
    with torch.no_grad():
        model.eval()
        for module in norms:
            module.train()
        if norms:
            model.backbone(torch.randn(4, 3, *(2 * [320 if "ssd" in name else 64])))
        model.eval()
        spread_logits(model)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def detector(request):
    """Small, for what happens at the edges: the heads and the postprocessing are those of the full builders."""
    model = tiny(request.param)
    with torch.no_grad():
        spread_logits(model)
    return model


@pytest.fixture
def rescaled(detector):
    """A function that scales the layers behind the scores; they are put back."""
    layers = class_layers(detector)
    centerness = [module for name, module in detector.named_modules() if name.endswith("bbox_ctrness")]
    layers = [*layers, *centerness]
    before = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers]

    def rescale(*, weight: float):
        with torch.no_grad():
            for layer in layers:
                layer.weight *= weight
                layer.bias.zero_()
            for layer in centerness:
                layer.bias += weight
        return detector

    yield rescale
    with torch.no_grad():
        for layer, (weight, bias) in zip(layers, before, strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)


def settings(model: nn.Module) -> nn.Module:
    return model.roi_heads if hasattr(model, "roi_heads") else model


def read(model: nn.Module, batch, monkeypatch, *, near: float = 1e-6):
    """What the adapter read, the rows it found, the truth, and the box head's features, if it has one."""
    found, features = [], []
    recover = adapters.recover_rows

    def spy(*args, **kwargs):
        found.append(recover(*args, **kwargs))
        return found[-1]

    adapter = find_adapter(model)
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(adapters, "recover_rows", spy)
        truth = carry_rows(model, patch)
        with Recorder(adapter.modules(model)) as recorder, ExitStack() as stack:
            if hasattr(model, "roi_heads"):
                handle = model.roi_heads.box_head.register_forward_hook(lambda *call: features.append(call[2]))
                stack.callback(handle.remove)
            output = adapter.forward(model, batch)
            recorder.check()
            frames = adapter.read(model, recorder.recording, output).settle()
    check_columns(frames, output, near)
    check_rows(truth, found[0], output)
    return frames, found[0], truth, features


def check_columns(frames, output, near: float):
    scores = torch.cat([each["scores"] for each in output]).float()
    assert frames.counts.tolist() == [len(each["scores"]) for each in output]
    torch.testing.assert_close(frames.boxes, torch.cat([each["boxes"] for each in output]).float(), rtol=0, atol=0)
    assert torch.equal(frames.labels, torch.cat([each["labels"] for each in output]))
    assert torch.equal(frames.scores, scores)
    own = frames.probabilities.gather(1, frames.labels[:, None])[:, 0]
    torch.testing.assert_close(own, scores, rtol=0, atol=near)
    assert frames.probabilities.shape == (len(scores), NUM_CLASSES)
    assert frames.box_embeddings.shape[0] == len(scores)
    assert frames.frame_embeddings.shape[0] == len(output)
    for column in (frames.boxes, frames.scores, frames.probabilities, frames.box_embeddings, frames.frame_embeddings):
        assert column.dtype == torch.float32
        assert column.isfinite().all()


def check_rows(truth: Truth, found: torch.Tensor, output) -> None:
    """Each row is the true one, or one whose label, score and box nobody could tell from it."""
    first_row = first = 0
    for frame, expected in enumerate(truth.rows):
        rows = found[first : first + len(expected)] - first_row
        labels = output[frame]["labels"]
        assert ((rows >= 0) & (rows < len(truth.probabilities[frame]))).all()
        for column in (truth.probabilities[frame][..., None], truth.boxes[frame]):
            torch.testing.assert_close(column[rows, labels], column[expected, labels], rtol=0, atol=0)
        pairs = torch.stack([rows, labels], 1)
        assert len(pairs.unique(dim=0)) == len(pairs)
        first += len(expected)
        first_row += len(truth.probabilities[frame])


def wrong(found, truth: Truth) -> int:
    """How many rows are not the truth's."""
    starts = torch.tensor([0] + [len(rows) for rows in truth.probabilities]).cumsum(0)
    expected = torch.cat([rows + start for rows, start in zip(truth.rows, starts, strict=False)])
    return int((found != expected).sum())


def expected_vectors(truth: Truth) -> torch.Tensor:
    return torch.cat([grades[rows] for rows, grades in zip(truth.rows, truth.probabilities, strict=True)]).float()


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_row_is_the_true_one(builder, monkeypatch):
    frames, found, truth, features = read(build(builder), images(), monkeypatch)
    assert frames.counts.sum() > 5
    assert wrong(found, truth) == 0
    torch.testing.assert_close(frames.probabilities, expected_vectors(truth), rtol=1e-6, atol=1e-7)
    if frames.activation == "softmax":
        torch.testing.assert_close(frames.probabilities.sum(1), torch.ones(len(frames.scores)))
    if features:
        assert torch.equal(frames.box_embeddings, features[0][found])


@pytest.mark.parametrize("threshold", [0.0, 0.999999])
def test_any_threshold(rescaled, monkeypatch, threshold):
    model = rescaled(weight=3.0)
    monkeypatch.setattr(settings(model), "score_thresh", threshold)
    frames, found, truth, _ = read(model, images(2), monkeypatch)
    assert (frames.scores > threshold).all()
    assert wrong(found, truth) <= int((frames.scores == 1).sum())


def test_frames_without_detections_among_others(detector, monkeypatch):
    with torch.no_grad():
        best = [float(each["scores"].max()) for each in detector(images(2))]
    assert best[0] != best[1]
    monkeypatch.setattr(settings(detector), "score_thresh", sum(best) / 2)
    frames, found, truth, _ = read(detector, images(2), monkeypatch)
    assert [count > 0 for count in frames.counts.tolist()] == [best[0] > best[1], best[1] > best[0]]
    assert wrong(found, truth) == 0


def test_no_detection_at_all(detector, monkeypatch):
    monkeypatch.setattr(settings(detector), "score_thresh", 1.0)
    frames, *_ = read(detector, images(2), monkeypatch)
    assert frames.counts.tolist() == [0, 0]
    assert frames.box_embeddings.shape[1] > 0
    assert frames.frame_embeddings.abs().sum() > 0


def test_equal_scores_are_told_apart_by_their_boxes(rescaled, monkeypatch):
    model = rescaled(weight=0.0)
    frames, found, _, features = read(model, images(2), monkeypatch)
    assert len(frames.scores.unique()) == 1
    if features:
        assert torch.equal(frames.box_embeddings, features[0][found])


def test_saturated_scores(rescaled, monkeypatch):
    model = rescaled(weight=200.0)
    frames, *_ = read(model, images(2), monkeypatch)
    assert (frames.scores == 1).float().mean() > 0.3


def test_few_detections_a_frame(detector, monkeypatch):
    monkeypatch.setattr(settings(detector), "detections_per_img", 2)
    frames, found, truth, _ = read(detector, images(2), monkeypatch)
    assert frames.counts.amax() == 2
    assert wrong(found, truth) == 0


def test_suppression_switched_off_keeps_twins_apart(rescaled, monkeypatch):
    model = rescaled(weight=200.0)
    monkeypatch.setattr(settings(model), "nms_thresh", 1.0)
    frames, *_ = read(model, images(2), monkeypatch)
    assert frames.counts.sum() > 3


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_autocast(family, scale, monkeypatch):
    model = tiny(family)
    with torch.no_grad():
        for layer in class_layers(model):
            layer.weight *= scale
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames, *_ = read(model, images(), monkeypatch, near=0.01)
    assert frames.counts.sum() > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_double_precision(family, monkeypatch):
    batch = [image.double() for image in images()]
    _, found, truth, _ = read(tiny(family).double(), batch, monkeypatch)
    assert wrong(found, truth) == 0


def test_a_backbone_of_one_map_and_another_predictor(monkeypatch):
    model = tiny("rcnn", num_classes=3)
    model.roi_heads.box_predictor = FastRCNNPredictor(1024, NUM_CLASSES)
    frames, found, truth, features = read(model, images(), monkeypatch)
    assert wrong(found, truth) == 0
    assert torch.equal(frames.box_embeddings, features[0][found])
    assert frames.frame_embeddings.shape == (3, 32)


def test_frame_embedding_leaves_the_padding_out():
    model, batch = tiny("rcnn"), images()
    maps = []
    model.backbone.register_forward_hook(lambda *call: maps.append(call[2]))
    frames = run(model, batch)
    for frame, (height, width) in enumerate([(42, 64), (64, 29), (48, 48)]):
        cells = maps[0][frame, :, : -(-height // 16), : -(-width // 16)]
        torch.testing.assert_close(frames.frame_embeddings[frame], cells.flatten(1).mean(1))


def run(model, batch):
    adapter = find_adapter(model)
    with torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        return adapter.read(model, recorder.recording, adapter.forward(model, batch)).settle()


def by_detection(frames) -> dict[tuple, torch.Tensor]:
    """What was read beside each detection, by what it is: its frame, label, score and box."""
    owners = torch.repeat_interleave(frames.counts)
    keys = torch.cat([owners[:, None], frames.labels[:, None], frames.scores[:, None], frames.boxes], 1).tolist()
    return {
        tuple(key): torch.cat([vector, embedding])
        for key, vector, embedding in zip(keys, frames.probabilities, frames.box_embeddings, strict=True)
    }


def hooked(model: nn.Module, change) -> nn.Module:
    """The detector with a forward hook that gives each frame's detections another order, or leaves some out."""
    model.register_forward_hook(
        lambda module, _, output: [{name: column[change(each)] for name, column in each.items()} for each in output]
    )
    return model


CHANGES = {
    "reversed": lambda each: torch.arange(len(each["scores"])).flip(0),
    "by area": lambda each: ((each["boxes"][:, 2:] - each["boxes"][:, :2]).prod(1)).argsort(),
    "one class": lambda each: (each["labels"] == each["labels"].mode().values).nonzero().squeeze(1),
    "every third": lambda each: torch.arange(0, len(each["scores"]), 3),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_detections_that_a_hook_sorts_or_filters_keep_their_rows(family, change):
    batch = images()
    before = by_detection(run(tiny(family), batch))
    model = hooked(tiny(family), CHANGES[change])
    frames = run(model, batch)
    with torch.no_grad():
        expected = torch.cat([each["scores"] for each in model(batch)])
    assert torch.equal(frames.scores, expected)
    after = by_detection(frames)
    assert len(after) == len(frames.scores) > 3
    for detection, row in after.items():
        torch.testing.assert_close(row, before[detection])


def test_a_subclass_of_mask_rcnn_that_filters_keeps_the_rows():
    class Sure(type(build("maskrcnn_resnet50_fpn"))):
        def forward(self, images, targets=None):
            return [{name: column[1::2] for name, column in each.items()} for each in super().forward(images, targets)]

    model = build("maskrcnn_resnet50_fpn")
    before = by_detection(run(model, images()))
    model.__class__ = Sure
    after = by_detection(run(model, images()))
    assert 0 < len(after) < len(before)
    for detection, row in after.items():
        torch.testing.assert_close(row, before[detection])


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("labels", lambda labels: labels % (NUM_CLASSES - 1) + 1),
        ("scores", lambda scores: scores * 0.9),
        ("boxes", lambda boxes: boxes / 2),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_detections_that_a_hook_changes_are_an_error(family, column, change):
    model = tiny(family)
    model.register_forward_hook(lambda module, _, output: [{**each, column: change(each[column])} for each in output])
    with pytest.raises(HookError, match=r"are no row of the recorded logits.* may sort or drop detections, but not"):
        run(model, images())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda output: {"detections": output}, "must return a list of dicts, one a frame; got dict"),
        (lambda output: [each["boxes"] for each in output], "must return a dict a frame; got Tensor for image 0"),
        (lambda output: [output[0], {"boxes": output[1]["boxes"]}], "`labels` missing, `scores` missing for image 1"),
        (lambda output: [{**each, "labels": each["labels"][1:]} for each in output], r"must return `boxes` \(B, 4\)"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_another_form_are_an_error(family, change, message):
    model = tiny(family)
    model.register_forward_hook(lambda module, _, output: change(output))
    with pytest.raises(HookError, match=message):
        run(model, images(2))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_head_with_nan_is_an_error(family, number):
    model = tiny(family)
    with torch.no_grad():
        class_layers(model)[0].bias[1] = number
    with pytest.raises(InvalidInputError, match=r"NaN or inf in .*logits.* of image 0 of the batch"):
        run(model, images(2))


@pytest.mark.parametrize("layer", ["cls_logits", "bbox_pred"])
def test_a_proposal_network_with_nan_is_an_error(layer):
    model = tiny("rcnn")
    with torch.no_grad():
        getattr(model.rpn.head, layer).bias[0] = torch.nan
    with pytest.raises(InvalidInputError, match="NaN or inf in the output of the region proposal network's head of"):
        run(model, images(2))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_with_nan_is_an_error_that_names_it(family):
    batch = images()
    batch[1][0, 5, 5] = torch.nan
    with pytest.raises(InvalidInputError, match=r"NaN or inf in the feature maps of image 1 of the batch"):
        run(tiny(family), batch)


def test_a_box_head_with_nan_is_an_error():
    model = tiny("rcnn")
    with torch.no_grad():
        model.roi_heads.box_predictor.bbox_pred.weight[5] = torch.nan
    with pytest.raises(InvalidInputError, match="NaN or inf in the box deltas of image 0"):
        run(model, images(2))


def test_a_proposal_network_of_ones_own_need_not_have_a_head():
    model = tiny("rcnn")

    class WholeImages(nn.Module):
        def forward(self, batch, features, targets=None):
            return [torch.tensor([[0.0, 0.0, width, height]]) for height, width in batch.image_sizes], {}

    model.rpn = WholeImages()
    model.roi_heads.score_thresh = 0.0
    assert run(model, images(2)).counts.sum() > 0


def test_scores_of_another_make_are_an_error(monkeypatch):
    model = tiny("rcnn")
    original = model.roi_heads.postprocess_detections

    def calibrated(*inputs):
        boxes, scores, labels = original(*inputs)
        return boxes, [score * 0.99 for score in scores], labels

    monkeypatch.setattr(model.roi_heads, "postprocess_detections", calibrated)
    with pytest.raises(HookError, match=r"detections are no row of the recorded logits; the first is in frame 0 of"):
        run(model, images())


def test_boxes_of_another_make_are_an_error(monkeypatch):
    model = tiny("rcnn")
    original = model.roi_heads.postprocess_detections

    def moved(*inputs):
        boxes, scores, labels = original(*inputs)
        return [box + 1 for box in boxes], scores, labels

    monkeypatch.setattr(model.roi_heads, "postprocess_detections", moved)
    with pytest.raises(HookError, match="are no row of the recorded logits"):
        run(model, images())


def test_a_predictor_of_another_form_is_an_error():
    model = tiny("rcnn")
    adapter = find_adapter(model)
    with torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        output = adapter.forward(model, images(1))
        call = recorder.recording["box_predictor"][0]
        call.output = (call.output[0], call.output[1][:, :4])
        with pytest.raises(HookError, match=r"logits \(P, C\) and deltas \(P, 4 \* C\) of P=\d+ proposals; got "):
            adapter.read(model, recorder.recording, output).settle()
        call.output = call.output[0]
        with pytest.raises(HookError, match="got Tensor"):
            adapter.read(model, recorder.recording, output).settle()


def test_a_head_of_another_form_is_an_error():
    model = tiny("retinanet")
    assert run(model, images(1)).counts.sum() > 0
    adapter = find_adapter(model)
    with torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        output = adapter.forward(model, images(1))
        recorder.recording["head"][0].output["cls_logits"] = torch.zeros(1, 5, NUM_CLASSES)
        with pytest.raises(
            HookError, match=r"`cls_logits` must be \(1, \d+, ...\) as the anchors are; got \(1, 5, 5\)"
        ):
            adapter.read(model, recorder.recording, output).settle()
        del recorder.recording["head"][0].output["cls_logits"]
        with pytest.raises(HookError, match=r"`head` must return a dict with .* got \['bbox_regression'\]"):
            adapter.read(model, recorder.recording, output).settle()


def test_two_passes_in_one_recording_are_an_error():
    model = tiny("rcnn")
    adapter = find_adapter(model)
    with torch.no_grad(), Recorder(adapter.modules(model)) as recorder:
        adapter.forward(model, images(1))
        output = adapter.forward(model, images(1))
        with pytest.raises(HookError, match=r"`transform` must run once a forward pass; it ran 2 times"):
            adapter.read(model, recorder.recording, output).settle()


def test_each_family_is_read_by_its_own_adapter():
    kinds = [adapters.RCNNAdapter, adapters.RetinaNetAdapter, adapters.FCOSAdapter, adapters.SSDAdapter]
    models = [tiny(family) for family in FAMILIES]
    for kind, model in zip(kinds, models, strict=True):
        assert [kind().matches(each) for each in models] == [each is model for each in models]
        assert type(find_adapter(model)) is kind
