"""What memory there is, and a forecast that is said early enough."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from cval_torch.errors import CvalError, NotEnoughMemoryError
from cval_torch.pool import memory
from cval_torch.pool.memory import Forecast, available_memory, check_fits


def test_there_is_some() -> None:
    found = available_memory()
    assert found is None or 2**20 < found < 2**50


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited and told by Linux alone")
def test_a_limit_of_address_space_counts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (20 * 2**30, 20 * 2**30))\n"
        "from cval_torch.pool.memory import available_memory, _left_of_address_space\n"
        "print(available_memory(), _left_of_address_space())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert 0 < int(said[0]) <= int(said[1]) < 20 * 2**30


def test_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_free", lambda: 900)
    monkeypatch.setattr(memory, "_left_in_group", lambda: 500)
    monkeypatch.setattr(memory, "_left_of_address_space", lambda: None)
    assert available_memory() == 500
    monkeypatch.setattr(memory, "_left_in_group", lambda: -5)
    assert available_memory() == 0
    for name in ("_free", "_left_in_group"):
        monkeypatch.setattr(memory, name, lambda: None)
    assert available_memory() is None


def forecast(
    monkeypatch: pytest.MonkeyPatch, available: int | None, *, total: int | None = 1000, limit: int | None = None
) -> Forecast:
    monkeypatch.setattr(memory, "available_memory", lambda: available)
    return Forecast(total, limit=limit, what="the pool", remedy="Keep less.")


def test_what_does_not_fit_is_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = forecast(monkeypatch, 4 * 2**30)
    with pytest.raises(NotEnoughMemoryError) as caught:
        expected.look(50, each=50 * 8 * 2**20)
    assert str(caught.value) == (
        "the pool takes about 8.19e+03 KB a frame, and about 8.59 GiB for 1000 frames; 4 GiB are available. Keep less."
    )
    assert isinstance(caught.value, (CvalError, MemoryError))
    with pytest.raises(NotEnoughMemoryError, match="`memory_limit` is 1 MiB"):
        forecast(monkeypatch, None, limit=2**20).look(50, each=50 * 2**20)


def test_what_takes_most_of_it_is_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = forecast(monkeypatch, 10 * 2**20)
    with pytest.warns(UserWarning, match=r"about 7.17 MiB .*10 MiB are available. If that is too much: keep less"):
        expected.look(10, each=10 * 6836)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected.look(20, each=20 * 6836)
        forecast(monkeypatch, 10 * 2**20).look(10, each=10 * 3000)
        forecast(monkeypatch, 2**20, limit=10 * 2**20).look(10, each=10 * 6836)


def test_what_does_not_grow_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotEnoughMemoryError):
        forecast(monkeypatch, 10_000).look(10, each=10, once=9_000)
    forecast(monkeypatch, 10_000, limit=10_000).look(10, each=10, once=8_000)


def test_it_is_due_after_a_few_frames_and_then_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = forecast(monkeypatch, 2**40)
    looks = []
    for frames in range(8, 1001, 8):
        if expected.is_due(frames):
            looks.append(frames)
            expected.look(frames, each=frames)
    assert looks == [32, 64, 128, 256, 512, 1000]
    assert forecast(monkeypatch, 2**40, total=9).is_due(9)


def test_where_nothing_is_known_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for expected in (forecast(monkeypatch, None), forecast(monkeypatch, 5, total=None)):
        assert not expected.is_due(10**6)
        expected.look(1, each=10**12)


def test_what_must_fit_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2**20)
    check_fits(2**20, what="it", remedy="Less.")
    with pytest.raises(NotEnoughMemoryError, match=r"^it takes about 2 MiB; 1 MiB are available. Less.$"):
        check_fits(2**21, what="it", remedy="Less.")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_fits(2**60, what="it", remedy="Less.")
