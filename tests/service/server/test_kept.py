"""What lies in a server's directory, and that it is kept without torch."""

from __future__ import annotations

import json
from pathlib import Path

from fresh_process import run_python

from cval_torch.service.protocol import DatasetRequest
from cval_torch.service.server.kept import Kept
from cval_torch.service.server.settings import Limits


def test_a_server_needs_no_torch() -> None:
    run_python(
        "-c",
        "import sys, cval_torch.service.server.app, cval_torch.service.server.connections\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)",
    )


def test_the_frames_of_a_task_go_with_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits())
    tasks = [kept.tasks.add("me", None, start=1.0, stages="[]").id for _ in range(3)]
    for task_id in (*tasks, "nobodys"):
        kept.pool_path(task_id).write_bytes(b"frames")
    kept.fail_task(tasks[0], "too much")
    assert kept.delete_task(tasks[1], "you") is False
    assert kept.delete_task(tasks[1], "me") is True
    assert {path.stem for path in (tmp_path / "tasks").iterdir()} == {tasks[2], "nobodys"}
    assert kept.tasks.claim({}) is not None
    kept.sweep()
    assert {path.stem for path in (tmp_path / "tasks").iterdir()} == {tasks[2]}
    assert kept.tasks.claim({}) is not None, "what ran waits again"
    kept.close()


def test_an_upload_is_answered_with_what_is_in_it(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Limits())
    dataset_id = kept.store.create_dataset("me", DatasetRequest())
    sent = [{"frame_id": "a", "embeddings": [{"embedding_id": "0", "embedding": [1.0]}]}]
    answer = json.loads(kept.store_embeddings(dataset_id, "test", json.dumps(sent).encode()))
    assert answer["frames"] == [{"frame_id": "a", "embeddings_quantity": 1, "embeddings": ["0"]}]
    kept.close()
