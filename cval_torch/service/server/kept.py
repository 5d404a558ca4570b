"""All that a server keeps in its directory. It needs no torch, so that the process which answers stays small."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from cval_torch.service.server.database import Database
from cval_torch.service.server.incoming import incoming_embeddings
from cval_torch.service.server.payloads import Body
from cval_torch.service.server.settings import DATABASE, POOLS, Limits
from cval_torch.service.server.store import Store
from cval_torch.service.server.tasks import Tasks
from cval_torch.service.server.uploads import Upload


class Kept:
    """Datasets, embeddings and tasks, and the frames of tasks that wait.

    Args:
        data: the server's directory.
        limits: what it takes.
    """

    def __init__(self, data: Path, limits: Limits) -> None:
        self.limits = limits
        self._database = Database(data / DATABASE)
        self.store, self.tasks = Store(self._database), Tasks(self._database)
        self._pools = data / POOLS
        self._pools.mkdir(mode=0o700, exist_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def sweep(self) -> None:
        """Remove what a killed server left half done, and let its tasks wait again. For the start of a server."""
        self.tasks.requeue()
        self.store.sweep()
        kept = {self.pool_path(task_id) for task_id, _ in self.tasks.unfinished()}
        for path in set(self._pools.iterdir()) - kept:
            path.unlink(missing_ok=True)

    def store_embeddings(self, dataset_id: str, part: str, body: Body) -> bytes:
        """Store an upload, all of it or nothing; the answer, which says what is in it, as JSON.

        Raises:
            RefusedError: the body is not what it must be, or too much.
        """
        with io.BytesIO() if isinstance(body, bytes) else tempfile.TemporaryFile(dir=body.parent) as file:
            upload = Upload(file, self.limits)
            for portion in incoming_embeddings(body, most=self.limits.piece_bytes):
                upload.take(portion)
            upload.check()
            self.store.add_embeddings(dataset_id, part, upload.rows(), most_bytes=self.limits.stored_bytes)
            return upload.answer()

    def fail_task(self, task_id: str, problem: str) -> None:
        """Write down that a task cannot be done."""
        self.tasks.finish(task_id, problem=problem[:2000])
        self.pool_path(task_id).unlink(missing_ok=True)

    def delete_task(self, task_id: str, owner: str) -> bool:
        """Forget the owner's task; whether there was one."""
        found = self.tasks.delete(task_id, owner)
        if found:
            self.pool_path(task_id).unlink(missing_ok=True)
        return found

    def pool_path(self, task_id: str) -> Path:
        """Where the frames of a task lie."""
        return self._pools / f"{task_id}.pool"
