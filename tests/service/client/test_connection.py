"""Where a connection goes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from client_calls import CANARY, DATASET
from fault_server import answer, faulty

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client import CVALConnection

NO_URLS = [
    "ftp://a",
    "cval.ai/api",
    "http://",
    "https://user:secret@host/api",
    "http://a:99999",
    "http://a/?x=1",
    "http://a b/api",
    "http://a/\napi",
    "http://a/\x7f",
]


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="`base_url`") as caught:
        CVALConnection(CANARY, url)
    assert "secret" not in str(caught.value)


def test_space_around_a_url_is_none_of_it() -> None:
    with faulty(answer(DATASET)) as server:
        assert CVALConnection(CANARY, f" {server.url}/\n").dataset().get("d").dataset_name == "n"
        assert server.requests[0].path == "/api/dataset/d"


def test_certificates_are_checked_by_files_that_are_there(tmp_path: Path) -> None:
    for wrong, message in (
        ({"verify": False}, "`verify` must be True, or the file .* got False"),
        ({"verify": tmp_path / "none"}, "`verify` must be a file that is there; got '.*none'"),
        ({"cert": (tmp_path, "nowhere")}, "`cert` must be a file that is there; got 'nowhere'"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            CVALConnection(CANARY, "https://a/api", **wrong)  # type: ignore[arg-type]
