"""The benchmark of a server's memory, with a small request: it says what each process took."""

from __future__ import annotations

import os
import sys

import pytest

import service_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_it_measures_all_processes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    service_memory.main(["--boxes", "24000"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in lines if line.count("|") == 5] == [
        "process",
        "client",
        "server",
        "worker for bodies",
        "worker for tasks",
    ]


def test_a_peak_is_seen_that_is_over() -> None:
    with service_memory.Watch({"me": os.getpid()}) as watch:
        held = bytearray(b"x") * (200 * service_memory.MIB)
        del held
    assert 150 < watch.usage["me"].peak / service_memory.MIB < 300
    assert service_memory.memory_of(2**30, "VmRSS") == 0
