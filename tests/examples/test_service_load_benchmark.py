"""The benchmark of a server under load: latencies, memory, and that nothing is lost."""

from __future__ import annotations

import re
import sys

import pytest

import service_load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


def test_it_measures_and_loses_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    service_load.main(["--seconds", "1", "--clients", "2", "--boxes", "2000", "--kills", "1"])
    said = capsys.readouterr().out
    rows = [line.split("|")[1].strip() for line in said.splitlines() if line.startswith("| ") and line.count("|") == 6]
    assert rows == ["", "`/livez`, beside 2 clients", "small requests"]
    assert re.search(r"^\| server \| \d+ \| \d+ \| \d+ \|$", said, flags=re.MULTILINE)
    assert re.search(r"1 of them while a task ran\. Acknowledged: [\d,]+ datasets, .* tasks\. Lost: nothing\.", said)


def test_a_row_of_latencies() -> None:
    values = [float(number) for number in range(1, 101)][::-1]
    assert service_load.latency_row("x", values) == "| x | 100 | 51.0 | 100.0 | 100.0 |"
