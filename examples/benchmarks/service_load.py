"""Whether a server of one's own answers everybody while it works hard, and loses nothing when it is killed.

    python examples/benchmarks/service_load.py
    python examples/benchmarks/service_load.py --seconds 10 --boxes 100000 --kills 5   # shows the flow

First, 12 clients with a key each send small requests without a pause, while one more sends a job of a million boxes
again and again, uploads embeddings and deletes them. A process of its own asks for `/livez` fifty times a second. The
table has the latencies in milliseconds, and the resident memory of every process: the most, and at the end.

Then the server is killed (`kill -9`) fifty times while clients create datasets, upload embeddings and ask for
selections, small ones and tasks. Every second server is killed while a task runs, after it has finished another, so
that its worker computes; the others at a random moment, most while they start their workers. The next server starts
in the same directory. What was acknowledged must be there at the end, and every task must have its result. The file of
the killed server tells how many tasks were running.

Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cval_torch import DetectionSampling, RestBackend
from cval_torch.service.client import CVALConnection
from service_memory import KEY, MIB, make_pool, memory_of, own_server, workers_of

# `/livez` from a process that does nothing else: milliseconds, one a line, until it is ended
PROBE = """
import http.client, sys, time
connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
while True:
    began = time.perf_counter()
    connection.request("GET", "/livez")
    assert connection.getresponse().read() == b'{"status":"ok"}'
    took = time.perf_counter() - began
    print(1000 * took, flush=True)
    time.sleep(max(0.0, 0.02 - took))
"""


class Client:
    """Speaks JSON with a server for one key."""

    def __init__(self, url: str, key: str = KEY) -> None:
        self._parts = urlsplit(url)
        self._headers = {"Authorization": f"user_api_key:{key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(self._parts.netloc, timeout=120)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def __call__(self, method: str, path: str, content: Any = None) -> Any:
        """The answer.

        Raises:
            OSError, http.client.HTTPException: the server is gone, or did not answer 200.
        """
        body = None if content is None else json.dumps(content)
        self._connection.request(method, self._parts.path + path, body, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise http.client.HTTPException(f"{method} {path} was answered {answer.status}: {text[:200]!r}")
        return json.loads(text) if text else None


def small_request(frames: int = 50, **fields: Any) -> dict[str, Any]:
    """A selection that is answered at once."""
    boxes = [{"frame_id": f"f{row}", "predictions": [{"score": 0.5 + row / 1000}] * 4} for row in range(frames)]
    return {"num_of_samples": 10, "selection_strategy": "margin", "frames": boxes, **fields}


def slow_request(dataset_id: str, frame_ids: Sequence[str]) -> dict[str, Any]:
    """A selection that compares frames: a task, which takes tenths of a second."""
    frames = [{"frame_id": name, "predictions": [{"score": 0.5, "embedding_id": "0"}]} for name in frame_ids]
    return {**small_request(), "selection_strategy": "hierarchical", "dataset_id": dataset_id, "frames": frames}


def upload_of(name: str, frames: int, width: int = 8) -> list[dict[str, Any]]:
    """Frames with a vector each."""
    return [
        {"frame_id": f"{name}-{row}", "embeddings": [{"embedding_id": "0", "embedding": [row / 7] * width}]}
        for row in range(frames)
    ]


@contextlib.contextmanager
def probed(netloc: str) -> Iterator[list[float]]:
    """Milliseconds of each look at `/livez`, once it is over."""
    found: list[float] = []
    probe = subprocess.Popen([sys.executable, "-c", PROBE, netloc], stdout=subprocess.PIPE, text=True)  # noqa: S603
    lines = probe.stdout
    assert lines is not None
    reading = threading.Thread(target=lambda: found.extend(float(line) for line in lines))
    reading.start()
    try:
        yield found
    finally:
        probe.kill()
        probe.wait()
        reading.join()
        lines.close()


@contextlib.contextmanager
def memory_watched(server: int) -> Iterator[dict[int, tuple[int, int, int]]]:
    """By process, the most resident bytes, the last, and how many of these are of no file; workers come and go."""
    seen: dict[int, tuple[int, int, int]] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            for pid in (server, *workers_of(server)):
                now = memory_of(pid, "VmRSS")
                if now:
                    seen[pid] = (max(now, seen.get(pid, (0,))[0]), now, memory_of(pid, "RssAnon"))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        over.set()
        looking.join()


def under_load(seconds: float, clients: int, boxes: int) -> str:
    """The tables of a server that works for all of them."""
    pool = make_pool(boxes, embeddings=False)
    keys = [f"owner{number} key-of-client-{number}" for number in range(clients)] + [f"job {KEY}"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keys"
        file.write_text("\n".join(keys))
        with own_server(f"{folder}/data", "--api-key-file", str(file)) as (url, pid):
            end = time.monotonic() + seconds
            latencies: list[float] = []
            jobs: list[float] = []

            def ask(number: int) -> None:
                with Client(url, f"key-of-client-{number}") as client:
                    while time.monotonic() < end:
                        began = time.perf_counter()
                        client("POST", "/on-premise/sampling/detection", small_request())
                        latencies.append(1000 * (time.perf_counter() - began))

            def work() -> None:
                stage = DetectionSampling(selection_strategy="entropy", num_of_samples=100)
                with RestBackend(api_key=KEY, url=url, progress=False) as backend:
                    while time.monotonic() < end:
                        began = time.perf_counter()
                        backend.select(pool, stage)
                        jobs.append(time.perf_counter() - began)

            def store() -> None:
                with Client(url) as client:
                    path = f"/dataset/{client('POST', '/dataset', {})['dataset_id']}/training/embeddings"
                    while time.monotonic() < end:
                        client("POST", path, upload_of("f", 3000, 64))
                        client("GET", path)
                        client("DELETE", path)

            with memory_watched(pid) as memory, probed(urlsplit(url).netloc) as livez:
                with ThreadPoolExecutor(clients + 2) as threads:
                    for done in [*(threads.submit(ask, number) for number in range(clients)),
                                 threads.submit(work), threads.submit(store)]:  # fmt: skip
                        done.result()
                time.sleep(1.0)
    lines = ["| | number | p50, ms | p99, ms | maximum, ms |", "|---|---|---|---|---|"]
    lines += [latency_row(f"`/livez`, beside {clients} clients", livez), latency_row("small requests", latencies)]
    lines += ["", f"Jobs of {pool.num_boxes:,} boxes: {len(jobs)}, of {statistics.median(jobs):.1f} s each."]
    lines += ["", "| process | most resident, MiB | at the end, MiB | of it anonymous, MiB |", "|---|---|---|---|"]
    for process, sizes in memory.items():
        most, last, anonymous = (f"{size / MIB:.0f}" for size in sizes)
        lines.append(f"| {'server' if process == pid else 'worker'} | {most} | {last} | {anonymous} |")
    return "\n".join(lines)


def latency_row(name: str, values: Sequence[float]) -> str:
    """A line of the table of latencies."""
    ordered = sorted(values)
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"| {name} | {len(ordered)} | {p50:.1f} | {p99:.1f} | {ordered[-1]:.1f} |"


@dataclass
class Acknowledged:
    """What a server said that it has."""

    datasets: list[str] = field(default_factory=list)
    uploads: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)

    def use(self, url: str, number: int) -> None:
        """Ask for one thing after another until the server is gone."""
        with contextlib.suppress(OSError, http.client.HTTPException), Client(url) as client:
            while True:
                dataset_id = client("POST", "/dataset", {})["dataset_id"]
                self.datasets.append(dataset_id)
                sent = upload_of(str(number), random.choice((600, 3000)))
                client("POST", f"/dataset/{dataset_id}/training/embeddings", sent)
                self.uploads.append((dataset_id, sent))
                self.results.append(client("POST", "/on-premise/sampling/detection", small_request()))
                names = [frame["frame_id"] for frame in sent[:600]]
                task = client("POST", "/on-premise/sampling/detection", slow_request(dataset_id, names))
                self.tasks.append(task["task_id"])

    def missing(self, url: str) -> list[str]:
        """What the server does not have, in words."""
        with Client(url) as client:
            there = {dataset["dataset_id"] for dataset in client("GET", "/datasets/all")}
            found = [f"dataset {dataset_id}" for dataset_id in self.datasets if dataset_id not in there]
            for dataset_id, sent in self.uploads:
                stored = client("GET", f"/dataset/{dataset_id}/training/embeddings?stop_limit=5000")
                if [frame["frame_id"] for frame in stored] != [frame["frame_id"] for frame in sent]:
                    found.append(f"embeddings of {dataset_id}")
            for result in self.results:
                if client("GET", f"/result/{result['task_id']}") != result:
                    found.append(f"result {result['task_id']}")
        with CVALConnection(KEY, url) as cval:
            for task_id in self.tasks:
                chosen = cval.result().wait(task_id, timeout=600, progress=False).result
                if not isinstance(chosen, list) or len(set(chosen)) != 10:
                    found.append(f"task {task_id}")
        return found


def tasks_in(data: str, state: str, since: float = 0.0) -> int:
    """How many tasks the file of a server has in a state; of those that ended, the ones since a moment."""
    with contextlib.closing(sqlite3.connect(f"file:{data}/cval.sqlite3?mode=ro", uri=True)) as file:
        query = "SELECT count(*) FROM tasks WHERE state = ? AND stages IS NOT NULL AND coalesce(time_end, ?) >= ?"
        (count,) = file.execute(query, (state, since, since)).fetchone()
    return int(count)


def killed(kills: int, users: int = 3) -> str:
    """What became of all that was acknowledged by servers that were killed."""
    acknowledged = Acknowledged()
    running = computing = 0
    with tempfile.TemporaryDirectory() as data:
        for number in range(kills):
            began = time.time()
            with own_server(data, "--compare-at-once", "100") as (url, pid), ThreadPoolExecutor(users) as threads:
                asking = [threads.submit(acknowledged.use, url, user) for user in range(users)]
                if number % 2 == 0:
                    end = time.monotonic() + 60
                    while not (computes := tasks_in(data, "done", began) > 0 and tasks_in(data, "running") > 0):
                        if time.monotonic() > end:
                            break
                        time.sleep(0.01)
                    computing += computes
                else:
                    time.sleep(random.uniform(0.2, 2.0))
                os.kill(pid, 9)
                for each in asking:
                    each.result()
            running += tasks_in(data, "running")
        with own_server(data, "--compare-at-once", "100") as (url, _):
            missing = acknowledged.missing(url)
    counts: list[tuple[str, Callable[[], int]]] = [
        ("datasets", lambda: len(acknowledged.datasets)),
        ("uploads", lambda: len(acknowledged.uploads)),
        ("results", lambda: len(acknowledged.results)),
        ("tasks", lambda: len(acknowledged.tasks)),
    ]
    said = ", ".join(f"{count():,} {name}" for name, count in counts)
    lost = ", ".join(missing) or "nothing"
    while_ = f"{running} while a task ran, {computing} of these by a worker that had finished another"
    return f"`kill -9`, {kills} times: {while_}. Acknowledged: {said}. Lost: {lost}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--boxes", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=50)
    options = parser.parse_args(arguments)
    if options.seconds > 0:
        print(under_load(options.seconds, options.clients, options.boxes), flush=True)
    if options.kills > 0:
        print(f"\n{killed(options.kills)}")


if __name__ == "__main__":
    main()
