"""The choice of several processes is that of one."""

from __future__ import annotations

from processes import BOTH, Outcomes, values


def test_a_selection_is_that_of_one_process_on_every_rank(two: Outcomes) -> None:
    chosen = values(two, "a_selection_is_that_of_one_process")
    assert chosen[0][0] == chosen[0][1] == chosen[1][0] == chosen[1][1]


@BOTH
def test_the_class_weights_of_rank_zero_hold(ranks: Outcomes) -> None:
    assert values(ranks, "the_class_weights_of_rank_zero_hold") == [True] * len(ranks)


@BOTH
def test_every_kind_of_stage_chooses_as_in_one_process(ranks: Outcomes) -> None:
    assert values(ranks, "every_kind_of_stage_chooses_as_in_one_process") == [[]] * len(ranks)


def test_of_frames_that_are_not_kept_next_to_nothing_travels(two: Outcomes) -> None:
    """40 frames have 1 kB of embeddings each, 4 are kept."""
    assert all(0 < sent < 40 * 1024 / 4 for sent in values(two, "only_frames_that_were_kept_travel"))
