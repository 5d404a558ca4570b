"""Naive implementations of the strategies on objects, and pools for them."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import strategies as st

from cval_torch import Pool

Vector = list[float]


def unit(vector: Vector) -> Vector:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def cosine(one: Vector, other: Vector) -> float:
    return math.fsum(a * b for a, b in zip(unit(one), unit(other), strict=True))


def boxes_of(pool: Pool, frame: int) -> range:
    return range(int(pool.offsets[frame]), int(pool.offsets[frame + 1]))


def naive_objects(pool: Pool) -> list[list[tuple[object, float, Vector]]]:
    """Of each frame the class, the score and the embedding of each of its objects."""
    frames = []
    for frame in range(len(pool)):
        rows = list(boxes_of(pool, frame))
        scores = {row: 1.0 if pool.scores is None else pool.scores[row].item() for row in rows}
        kept = [row for row in rows if scores[row] > 0.05] or rows
        if not sum(scores[row] for row in kept):
            scores = dict.fromkeys(rows, 1.0)
        objects = [(int(pool.labels[row]), scores[row], pool.box_embeddings[row].double().tolist()) for row in kept]
        if not rows:
            whole = [1.0] if pool.frame_embeddings is None else pool.frame_embeddings[frame].double().tolist()
            objects = [("no boxes", 1.0, whole)]
        frames.append(objects)
    return frames


def one_way(frame: list[Any], other: list[Any]) -> float:
    total = 0.0
    for label, score, vector in frame:
        same = [1 - cosine(vector, theirs) for theirs_label, _, theirs in other if theirs_label == label]
        total += score * min(same, default=2.0)
    return total / sum(score for _, score, _ in frame)


def distance(frame: list[Any], other: list[Any]) -> float:
    return round((one_way(frame, other) + one_way(other, frame)) / 2 * 2**16) / 2**16


def naive_ppal(pool: Pool, n: int, seed: int, labeled: Pool | None = None) -> list[int]:
    frames, known = naive_objects(pool), [] if labeled is None else naive_objects(labeled)
    every = range(len(frames))
    between = [[0.0 if a == b else distance(frames[a], frames[b]) for b in every] for a in every]
    far = [min((distance(frame, other) for other in known), default=math.inf) for frame in frames]
    if known:
        chosen = [max(every, key=lambda row: far[row])]
    else:
        chosen = [int(torch.randint(len(pool), (1,), generator=torch.Generator().manual_seed(seed)))]
    while len(chosen) < n:
        left = [row for row in every if row not in chosen]
        chosen.append(max(left, key=lambda row: min([far[row], *(between[row][c] for c in chosen)])))
    while True:
        clusters: list[list[int]] = [[] for _ in chosen]
        for row in every:
            nearest = min(range(n), key=lambda number: between[row][chosen[number]])
            nearest = chosen.index(row) if row in chosen else nearest
            if row in chosen or between[row][chosen[nearest]] <= far[row]:
                clusters[nearest].append(row)
        sums = [{row: sum(between[row][other] for other in cluster) for row in cluster} for cluster in clusters]
        moved = [
            medoid if sums[number][medoid] <= min(sums[number].values()) else min(sums[number], key=sums[number].get)  # type: ignore[arg-type]
            for number, medoid in enumerate(chosen)
        ]
        if moved == chosen:
            return chosen
        chosen = moved


def naive_entropy(pool: Pool, row: int) -> float:
    if pool.probabilities is None:
        doubt = min(pool.scores[row].item(), 1 - pool.scores[row].item())
        shares = [doubt, 1 - doubt]
    else:
        shares = pool.probabilities[row].double().tolist()
        if pool.activation == "sigmoid":
            shares = [share / (1 - share) for share in shares] + [1.0]
        shares = [share / sum(shares) for share in shares]
    return -math.fsum(p * math.log2(p) for p in shares if p > 0) / math.log2(len(shares))


class NaiveFrame:
    def __init__(self, pool: Pool, frame: int) -> None:
        rows = boxes_of(pool, frame)
        vectors = {row: unit(pool.box_embeddings[row].double().tolist()) for row in rows}
        doubts = {row: naive_entropy(pool, row) for row in rows}
        labels = {row: int(pool.labels[row]) for row in rows}
        scores = {row: 1.0 if pool.scores is None else pool.scores[row].item() for row in rows}
        waiting, kept = sorted(rows, key=lambda row: -doubts[row]), []
        while waiting:
            kept.append(first := waiting.pop(0))
            waiting = [
                row for row in waiting if labels[row] != labels[first] or cosine(vectors[row], vectors[first]) <= 0.5
            ]
        self.uncertainty = math.fsum(doubts[row] for row in kept)
        self.empty = not rows
        self.prototypes, self.held = {}, set()
        for label in set(labels.values()):
            mine = [row for row in rows if labels[row] == label]
            pull = {row: doubts[row] if sum(doubts[row] for row in mine) else 1.0 for row in mine}
            columns = zip(*([pull[row] * value for value in vectors[row]] for row in mine), strict=True)
            self.prototypes[label] = [math.fsum(column) for column in columns]
            if max(scores[row] for row in mine) > 0.3:
                self.held.add(label)

    def is_new(self, chosen: list[NaiveFrame]) -> bool:
        least = math.inf
        for label, prototype in self.prototypes.items():
            others = [frame.prototypes[label] for frame in chosen if label in frame.prototypes]
            least = min(least, max((cosine(prototype, other) for other in others), default=-1.0))
        return least < 0.7


def naive_prototypes(pool: Pool, n: int, labeled: Pool | None = None) -> list[int]:
    frames = [NaiveFrame(pool, frame) for frame in range(len(pool))]
    known = [] if labeled is None else [NaiveFrame(labeled, frame) for frame in range(len(labeled))]
    order = sorted(range(len(frames)), key=lambda row: (-frames[row].uncertainty, frames[row].empty, row))
    classes = sorted(set().union(*(frame.held for frame in frames)))
    counts = {label: sum(label in frame.held for frame in known or frames) for label in classes}
    minority = sorted(classes, key=lambda label: (counts[label], label))[: len(classes) // 2]
    quota = {label: math.ceil(0.75 * n / len(minority)) for label in minority}
    chosen: list[int] = []
    for row in order:
        due = [label for label in frames[row].held if quota.get(label, 0) > 0]
        if due and len(chosen) < math.ceil(0.75 * n) and frames[row].is_new(known + [frames[c] for c in chosen]):
            chosen.append(row)
            for label in due:
                quota[label] -= 1
    for row in order:
        if row not in chosen and len(chosen) < n and frames[row].is_new(known + [frames[c] for c in chosen]):
            chosen.append(row)
    return (chosen + [row for row in order if row not in chosen])[:n]


def make_pool_of_objects(
    frames: int, *, seed: int = 0, kind: str | None = "softmax", classes: int = 4, width: int = 6, prefix: str = "f"
) -> Pool:
    """Boxes of a few looks, frames of none to six of them."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 7, (frames,), generator=generator)
    boxes = int(counts.sum())
    looks = torch.randn(8, width, generator=generator)[torch.randint(0, 8, (boxes,), generator=generator)]
    numbers = torch.randn(boxes, classes, generator=generator) * 2
    return Pool(
        [f"{prefix}{row:04}" for row in range(frames)],
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        scores=torch.rand(boxes, generator=generator) ** 2,
        labels=torch.randint(0, classes, (boxes,), generator=generator) * 5 - 1,
        probabilities={"softmax": numbers.softmax(1), "sigmoid": numbers.sigmoid()}.get(str(kind)),
        activation=kind,  # type: ignore[arg-type]
        box_embeddings=looks + torch.randn(boxes, width, generator=generator),
        frame_embeddings=torch.randn(frames, 3, generator=generator),
    )


AXES = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 2.0], [-1.0, 0, 0], [0.0, 0, 0]]


box = st.tuples(st.integers(0, 2), st.integers(0, 8), st.integers(0, len(AXES) - 1))


lists_of_boxes = st.lists(st.lists(box, max_size=4), min_size=1, max_size=9)


def pool_of(frames: list[list[tuple[int, int, int]]], *, prefix: str = "f") -> Pool:
    """Frames of few different boxes, with cosines of -1, 0 and 1 and scores in eighths: full of ties, and exact."""
    boxes = [each for frame in frames for each in frame]
    return Pool(
        [f"{prefix}{row}" for row in range(len(frames))],
        torch.tensor([0, *(len(frame) for frame in frames)]).cumsum(0),
        scores=torch.tensor([score / 8 for _, score, _ in boxes]),
        labels=torch.tensor([label for label, _, _ in boxes], dtype=torch.int64),
        box_embeddings=torch.tensor([AXES[look] for _, _, look in boxes]).reshape(-1, 3),
    )
