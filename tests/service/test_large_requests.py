"""What the worker of a server takes for a large body, which is bounded by its columns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from cval_torch.pool.pool import Pool
from cval_torch.service.codec import embeddings_json, predictions_json
from cval_torch.service.protocol import DatasetRequest
from cval_torch.service.server.database import Database
from cval_torch.service.server.settings import Limits
from cval_torch.service.server.store import Store
from cval_torch.service.server.tasks import Tasks
from cval_torch.service.server.worker import Worker
from service_memory import MIB, Watch, make_pool

FIXED = 60 * MIB  # what is read at a time, generously


def write_request(path: Path, pool: Pool, **fields: Any) -> None:
    head = json.dumps({"num_of_samples": 9, "selection_strategy": "entropy", **fields})
    with path.open("wb") as file:
        file.write(head[:-1].encode() + b',"frames":')
        file.writelines(predictions_json(pool))
        file.write(b"}")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_worker_takes_the_memory_of_columns_and_not_of_objects(tmp_path: Path) -> None:
    """One request of 100,000 boxes in frames of 20, one with all of them in one frame, and an upload.

    A request is 29 MiB of JSON, of which 9 MiB are columns. As objects it is some 230 MiB.
    """
    pool = make_pool(100_000, embeddings=False)
    columns = sum(column.nbytes for _, column in pool.columns())
    one_frame = Pool(
        ["a"],
        torch.tensor([0, pool.num_boxes]),
        scores=pool.scores,
        probabilities=pool.probabilities,
        activation="softmax",
    )
    vectors = Pool(
        [str(row) for row in range(20_000)],
        torch.arange(0, 20_001),
        box_embeddings=torch.randn(20_000, 128, generator=torch.Generator().manual_seed(0)),
    )
    request, crowd, upload, few = (tmp_path / name for name in ("request", "crowd", "upload", "few"))
    write_request(request, pool)
    write_request(crowd, one_frame)
    write_request(few, pool.part(0, 9))
    (body,) = embeddings_json(vectors, max_bytes=1 << 30)
    upload.write_bytes(body.body)
    worker = Worker(tmp_path, Limits())
    try:
        worker.call("take_sampling", "me", few)
        database = Database(tmp_path / "cval.sqlite3")
        store = Store(database)
        dataset = store.create_dataset("me", DatasetRequest())
        for what, arguments, most in [
            ("take_sampling", ("me", request), 2 * columns + FIXED),
            ("take_sampling", ("me", crowd), 2 * columns + FIXED),
            ("store_embeddings", (dataset, "test", upload), FIXED),
        ]:
            with Watch({"worker": worker.pid or 0}) as watch:
                worker.call(what, *arguments)
            assert watch.usage["worker"].anonymous < most, (arguments, watch.usage)
        assert store.embedding(dataset, "test", "19999", "19999") is not None
        assert len(Tasks(database).unfinished("me")) == 2
        database.close()
    finally:
        worker.close()
