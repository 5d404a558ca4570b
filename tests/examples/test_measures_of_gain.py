"""The benchmark of measures: what it correlates, and that it measures choices of stored rounds."""

from __future__ import annotations

from pathlib import Path

import label_efficiency
import measures_of_gain


def test_ranks_are_correlated_within_pools_and_over_all() -> None:
    def choice(pool: int, gain: float, objects: float) -> dict[str, object]:
        return {
            "setting": "clean", "pool": pool, "start": 0, "arm": "auto", "draw": 0, "frames": 0.0, "gain": gain,
            "objects": objects, "constant": 1.0,
        }  # fmt: skip

    choices = [choice(1, 0.1, 1), choice(1, 0.2, 2), choice(1, 0.3, 3), choice(2, 0.1, 3), choice(2, 0.2, 2)]
    lines = measures_of_gain.table_of(choices).splitlines()
    # within: 1 and -1; over all: ranks of gain 1.5 3.5 5 1.5 3.5 beside 1 2.5 4.5 4.5 2.5
    assert lines[2] == "| objects | 0.00 | 0.36 | 0.00 |"
    assert lines[3] == "| constant | 0.00 | 0.00 | 0.00 |"


def test_choices_of_stored_rounds_are_measured(tmp_path: Path) -> None:
    label_efficiency.main(["--tiny", "--arms", "entropy, max", "--processes", "1", "--out", str(tmp_path)])
    table = measures_of_gain.main(["--rounds", str(tmp_path / "tiny"), "--out", str(tmp_path / "out")])
    assert "| scarce_objects |" in table
    lines = (tmp_path / "out" / "measures.csv").read_text().splitlines()
    assert lines[0].startswith("setting,pool,start,arm,draw,gain,frames,scarce_objects,objects")
    arms = [line.split(",")[3] for line in lines[1:] if not line.startswith("#")]
    assert sorted(arms) == sorted(["random", "every n-th", "oracle (cheats)", '"entropy']), "a name with a comma"
    random = next(line.split(",") for line in lines[1:] if ",random," in line)
    assert all(float(value) == 0 for value in random[5:]), "a single draw is its own mean"
