"""Datasets of the service."""

from __future__ import annotations

from pydantic import BaseModel, TypeAdapter

from cval_torch.errors import (
    InvalidInputError,
)
from cval_torch.service.client.embeddings import EmbeddingResource
from cval_torch.service.client.resource import ANYTHING, Resource, quoted
from cval_torch.service.protocol import Dataset, DatasetRequest


class _Created(BaseModel):
    dataset_id: str


_CREATED = TypeAdapter(_Created)


_DATASET = TypeAdapter(Dataset)


_DATASETS = TypeAdapter(list[Dataset])


class DatasetResource(Resource):
    """Datasets: named places for embeddings. It remembers the id of the dataset that it last created or was given."""

    dataset_id: str | None = None

    def create(self, name: str | None = None, description: str | None = None) -> str:
        """Create a dataset.

        Args:
            name: at most 32 characters.
            description: at most 256 characters.

        Returns:
            Its `dataset_id`.
        """
        body = _dataset_body(name, description)
        created = self._transport.call(
            "POST", "/dataset", _CREATED, body=body, deadline=self._deadline(), repeatable=False
        )
        self.dataset_id = created.dataset_id
        return created.dataset_id

    def update(self, dataset_id: str | None = None, name: str | None = None, description: str | None = None) -> Dataset:
        """Change a dataset; what is None stays as it is. Without `dataset_id`, the remembered one."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        body = _dataset_body(name, description)
        return self._transport.call("PUT", path, _DATASET, body=body, deadline=self._deadline())

    def get(self, dataset_id: str | None = None) -> Dataset:
        """A dataset's name and description. Without `dataset_id`, of the remembered one."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        return self._transport.call("GET", path, _DATASET, deadline=self._deadline())

    def get_all(self, name: str | int | None = None, description: str | None = None) -> list[Dataset]:
        """Datasets whose name and description match.

        Args:
            name: a regular expression; empty, None or 0 (which old notebooks pass) matches all.
            description: the same.
        """
        query = {"dataset_name": name or None, "dataset_description": description or None}
        return self._transport.call("GET", "/datasets/all", _DATASETS, query=query, deadline=self._deadline())

    def delete(self, dataset_id: str | None = None) -> None:
        """Delete a dataset and its embeddings, where the service can: cval.ai cannot, a server of one's own can."""
        path = f"/dataset/{quoted(self._remembered(dataset_id), '`dataset_id`')}"
        self._transport.call("DELETE", path, ANYTHING, deadline=self._deadline())

    def embedding(self, part_of_dataset: str) -> EmbeddingResource:
        """Embeddings of one part of the remembered dataset."""
        return EmbeddingResource(self._transport, self._timeout, self._remembered(None), part_of_dataset)

    def _remembered(self, dataset_id: str | None) -> str:
        self.dataset_id = dataset_id or self.dataset_id
        if self.dataset_id is None:
            raise InvalidInputError("`dataset_id` must be given: no dataset was created or named before")
        return self.dataset_id


def _dataset_body(name: str | None, description: str | None) -> bytes:
    request = DatasetRequest(dataset_name=name, dataset_description=description)
    return request.model_dump_json(exclude_none=True).encode()
