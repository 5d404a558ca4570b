"""What is stored is compared with what was sent; `test_embeddings` does so through sockets."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cval_torch.errors import ProtocolError
from cval_torch.service.client.readback import Sent, checked_pages
from cval_torch.service.protocol import FrameEmbedding, FrameEmbeddingMeta

values = st.sampled_from([0.0, -1.5, 3.25e8])
names = st.sampled_from("abc")
held = st.dictionaries(names, st.dictionaries(names, st.lists(values, max_size=2), max_size=2), max_size=3)


def frames_of(content: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    return [
        {
            "frame_id": name,
            "embeddings": [{"embedding_id": each, "embedding": vector} for each, vector in vectors.items()],
        }
        for name, vectors in content.items()
    ]


@given(sent=held, others=held, at_once=st.integers(1, 3), changed=st.booleans())
def test_it_is_stored_if_every_vector_is(sent: Any, others: Any, at_once: int, changed: bool) -> None:
    content = others if changed else {**others, **{name: {**others.get(name, {}), **sent[name]} for name in sent}}
    stored = [FrameEmbedding.model_validate(frame) for frame in frames_of(content)]
    metas = [
        FrameEmbeddingMeta(
            frame_id=frame.frame_id,
            embeddings_quantity=len(frame.embeddings),
            embeddings=[item.embedding_id for item in frame.embeddings],
        )
        for frame in stored
    ]
    expected = all(
        name in content and content[name].get(each) == vector
        for name, vectors in sent.items()
        for each, vector in vectors.items()
    ) and all(name in content for name in sent)
    pages = checked_pages(lambda start, stop: metas[start:stop], at_once)
    found = Sent(json.dumps(frames_of(sent)).encode()).is_stored(pages, lambda start, stop: stored[start:stop])
    assert found is expected


def test_fewer_digits_are_the_same_and_other_numbers_are_not() -> None:
    def is_stored(number: float) -> bool:
        stored = [FrameEmbedding.model_validate(frame) for frame in frames_of({"a": {"0": [number]}})]
        meta = FrameEmbeddingMeta(frame_id="a", embeddings_quantity=1, embeddings=["0"])
        return Sent(json.dumps(frames_of({"a": {"0": [0.123456789]}})).encode()).is_stored([[meta]], lambda *_: stored)

    assert is_stored(0.123456)
    assert not is_stored(0.12346)


def test_pages_that_come_again_are_no_pages() -> None:
    page = [FrameEmbeddingMeta(frame_id=name, embeddings_quantity=0, embeddings=[]) for name in "ab"]
    with pytest.raises(ProtocolError, match="frames 2 to 4 were asked for"):
        list(checked_pages(lambda start, stop: page, 2))
    with pytest.raises(ProtocolError, match="frames 0 to 1 were asked for"):
        list(checked_pages(lambda start, stop: page, 1))
    assert list(checked_pages(lambda start, stop: page[start:stop], 2)) == [page, []]
