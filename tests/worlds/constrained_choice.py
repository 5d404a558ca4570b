"""The rules of budgets, distances and quotas, read one by one, and frames of a few looks to keep them with."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from naive_descriptors import naive_descriptors

from cval_torch.pool.pool import Pool
from cval_torch.selection.ranking import frame_scores
from cval_torch.selection.stage import DetectionSampling
from cval_torch.selection.stages import run_stages


class Oracle:
    """The rules, one frame after another."""

    def __init__(self, pool: Pool, one: DetectionSampling, labeled: Pool | None) -> None:
        self.pool, self.one = pool, one
        self.row_of = {frame_id: row for row, frame_id in enumerate(pool.frame_ids)}
        self.costs = [math.fsum(self.boxes(row, None)) for row in range(len(pool))]
        self.points: dict[str, list[float]] = {}
        if one.min_distance is not None:
            whole = pool if labeled is None else Pool.cat([pool, labeled])
            self.points.update(zip(whole.frame_ids, naive_descriptors(whole), strict=True))
        self.labeled = [] if labeled is None else list(labeled.frame_ids)

    def boxes(self, row: int, label: int | None) -> list[float]:
        return [
            float(self.pool.scores[box]) if self.pool.scores is not None else 1.0
            for box in range(int(self.pool.offsets[row]), int(self.pool.offsets[row + 1]))
            if label is None or int(self.pool.labels[box]) == label  # type: ignore[index]
        ]

    def shows(self, frame_id: str, label: int) -> bool:
        return math.fsum(self.boxes(self.row_of[frame_id], label)) >= 0.5

    def is_far(self, frame_id: str, others: list[str]) -> bool:
        return self.one.min_distance is None or all(
            math.dist(self.points[frame_id], self.points[other]) >= self.one.min_distance for other in others
        )

    def ranking(self, seen: list[str]) -> list[str]:
        if self.one.selection_strategy == "random":
            order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(self.one.seed)).tolist()
            return [sorted(seen)[place] for place in order]
        scores = frame_scores(self.pool, self.one).tolist()
        sign = -1 if self.one.descending else 1
        return sorted(seen, key=lambda frame_id: (sign * scores[self.row_of[frame_id]], frame_id))

    def order(self, ranking: list[str]) -> tuple[list[str], int]:
        """In which order frames are taken, and how many of them before the near-duplicates."""
        taken: list[str] = []
        quotas = self.one.class_quotas or {}
        for label in sorted(quotas, key=lambda each: (sum(self.shows(f, each) for f in ranking), each)):
            for frame_id in ranking:
                if sum(self.shows(other, label) for other in taken) >= quotas[label]:
                    break
                if (
                    frame_id not in taken
                    and self.shows(frame_id, label)
                    and self.is_far(frame_id, self.labeled + taken)
                ):
                    taken.append(frame_id)
        for frame_id in ranking:
            if frame_id not in taken and self.is_far(frame_id, self.labeled + taken):
                taken.append(frame_id)
        return taken + [frame_id for frame_id in ranking if frame_id not in taken], len(taken)

    def choice(self) -> list[str]:
        pool, one = self.pool, self.one
        nulls = sorted(f for f, count in zip(pool.frame_ids, pool.counts.tolist(), strict=True) if count == 0)
        if one.null_policy == "protocol":
            nulls = []
        seen = [frame_id for frame_id in pool.frame_ids if frame_id not in nulls]
        ranking = self.ranking(seen)
        order, far = self.order(ranking)
        most = min(one.num_of_samples or len(pool), len(pool))
        for n in range(most, 0, -1):
            share = {
                "sample": math.floor(n * len(nulls) / len(pool) + 0.5),
                "last": max(n - len(seen), 0),
            }.get(one.null_policy, 0)
            first = order[: min(n - share, len(seen))]
            cost = math.fsum(self.costs[self.row_of[frame_id]] for frame_id in first)
            seconds = 7.8 if one.seconds_per_frame is None else one.seconds_per_frame
            per_box = 25.5 if one.seconds_per_box is None else one.seconds_per_box
            minutes = (seconds * (len(first) + share) + per_box * cost) / 60
            if n == 1 or (cost <= (one.num_of_boxes or math.inf) and minutes <= (one.num_of_minutes or math.inf)):
                break
        chosen = sorted(first[:far], key=ranking.index) + first[far:]
        if one.null_policy == "sample":
            shuffle = torch.randperm(len(nulls), generator=torch.Generator().manual_seed(one.seed)).tolist()
            nulls = [nulls[place] for place in shuffle]
        added: list[str] = []
        for frame_id in nulls:
            if len(added) < share and self.is_far(frame_id, self.labeled + chosen + added):
                added.append(frame_id)
        return chosen + (added + [frame_id for frame_id in nulls if frame_id not in added])[:share]


def make_looks(frames: int, *, seed: int, looks: int = 4, nulls: bool = True, prefix: str = "f") -> Pool:
    """Frames of a few looks each, near-duplicates among them, with ties in their scores."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0 if nulls else 1, 4, (frames,), generator=generator)
    boxes = int(counts.sum())
    directions = torch.randn(looks, 6, generator=torch.Generator().manual_seed(1))
    look = torch.randint(0, looks, (frames,), generator=generator).repeat_interleave(counts)
    vectors = directions[look] + 0.1 * torch.randn(boxes, 6, generator=generator)
    return Pool(
        [f"{prefix}{row:03d}" for row in torch.randperm(frames, generator=generator).tolist()],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.randint(1, 9, (boxes,), generator=generator) / 8,
        labels=torch.randint(0, 3, (boxes,), generator=generator),
        box_embeddings=vectors,
        frame_embeddings=torch.randn(frames, 6, generator=generator),
    )


def quietly(pool: Pool, stages: Any, labeled: Pool | None = None) -> tuple[list[str], list[float]]:
    """The ids and scores of a choice, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows, scores, _ = run_stages(pool, stages, labeled=labeled)
    return [pool.frame_ids[row] for row in rows.tolist()], scores.tolist()
