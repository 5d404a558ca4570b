"""`CVALConnection`: where every call to the service starts."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from cval_torch.errors import InvalidInputError
from cval_torch.service.client.datasets import DatasetResource
from cval_torch.service.client.embeddings import EmbeddingResource
from cval_torch.service.client.key import ApiKey
from cval_torch.service.client.tasks import DetectionResource, ResultResource, ServiceResource
from cval_torch.service.client.transport import Transport, Trust

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
        verify: True for the authorities that `requests` knows (`REQUESTS_CA_BUNDLE` names others), or a file or folder
            of those that sign the service's certificate. It cannot be switched off: the key would go to anybody.
        cert: a certificate of one's own for a service that asks for one: a file with its key, or both files.

    Raises:
        InvalidInputError: no key, a key that no header may carry, a URL that is none, or a file that is not there.

    >>> with CVALConnection("my-key", "http://127.0.0.1:8000/api") as cval:
    ...     cval
    CVALConnection('http://127.0.0.1:8000/api')
    """

    def __init__(
        self,
        user_api_key: str | None = None,
        base_url: str | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        verify: bool | str | Path = True,
        cert: str | Path | tuple[str | Path, str | Path] | None = None,
    ) -> None:
        if not timeout > 0:
            raise InvalidInputError(f"`timeout` must be above 0 seconds; got {timeout}")
        url = _checked_url(base_url or os.environ.get(URL_VARIABLE) or DEFAULT_URL)
        self.timeout = timeout
        self._transport = Transport(url, ApiKey(user_api_key), _trust(verify, cert))

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


def _trust(verify: bool | str | Path, cert: str | Path | tuple[str | Path, str | Path] | None) -> Trust:
    if verify is False:
        raise InvalidInputError(
            "`verify` must be True, or the file of the authority that signed the service's certificate; got False: the "
            "key would go to anybody"
        )
    pair = cert if isinstance(cert, tuple) else (cert,)
    for name, path in [("verify", verify), *[("cert", each) for each in pair]]:
        if isinstance(path, (str, Path)) and not Path(path).exists():
            raise InvalidInputError(f"`{name}` must be a file that is there; got {str(path)!r}")
    shown = (str(cert[0]), str(cert[1])) if isinstance(cert, tuple) else None if cert is None else str(cert)
    return Trust(verify if isinstance(verify, bool) else str(verify), shown)


def _checked_url(given: str) -> str:
    url = given.strip()  # a file's last line ends with a newline
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
    is_plain = not any(letter.isspace() or not letter.isprintable() for letter in url)
    is_one = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
    if not (is_plain and is_one and port_is_fine):
        raise InvalidInputError(f"{expected}; got {url!r}")
    return url.rstrip("/")
