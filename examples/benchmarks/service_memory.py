"""How much memory a large request takes, at a server of one's own and at its client.

    python examples/benchmarks/service_memory.py --boxes 1000000
    python examples/benchmarks/service_memory.py --boxes 1000000 --strategy k_center   # uploads embeddings, too

A server is started on the loopback interface, and `RestBackend` asks it to choose among frames of 20 boxes. A box has a
score, a class, and the probabilities of 20 classes. The table has a line for each process:

- the client, which holds the pool already before it asks;
- the server, which writes the request to a file as it comes in;
- its worker for bodies, which reads that file, and writes the columns to the disk;
- its worker for tasks, which chooses.

The worker for small requests has nothing to do.

`peak` is the most resident memory (`VmHWM`) above what the process had after a small request of the same kind.
`anonymous` is the part of it that is no page of a file (`RssAnon`, looked at every five milliseconds). Pages of files
are given back when the system needs room. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cval_torch import DetectionSampling, Pool, RestBackend
from cval_torch.service.codec import predictions_json

ROOT = Path(__file__).resolve().parents[2]
KEY = "key-of-the-benchmark"
BOXES_A_FRAME, CLASSES, WIDTH = 20, 20, 64
MIB = 2**20
WARM_UP = 20_000  # boxes: more than a server answers at once, so that all of its processes have worked


@dataclass(frozen=True)
class Usage:
    """What a process took, in bytes.

    Attributes:
        idle: resident before.
        peak: the most resident memory above that.
        anonymous: the most anonymous memory above what it had of that.
    """

    idle: int
    peak: int
    anonymous: int


def make_pool(boxes: int, *, embeddings: bool) -> Pool:
    """Frames of 20 boxes with all that a score strategy reads."""
    generator = torch.Generator().manual_seed(0)
    frames = max(1, boxes // BOXES_A_FRAME)
    boxes = frames * BOXES_A_FRAME
    return Pool(
        [f"{row:032x}" for row in range(frames)],
        torch.arange(0, boxes + 1, BOXES_A_FRAME),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, CLASSES, (boxes,), generator=generator),
        probabilities=torch.randn(boxes, CLASSES, generator=generator).mul_(2).softmax(1),
        activation="softmax",
        box_embeddings=torch.randn(boxes, WIDTH, generator=generator) if embeddings else None,
    )


def memory_of(pid: int, field: str) -> int:
    """Bytes of `VmRSS`, `VmHWM` or `RssAnon` of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), flags=re.MULTILINE)
        return 1024 * int(found.group(1)) if found else 0
    return 0


def workers_of(pid: int) -> list[int]:
    """The processes that a server started to work for it, in the order in which it did."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == pid and b"service.server.worker" in (stat.parent / "cmdline").read_bytes():
                found.append((int(fields[19]), int(stat.parent.name)))
    return [worker for _, worker in sorted(found)]


class Watch:
    """Watches processes while it is on; then `usage` has what each of them took."""

    def __init__(self, named: dict[str, int]) -> None:
        self._named = named
        self._idle = {name: (memory_of(pid, "VmRSS"), memory_of(pid, "RssAnon")) for name, pid in named.items()}
        self._anonymous = {name: idle[1] for name, idle in self._idle.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.usage: dict[str, Usage] = {}

    def __enter__(self) -> Watch:
        for pid in self._named.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for name, pid in self._named.items():
            resident, anonymous = self._idle[name]
            peak = memory_of(pid, "VmHWM") - resident
            self.usage[name] = Usage(resident, peak, self._anonymous[name] - anonymous)

    def _look(self) -> None:
        while not self._over.wait(0.005):
            for name, pid in self._named.items():
                self._anonymous[name] = max(self._anonymous[name], memory_of(pid, "RssAnon"))


@contextlib.contextmanager
def own_server(data: str, *options: str) -> Iterator[tuple[str, int]]:
    """A server process: its URL, and its process id."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cval_torch.cli", "serve", "--data", data, "--port", "0", *options],
        env={**os.environ, "CVAL_API_KEY": KEY, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    stream = process.stderr
    assert stream is not None
    reading = threading.Thread(target=stream.read, daemon=True)  # so that it never waits for someone to read
    try:
        found = next(filter(None, (re.search(r"running on (http://\S+)", line) for line in stream)))
        reading.start()
        yield f"{found.group(1)}/api", process.pid
    finally:
        process.terminate()
        process.wait()
        if reading.ident is not None:
            reading.join()
        stream.close()


def ask(pool: Pool, strategy: str, url: str) -> float:
    """Choose a hundred frames; the seconds that it took."""
    stage = DetectionSampling(selection_strategy=strategy, num_of_samples=100)
    with RestBackend(api_key=KEY, url=url, progress=False) as backend:
        began = time.perf_counter()
        backend.select(pool, stage)
        return time.perf_counter() - began


def measured(pool: Pool, strategy: str, *options: str) -> tuple[dict[str, Usage], float]:
    """What each process took for one request, and the seconds."""
    with tempfile.TemporaryDirectory() as data, own_server(data, *options) as (url, pid):
        ask(make_pool(WARM_UP, embeddings=pool.box_embeddings is not None), strategy, url)
        _small, bodies, tasks = workers_of(pid)
        named = {"client": os.getpid(), "server": pid, "worker for bodies": bodies, "worker for tasks": tasks}
        with Watch(named) as watch:
            seconds = ask(pool, strategy, url)
    return watch.usage, seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--strategy", default="entropy")
    options = parser.parse_args(arguments)
    with_embeddings = options.strategy not in ("least", "margin", "ratio", "entropy", "probability", "random")
    pool = make_pool(options.boxes, embeddings=with_embeddings)
    columns = sum(column.nbytes for _, column in pool.columns())
    size = sum(map(len, predictions_json(pool)))
    usage, seconds = measured(pool, options.strategy, "--max-body-bytes", str(4 << 30))
    print(f"{pool.num_boxes:,} boxes in {len(pool):,} frames, `{options.strategy}`\n")
    print("| | MiB |\n|---|---|")
    print(f"| the pool's columns | {columns / MIB:.0f} |\n| the predictions as JSON | {size / MIB:.0f} |\n")
    print("| process | idle, MiB | peak above idle, MiB | anonymous above idle, MiB |\n|---|---|---|---|")
    for name, used in usage.items():
        print(f"| {name} | {used.idle / MIB:.0f} | {used.peak / MIB:.0f} | {used.anonymous / MIB:.0f} |")
    print(f"\n{seconds:.1f} s from the pool to the selection.")


if __name__ == "__main__":
    main()
