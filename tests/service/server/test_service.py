"""A server that is killed, and the next one in its directory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from own_server import KEY, OwnServer, serving_here
from running_processes import children_of, is_running, resident_mib, wait_until
from server_calls import SAMPLING, Api, sampling, vector

from cval_torch.errors import InvalidInputError
from cval_torch.service.server.service import Service
from cval_torch.service.server.settings import Limits


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_kill_9_loses_nothing_and_runs_again_what_ran(tmp_path: Path) -> None:
    """2000 frames in a tree of clusters: long enough to be in the middle of it when the server dies."""
    numbers = random.Random(0)
    names = [f"f{row}" for row in range(2000)]
    server = OwnServer(tmp_path, "--answer-at-once", "100")
    try:
        api = Api(server.url)
        dataset_id = api.dataset()
        vectors = [vector(*(numbers.random() for _ in range(4)), frame_id=name) for name in names]
        assert api("POST", f"/dataset/{dataset_id}/training/embeddings", vectors).status_code == 200
        boxes = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in names]
        request = sampling(selection_strategy="hierarchical", dataset_id=dataset_id, frames=boxes, num_of_samples=50)
        tasks = [api("POST", SAMPLING, request).json()["task_id"] for _ in range(2)]
        wait_until(lambda: len(children_of(server.process.pid)) == 2)
        helpers = children_of(server.process.pid)
        assert resident_mib(server.process.pid) < 300, "the process that answers needs no torch"
        with pytest.raises(InvalidInputError, match="in use by another server"):
            Service(tmp_path, [(None, KEY)], Limits())
        server.kill()
        wait_until(lambda: not any(map(is_running, helpers)))
        api.session.close()
    finally:
        server.stop()
    assert KEY not in server.log
    with serving_here(tmp_path) as url:
        api = Api(url)
        stored = api("GET", f"/dataset/{dataset_id}/training/embeddings/meta", params={"stop_limit": 3000}).json()
        assert [frame["frame_id"] for frame in stored["frames"]] == names
        results = [api.result(task)["result"] for task in tasks]
        api.session.close()
    assert results[0] == results[1]
    assert len(set(results[0]) & set(names)) == 50
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
