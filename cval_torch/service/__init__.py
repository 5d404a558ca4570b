"""Selection through cval.ai or any server of its protocol, and such a server."""

from typing import TYPE_CHECKING

from cval_torch.lazy import lazy_names

if TYPE_CHECKING:
    from cval_torch.service.client import CVALConnection
    from cval_torch.service.codec import pool_from_payloads, pool_to_payloads
    from cval_torch.service.protocol import DetectionSamplingRequest
    from cval_torch.service.rest import RestBackend
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "cval_torch.service.client": ["CVALConnection"],
            "cval_torch.service.codec": ["pool_from_payloads", "pool_to_payloads"],
            "cval_torch.service.protocol": ["DetectionSamplingRequest"],
            "cval_torch.service.rest": ["RestBackend"],
        },
    )

__all__ = ["CVALConnection", "DetectionSamplingRequest", "RestBackend", "pool_from_payloads", "pool_to_payloads"]
