"""Pools of several processes, brought together."""

from __future__ import annotations

from processes import BOTH, Outcomes, values


@BOTH
def test_extraction_is_that_of_one_process_bit_for_bit(ranks: Outcomes) -> None:
    assert values(ranks, "extraction_is_that_of_one_process") == [[True, True, True]] * len(ranks)


@BOTH
def test_a_rank_without_frames_has_no_rows_but_all_columns(ranks: Outcomes) -> None:
    frames = values(ranks, "a_rank_without_frames_has_an_empty_share")
    assert [share[0] for share in frames] == [1] + [0] * (len(ranks) - 1)
    assert frames[0][1] > 0
    assert all(share[1:] == [0, frames[0][2]] for share in frames[1:])
    assert "box_embeddings" in frames[0][2]
