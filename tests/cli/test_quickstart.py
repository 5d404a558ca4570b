"""`cval-torch quickstart` (`run_quickstart`): everything that `select` does, without data."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch.cli import drawn, main


@pytest.mark.filterwarnings("default::UserWarning")
def test_it_draws_trains_and_chooses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn, "_STEPS", 4)
    assert main(["quickstart", "--output", str(tmp_path / "q"), "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("8 of 60 images")
    assert len(list((tmp_path / "q" / "images").iterdir())) == 80
    assert len((tmp_path / "q" / "selection" / "ids.txt").read_text().splitlines()) == 8
    assert main(["quickstart", "--output", str(tmp_path / "q")]) == 2
    assert "is not empty" in capsys.readouterr().err
