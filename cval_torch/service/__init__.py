"""Selection through cval.ai or any server of its protocol, and such a server."""

from cval_torch.service.client import CVALConnection
from cval_torch.service.codec import pool_from_payloads, pool_to_payloads
from cval_torch.service.protocol import DetectionSamplingRequest
from cval_torch.service.rest import RestBackend

__all__ = ["CVALConnection", "DetectionSamplingRequest", "RestBackend", "pool_from_payloads", "pool_to_payloads"]
