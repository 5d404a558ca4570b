"""The benchmark of a server under load: latencies, memory, and that nothing is lost."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_server import serving_here

import service_load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_it_measures(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A server in this process, which needs one worker less to start."""

    @contextlib.contextmanager
    def server_here(data: str, _: str, keys: str) -> Iterator[tuple[str, int]]:
        with serving_here(Path(data), keys=Path(keys)) as url:
            yield url, os.getpid()

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(service_load, "own_server", server_here)
    service_load.main(["--seconds", "0.5", "--clients", "2", "--boxes", "2000", "--kills", "0"])
    said = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ") and line.count("|") == 6]
    assert rows == ["", "`/livez`, beside 2 clients", "small requests"]
    assert re.search(r"^\| server \| \d+ \| \d+ \| \d+ \|$", said, flags=re.MULTILINE)


def test_it_kills_while_a_task_runs_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    said = service_load.killed(1, users=1)
    assert re.search(r"1 while a task ran, 1 of these by .* another\. Acknowledged: [\d,]+ datasets", said)
    assert said.endswith("tasks. Lost: nothing.")


def test_a_row_of_latencies() -> None:
    values = [float(number) for number in range(1, 101)][::-1]
    assert service_load.latency_row("x", values) == "| x | 100 | 51.0 | 100.0 | 100.0 |"
