"""What is done with a request."""

from __future__ import annotations

from pathlib import Path

from cval_torch.service.server.settings import Limits
from cval_torch.service.server.work import Work


def test_tasks_that_wait_are_not_forgotten(tmp_path: Path) -> None:
    work = Work(tmp_path, Limits())
    waiting = work.store.add_task("me", None, start=1.0, stages="[]")
    done = [work.store.add_task("me", None, start=2.0, result=["a"], keep=1) for _ in range(3)]
    assert [task.id for task in work.store.tasks("me", None, 9)] == [done[-1].id, waiting.id]
    work.close()
