"""Connections to servers that a test makes up, with time that passes only by sleeping."""

from __future__ import annotations

from typing import Any

from fault_server import FaultServer

from cval_torch.service.client import CVALConnection
from cval_torch.service.client.models import DetectionSamplingOnPremise

CANARY = "canary-7f3a-key"


DONE = {"task_id": "t", "time_start": 1.0, "time_end": 2.0, "result": ["a"]}


RUNNING = {"task_id": "t", "time_start": 1.0, "time_end": None, "result": None}


DATASET = {"dataset_id": "d", "dataset_name": "n", "dataset_description": None}


ONE = {"frame_id": "a", "embeddings": [{"embedding_id": "0", "embedding": [1.0]}]}


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def connect(server: FaultServer, clock: Clock | None = None, *, timeout: float = 60.0) -> CVALConnection:
    connection = CVALConnection(CANARY, server.url, timeout=timeout)
    if clock is not None:
        transport = connection._transport
        transport.clock = transport._wall_clock = clock  # type: ignore[assignment]
        transport.sleep = clock.sleep  # type: ignore[method-assign]
    return connection


def take(connection: CVALConnection) -> Any:
    return connection.detection().on_premise_sampling(
        DetectionSamplingOnPremise(num_of_samples=1, selection_strategy="margin", frames=[])
    )
