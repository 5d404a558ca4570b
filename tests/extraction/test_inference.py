"""The pass itself, batch by batch, over an adapter whose numbers a test chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from numbered_rows import Rows, Stream
from one_box import OneBox
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cval_torch.errors import ExtractionError, HookError, InvalidInputError, LoaderOrderError
from cval_torch.extraction.ids import FrameNames
from cval_torch.extraction.inference import Inference, device_of, on_device
from cval_torch.extraction.loading import plan_loading
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import BatchParts, FrameBatch
from cval_torch.pool.pool import Pool


class Mirror(OneBox):
    """Scores each frame by a hundredth of what its pixels are: the row, for `Rows`. The model is run, and not used."""

    def forward(self, model: nn.Module, images: Any) -> Tensor:
        model(torch.ones(1))
        return torch.stack([image.mean() / 100 for image in images])

    def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
        frames = super().read(model, recording, output)
        frames.scores = output
        frames.probabilities = torch.stack([output, 1 - output], 1)
        frames.activation = "softmax"
        frames.box_embeddings = output[:, None].double()
        return frames


def inference(loader: Any = None, adapter: Any = None, **options: Any) -> Inference:
    own = {name: options.pop(name) for name in ("done", "process", "watch") if name in options}
    plan = plan_loading(DataLoader(Rows(7), batch_size=2) if loader is None else loader)
    model = nn.Linear(1, 1)
    return Inference(model, adapter or Mirror(), plan, torch.device("cpu"), PassOptions(**options), **own)


def ran(one: Inference, numbers: list[int] | None = None) -> list[tuple[int, Pool]]:
    kept: list[tuple[int, Pool]] = []
    with torch.no_grad():
        for frames in one.run(FrameNames(one.plan.dataset), lambda n, pool, _: kept.append((n, pool)), numbers):
            assert frames == len(kept[-1][1]), "a batch is kept before the pass goes on"
    return kept


@pytest.mark.parametrize("numbers", [None, [0, 1, 2, 3], [3, 1], []])
def test_batches_of_a_plan_are_read_in_turn(numbers: list[int] | None) -> None:
    one = inference()
    kept = ran(one, numbers)
    batches = [[0, 1], [2, 3], [4, 5], [6]]
    wanted = range(4) if numbers is None else numbers
    assert [number for number, _ in kept] == list(wanted)
    for number, pool in kept:
        assert pool.indices is not None
        assert pool.scores is not None
        assert pool.indices.tolist() == batches[number]
        assert pool.frame_ids == tuple(str(row) for row in batches[number])
        assert pool.scores.tolist() == pytest.approx([row / 100 for row in batches[number]])
    assert one.done == sum(len(batches[number]) for number in wanted)


class Spoiled(Rows):
    """Rows of which one image has a number that is not finite."""

    def __init__(self, count: int, row: int, number: float) -> None:
        super().__init__(count)
        self.row, self.number = row, number

    def __getitem__(self, index: int) -> Tensor:
        image = super().__getitem__(index).clone()
        if index == self.row:
            image.view(-1)[-1] = self.number
        return image


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("kept", [True, False])
def test_an_image_with_nan_is_refused_by_its_id(number: float, kept: bool) -> None:
    loader = DataLoader(Spoiled(7, 5, number), batch_size=2)
    with pytest.raises(InvalidInputError, match=r"batch 2, after 4 frames: NaN or inf in the image of frame '5'"):
        ran(inference(loader, frame_embeddings=kept))


def test_nan_within_the_model_is_refused_by_the_id_of_its_frame() -> None:
    adapter = Mirror(frame_embeddings=lambda output: torch.where(output > 0.045, torch.nan, output)[:, None])
    for kept in (True, False):
        with pytest.raises(InvalidInputError, match=r"batch 2, .*: NaN or inf in the frame embeddings of frame '5'"):
            ran(inference(adapter=adapter, frame_embeddings=kept))


def test_numbers_of_an_adapter_of_the_users_are_checked_in_the_first_batch_with_boxes() -> None:
    class Wrong(Mirror):
        def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
            frames = super().read(model, recording, output)
            frames.boxes = torch.tensor([[0.0, 0.0, 2000.0, 9.0]]).repeat(len(output), 1)
            if output[0] == 0:  # nothing is found in the first batch
                nothing = {name: getattr(frames, name)[:0] for name in ("boxes", "labels", "scores", "probabilities")}
                frames = FrameBatch(torch.zeros(len(output), dtype=torch.int64), activation="softmax", **nothing)
            return frames

    adapter = Wrong()
    with pytest.raises(HookError, match=r"batch 1, after 2 frames: what one box read is wrong: `boxes` must be x1, y1"):
        ran(inference(adapter=adapter, box_embeddings=False))


def test_without_batches_to_read_no_worker_is_started() -> None:
    one = inference(DataLoader(Rows(7), batch_size=2, num_workers=1))
    object.__setattr__(one.plan, "loader", None)
    assert ran(one, []) == []


def test_a_stream_is_counted_from_what_was_done_before() -> None:
    kept = ran(inference(DataLoader(Stream(3), batch_size=2), done=10))
    assert [pool.frame_ids for _, pool in kept] == [("10", "11"), ("12",)]
    assert [pool.indices for _, pool in kept] == [None, None]


def test_columns_are_as_the_options_say() -> None:
    ((_, pool), *_) = ran(inference(probabilities=False, embedding_dtype=torch.float16))
    assert [name for name, _ in pool.columns()] == ["offsets", "indices", "boxes", "labels", "scores", "box_embeddings"]
    assert pool.activation is None
    assert pool.box_embeddings is not None
    assert pool.box_embeddings.dtype == torch.float16
    ((_, pool), *_) = ran(inference())
    assert pool.box_embeddings is not None
    assert (pool.activation, pool.box_embeddings.dtype) == ("softmax", torch.float32)


def test_targets_are_shown_before_the_batch_is_inferred() -> None:
    seen: list[Any] = []
    samples = [(torch.full((1, 2, 2), float(row)), {"image_id": f"i{row}"}) for row in range(3)]
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=2,
        collate_fn=lambda batch: tuple(zip(*batch, strict=True)),  # type: ignore[arg-type]
    )

    class Late(Mirror):
        def forward(self, model: nn.Module, images: Any) -> Tensor:
            seen.append("inferred")
            return super().forward(model, images)

    ran(inference(loader, Late(), watch=lambda *given: seen.append(given)))
    assert seen == [
        (["i0", "i1"], [0, 1], [{"image_id": "i0"}, {"image_id": "i1"}]),
        "inferred",
        (["i2"], [2], [{"image_id": "i2"}]),
        "inferred",
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidInputError("bad"), InvalidInputError),
        (HookError("bad"), HookError),
        (LoaderOrderError("bad"), LoaderOrderError),
        (KeyError("bad"), ExtractionError),
        (RuntimeError("bad"), ExtractionError),
    ],
)
def test_an_error_says_where_it_was(error: Exception, kind: type[Exception]) -> None:
    class Breaking(Mirror):
        def forward(self, model: nn.Module, images: Any) -> Tensor:
            if float(images[0].mean()) == 4:
                raise error
            return super().forward(model, images)

    one = inference(adapter=Breaking(), done=20, process="rank 1 of 2, ")
    with pytest.raises(kind, match=r"^rank 1 of 2, batch 2, after 23 frames: .*bad") as caught:
        ran(one, [3, 1, 2])
    assert caught.value.__cause__ is error
    if isinstance(caught.value, ExtractionError):
        assert (caught.value.batch, caught.value.frames_done) == (2, 23)
        assert str(caught.value).endswith(" (when the model was given frames '4' to '5')")


def test_frames_that_get_lost_are_an_error() -> None:
    class Losing(Mirror):
        def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
            return super().read(model, recording, output[1:])

    with pytest.raises(HookError, match="one box read 1 frames of a batch of 2"):
        ran(inference(adapter=Losing()))
    dropping = DataLoader(Rows(4), batch_size=2, collate_fn=lambda samples: torch.stack(samples[1:]))
    with pytest.raises(LoaderOrderError, match=r"the loader gave 1 frames for 2 rows \(0 ... 1\)"):
        ran(inference(dropping))


def test_all_tensors_of_a_batch_are_moved() -> None:
    """To a device that has no memory; what is no tensor stays what it is."""
    seen: list[Any] = []

    class Noting(Mirror):
        def forward(self, model: nn.Module, images: Any) -> Tensor:
            seen.append(images)
            return super().forward(model, [torch.zeros(1)] * 2)

    def split(batch: Tensor) -> BatchParts:
        return BatchParts({"a": batch, "b": [batch, (batch, "text")], "c": 3}, len(batch))

    one = inference(adapter=Noting(), split=split)
    one.device = torch.device("meta")
    ran(one, [0])
    (moved,) = seen
    assert isinstance(moved, Mapping)
    assert (moved["a"].device.type, moved["b"][0].device.type, moved["b"][1][0].device.type) == ("meta",) * 3
    assert (moved["b"][1][1], moved["c"]) == ("text", 3)
    assert isinstance(moved["b"][1], tuple)


class Movable(nn.Module):
    """Notes where it is sent, and stays."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.sent: list[str] = []

    def to(self, device: Any) -> Movable:  # type: ignore[override]
        self.sent.append(str(device))
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("breaks", [False, True])
def test_the_model_is_moved_for_the_pass_and_back(breaks: bool) -> None:
    model = Movable()

    def work() -> None:
        with on_device(model, "meta") as where:
            assert where == torch.device("meta")
            assert model.sent == ["meta"]
            if breaks:
                raise KeyboardInterrupt

    if breaks:
        with pytest.raises(KeyboardInterrupt):
            work()
    else:
        work()
    assert model.sent == ["meta", "cpu"]


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_a_model_that_is_there_is_not_moved(device: Any) -> None:
    model = Movable()
    with on_device(model, device) as where:
        assert where == torch.device("cpu")
    assert model.sent == []


def test_where_a_model_is() -> None:
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(nn.Linear(1, 1), "meta") == torch.device("meta")
    assert device_of(nn.ReLU()) == torch.device("cpu")
    buffered = nn.ReLU()
    buffered.register_buffer("mean", torch.zeros(1, device="meta"))
    assert device_of(buffered) == torch.device("meta")


def test_an_adapter_runs_without_gradients_in_eval_mode() -> None:
    class Asserting(Mirror):
        def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
            assert not torch.is_grad_enabled()
            assert not model.training
            return super().forward(model, images)

        def read(self, model: nn.Module, recording: Any, output: Tensor) -> FrameBatch:
            assert not torch.is_grad_enabled()
            return super().read(model, recording, output)

    with torch.enable_grad():
        pool = extract(nn.Linear(1, 1), DataLoader(Rows(3)), adapter=Asserting(), progress=False)
        assert torch.is_grad_enabled()
    assert len(pool) == 3
