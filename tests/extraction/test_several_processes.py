"""`extract` and `select` in several processes: what comes out is what one process has, and none waits in vain."""

from __future__ import annotations

import pytest
from processes import BOTH, Outcomes, errors, values

REFUSALS = [
    ("an_interruption_of_one_is_an_error_in_the_others", 1, "KeyboardInterrupt", ""),
    ("an_error_in_a_plan_is_an_error_in_all", 1, "LoaderOrderError", "yielded row 9, which a dataset of 4 frames"),
    ("samplers_that_leave_a_rank_out_are_refused", None, "LoaderOrderError", "are for the ranks: 0 of 2, 0 of 2"),
    ("samplers_that_overlap_by_chance_are_refused", None, "LoaderOrderError", "row 0 is drawn by ranks 0 and 1"),
    ("datasets_that_differ_are_refused", None, "InvalidInputError", "datasets differ: the dataset is Subset"),
    ("a_stream_is_refused", "all", "LoaderOrderError", "a stream's frames have no rows"),
    ("other_weights_are_refused", None, "InvalidInputError", "rank 1's model has other weights than rank 0's"),
    ("an_id_twice_is_found_between_processes", None, "InvalidInputError", "got '0' again in row 2"),
    ("an_id_twice_is_found_in_a_selection", 0, "InvalidInputError", "frame '0' is in two of the parts"),
    ("targets_of_two_kinds_are_refused", None, "InvalidInputError", "of rank 0 have none, those of rank 1 have one"),
    ("other_columns_are_refused", None, "InvalidInputError", "in rank 1: `box_embeddings` had 2 numbers a row"),
    ("no_frames_at_all_are_an_error", None, "InvalidInputError", "`loader` must yield at least one frame; got none"),
    ("another_pass_in_the_folder_is_refused_everywhere", 0, "InvalidInputError", "`embedding_dtype` was None and is"),
    ("calls_that_differ_are_refused", None, "InvalidInputError", "None in rank 0 and torch.float16 in rank 1"),
    ("a_folder_that_not_all_see_is_refused", 1, "InvalidInputError", "must be a folder that all processes see"),
    ("what_cannot_travel_is_an_error_in_all", 1, "AttributeError|PicklingError", "pickle"),
    ("what_rank_zero_raises_is_an_error_in_all", 0, "KeyError", "'missing'"),
]


@pytest.mark.parametrize(("name", "failing", "kind", "message"), REFUSALS, ids=[refusal[0] for refusal in REFUSALS])
def test_what_is_wrong_is_refused_in_every_rank(
    two: Outcomes, name: str, failing: int | str | None, kind: str, message: str
) -> None:
    """`failing`: the rank that found it out, of which the other speaks; None, if both see it; "all", if each alone."""
    for rank, (raised, said) in enumerate(errors(two, name)):
        assert message in said
        if failing in (None, "all", rank):
            assert raised in kind.split("|")
        else:
            assert raised == "RankError"
            assert said.startswith(f"rank {failing} of 2 failed: ")


def test_the_bar_is_shown_once_and_counts_all_processes(two: Outcomes) -> None:
    bars = values(two, "the_bar_is_rank_zeros_and_counts_all")
    assert "9/9" in bars[0]
    assert bars[1] == ""


@BOTH
def test_frames_that_one_process_cannot_read_are_left_out_in_all(ranks: Outcomes) -> None:
    for equal, skipped in values(ranks, "what_cannot_be_read_is_left_out"):
        assert equal == [True] * 7
        assert skipped == [2, 3, 7, 12]


@BOTH
def test_embeddings_of_the_best_boxes_only(ranks: Outcomes) -> None:
    for equal in values(ranks, "embeddings_of_the_best_boxes_are_those_of_one_process"):
        assert equal == [True] * 9


@BOTH
def test_a_stored_pass_over_other_files_goes_on_in_all(ranks: Outcomes) -> None:
    outcomes = values(ranks, "a_pass_goes_on_over_other_files")
    assert all(same_ids and close for same_ids, close, _ in outcomes)
    read = [number for _, _, numbers in outcomes for number in numbers]
    assert set(read) <= {20, 21, 22, 23}
    assert 23 in read
    assert len(read) == len(set(read))
