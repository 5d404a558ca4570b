"""The adapter of zero-shot detectors against the host's own post-processing, and against loops over its queries."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tiny_zero_shot")

import torch
from tiny_zero_shot import CLASSES, MAKERS, QUERIES, WORDS, built, pictures
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.errors import HookError, InvalidInputError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.zero_shot import ZeroShotAdapter
from cval_torch.pool.pool import Pool

every_model = pytest.mark.parametrize("name", MAKERS)
OWL = ("OWL-ViT", "OWLv2")


def read(
    name: str, images: list[Tensor] | None = None, *, model: Any = None, autocast: Any = None, **options: Any
) -> Pool:
    detector, processor = built(name)
    adapter = ZeroShotAdapter(processor, CLASSES, **options)
    return extract(model or detector, [images or pictures()], adapter=adapter, autocast=autocast, progress=False)


def asked(name: str, images: list[Tensor]) -> tuple[dict[str, Tensor], Any]:
    """What the host's processor makes, and what the model answers."""
    model, processor = built(name)
    given = processor(images=images, text=[CLASSES] * len(images), do_rescale=False, return_tensors="pt")
    with torch.no_grad():
        return given, model(**given)


def of_frame(pool: Pool, row: int) -> dict[str, Tensor]:
    mine = slice(*pool.offsets[row : row + 2].tolist())
    names = ("boxes", "labels", "scores", "probabilities", "box_embeddings")
    return {name: getattr(pool, name)[mine] for name in names}


def word_scores(given: dict[str, Tensor], output: Any) -> list[tuple[int, str]]:
    """Place and word of every token of the prompt that is a word."""
    words = built("Grounding DINO")[1].tokenizer.convert_ids_to_tokens(given["input_ids"][0])
    return [(place, word) for place, word in enumerate(words) if word in WORDS]


def host_detections(name: str, images: list[Tensor], threshold: float) -> list[dict[str, Tensor]]:
    processor = built(name)[1]
    given, output = asked(name, images)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    if "DINO" in name:  # the host takes the best of all tokens; here only of those that are words
        places = word_scores(given, output)
        words = torch.zeros(output.logits.shape[-1], dtype=torch.bool)
        words[[place for place, _ in places]] = True
        output.logits = output.logits.masked_fill(~words, -torch.inf)
        found = processor.post_process_grounded_object_detection(
            output, given["input_ids"], threshold=threshold, target_sizes=sizes
        )
        best = output.logits.argmax(-1)
        owner = {place: next(k for k, text in enumerate(CLASSES) if word in text.split()) for place, word in places}
        truths = []
        for row, each in enumerate(found):
            kept = output.logits[row].amax(-1).sigmoid() > threshold
            labels = torch.tensor([owner[int(place)] for place in best[row][kept]], dtype=torch.int64)
            truths.append({"boxes": each["boxes"], "scores": each["scores"], "labels": labels})
        return truths
    found = processor.post_process_grounded_object_detection(
        output, text_labels=[CLASSES] * len(images), threshold=threshold, target_sizes=sizes
    )
    return list(found)


@every_model
@pytest.mark.parametrize("threshold", [0.05, 0.6, 0.999999999])
def test_detections_are_those_of_the_hosts_postprocessing(name: str, threshold: float) -> None:
    options: dict[str, Any] = {"every_class": True, "top_k": QUERIES} if name == "OmDet-Turbo" else {}
    if threshold > 0.9:
        options["threshold"] = threshold
        assert read(name, **options).num_boxes == 0 or name == "Grounding DINO"
    for images in (pictures(), pictures()[1:2]):
        pool = read(name, images, **{**options, "threshold": threshold})
        for row, truth in enumerate(host_detections(name, images, threshold)):
            found = of_frame(pool, row)
            order = truth["scores"].sort(descending=True, stable=True).indices
            height, width = images[row].shape[1:]
            boxes = truth["boxes"].clamp(min=0).minimum(torch.tensor([width, height, width, height]))
            assert torch.allclose(found["scores"], truth["scores"][order], atol=1e-6)
            assert torch.equal(found["labels"], torch.as_tensor(truth["labels"])[order].long())
            assert torch.allclose(found["boxes"], boxes[order], atol=1e-3)
    if threshold < 0.9:
        assert pool.num_boxes > 0


@every_model
def test_every_row_is_its_querys_even_if_a_hook_sorts_the_output(name: str) -> None:
    model = copy.deepcopy(built(name)[0])
    options: dict[str, Any] = {"threshold": 0.3, "iou": 1.0}
    plain = read(name, model=model, **options)
    keys = ("decoder_class_logits", "decoder_coord_logits") if name == "OmDet-Turbo" else ("logits", "pred_boxes")

    def backwards(_: nn.Module, __: Any, output: Any) -> None:
        for key in keys:
            output[key] = output[key].flip(1)

    model.register_forward_hook(backwards)
    sorted_otherwise = read(name, model=model, **options)
    for row in range(3):
        one, other = of_frame(plain, row), of_frame(sorted_otherwise, row)
        assert len(one["scores"]) > 3
        assert torch.equal(one["scores"], other["scores"])
        for key in ("boxes", "probabilities", "box_embeddings"):
            distances = (one[key][:, None] - other[key]).abs().amax(2)
            assert float(distances.amin(1).max()) < 1e-5, key
        states = one["box_embeddings"]
        assert len({tuple(state.tolist()) for state in states}) == len(states)

    def halve(_: nn.Module, __: Any, output: Any) -> None:
        output[keys[0]] = output[keys[0]] * 0.5

    model.register_forward_hook(halve)
    with pytest.raises(HookError, match="has the logits of no query"):
        read(name, model=model, **options)


@every_model
def test_prompts_are_the_columns(name: str) -> None:
    pool = read(name)
    assert pool.activation == "sigmoid"
    assert pool.probabilities is not None
    assert pool.probabilities.shape == (pool.num_boxes, len(CLASSES))
    assert torch.equal(pool.probabilities.gather(1, pool.labels[:, None])[:, 0], pool.scores)
    several = read(name, every_class=True, iou=1.0, top_k=1000)
    assert several.num_boxes > pool.num_boxes
    assert several.labels.unique().tolist() == [0, 1, 2]


def test_frame_embeddings_leave_padding_out() -> None:
    alone = [read("OWLv2", [image]).frame_embeddings for image in pictures()]
    states: list[Tensor] = []
    head = built("OWLv2")[0].class_head
    watch = head.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    asked("OWLv2", pictures())
    watch.remove()
    cells = states[0].unflatten(1, (6, 6))
    expected = [cells[0, :4].mean((0, 1)), cells[1].mean((0, 1)), cells[2, :, :4].mean((0, 1))]
    for one, other in zip(alone, expected, strict=True):
        assert one is not None
        assert torch.allclose(one[0], other, atol=1e-5)
    together = read("Grounding DINO").frame_embeddings
    assert together is not None
    assert len({tuple(vector.tolist()) for vector in together}) == 3


@pytest.mark.parametrize("name", ["Grounding DINO", "OWLv2", "OmDet-Turbo"])
def test_half_precision(name: str) -> None:
    half, plain = read(name, autocast=torch.bfloat16, threshold=0.2), read(name, threshold=0.2)
    assert half.num_boxes > 0
    assert half.box_embeddings is not None
    assert half.box_embeddings.shape[1] == plain.box_embeddings.shape[1]  # type: ignore[union-attr]


def test_what_a_model_remembers_of_prompts_is_left_alone_and_counts_for_nothing(tmp_path: Path) -> None:
    model, processor = copy.deepcopy(built("OmDet-Turbo"))
    asked("OmDet-Turbo", pictures())
    remembered = built("OmDet-Turbo")[0].language_cache_class.cache
    assert remembered
    with torch.no_grad():
        for name, embedding in remembered.items():  # of other weights
            model.language_cache_class.put(name, embedding * 2)
    adapter = ZeroShotAdapter(processor, CLASSES)
    loader: DataLoader[Any] = DataLoader(pictures(), batch_size=2, collate_fn=list)  # type: ignore[arg-type]
    pools = [extract(model, loader, adapter=adapter, cache_dir=tmp_path, progress=False) for _ in range(2)]
    assert torch.equal(pools[0].boxes, pools[1].boxes)  # type: ignore[arg-type]
    fresh = read("OmDet-Turbo").probabilities
    assert torch.allclose(pools[0].probabilities, fresh, atol=1e-4)  # type: ignore[arg-type]
    assert len(model.language_cache_class.cache) == len(remembered)


def test_without_prompts_the_model_says_what_it_needs() -> None:
    with pytest.raises(UnsupportedModelError, match="its classes are prompts, so tell them: pass adapter="):
        extract(built("OWLv2")[0], [pictures()], progress=False)
    with pytest.raises(UnsupportedModelError, match="`adapter` reads zero-shot detectors; it does not know `model`"):
        extract(nn.Linear(1, 1), [pictures()], adapter=ZeroShotAdapter(built("OWLv2")[1], CLASSES), progress=False)


def test_what_cannot_be_asked_is_refused() -> None:
    processor = built("Grounding DINO")[1]
    for classes, message in (
        ("cat", "must be a list of prompts; got 'cat'"),
        ([], "must be a list of prompts"),
        (["cat", " "], "prompts that differ, none of them empty"),
        (["cat", "cat "], "prompts that differ"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            ZeroShotAdapter(processor, classes)
    with pytest.raises(InvalidInputError, match="`processor` must be the model's processor; got str"):
        ZeroShotAdapter("checkpoint", ["cat"])
    with pytest.raises(InvalidInputError, match=r"`iou` must be in \(0, 1\]; got 0"):
        ZeroShotAdapter(processor, ["cat"], iou=0)
    adapter = ZeroShotAdapter(processor, ["cat. dog"])
    with pytest.raises(InvalidInputError, match="prompts without full stops"):
        extract(built("Grounding DINO")[0], [pictures()], adapter=adapter, progress=False)
    adapter = ZeroShotAdapter(processor, [f"{'very ' * place}cat" for place in range(8)])
    with pytest.raises(InvalidInputError, match=r"`classes` have 46 tokens; this model takes 32. Detect them in parts"):
        extract(built("Grounding DINO")[0], [pictures()], adapter=adapter, progress=False)
    with pytest.raises(InvalidInputError, match="a ZeroShotAdapter takes plain images"):
        extract(built("OWLv2")[0], [{"pixel_values": torch.rand(1, 3, 48, 48)}], adapter=adapter, progress=False)
