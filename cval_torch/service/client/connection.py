"""`CVALConnection`: where every call to the service starts."""

from __future__ import annotations

import os
from types import TracebackType
from urllib.parse import urlsplit

from cval_torch.errors import InvalidInputError
from cval_torch.service.client.datasets import DatasetResource
from cval_torch.service.client.embeddings import EmbeddingResource
from cval_torch.service.client.key import ApiKey
from cval_torch.service.client.tasks import DetectionResource, ResultResource, ServiceResource
from cval_torch.service.client.transport import Transport

DEFAULT_URL = "https://cval.ai/api"
URL_VARIABLE = "CVAL_URL"
DEFAULT_TIMEOUT = 300.0


class CVALConnection:
    """A connection to cval.ai, or to a server that speaks its protocol.

    Args:
        user_api_key: the key; None reads the environment's `CVAL_API_KEY`. It is shown nowhere.
        base_url: None reads `CVAL_URL`, and is `https://cval.ai/api` without it. A server of one's own is at
            `http://HOST:PORT/api`.
        timeout: seconds, the total of any one call, waits and repeats included.

    Raises:
        InvalidInputError: no key, a key that no header may carry, or a URL that is none.

    >>> with CVALConnection("my-key", "http://127.0.0.1:8000/api") as cval:
    ...     cval
    CVALConnection('http://127.0.0.1:8000/api')
    """

    def __init__(
        self, user_api_key: str | None = None, base_url: str | None = None, *, timeout: float = DEFAULT_TIMEOUT
    ) -> None:
        if not timeout > 0:
            raise InvalidInputError(f"`timeout` must be above 0 seconds; got {timeout}")
        url = _checked_url(base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
        self.timeout = timeout
        self._transport = Transport(url, ApiKey(user_api_key))

    def dataset(self) -> DatasetResource:
        """Create, change, read and list datasets."""
        return DatasetResource(self._transport, self.timeout)

    def embedding(self, dataset_id: str, part_of_dataset: str) -> EmbeddingResource:
        """Upload, read and delete embeddings of one part (`training`, `test` or `validation`) of a dataset."""
        return EmbeddingResource(self._transport, self.timeout, dataset_id, part_of_dataset)

    def detection(self) -> DetectionResource:
        """Choose frames by predictions of a detector."""
        return DetectionResource(self._transport, self.timeout)

    def result(self) -> ResultResource:
        """Read the results of tasks, and wait for them."""
        return ResultResource(self._transport, self.timeout)

    def service(self) -> ServiceResource:
        """What the service has beyond the protocol."""
        return ServiceResource(self._transport, self.timeout)

    def close(self) -> None:
        """Close the kept network connections."""
        self._transport.close()

    def __enter__(self) -> CVALConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CVALConnection({self._transport.base_url!r})"


def _checked_url(url: str) -> str:
    expected = (
        "`base_url` must be http:// or https:// and a host, with no user name in it, such as 'https://cval.ai/api'"
    )
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_is_fine = urlsplit(""), False
    if parts.username is not None or parts.password is not None:
        raise InvalidInputError(f"{expected}; got one with a user name or password")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine or parts.query or parts.fragment:
        raise InvalidInputError(f"{expected}; got {url!r}")
    return url.rstrip("/")
