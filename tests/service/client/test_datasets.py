"""Datasets, and what a resource remembers of them."""

from __future__ import annotations

import pytest
from client_calls import DATASET, DONE, connect
from fault_server import answer, faulty

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client.datasets import DatasetResource


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


def test_what_each_call_sends() -> None:
    """A dataset is a name and a description; what is None is not said, and old notebooks' 0 is no pattern."""
    with faulty(
        answer({"dataset_id": "d"}), answer(DATASET), answer([DATASET, DATASET]), answer([]), answer({})
    ) as server:
        resource = connect(server).dataset()
        assert isinstance(resource, DatasetResource)
        assert resource.create(description="x") == "d"
        assert resource.update("e", name="n").dataset_name == "n"
        assert [dataset.dataset_id for dataset in resource.get_all("a.b", "c d")] == ["d", "d"]
        assert resource.get_all(0) == []
        resource.delete()
        sent = [(request.method, request.path, request.body) for request in server.requests]
    assert sent == [
        ("POST", "/api/dataset", b'{"dataset_description":"x"}'),
        ("PUT", "/api/dataset/e", b'{"dataset_name":"n"}'),
        ("GET", "/api/datasets/all?dataset_name=a.b&dataset_description=c+d", b""),
        ("GET", "/api/datasets/all", b""),
        ("DELETE", "/api/dataset/e", b""),
    ]


@pytest.mark.parametrize(("name", "description"), [("x" * 33, None), (None, "x" * 257)])
def test_names_are_as_long_as_the_protocol_allows(name: str | None, description: str | None) -> None:
    with faulty(answer({"dataset_id": "d"})) as server:
        with pytest.raises(ValueError, match="at most"):
            connect(server).dataset().create(name, description)
        assert server.requests == []
