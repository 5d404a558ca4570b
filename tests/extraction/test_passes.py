"""`extract` over real detectors: what it returns, and what it must never do to the user's model or numbers."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from one_box import OneBox
from tiny_rcnn import Frames, Stream, hooks_of, loader_of, make_faster_rcnn, pairs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from cval_torch.errors import ExtractionError, HookError, InvalidInputError, LoaderOrderError, UnsupportedModelError
from cval_torch.extraction.passes import extract
from cval_torch.hooks.base import BatchParts

# What it returns


def test_a_pool_says_what_the_model_says_of_each_frame() -> None:
    """The boxes are those of plain inference, frame by frame, in pixels of the loader's images."""
    model = make_faster_rcnn().eval()
    frames = Frames(5, image_ids=True)
    pool = extract(model, loader_of(frames), progress=False)
    assert pool.frame_ids == ("1000", "1001", "1002", "1003", "1004")
    assert pool.indices is not None
    assert pool.indices.tolist() == [0, 1, 2, 3, 4]
    with torch.no_grad():
        plain = model([frames[0][0], frames[1][0]]) + model([frames[2][0], frames[3][0]]) + model([frames[4][0]])
    assert pool.counts.tolist() == [len(output["boxes"]) for output in plain]
    assert pool.num_boxes > 10
    for name, key in (("boxes", "boxes"), ("labels", "labels"), ("scores", "scores")):
        assert torch.equal(getattr(pool, name), torch.cat([output[key] for output in plain]))
    assert pool.probabilities is not None
    assert pool.labels is not None
    assert pool.probabilities.shape == (pool.num_boxes, 5)
    assert torch.equal(pool.probabilities.gather(1, pool.labels[:, None])[:, 0], pool.scores)
    torch.testing.assert_close(pool.probabilities.sum(1), torch.ones(pool.num_boxes))
    assert pool.box_embeddings is not None
    assert pool.box_embeddings.shape == (pool.num_boxes, 32)
    assert pool.frame_embeddings is not None
    assert pool.frame_embeddings.shape[0] == 5


@pytest.mark.parametrize("options", [{"shuffle": True}, {"num_workers": 2}, {"drop_last": True}])
def test_loaders_of_any_order_give_the_same_frames(options: dict[str, Any]) -> None:
    model = make_faster_rcnn().eval()
    frames = Frames(5, size=48)
    expected = extract(model, loader_of(frames, batch_size=1), progress=False)
    pool = extract(model, loader_of(frames, **options), progress=False)
    assert pool.indices is not None
    assert sorted(pool.indices.tolist()) == [0, 1, 2, 3, 4]
    for row, index in enumerate(pool.indices.tolist()):
        mine, reference = pool.take([row]), expected.take([index])
        assert mine.frame_ids == (str(index),)
        torch.testing.assert_close(mine.boxes, reference.boxes, rtol=1e-4, atol=1e-3)


def test_rows_of_a_nested_subset_are_rows_of_the_loaders_dataset() -> None:
    subset = Subset(Frames(9), [8, 3, 5])
    pool = extract(make_faster_rcnn(), loader_of(subset), progress=False)
    assert pool.indices is not None
    assert pool.indices.tolist() == [0, 1, 2]
    assert pool.frame_ids == ("8", "3", "5")  # rows of the dataset beneath, which no other part of it has


def test_columns_that_are_not_wanted_are_not_there_and_embeddings_may_be_halves() -> None:
    model, frames = make_faster_rcnn(), Frames(3)
    pool = extract(
        model, loader_of(frames), probabilities=False, box_embeddings=False, frame_embeddings=False, progress=False
    )
    assert [name for name, _ in pool.columns()] == ["offsets", "indices", "boxes", "labels", "scores"]
    full = extract(model, loader_of(frames), progress=False)
    halves = extract(model, loader_of(frames), embedding_dtype=torch.float16, progress=False)
    assert full.box_embeddings is not None
    assert halves.box_embeddings is not None
    assert torch.equal(halves.box_embeddings, full.box_embeddings.half())
    assert halves.scores is not None
    assert halves.scores.dtype == torch.float32
    with pytest.raises(InvalidInputError, match=r"`embedding_dtype` must be a floating point dtype; got torch.int8"):
        extract(model, loader_of(frames), embedding_dtype=torch.int8)


def test_a_stream_gives_ids_and_no_rows() -> None:
    pool = extract(make_faster_rcnn(), loader_of(Stream()), progress=False)
    assert pool.frame_ids == ("0", "1", "2", "3", "4")
    assert pool.indices is None
    named = extract(
        make_faster_rcnn(), loader_of(Stream()), frame_id=lambda row, target: f"{row}-{target['row']}", progress=False
    )
    assert named.frame_ids[4] == "4-4"


def test_a_batch_of_ones_own_kind_is_taken_apart_by_split() -> None:
    loader = DataLoader(Frames(3, size=48), batch_size=2, collate_fn=lambda samples: {"x": [s[0] for s in samples]})
    with pytest.raises(InvalidInputError, match=r"batch 0, after 0 frames: .*a dict with \['x'\].*Pass `split=`"):
        extract(make_faster_rcnn(), loader, progress=False)
    pool = extract(
        make_faster_rcnn(), loader, split=lambda batch: BatchParts(batch["x"], len(batch["x"])), progress=False
    )
    assert len(pool) == 3


def test_a_pool_without_a_single_box_is_a_pool() -> None:
    pool = extract(make_faster_rcnn(score_thresh=0.99), loader_of(Frames(3)), progress=False)
    assert (len(pool), pool.num_boxes) == (3, 0)
    assert pool.probabilities is not None
    assert pool.probabilities.shape == (0, 5)


def test_autocast_is_what_the_user_says() -> None:
    seen: list[torch.dtype] = []

    class Watching(OneBox):
        def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
            seen.append(model(torch.ones(1)).dtype)
            return super().forward(model, images)

    model = nn.Linear(1, 1)
    extract(model, loader_of(Frames(2)), adapter=Watching(), autocast=torch.bfloat16, progress=False)
    extract(model, loader_of(Frames(2)), adapter=Watching(), progress=False)
    assert seen == [torch.bfloat16, torch.float32]
    pool = extract(make_faster_rcnn(), loader_of(Frames(2)), autocast=torch.bfloat16, progress=False)
    assert pool.num_boxes > 0


def test_progress_counts_frames_and_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    extract(make_faster_rcnn(), loader_of(Frames(5)), progress=False)
    assert capsys.readouterr().err == ""
    extract(make_faster_rcnn(), loader_of(Frames(5)))
    bar = capsys.readouterr().err
    assert "5/5" in bar
    assert "frame/s" in bar


def test_without_a_bar_the_lock_of_all_bars_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it holds tqdm's lock would stop the others that were forked with it."""

    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("a bar was made")

    monkeypatch.setattr("cval_torch.extraction.inference_pass.tqdm", unwanted)
    assert len(extract(make_faster_rcnn(), loader_of(Frames(3)), progress=False)) == 3


# What it must not do to the model


def test_every_submodule_keeps_its_own_flag_and_batchnorm_its_statistics() -> None:
    model = make_faster_rcnn().train()
    frozen = model.backbone[1]
    frozen.eval()
    flags = {name: module.training for name, module in model.named_modules()}
    before = copy.deepcopy(model.state_dict())
    pool = extract(model, loader_of(Frames(4)), progress=False)
    assert pool.num_boxes > 0  # a model in train mode would have asked for targets
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert not frozen.training
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(tensor.requires_grad for _, tensor in pool.columns())
    assert all(parameter.grad is None for parameter in model.parameters())


class Breaks(Frames):
    """Row 3 raises `error`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(6)
        self.error = error

    def __getitem__(self, row: int) -> Any:
        if row == 3:
            raise self.error
        return super().__getitem__(row)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError("disk"), ExtractionError), (SystemExit(3), SystemExit)],
)
def test_after_an_interruption_nothing_is_left_on_the_model(error: BaseException, raised: type[BaseException]) -> None:
    model = make_faster_rcnn().train()
    with pytest.raises(raised):
        extract(model, loader_of(Breaks(error)), progress=False)
    assert hooks_of(model) == 0
    assert all(module.training for module in model.modules())
    assert torch.is_grad_enabled()


def test_an_error_of_the_loader_or_the_model_carries_the_position() -> None:
    with pytest.raises(ExtractionError, match=r"batch 1, after 2 frames: frame '3' .*: OSError: disk\.") as caught:
        extract(make_faster_rcnn(), loader_of(Breaks(OSError("disk"))), progress=False)
    assert (caught.value.batch, caught.value.frames_done) == (1, 2)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_worker_that_dies_is_reported_with_the_position() -> None:
    """In a process of its own, where torch's handler of dead workers is taken away before it raises once more."""
    code = """
import os, signal, torch
from cval_torch import extract
from tiny_rcnn import Frames, loader_of, make_faster_rcnn

class DiesInWorker(Frames):
    def __getitem__(self, row):
        if row == 4 and torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)

try:
    extract(make_faster_rcnn(), loader_of(DiesInWorker(8), num_workers=1), progress=False)
finally:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    how = "RuntimeError: DataLoader worker .* (exited|killed)|ConnectionResetError|EOFError"  # whichever comes first
    message = rf"ExtractionError: batch \d, after \d frames: ({how})"
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
def test_wrapped_models_give_the_same_rows(wrap: Callable[[nn.Module], nn.Module]) -> None:
    frames = Frames(3)
    expected = extract(make_faster_rcnn(), loader_of(frames), progress=False)
    pool = extract(wrap(make_faster_rcnn()), loader_of(frames), progress=False)
    for (name, column), (_, reference) in zip(pool.columns(), expected.columns(), strict=True):
        assert torch.equal(column, reference), name


def test_a_model_that_runs_past_its_modules_is_refused() -> None:
    class Skips(OneBox):
        def forward(self, model: nn.Module, images: Sequence[Tensor]) -> Tensor:
            return torch.zeros(len(images), 1)

    with pytest.raises(HookError, match=r"batch 0, after 0 frames: .*layer"):
        extract(nn.Linear(1, 1), loader_of(Frames(2)), adapter=Skips(), progress=False)


def test_a_model_that_nobody_knows_is_refused_with_the_way_out() -> None:
    with pytest.raises(UnsupportedModelError, match=r"Linear.*Faster, Mask and Keypoint R-CNN.*adapter="):
        extract(nn.Linear(1, 1), loader_of(Frames(2)), progress=False)


# Numbers that must not get through


def bad_at(batch: int, make: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    calls = iter(range(100))
    return lambda output: make(output) if next(calls) == batch else torch.full_like(make(output), 0.5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5])
def test_a_score_that_is_none_names_its_batch_and_frame(value: float) -> None:
    adapter = OneBox(scores=bad_at(1, lambda output: torch.full((len(output),), value)))
    with pytest.raises(InvalidInputError, match=r"batch 1, after 2 frames: `scores` must be finite.*of frame '2'"):
        extract(nn.Linear(1, 1), loader_of(Frames(4)), adapter=adapter, progress=False)


def test_an_embedding_that_overflows_halves_names_its_batch_and_frame() -> None:
    adapter = OneBox(box_embeddings=lambda output: torch.full((len(output), 2), 1e5))
    assert len(extract(nn.Linear(1, 1), loader_of(Frames(4)), adapter=adapter, progress=False)) == 4
    with pytest.raises(InvalidInputError, match=r"batch 0, after 0 frames: `box_embeddings` must be finite; got inf"):
        extract(
            nn.Linear(1, 1),
            loader_of(Frames(4)),
            adapter=adapter,
            embedding_dtype=torch.float16,
            progress=False,
        )


def test_embeddings_that_change_their_size_or_number_name_their_batch() -> None:
    widths = iter([2, 3])
    adapter = OneBox(box_embeddings=lambda output: torch.zeros(len(output), next(widths)))
    with pytest.raises(
        InvalidInputError, match=r"batch 1, after 2 frames: .*`box_embeddings` had 2 numbers a row.*now it has 3"
    ):
        extract(nn.Linear(1, 1), loader_of(Frames(4)), adapter=adapter, progress=False)
    adapter = OneBox(box_embeddings=lambda output: torch.zeros(len(output) + 1, 2))
    with pytest.raises(
        HookError, match=r"batch 0.*`box_embeddings` of one box must be \(B, E\) with B=2; got \(3, 2\)"
    ):
        extract(nn.Linear(1, 1), loader_of(Frames(4)), adapter=adapter, progress=False)


def test_scores_of_exactly_0_and_1_are_fine() -> None:
    adapter = OneBox(scores=lambda output: torch.tensor([0.0, 1.0]))
    pool = extract(nn.Linear(1, 1), loader_of(Frames(2)), adapter=adapter, progress=False)
    assert pool.scores is not None
    assert pool.scores.tolist() == [0.0, 1.0]


def test_a_collate_function_that_drops_frames_is_refused() -> None:
    loader = loader_of(Frames(4), collate_fn=lambda samples: pairs(samples[:1]))
    with pytest.raises(LoaderOrderError, match=r"batch 0.*gave 1 frames for 2 rows \(0 ... 1\)"):
        extract(make_faster_rcnn(), loader, progress=False)


def test_an_adapter_that_loses_frames_is_refused() -> None:
    adapter = OneBox(counts=lambda output: torch.ones(1, dtype=torch.int64))
    with pytest.raises(HookError, match="one box read 1 frames of a batch of 2"):
        extract(nn.Linear(1, 1), loader_of(Frames(4)), adapter=adapter, progress=False)


def test_an_id_twice_is_refused_before_the_pass_ends() -> None:
    with pytest.raises(InvalidInputError, match=r"batch 1, after 2 frames: .*rows 0 and 2 are both 'even'"):
        extract(
            make_faster_rcnn(),
            loader_of(Frames(4)),
            frame_id=lambda row, _: "even" if row % 2 == 0 else str(row),
            progress=False,
        )


def test_no_frames_at_all_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="`loader` must yield at least one frame; got none"):
        extract(make_faster_rcnn(), loader_of(Frames(0)), progress=False)


def test_memory_stays_near_the_size_of_what_is_kept() -> None:
    """A fresh process extracts 100 MB of embeddings: its peak is less than twice that above the start."""
    code = """
import resource, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from one_box import OneBox
from cval_torch.extraction import extract
loader = DataLoader(TensorDataset(torch.zeros(25_000, 1, 1, 1)), batch_size=100)
wide = OneBox(box_embeddings=lambda output: torch.zeros(len(output), 1024))
thin = OneBox(box_embeddings=lambda output: torch.zeros(len(output), 1))
extract(nn.Linear(1, 1), loader, adapter=thin, progress=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
extract(nn.Linear(1, 1), loader, adapter=wide, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2 * 100_000 + 20_000  # KiB
