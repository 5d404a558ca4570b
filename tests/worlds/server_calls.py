"""Sessions that speak to a server, and the bodies that they send."""

from __future__ import annotations

import time
from typing import Any

import requests
from own_server import KEY

from cval_torch.service.server.settings import Limits

OTHER = "test-key-two"


SAMPLING = "/on-premise/sampling/detection"


class Api:
    """A session that speaks for one key."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"user_api_key:{key}"

    def __call__(self, method: str, path: str, content: Any = None, **options: Any) -> requests.Response:
        return self.session.request(method, self.url + path, json=content, timeout=60, **options)

    def dataset(self) -> str:
        created: str = self("POST", "/dataset", {}).json()["dataset_id"]
        return created

    def result(self, task_id: str) -> dict[str, Any]:
        """The task, once it has ended."""
        for _ in range(1200):
            answer = self("GET", f"/result/{task_id}")
            task: dict[str, Any] = answer.json()
            if answer.status_code != 200 or task["result"] is not None:
                return task
            time.sleep(0.05)
        raise AssertionError(f"{task} did not end")


LIMITS = Limits(
    compare_at_once=40,
    body_bytes=200_000,
    frames=50,
    predictions=200,
    vector_length=64,
    id_length=40,
    page=1000,
    datasets=400,
)


def frames(*scores: float, name: str = "f") -> list[dict[str, Any]]:
    return [{"frame_id": f"{name}{row}", "predictions": [{"score": score}]} for row, score in enumerate(scores)]


def sampling(**fields: Any) -> dict[str, Any]:
    return {"num_of_samples": 2, "selection_strategy": "margin", "frames": frames(0.9, 0.6, 0.1), **fields}


def vector(*values: float, frame_id: str = "a", embedding_id: str = "0") -> dict[str, Any]:
    return {"frame_id": frame_id, "embeddings": [{"embedding_id": embedding_id, "embedding": list(values)}]}
