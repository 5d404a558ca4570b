"""`schemathesis` over the server's own OpenAPI: whatever fits the schema, or nearly, is never answered 500."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from own_server import KEY, serving_here
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from cval_torch.service.server.app import create_app

SCHEMA = schemathesis.openapi.from_dict(create_app(Path("nowhere"), [(None, KEY)]).openapi())
NOTHING_WRONG = [(f"GET /{name}", GenerationMode.NEGATIVE) for name in ("healthz", "livez", "readyz")]
OPERATIONS = {operation.ok().label: operation.ok() for operation in SCHEMA.get_all_operations()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_here(tmp_path_factory.mktemp("schema")) as url:
        yield url.removesuffix("/api")


def test_the_schema_has_every_path_of_the_protocol() -> None:
    assert {
        "POST /api/dataset",
        "PUT /api/dataset/{dataset_id}",
        "GET /api/dataset/{dataset_id}",
        "GET /api/datasets/all",
        "POST /api/dataset/{dataset_id}/{part}/embeddings",
        "GET /api/dataset/{dataset_id}/{part}/embeddings",
        "GET /api/dataset/{dataset_id}/{part}/embeddings/meta",
        "DELETE /api/dataset/{dataset_id}/{part}/embeddings",
        "GET /api/dataset/{dataset_id}/{part}/embedding/{frame_id}/{embedding_id}",
        "DELETE /api/dataset/{dataset_id}/{part}/embedding/{frame_id}/{embedding_id}",
        "POST /api/on-premise/sampling/detection",
        "GET /api/result/{task_id}",
        "GET /api/results",
    } <= set(OPERATIONS)


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in OPERATIONS
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        if (label, mode) not in NOTHING_WRONG  # they take nothing that could be wrong
    ],
)
def test_no_request_is_answered_500(root: str, label: str, mode: GenerationMode) -> None:
    @settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        headers = {"Authorization": f"user_api_key:{KEY}"}
        response = case.call(base_url=root, headers=headers)
        case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

    ask()
