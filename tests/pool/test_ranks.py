"""What several processes tell each other, and how none of them waits in vain."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from processes import BOTH, Outcomes, errors, values
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch.utils.data import DataLoader

from cval_torch import extract
from cval_torch.errors import InvalidInputError
from cval_torch.pool.ranks import Ranks, from_rank_zero, is_rank_zero, processes


@BOTH
def test_an_error_in_one_rank_is_raised_in_all_and_names_it(ranks: Outcomes) -> None:
    said = errors(ranks, "an_error_in_one_is_an_error_in_all")
    kind, message = said.pop(1)
    assert kind == "ExtractionError"
    where = f"rank 1 of {len(ranks)}, batch 1, after 0 frames: frame '2' (row 2 of the dataset) cannot be loaded: "
    assert message.startswith(f"{where}OSError: unreadable. ")
    assert said == [("RankError", f"rank 1 of {len(ranks)} failed: ExtractionError: {message}")] * len(said)


def test_a_rank_that_is_killed_leaves_none_waiting(three: Outcomes) -> None:
    assert "a_rank_dies" not in three[1]
    for outcome in (three[0], three[2]):
        kind, message = outcome["a_rank_dies"]["error"]
        assert kind == "RankError"
        assert message.startswith("the other processes did not answer: one of them died")


def test_values_are_exchanged_and_sent(two: Outcomes) -> None:
    assert values(two, "values_are_exchanged") == [
        [[0, 10], "of 0", True, 2, [1.0] * 3, [1.0] * 3],
        [[0, 10], "of 0", False, 2, [1.0] * 3, [1.0] * 3],
    ]


def test_one_process_may_go_alone(two: Outcomes) -> None:
    assert values(two, "one_alone_waits_for_nobody") == [None, 3]


def test_without_torch_distributed_there_is_one_process() -> None:
    assert not dist.is_initialized()
    assert (processes(), is_rank_zero(), from_rank_zero(lambda: 3)) == (1, True, 3)
    assert Ranks().exchange(lambda: "mine") == ["mine"]
    assert repr(Ranks()) == "rank 0 of 1"
    with pytest.raises(KeyError):
        Ranks().exchange(lambda: {}["missing"])
    loader = DataLoader(Frames(2), collate_fn=pairs)
    with pytest.raises(InvalidInputError, match=r"`distributed=True` needs torch.distributed.init_process_group"):
        extract(make_faster_rcnn(), loader, distributed=True, progress=False)
    alone = extract(make_faster_rcnn(), loader, distributed=False, gather=False, progress=False)
    assert alone.frame_ids == ("0", "1")
