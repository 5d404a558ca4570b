"""One pass, given on batch by batch, and a look again at a few frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_rcnn import Frames, loader_of, make_faster_rcnn

from cval_torch.errors import ExtractionError, NotEnoughMemoryError
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.extraction.passes import extract
from cval_torch.pool.pool import Pool

QUIET = PassOptions(progress=False)


def pass_over(dataset: Any, options: PassOptions = QUIET, **loading: Any) -> InferencePass:
    return InferencePass(make_faster_rcnn(), loader_of(dataset, **loading), options)


def test_a_stream_is_the_pool_batch_by_batch() -> None:
    dataset = Frames(7)
    parts: list[Pool] = []
    pass_over(dataset, batch_size=3).stream(parts.append)
    whole = pass_over(dataset, batch_size=3).share()
    assert [len(part) for part in parts] == [3, 3, 1]
    joined = Pool.cat(parts)
    for name, column in whole.columns():
        assert torch.equal(getattr(joined, name), column)


def test_a_stream_keeps_the_columns_that_are_asked_for() -> None:
    parts: list[Pool] = []
    few = PassOptions(progress=False, box_embeddings=False, frame_embeddings=False)
    pass_over(Frames(3)).stream(parts.append, options=few)
    assert all(part.box_embeddings is None and part.probabilities is not None for part in parts)


@pytest.mark.parametrize("rows", [[4, 0, 6], [5], [6, 5, 4, 3, 2, 1, 0]])
def test_a_few_frames_are_inferred_again_in_the_order_wanted(rows: list[int]) -> None:
    run = pass_over(Frames(7), batch_size=2)
    whole = run.share()
    again = run.again(rows, QUIET)
    assert again.indices is not None
    assert again.indices.tolist() == rows
    assert again.frame_ids == tuple(whole.frame_ids[row] for row in rows)
    there = whole.take(rows)
    assert torch.equal(again.counts, there.counts)
    assert torch.allclose(again.scores, there.scores, atol=1e-5)  # type: ignore[arg-type]


def test_a_frame_that_has_gone_is_an_error_even_where_others_are_left_out() -> None:
    class Vanishing(Frames):
        gone = False

        def __getitem__(self, row: int) -> Any:
            if self.gone and row == 2:
                raise OSError("gone")
            return super().__getitem__(row)

    dataset, options = Vanishing(4), PassOptions(progress=False, on_error="skip")
    run = pass_over(dataset, options)
    run.share()
    Vanishing.gone = True
    with pytest.raises(ExtractionError, match=r"frame '2' .*gone"):
        run.again([1, 2], options)


def test_ids_that_are_known_before_anything_is_inferred() -> None:
    class Named(Frames):
        def __init__(self, count: int) -> None:
            super().__init__(count)
            self.ids = [f"image {row}" for row in range(count)]

    class WithTargets(Frames):
        def __getitem__(self, row: int) -> Any:
            return super().__getitem__(row)[0], {"image_id": row + 100}

    assert pass_over(Named(5), batch_size=2).known_ids() == [f"image {row}" for row in range(5)]
    assert pass_over(Frames(3)).known_ids() == ["0", "1", "2"]
    assert pass_over(WithTargets(3)).known_ids() is None
    named = PassOptions(progress=False, frame_id=lambda row, _: f"my {row}")
    assert pass_over(Frames(3), named).known_ids() is None


def test_a_pool_that_will_not_fit_is_refused_within_the_first_frames() -> None:
    loaded: list[int] = []

    class Counting(Frames):
        def __getitem__(self, row: int) -> Any:
            loaded.append(row)
            return super().__getitem__(row)

    with pytest.raises(NotEnoughMemoryError, match=r"the pool takes about .* for 500 frames; .*`cache_dir=`"):
        extract(make_faster_rcnn(), loader_of(Counting(500), batch_size=4), progress=False, memory_limit=50_000)
    assert len(loaded) <= 40
