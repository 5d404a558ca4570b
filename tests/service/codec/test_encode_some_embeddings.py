"""Pools that have embeddings of some boxes only do not go on the wire with them, and do without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from best_boxes import embedding_best
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.service.codec import embeddings_json, pool_to_payloads, predictions_json

FULL = make_tied_pool([2, 0, 3])
SENDING: dict[str, Callable[[Pool], Any]] = {
    "payloads": lambda pool: list(pool_to_payloads(pool)),
    "predictions": lambda pool: list(predictions_json(pool, embeddings=True)),
    "embeddings": lambda pool: list(embeddings_json(pool)),
}


@pytest.mark.parametrize("what", SENDING)
def test_it_is_refused_with_a_remedy(what: str) -> None:
    assert SENDING[what](FULL)
    with pytest.raises(InvalidInputError, match="extract without `top_boxes`, or select with LocalBackend"):
        SENDING[what](embedding_best(FULL, 1))


def test_what_needs_no_embeddings_is_sent_as_ever() -> None:
    some = embedding_best(FULL, 1)
    assert list(predictions_json(some, embeddings=False)) == list(predictions_json(FULL, embeddings=False))
    assert list(pool_to_payloads(some, embeddings=False)) == list(pool_to_payloads(FULL, embeddings=False))
