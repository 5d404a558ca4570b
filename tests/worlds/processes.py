"""Several processes at once, and what came of each scenario in each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "worlds" / "together.py"
Outcomes = list[dict[str, Any]]
"""Of each rank, by scenario: its value or its error."""


def outcomes_of(root: Path) -> Outcomes:
    return [json.loads(path.read_text()) for path in sorted(root.glob("?.json"))]


THREE = (
    "extraction_is_that_of_one_process",
    "shuffling_loaders_agree_on_rank_zeros_order",
    "a_rank_without_frames_has_an_empty_share",
    "selections_of_every_kind_are_those_of_one_process",
    "every_kind_of_stage_chooses_as_in_one_process",
    "the_class_weights_of_rank_zero_hold",
    "padding_of_samplers_vanishes",
    "an_error_in_one_is_an_error_in_all",
    "a_pass_goes_on_with_as_many",
    "a_pass_of_one_goes_on_together",
    "what_cannot_be_read_is_left_out",
    "a_pass_goes_on_over_other_files",
    "embeddings_of_the_best_boxes_are_those_of_one_process",
)


def errors(outcomes: Outcomes, name: str) -> list[tuple[str, str]]:
    return [tuple(outcome[name]["error"]) for outcome in outcomes]


def values(outcomes: Outcomes, name: str) -> list[Any]:
    assert all("value" in outcome[name] for outcome in outcomes), [outcome[name] for outcome in outcomes]
    return [outcome[name]["value"] for outcome in outcomes]


BOTH = pytest.mark.parametrize("launch", ["two", "three"])
