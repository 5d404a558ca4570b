"""What a server takes, and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from cval_torch.pool.limits import MAX_FRAME_ID_LENGTH

DATABASE, POOLS, INCOMING = "cval.sqlite3", "tasks", "incoming"
"""In a server's directory: all that is kept, the frames of tasks that wait, and bodies that are received."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; `cval-torch serve` has an option for each.

    Attributes:
        body_bytes: of a request body; more is answered 413.
        body_seconds: for a body to arrive; longer, or less than 8 KiB a second, is answered 408.
        frames: in one request.
        predictions: boxes in one request.
        vector_length: numbers in an embedding, and in a box's probabilities.
        id_length: characters of an embedding id (the protocol bounds a frame id by 128).
        page: frames in one slice of stored embeddings.
        datasets: of one key.
        answer_at_once: a request of so many predictions is answered with its result; a larger one becomes a task.
        compare_at_once: the same for strategies that compare frames with each other, which takes far longer.
        waiting_tasks: of one key; more are answered 429.
        finished_tasks: of one key that are kept; the oldest are forgotten when a new one comes.
        task_seconds: after which a task has failed.
        large_bodies: bodies of more than 1 MiB, of one key, that are received at a time; others wait.
        stored_bytes: of all embeddings of one key, and of the frames of its tasks that wait; more are answered 507.
        requests_a_minute: of one key; more are answered 429.
    """

    body_bytes: int = 1 << 30
    body_seconds: float = 600.0
    frames: int = 1_000_000
    predictions: int = 20_000_000
    vector_length: int = 65_536
    id_length: int = MAX_FRAME_ID_LENGTH
    page: int = 10_000
    datasets: int = 100_000
    answer_at_once: int = 10_000
    compare_at_once: int = 500
    waiting_tasks: int = 100
    finished_tasks: int = 100_000
    task_seconds: float = 3600.0
    large_bodies: int = 4
    stored_bytes: int = 1 << 36
    requests_a_minute: int = 12_000

    @property
    def piece_bytes(self) -> int:
        """Bytes of a large body that are read in one piece: a box with its probabilities, or all beside the frames."""
        return max(1 << 20, 32 * self.vector_length)


class RefusedError(Exception):
    """A request that is answered with an error status.

    Attributes:
        status: the HTTP status.
        detail: what the answer says.
        retry_after: seconds, for a status of 429.
    """

    def __init__(self, status: int, detail: str, retry_after: int = 5) -> None:
        super().__init__(status, detail, retry_after)  # as arguments, so that it survives the way between processes
        self.status, self.detail, self.retry_after = status, detail, retry_after


def at_most(got: int, most: int, what: str) -> None:
    """Raise RefusedError, 413, if there is more than is taken."""
    if got > most:
        raise RefusedError(413, f"at most {most} {what} are taken; got {got}")
