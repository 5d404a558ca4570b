"""The benchmark of first rounds: what each arm chooses, and what the table says."""

from __future__ import annotations

from types import SimpleNamespace

import torch

import first_round
from cval_torch import Pool


def test_every_arm_chooses_as_many_frames() -> None:
    chance = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (60,), generator=chance)
    boxes = int(counts.sum())
    pool = Pool(
        [f"{row}" for row in range(60)],
        torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        labels=torch.randint(0, 3, (boxes,), generator=chance),
        scores=torch.rand(boxes, generator=chance),
        box_embeddings=torch.randn(boxes, 8, generator=chance),
        frame_embeddings=torch.randn(60, 8, generator=chance),
        indices=torch.arange(60),
    )
    found = list(first_round.choices(pool, SimpleNamespace(truth=None), 6, 2))
    assert [arm for arm, _, _ in found] == ["random", "random", "every n-th", *first_round.STAGES]
    for arm, _, rows in found:
        assert len(set(rows)) == 6
        assert "detections" not in arm or all(counts[row] for row in rows)
    assert found[0][2] != found[1][2]
    assert found[2][2] == [0, 10, 20, 30, 40, 50]


def test_the_table_compares_within_pools() -> None:
    def line(pool: int, arm: str, draw: int, map50: float) -> dict[str, object]:
        return {"setting": "clean", "pool": pool, "arm": arm, "draw": draw, "boxes": 9, "classes": 4, "map50": map50}

    lines = [line(0, "random", 0, 0.1), line(0, "random", 1, 0.3), line(1, "random", 0, 0.5)]
    lines += [line(0, "auto", 0, 0.3), line(1, "auto", 0, 0.5)]
    table = first_round.table_of(lines).splitlines()
    assert table[2] == "| clean | random | 0.350 |  | 9 | 4.0 |"
    assert table[3] == "| clean | auto | 0.400 | +0.050 ± 0.635 | 9 | 4.0 |"
