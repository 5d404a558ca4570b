"""`extract` and `select` in several processes: what comes out is what one process has, and none waits in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from fresh_process import run_python
from tiny_rcnn import Frames, make_faster_rcnn, pairs
from torch.utils.data import DataLoader

from cval_torch import extract
from cval_torch.errors import InvalidInputError
from cval_torch.pool.ranks import Ranks, from_rank_zero, is_rank_zero, processes

SCRIPT = Path(__file__).parents[1] / "worlds" / "together.py"
Outcomes = list[dict[str, Any]]
"""Of each rank, by scenario: its value or its error."""


def outcomes_of(root: Path) -> Outcomes:
    return [json.loads(path.read_text()) for path in sorted(root.glob("?.json"))]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Every scenario, by torchrun."""
    root = tmp_path_factory.mktemp("two")
    run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT), str(root))
    return outcomes_of(root)


THREE = (
    "extraction_is_that_of_one_process",
    "shuffling_loaders_agree_on_rank_zeros_order",
    "a_rank_without_frames_has_an_empty_share",
    "every_kind_of_stage_chooses_as_in_one_process",
    "the_class_weights_of_rank_zero_hold",
    "padding_of_samplers_vanishes",
    "an_error_in_one_is_an_error_in_all",
    "a_pass_goes_on_with_as_many",
    "a_pass_of_one_goes_on_together",
)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Some scenarios in three processes without torchrun; in the end rank 1 is killed."""
    root = tmp_path_factory.mktemp("three")
    done = run_python(str(SCRIPT), "--fork", "3", str(root), *THREE, "a_rank_dies")
    assert json.loads(done.stdout) == [0, -9, 0], done.stderr
    return outcomes_of(root)


def errors(outcomes: Outcomes, name: str) -> list[tuple[str, str]]:
    return [tuple(outcome[name]["error"]) for outcome in outcomes]


def values(outcomes: Outcomes, name: str) -> list[Any]:
    assert all("value" in outcome[name] for outcome in outcomes), [outcome[name] for outcome in outcomes]
    return [outcome[name]["value"] for outcome in outcomes]


BOTH = pytest.mark.parametrize("launch", ["two", "three"])


@pytest.fixture
def ranks(request: pytest.FixtureRequest, launch: str) -> Outcomes:
    return request.getfixturevalue(launch)  # type: ignore[no-any-return]


# What comes out


@BOTH
def test_extraction_is_that_of_one_process_bit_for_bit(ranks: Outcomes) -> None:
    assert values(ranks, "extraction_is_that_of_one_process") == [[True, True, True]] * len(ranks)


@BOTH
def test_shuffling_loaders_agree_on_one_order(ranks: Outcomes) -> None:
    orders = values(ranks, "shuffling_loaders_agree_on_rank_zeros_order")
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0][0]) == list(range(8))
    assert orders[0][1]


def test_without_gathering_each_has_its_share(two: Outcomes) -> None:
    shares = values(two, "shares_are_disjoint_and_together_the_whole")
    assert shares == [[["0", "1", "4", "5", "8"], True], [["2", "3", "6", "7"], True]]


@BOTH
def test_a_rank_without_frames_has_no_rows_but_all_columns(ranks: Outcomes) -> None:
    frames = values(ranks, "a_rank_without_frames_has_an_empty_share")
    assert [share[0] for share in frames] == [1] + [0] * (len(ranks) - 1)
    assert frames[0][1] > 0
    assert all(share[1:] == [0, frames[0][2]] for share in frames[1:])
    assert "box_embeddings" in frames[0][2]


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


# Loaders that share by themselves


@BOTH
def test_the_padding_of_samplers_vanishes_and_nothing_is_dropped(ranks: Outcomes) -> None:
    orders = values(ranks, "padding_of_samplers_vanishes")
    assert all(order == orders[0] for order in orders)
    plain, shuffled, dropping = orders[0]
    assert plain == dropping == list(range(5))  # in turn, as the sampler deals them
    assert sorted(shuffled) == plain
    assert shuffled != plain


def test_shares_made_by_hand_stay_where_they_are(two: Outcomes) -> None:
    assert values(two, "shares_made_by_hand_are_kept") == [
        [list(range(7)), [0, 2, 4, 6]],
        [list(range(7)), [1, 3, 5]],
    ]


# Errors


@BOTH
def test_an_error_in_one_rank_is_raised_in_all_and_names_it(ranks: Outcomes) -> None:
    said = errors(ranks, "an_error_in_one_is_an_error_in_all")
    where = f"rank 1 of {len(ranks)}, batch 1, after 0 frames: OSError: unreadable"
    assert said.pop(1) == ("ExtractionError", where)
    assert said == [("RankError", f"rank 1 of {len(ranks)} failed: ExtractionError: {where}")] * len(said)


def test_a_rank_that_is_killed_leaves_none_waiting(three: Outcomes) -> None:
    assert "a_rank_dies" not in three[1]
    for outcome in (three[0], three[2]):
        kind, message = outcome["a_rank_dies"]["error"]
        assert kind == "RankError"
        assert message.startswith("the other processes did not answer: one of them died")


REFUSALS = [
    ("an_interruption_of_one_is_an_error_in_the_others", 1, "KeyboardInterrupt", ""),
    ("an_error_in_a_plan_is_an_error_in_all", 1, "LoaderOrderError", "yielded row 9, which a dataset of 4 frames"),
    ("samplers_that_leave_a_rank_out_are_refused", None, "LoaderOrderError", "are for the ranks: 0 of 2, 0 of 2"),
    ("samplers_that_overlap_by_chance_are_refused", None, "LoaderOrderError", "row 0 is drawn by ranks 0 and 1"),
    ("datasets_that_differ_are_refused", None, "InvalidInputError", "datasets differ: the dataset is Subset"),
    ("a_stream_is_refused", "all", "LoaderOrderError", "a stream's frames have no rows"),
    ("other_weights_are_refused", None, "InvalidInputError", "rank 1's model has other weights than rank 0's"),
    ("an_id_twice_is_found_between_processes", None, "InvalidInputError", "got '0' again in row 2"),
    ("an_id_twice_is_found_in_a_selection", 0, "InvalidInputError", "got '0' again in row 2"),
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


# The model


def test_batchnorm_statistics_are_rank_zeros_meanwhile_and_each_ones_own_afterwards(two: Outcomes) -> None:
    assert values(two, "other_batchnorm_statistics_are_rank_zeros_meanwhile") == [[True, True]] * 2


# One folder


def test_several_processes_share_a_folder(two: Outcomes) -> None:
    for pools, names, read in values(two, "a_folder_is_shared"):
        assert pools == [True, True]
        assert names == ["lock", "manifest.", "part-all-"]
        assert read == []


@BOTH
def test_a_pass_goes_on_with_as_many_processes(ranks: Outcomes) -> None:
    """Of 18 frames row 13 broke, of batch 6: at least what came after the break is read again, and nothing twice."""
    outcomes = values(ranks, "a_pass_goes_on_with_as_many")
    assert all(equal for equal, _ in outcomes)
    read = [row for _, rows in outcomes for row in rows]
    assert len(read) == len(set(read)) < 18
    assert {12, 13} <= set(read)


@BOTH
def test_a_pass_of_one_goes_on_with_several(ranks: Outcomes) -> None:
    outcomes = values(ranks, "a_pass_of_one_goes_on_together")
    assert all(equal for equal, _ in outcomes)
    assert sorted(row for _, rows in outcomes for row in rows) == list(range(6, 18))
    assert all(rows for _, rows in outcomes)


def test_a_pass_of_several_goes_on_with_one(two: Outcomes) -> None:
    (equal, read), nobody = values(two, "a_pass_goes_on_alone")
    assert equal
    assert nobody is None
    assert {12, 13} <= set(read)
    assert len(read) == len(set(read)) < 18


def test_a_folder_in_use_is_refused_by_name(two: Outcomes) -> None:
    assert two[0]["a_folder_in_use_is_refused"] == {"value": None}
    kind, message = two[1]["a_folder_in_use_is_refused"]["error"]
    assert kind == "InvalidInputError"
    assert "is in use by process " in message


# The pieces


def test_values_are_exchanged_and_sent(two: Outcomes) -> None:
    assert values(two, "values_are_exchanged") == [
        [[0, 10], "of 0", True, 2, [1.0] * 3, [1.0] * 3],
        [[0, 10], "of 0", False, 2, [1.0] * 3, [1.0] * 3],
    ]


def test_the_bar_is_shown_once_and_counts_all_processes(two: Outcomes) -> None:
    bars = values(two, "the_bar_is_rank_zeros_and_counts_all")
    assert "9/9" in bars[0]
    assert bars[1] == ""


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
