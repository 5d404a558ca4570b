"""Which columns a strategy may ask for, and what is said where one is missing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.strategies import columns
from cval_torch.strategies.columns import Needs, check_columns
from cval_torch.strategies.registry import STRATEGIES

COLUMNS = {
    "scores": torch.rand(3),
    "labels": torch.zeros(3, dtype=torch.int64),
    "probabilities": torch.rand(3, 2),
    "box_embeddings": torch.rand(3, 4),
    "frame_embeddings": torch.rand(2, 4),
}
NEEDS = {
    name: value
    for name, value in vars(columns).items()
    if name.isupper() and not name.startswith("_") and all(isinstance(group, tuple) for group in value)
}


def pool_with(names: set[str], *, boxes: int = 3) -> Pool:
    some = {name: COLUMNS[name] if name == "frame_embeddings" else COLUMNS[name][:boxes] for name in names}
    activation = "softmax" if "probabilities" in names else None
    return Pool(["a", "b"], torch.tensor([0, boxes, boxes]), activation=activation, **some)  # type: ignore[arg-type]


@given(names=st.sets(st.sampled_from(sorted(COLUMNS))), needs=st.sampled_from(sorted(NEEDS)))
def test_of_each_need_one_column_is_enough(names: set[str], needs: str) -> None:
    missing = [group for group in NEEDS[needs] if not names & set(group)]
    if not missing:
        check_columns(pool_with(names), NEEDS[needs], "the_strategy")
        return
    with pytest.raises(InvalidInputError) as caught:
        check_columns(pool_with(names), NEEDS[needs], "the_strategy", name="labeled")
    either = " or ".join(f"`{column}`" for column in missing[0])
    assert str(caught.value).startswith(f"'the_strategy' needs the column {either} of `labeled`: ")


@pytest.mark.parametrize("needs", sorted(NEEDS))
def test_a_pool_without_any_box_lacks_nothing(needs: str) -> None:
    check_columns(pool_with(set(), boxes=0), NEEDS[needs], "any")


def test_the_way_to_a_column_is_said_where_there_is_one() -> None:
    said = {
        (("box_embeddings",),): r"extract\(..., box_embeddings=True\), or upload",
        (("frame_embeddings", "box_embeddings")[::-1],): r"extract\(..., box_embeddings=True\), or upload embeddings$",
        (("labels",),): "payloads with `category_id`",
        (("scores",),): "payloads with `score`",
        (("scores", "probabilities"),): "a payload one of them",
    }
    for needs, way in said.items():
        with pytest.raises(InvalidInputError, match=way):
            check_columns(pool_with(set()), needs, "any")


def test_every_strategy_asks_for_columns_that_can_be_named() -> None:
    """Where nothing is there the first need of each is told, in its own words."""
    for name, record in STRATEGIES.items():
        needs: Needs = record.needs
        for group in needs:
            assert set(group) <= set(COLUMNS), name
            with pytest.raises(InvalidInputError, match=rf"^'{name}' needs the column `{group[0]}`.*: \w"):
                check_columns(pool_with(set()), (group,), name)
