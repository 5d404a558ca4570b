"""What the wire costs: encoding, uploading and asking, beside the public client doing the same.

    python examples/benchmarks/wire.py                  # installs cval-lib into an environment of its own, first
    python examples/benchmarks/wire.py --public PYTHON  # an interpreter that has cval-lib already
    python examples/benchmarks/wire.py --public none    # without it
    python examples/benchmarks/wire.py --clock cpu      # on a machine that others use, too

Three things, each a few times, the median of which counts:

1. `encode`: 10,000 frames of 20 boxes to the JSON of a sampling request. The public client builds its models (one
   object a box) and encodes them; `predictions_json` goes straight from the columns.
2. `upload`: 100,000 embeddings of 256 floats to a server of one's own on the loopback interface, beside encoding them
   alone; and how much memory the server's processes take meanwhile.
3. `ask`: a sampling request of those 200,000 boxes to that server, until its result is there, beside the time that
   the public client needs to encode it.

`--clock cpu` counts processor seconds, those of the server's processes included: what the clock on the wall would show
on a quiet machine, if nothing of it went on at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from cval_torch.pool.pool import Pool
from cval_torch.service.client import CVALConnection
from cval_torch.service.codec import embeddings_json, predictions_json

Clock = Callable[[], float]

ROOT = Path(__file__).resolve().parents[2]
PUBLIC_CLIENT = "cval-lib==0.0.2.55"
KEY = "key-of-the-benchmark"
FRAMES, BOXES = 10_000, 20
EMBEDDINGS, WIDTH = 100_000, 256

PUBLIC = """
import json, random, sys, time, uuid
from cval_lib.models.detection import BBoxScores, DetectionSamplingOnPremise, FramePrediction
frames, boxes, rounds, clock = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), getattr(time, sys.argv[4])
names = [uuid.uuid4().hex for _ in range(frames)]
rows = [[(random.randint(0, 3), random.random()) for _ in range(boxes)] for _ in names]
seconds = []
for _ in range(rounds):
    began = clock()
    request = DetectionSamplingOnPremise(
        num_of_samples=200, bbox_selection_policy="min", selection_strategy="margin", sort_strategy="ascending",
        frames=[
            FramePrediction(frame_id=name, predictions=[BBoxScores(category_id=c, score=s) for c, s in row])
            for name, row in zip(names, rows)
        ],
    )
    body = json.dumps(request.dict()).encode()
    seconds.append(clock() - began)
print(json.dumps({"seconds": seconds, "bytes": len(body)}))
"""


def make_predictions() -> Pool:
    """10,000 frames of 20 boxes, with scores and classes, as in the public notebook."""
    generator = torch.Generator().manual_seed(0)
    boxes = FRAMES * BOXES
    return Pool(
        [f"{row:032x}" for row in range(FRAMES)],
        torch.arange(0, boxes + 1, BOXES),
        scores=torch.rand(boxes, generator=generator),
        labels=torch.randint(0, 4, (boxes,), generator=generator),
    )


def make_embeddings() -> Pool:
    """Frames of 10 boxes with embeddings of 256 floats."""
    generator = torch.Generator().manual_seed(0)
    frames = EMBEDDINGS // 10
    return Pool(
        [f"{row:032x}" for row in range(frames)],
        torch.arange(0, EMBEDDINGS + 1, 10),
        box_embeddings=torch.randn(EMBEDDINGS, WIDTH, generator=generator),
    )


def server_clock(clock: Clock, pid: int) -> Clock:
    """The same clock, for what a server has a part in."""
    return partial(processor_seconds, pid) if clock is processor_seconds else clock


def timed(work: Callable[[], object], rounds: int, clock: Clock) -> float:
    """The median of a few runs, in seconds."""
    seconds = []
    for _ in range(rounds):
        began = clock()
        work()
        seconds.append(clock() - began)
    return statistics.median(seconds)


@contextlib.contextmanager
def public_python(choice: str | None) -> Iterator[str | None]:
    """An interpreter with the public client; None without it."""
    if choice is not None:
        yield None if choice == "none" else choice
        return
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "venv", place], check=True
        )
        python = str(Path(place) / "bin" / "python")
        subprocess.run(  # noqa: S603
            [python, "-m", "pip", "install", "--quiet", PUBLIC_CLIENT], check=True
        )
        yield python


@contextlib.contextmanager
def own_server(data: str) -> Iterator[tuple[str, int]]:
    """A server process: its URL, and its process id."""
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "cval_torch.cli.serve", "serve", "--data", data, "--port", "0", "--log-level", "info"],
        env={**os.environ, "CVAL_API_KEY": KEY, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stream = process.stderr
        assert stream is not None
        found = next(filter(None, (re.search(r"running on (http://\S+)", line) for line in stream)))
        threading.Thread(target=stream.read, daemon=True).start()  # so that it never waits for someone to read
        yield f"{found.group(1)}/api", process.pid
    finally:
        process.terminate()
        process.wait()


def processor_seconds(pid: int | None = None) -> float:
    """Of this process, and of a server and its children."""
    total = time.process_time()
    for stat in Path("/proc").glob("[0-9]*/stat") if pid is not None else ():
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if pid in (int(stat.parent.name), int(fields[1])):
                total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def memory_of(pid: int) -> int:
    """Bytes of a process and its children, what they share divided among them; 0 where there is no /proc."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if pid in (int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])):
                found = re.search(r"^Pss:\s+(\d+)", (stat.parent / "smaps_rollup").read_text(), flags=re.MULTILINE)
                total += 1024 * int(found.group(1)) if found else 0
    return total


class MemoryWatch:
    """The most memory that a server took while this was on, in bytes."""

    def __init__(self, pid: int) -> None:
        self.before = self.most = memory_of(pid)
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.most = max(self.most, memory_of(self._pid))

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def encode(pool: Pool, python: str | None, rounds: int, clock: Clock) -> float | None:
    """Encoding a request; the public client's seconds are returned."""
    ours = timed(lambda: b"".join(predictions_json(pool)), rounds, clock)
    size = sum(map(len, predictions_json(pool)))
    print(f"encode    {FRAMES:,} frames of {BOXES} boxes: {ours:.3f} s, {size / 1e6:.1f} MB")
    if python is None:
        return None
    name = "process_time" if clock is processor_seconds else "perf_counter"
    said = subprocess.run(  # noqa: S603
        [
            python,
            "-c",
            PUBLIC,
            str(FRAMES),
            str(BOXES),
            str(rounds),
            name,
        ],
        capture_output=True,
        check=True,
    )
    public = json.loads(said.stdout)
    seconds: float = statistics.median(public["seconds"])
    print(
        f"          the public client: {seconds:.3f} s, {public['bytes'] / 1e6:.1f} MB: {seconds / ours:.0f} times the "
        f"time, {public['bytes'] / size:.2f} times the bytes (goals: 20, 2)"
    )
    return seconds


def upload(pool: Pool, url: str, pid: int, rounds: int, clock: Clock) -> None:
    """Uploading embeddings, beside encoding them alone."""

    def encode_alone() -> int:
        return sum(len(body.body) for body in embeddings_json(pool))

    alone = timed(encode_alone, rounds, clock)
    size = encode_alone()
    with CVALConnection(KEY, url) as connection:
        connection.embedding(connection.dataset().create("warm"), "test").upload_pool(
            pool.take([0, 1, 2]), progress=False
        )

        def once() -> None:
            connection.embedding(connection.dataset().create("bench"), "test").upload_pool(pool, progress=False)

        once()  # the server's processes are up
        with MemoryWatch(pid) as memory:
            seconds = timed(once, rounds, server_clock(clock, pid))
    print(
        f"upload    {EMBEDDINGS:,} embeddings of {WIDTH} floats ({size / 1e6:.0f} MB of JSON): {seconds:.2f} s; "
        f"encoding alone {alone:.2f} s: {seconds / alone:.2f} times (goal: 3)"
    )
    print(f"          the server's processes: {memory.before / 1e6:.0f} MB before, {memory.most / 1e6:.0f} MB at most")


def ask(pool: Pool, url: str, rounds: int, clock: Clock) -> float:
    """The seconds from the columns of 200,000 boxes until the result of asking about them is there."""
    head = b'{"num_of_samples":200,"selection_strategy":"margin","bbox_selection_policy":"min","frames":'

    with CVALConnection(KEY, url) as connection:

        def once() -> None:
            task = connection.detection().send_sampling([head, *predictions_json(pool), b"}"])
            connection.result().wait(task.task_id, progress=False)

        once()  # the worker is up
        return timed(once, rounds, clock)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--public", metavar="PYTHON", help="an interpreter that has cval-lib, or `none`")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    clock = {"wall": time.perf_counter, "cpu": processor_seconds}[options.clock]
    pool = make_predictions()
    with public_python(options.public) as python:
        public = encode(pool, python, options.rounds, clock)
    with tempfile.TemporaryDirectory() as data, own_server(data) as (url, pid):
        seconds = ask(pool, url, options.rounds, server_clock(clock, pid))
        print(f"ask       {pool.num_boxes:,} boxes, encoded, sent, chosen from and answered: {seconds:.2f} s")
        if public is not None:
            print(f"          the public client encodes them in {public:.2f} s (goal: less than that)")
        upload(make_embeddings(), url, pid, max(1, options.rounds // 2), clock)


if __name__ == "__main__":
    main()
