"""The benchmark of scoring: its pools are as it says, every strategy and policy is in its tables, objects agree."""

from __future__ import annotations

from pathlib import Path

import pytest

import scoring
from cval_torch import DetectionSampling, LocalBackend


def test_ragged_pools_have_about_as_many_boxes() -> None:
    uniform, ragged = (scoring.make_pool(2000, classes=3, ragged=ragged) for ragged in (False, True))
    assert uniform.counts.unique().tolist() == [scoring.BOXES]
    assert ragged.counts.unique().tolist() == list(range(2 * scoring.BOXES + 1))
    assert ragged.num_boxes == pytest.approx(uniform.num_boxes, rel=0.05)
    assert ragged.probabilities is not None
    assert ragged.probabilities.sum(1).tolist() == pytest.approx([1] * ragged.num_boxes, abs=1e-5)


@pytest.mark.parametrize("classes", [None, 4])
def test_objects_choose_the_same(classes: int | None) -> None:
    pool = scoring.make_pool(60, classes=classes)
    chosen = LocalBackend().select(pool, DetectionSampling(selection_strategy="entropy", num_of_samples=9))
    assert scoring.select_by_objects(pool, 9) == list(chosen.frame_ids)


@pytest.mark.filterwarnings("ignore:the stage")
def test_a_line_a_strategy_and_a_column_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "scoring.md"
    scoring.main(["--frames", "50", "--repeats", "1", "--object-frames", "20", "--output", str(table)])
    lines = table.read_text(encoding="utf-8").splitlines()
    for strategy, times in [("least", 4), ("margin", 4), ("ratio", 4), ("entropy", 4), ("probability", 2)]:
        rows = [line for line in lines if line.startswith(f"| `{strategy}` |")]
        assert len(rows) == times
        assert all(row.count(" ms)") == len(scoring.POLICIES) for row in rows)
    assert capsys.readouterr().out.strip().splitlines() == lines
