"""Datasets, and what a resource remembers of them."""

from __future__ import annotations

import pytest
from client_calls import DATASET, DONE, connect
from fault_server import answer, faulty

from cval_torch.errors import (
    InvalidInputError,
)


def test_what_is_remembered_need_not_be_said() -> None:
    with faulty(answer({"dataset_id": "d"}), answer(DATASET), answer(DONE), answer(DONE)) as server:
        connection = connect(server)
        dataset = connection.dataset()
        with pytest.raises(InvalidInputError, match="`dataset_id` must be given"):
            dataset.get()
        assert dataset.create(name="n", description="x") == "d"
        assert dataset.get().dataset_id == "d"
        assert dataset.embedding("test").dataset_id == "d"
        with pytest.raises(InvalidInputError, match="`task_id` must be given"):
            connection.result().get()
        detection = connection.detection()
        detection.on_premise_sampling({"num_of_samples": 1, "selection_strategy": "margin", "frames": []})
        assert detection.result.get().result == ["a"]
        assert [request.path.removeprefix("/api") for request in server.requests[1:]] == [
            "/dataset/d",
            "/on-premise/sampling/detection",
            "/result/t",
        ]
