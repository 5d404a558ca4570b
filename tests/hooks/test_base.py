"""The protocol of adapters: who keeps it, and what an extraction asks of whom."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from one_box import OneBox
from tiny_torchvision import images, tiny
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.extraction.passes import extract
from cval_torch.hooks import torchvision as adapters
from cval_torch.hooks.base import BatchParts, Call, DetectorAdapter, FrameBatch, Later, Recording, SplitsBatches
from cval_torch.hooks.tiles import TiledAdapter
from cval_torch.pool.pool import Pool

FAMILIES = {
    "torchvision": ["RCNNAdapter", "RetinaNetAdapter", "FCOSAdapter", "SSDAdapter"],
    "effdet": ["EffDetAdapter"],
    "rfdetr": ["RFDETRAdapter"],
    "transformers": ["TransformersAdapter"],
    "ultralytics": ["UltralyticsAdapter"],
    "ultralytics_rtdetr": ["UltralyticsRTDETRAdapter"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in FAMILIES.items() for name in names])
def test_every_family_keeps_it(module: str, name: str) -> None:
    """Method by method, with the arguments that the extraction gives."""
    adapter = getattr(importlib.import_module(f"cval_torch.hooks.{module}"), name)()
    assert isinstance(adapter, DetectorAdapter)
    assert isinstance(adapter.name, str)
    for method in ("matches", "modules", "forward", "read"):
        wanted = list(inspect.signature(getattr(DetectorAdapter, method)).parameters)[1:]
        assert list(inspect.signature(getattr(adapter, method)).parameters) == wanted
    assert adapter.matches(nn.Linear(1, 1)) is False


def test_who_does_not_keep_it() -> None:
    for missing in ("matches", "modules", "forward", "read", "name"):
        names = {"matches", "modules", "forward", "read", "name"} - {missing}
        partial = type("Partial", (), dict.fromkeys(names, lambda *_: None))()
        assert not isinstance(partial, DetectorAdapter), missing
    assert not isinstance(OneBox(), SplitsBatches)


def test_the_rows_of_a_batch_are_columns_of_a_pool() -> None:
    """Every column of a `FrameBatch` that is no count is one of a `Pool`, with the same name."""
    columns = {field.name for field in dataclasses.fields(FrameBatch)} - {"counts"}
    assert columns <= {field.name for field in dataclasses.fields(Pool)}
    counts, boxes = torch.tensor([1]), torch.zeros(1, 4)
    batch = FrameBatch(counts, boxes, labels=torch.tensor([1]), scores=torch.tensor([0.5]))
    for name in ("probabilities", "activation", "box_embeddings", "frame_embeddings"):
        assert getattr(batch, name) is None
    assert BatchParts([boxes], 1).targets is None


def test_what_an_extraction_asks_in_which_order() -> None:
    asked: list[Any] = []

    class Telling(OneBox):
        def matches(self, model: nn.Module) -> bool:
            asked.append("matches")
            return True

        def modules(self, model: nn.Module) -> dict[str, nn.Module]:
            asked.append("modules")
            return {"layer": model}

        def split(self, batch: Any) -> BatchParts | None:
            asked.append(("split", len(batch)))
            return BatchParts(list(batch), len(batch)) if len(batch) == 2 else None

        def forward(self, model: nn.Module, images: Any) -> Tensor:
            asked.append(("forward", len(images), model.training))
            return super().forward(model, images)

        def read(self, model: nn.Module, recording: Mapping[str, Any], output: Tensor) -> FrameBatch:
            asked.append(("read", {name: len(calls) for name, calls in recording.items()}))
            (first, *_) = recording["layer"]
            assert isinstance(first, Call)
            assert torch.equal(model(*first.args, **first.kwargs), first.output)
            return super().read(model, recording, output)

    assert isinstance(Telling(), SplitsBatches)
    model = nn.Linear(1, 1)
    frames = [torch.rand(1, 2, 2) for _ in range(3)]
    loader: DataLoader[Any] = DataLoader(frames, batch_size=2)  # type: ignore[arg-type]
    assert len(extract(model, loader, adapter=Telling(), progress=False)) == 3
    assert asked == [
        "matches",
        "modules",
        ("split", 2), ("forward", 2, False), ("read", {"layer": 2}),
        ("split", 1), ("forward", 1, False), ("read", {"layer": 1}),
    ]  # fmt: skip


def test_a_recording_knows_the_images_and_their_sizes() -> None:
    calls = {"layer": [Call((), {}, None)]}
    images = [torch.zeros(3, 4, 5), torch.zeros(1, 6, 7)]
    recording = Recording(calls, images=images)
    assert recording == calls
    assert recording.images is images
    assert recording.sizes == [(4, 5), (6, 7)]
    assert Recording(calls, images={"img": torch.zeros(2, 3, 4, 5)}).sizes is None
    assert Recording(calls, images=["a.jpg"]).sizes is None
    assert Recording(calls).sizes is None


def test_an_adapter_is_shown_the_images_of_its_batch() -> None:
    seen: list[Any] = []

    class Looking(OneBox):
        def matches(self, model: nn.Module) -> bool:
            return True

        def read(self, model: nn.Module, recording: Recording, output: Tensor) -> FrameBatch:
            seen.append((recording.sizes, recording.images))
            return super().read(model, recording, output)

    frames = [torch.rand(1, 2, 3), torch.rand(1, 4, 2), torch.rand(1, 5, 5)]
    extract(nn.Linear(1, 1), [frames[:2], frames[2:]], adapter=Looking(), progress=False)
    assert [sizes for sizes, _ in seen] == [[(2, 3), (4, 2)], [(5, 5)]]
    assert torch.equal(seen[1][1][0], frames[2])
    seen.clear()
    extract(nn.Linear(1, 1), [frames[2:]], adapter=TiledAdapter(Looking(), tile=3, overlap=1), progress=False)
    assert [sizes for sizes, _ in seen] == [[(3, 3)] * 4]
    assert torch.equal(seen[0][1][1], frames[2][:, :3, 2:])


def test_a_column_that_comes_later_is_computed_once_and_only_if_it_is_looked_at() -> None:
    asked: list[str] = []

    def column(name: str) -> Any:
        def compute() -> torch.Tensor:
            asked.append(name)
            return torch.ones(1, 3)

        return Later(compute).column

    def batch() -> FrameBatch:
        one, zeros = torch.tensor([1]), torch.zeros(1, 4)
        names = ("probabilities", "box_embeddings", "frame_embeddings")
        return FrameBatch(
            one, zeros, one, torch.ones(1), activation="softmax", **{name: column(name) for name in names}
        )

    frames = batch()
    assert asked == []
    assert frames.box_embeddings is frames.box_embeddings
    assert asked == ["box_embeddings"]
    frames.let_go(["probabilities", "box_embeddings"])
    assert frames.probabilities is frames.activation is None
    assert frames.box_embeddings is not None  # which was there already
    frames.settle()
    assert asked == ["box_embeddings", "frame_embeddings"]
    given = FrameBatch(
        torch.tensor([1]), torch.zeros(1, 4), torch.tensor([1]), torch.ones(1), torch.ones(1, 2), activation="sigmoid"
    )
    given.let_go(["probabilities"])
    assert given.activation == "sigmoid"  # what an adapter has computed is checked, also where it is not kept


@pytest.mark.parametrize("kept", [(), ("probabilities",), ("box_embeddings",), ("frame_embeddings",)])
@pytest.mark.parametrize("family", ["rcnn", "retinanet"])
def test_a_pass_computes_no_column_that_it_does_not_keep(
    family: str, kept: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for name in ("recover_rows", "box_means", "_frame_embeddings"):
        plain = getattr(adapters, name)
        monkeypatch.setattr(
            adapters,
            name,
            lambda *given, name=name, plain=plain, **named: called.append(name) or plain(*given, **named),
        )
    dropped = {name: False for name in ("probabilities", "box_embeddings", "frame_embeddings") if name not in kept}
    pool = extract(tiny(family).eval(), [images(2)], progress=False, **dropped)  # type: ignore[arg-type]
    assert pool.num_boxes
    paired = {"recover_rows"} if {"probabilities", "box_embeddings"} & set(kept) else set()
    pooled = {"box_means"} if "box_embeddings" in kept and family == "retinanet" else set()
    assert set(called) == paired | pooled | ({"_frame_embeddings"} if "frame_embeddings" in kept else set())
