"""A service whose answers a test scripts, and what it was asked."""

from __future__ import annotations

import json
from typing import Any

import torch
from fault_server import Behaviour, FaultServer, Request, answer, stores

from cval_torch.pool.pool import Pool
from cval_torch.service.rest import RestBackend

NOT_FOUND = answer({"detail": "Not Found"}, 404)


def make_rest_pool(frames: int = 6, *, nulls: int = 0, width: int = 3) -> Pool:
    """Frame `f0` is the least sure; the last `nulls` frames have no boxes."""
    counts = torch.tensor([2] * (frames - nulls) + [0] * nulls)
    boxes = int(counts.sum())
    generator = torch.Generator().manual_seed(0)
    return Pool(
        [f"f{row}" for row in range(frames)],
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        scores=torch.linspace(0.5, 0.99, boxes),
        labels=torch.arange(boxes) % 3,
        box_embeddings=torch.randn(boxes, 4, generator=generator),
        frame_embeddings=torch.randn(frames, width, generator=generator),
    )


def service(**routes: Behaviour | list[Behaviour]) -> Behaviour:
    """A service of the protocol alone: by the last word of a path, what it does; the last of a list goes on."""
    known: dict[str, Behaviour | list[Behaviour]] = {
        "strategies": NOT_FOUND,
        "dataset": answer({"dataset_id": "d"}),
        "embeddings": stores,
        **routes,
    }

    def behave(connection: Any, request: Request) -> None:
        what = known[request.path.split("/")[-1].split("?")[0]]
        if isinstance(what, list):
            what = what.pop(0) if len(what) > 1 else what[0]
        what(connection, request)

    return behave


def done(*frame_ids: str, **fields: Any) -> Behaviour:
    return answer({"task_id": "t", "time_start": 1.0, "time_end": 2.0, "result": list(frame_ids), **fields})


def running(**fields: Any) -> Behaviour:
    return answer({"task_id": "t", "time_start": 1.0, "time_end": None, "result": None, **fields})


def backend_of(server: FaultServer, **options: Any) -> RestBackend:
    return RestBackend(api_key="key-of-tests", url=server.url, progress=False, **options)


def asked(server: FaultServer, method: str = "POST", last: str = "detection") -> list[Any]:
    """The bodies of the requests to paths that end so."""
    return [
        json.loads(request.body) if request.body else None
        for request in server.requests
        if request.method == method and request.path.endswith(f"/{last}")
    ]


OURS = answer(
    {"strategies": ["entropy", "random", "clustering"], "options": ["num_of_boxes", "min_distance", "class_quotas"]}
)
