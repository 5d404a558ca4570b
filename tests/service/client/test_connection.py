"""Where a connection goes to."""

from __future__ import annotations

import pytest
from client_calls import CANARY

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client import CVALConnection


@pytest.mark.parametrize(
    "url", ["ftp://a", "cval.ai/api", "http://", "https://user:secret@host/api", "http://a:99999", "http://a/?x=1"]
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="`base_url`") as caught:
        CVALConnection(CANARY, url)
    assert "secret" not in str(caught.value)
