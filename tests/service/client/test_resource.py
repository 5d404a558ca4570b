"""Parts of paths, and bodies in memory or on disk."""

from __future__ import annotations

import pytest
from client_calls import ONE, connect
from fault_server import answer, faulty

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client.resource import BODY_IN_MEMORY, spool


def test_ids_are_quoted_in_paths() -> None:
    with faulty(answer(ONE)) as server:
        connect(server).embedding("d/../x", "test").get_by_id("a/b?c#d%", "é")
        assert server.requests[0].path == "/api/dataset/d%2F..%2Fx/test/embedding/a%2Fb%3Fc%23d%25/%C3%A9"
        for frame_id in ("", ".", ".."):
            with pytest.raises(InvalidInputError, match="`frame_id` must not be empty"):
                connect(server).embedding("d", "test").get_by_id(frame_id, "0")
        assert len(server.requests) == 1


def test_a_long_body_waits_on_disk() -> None:
    pieces = [b"x" * (1 << 20)] * 3
    assert spool(pieces) == b"".join(pieces)
    long = spool(iter([b"y" * (BODY_IN_MEMORY // 4)] * 5))
    assert not isinstance(long, bytes)
    long.seek(0, 2)
    assert long.tell() == BODY_IN_MEMORY // 4 * 5
    long.close()
