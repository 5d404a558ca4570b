"""`extract(top_boxes=k)`: what is kept, what it saves, and that a pass goes on with the same k or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from best_boxes import embedding_best
from tiny_rcnn import Frames, loader_of, make_faster_rcnn
from torchvision.models.detection import FasterRCNN
from watched_passes import Watched, run, same

from cval_torch import DetectionSampling, LocalBackend, select
from cval_torch.errors import InvalidInputError, NotEnoughMemoryError
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.pass_folder import FORMAT
from cval_torch.extraction.passes import extract
from cval_torch.pool.files import read_record, write_record
from cval_torch.training.annotated import backend_knowing


def sizes_of(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("part-*/*")}


@pytest.mark.parametrize("k", [0, -1, True, 2.0, "3"])
def test_what_is_no_number_of_boxes_is_refused(k: Any) -> None:
    with pytest.raises(InvalidInputError, match="`top_boxes` must be an integer of at least 1, or None; got"):
        PassOptions(top_boxes=k)


@pytest.mark.parametrize("function", [extract, select])
def test_it_is_refused_before_the_pass(function: Any, faster_rcnn: FasterRCNN) -> None:
    frames = Watched()
    with pytest.raises(InvalidInputError, match="`top_boxes` must be an integer"):
        function(faster_rcnn, loader_of(frames), top_boxes=0, **({"num_of_samples": 2} if function is select else {}))
    assert frames.rows == []


def test_it_needs_embeddings() -> None:
    with pytest.raises(
        InvalidInputError, match=r"`top_boxes` says of which boxes .* `box_embeddings=False` keeps none"
    ):
        PassOptions(top_boxes=3, box_embeddings=False)
    assert PassOptions(top_boxes=3).keeping(["probabilities"]).top_boxes is None
    assert PassOptions(top_boxes=3).keeping(["box_embeddings"]).top_boxes == 3


@pytest.mark.parametrize("k", [1, 4, 100])
def test_in_memory_and_in_a_folder(tmp_path: Path, k: int) -> None:
    full = run(tmp_path / "full")
    expected = embedding_best(full, k)
    assert int(full.counts.max()) > 4
    assert same(run(None, top_boxes=k), expected)
    assert same(run(tmp_path / "some", top_boxes=k), expected)
    frames = Watched()
    assert same(run(tmp_path / "some", frames, top_boxes=k), expected), "read back"
    assert frames.rows == []


def test_the_files_of_a_folder_shrink(tmp_path: Path) -> None:
    full = run(tmp_path / "full")
    some = run(tmp_path / "some", top_boxes=1)
    assert full.box_embeddings is not None
    assert some.box_embeddings is not None
    (before,), (after,) = (
        [size for name, size in sizes_of(tmp_path / folder).items() if name == "box_embeddings"]
        for folder in ("full", "some")
    )
    assert before == full.box_embeddings.nbytes == 4 * 32 * full.num_boxes
    assert after == some.box_embeddings.nbytes == 4 * 32 * len(full)
    assert sum(sizes_of(tmp_path / "some").values()) < sum(sizes_of(tmp_path / "full").values()) / 2


def test_a_pass_that_was_stopped_goes_on(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="unreadable"):
        run(tmp_path, Watched(breaks=9), top_boxes=2)
    frames = Watched()
    pool = run(tmp_path, frames, top_boxes=2)
    assert same(pool, run(None, top_boxes=2))
    assert 0 < len(frames.rows) < 12


@pytest.mark.parametrize(("then", "now", "older"), [(None, 2, False), (None, 2, True), (2, None, False), (2, 3, False)])
@pytest.mark.parametrize("finished", [True, False])
def test_another_number_is_another_pass(
    tmp_path: Path, then: int | None, now: int | None, older: bool, finished: bool
) -> None:
    """Also where the folder is of a time when passes did not say it, and kept all."""
    run(tmp_path, top_boxes=then)
    if older:
        manifest = read_record(tmp_path / "manifest.json", what="the manifest of a pass", form=FORMAT)
        del manifest["of"]["`top_boxes`"]
        write_record(
            tmp_path / "manifest.json", {name: value for name, value in manifest.items() if name != "checksum"}
        )
        assert "top_boxes" not in json.dumps(read_record(tmp_path / "manifest.json", what="it", form=FORMAT))
        assert same(run(tmp_path), run(None)), "which is what it was made with"
    if not finished:
        os.truncate(next(tmp_path.glob("part-*/journal")), 10)
    with pytest.raises(InvalidInputError, match=f"holds another pass: .*`top_boxes` was {then} and is {now} now"):
        run(tmp_path, top_boxes=now)


class Files(Frames):
    """Frames with names, so that some may come or go."""

    def __init__(self, numbers: list[int]) -> None:
        super().__init__(max(numbers) + 1, size=48)
        self.numbers, self.paths = numbers, [f"{number:02d}.jpg" for number in numbers]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> Any:
        return super().__getitem__(self.numbers[row])


def test_files_that_come_and_go(tmp_path: Path) -> None:
    run(tmp_path, Files(list(range(8))), top_boxes=2)
    now = Files([0, 1, 3, 4, 5, 9, 7, 10])
    pool, fresh = run(tmp_path, now, top_boxes=2), run(None, now, top_boxes=2)
    assert pool.frame_ids == fresh.frame_ids
    assert torch.equal(pool.offsets, fresh.offsets)
    assert torch.equal(pool.embedded_offsets, fresh.embedded_offsets)
    assert pool.box_embeddings is not None
    assert torch.allclose(pool.box_embeddings, fresh.box_embeddings, atol=1e-4)


def bytes_a_frame(**options: Any) -> float:
    """What a refusal says, of a pass that may keep next to nothing."""
    with pytest.raises(NotEnoughMemoryError, match=r"`top_boxes=`") as caught:
        extract(make_faster_rcnn(detections=40), loader_of(Frames(40)), memory_limit=1, progress=False, **options)
    said = str(caught.value)
    return 1024 * float(said.split("takes about ")[1].split(" KB", maxsplit=1)[0])


def test_the_forecast_knows_it() -> None:
    """What is said to be kept of a frame falls by the embeddings of its other boxes, and says the remedy."""
    full = extract(make_faster_rcnn(detections=40), loader_of(Frames(40)), progress=False)
    gone = 4 * 32 * (full.num_boxes / 40 - 1) - full.num_boxes / 40  # one byte a box says which have one
    assert bytes_a_frame() - bytes_a_frame(top_boxes=1) == pytest.approx(gone, rel=0.05)


def test_the_remedy_is_named_wherever_boxes_may_be_too_many(faster_rcnn: FasterRCNN) -> None:
    options: dict[str, Any] = {"memory_limit": 1, "progress": False}
    with pytest.raises(NotEnoughMemoryError, match="`top_boxes=`"):
        select(faster_rcnn, loader_of(Frames(12)), num_of_samples=2, selection_strategy="ppal", **options)
    known = InferencePass(faster_rcnn, loader_of(Frames(12)), PassOptions(**options))
    with pytest.raises(NotEnoughMemoryError, match="`top_boxes=`"):
        backend_knowing(
            known, [DetectionSampling(selection_strategy="ppal", num_of_samples=2)], away=True, balanced=False
        )


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("strategy", ["auto", "k_center", "ppal", "diverse_prototypes", "entropy"])
def test_select_chooses_as_from_an_extracted_pool(tmp_path: Path, strategy: str, folder: bool) -> None:
    model, loader = make_faster_rcnn(detections=6), loader_of(Frames(24))
    pool = embedding_best(extract(model, loader, progress=False), 2)
    expected = LocalBackend().select(pool, DetectionSampling(selection_strategy=strategy, num_of_samples=6))
    chosen = select(
        model, loader, num_of_samples=6, selection_strategy=strategy, top_boxes=2, progress=False,
        cache_dir=tmp_path if folder else None,
    )  # fmt: skip
    assert chosen.frame_ids == expected.frame_ids
    assert torch.equal(chosen.scores, expected.scores) or bool(chosen.scores.isnan().all())
    assert chosen.predictions.embedded is None
    assert chosen.predictions.scores is not None
    assert len(chosen.predictions.scores) == chosen.predictions.num_boxes
