"""One choice by several processes from random pools: scenarios for `together.py`."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from together import rank, scenario

from cval_torch import DetectionSampling, LocalBackend, Pool, Selection, max_zscore
from cval_torch.pool.ranks import Ranks, processes
from cval_torch.selection.together import choose_together


def random_pool(generator: random.Random, frames: int, *, activation: str | None) -> Pool:
    counts = torch.tensor([generator.choice([0, 0, 1, 2, 5]) for _ in range(frames)])
    boxes = int(counts.sum())
    with torch.random.fork_rng():
        torch.manual_seed(generator.randrange(1000))
        columns: dict[str, Any] = {
            "scores": torch.randint(0, 4, (boxes,)) / 4,  # few values: ties
            "labels": torch.randint(0, 3, (boxes,)),
            "boxes": torch.rand(boxes, 4),
            "box_embeddings": torch.rand(boxes, 3),
            "frame_embeddings": torch.rand(frames, 2),
            "indices": torch.arange(frames),
        }
        if activation is not None:
            numbers = torch.randint(-2, 3, (boxes, 4)).float()
            columns["probabilities"] = numbers.softmax(1) if activation == "softmax" else numbers.sigmoid()
    names = [f"frame {generator.randrange(10**6):06}{row:03}" for row in range(frames)]
    return Pool(names, torch.cat([counts.new_zeros(1), counts.cumsum(0)]), activation=activation, **columns)


def most_boxes_of_all(pool: Pool) -> torch.Tensor:
    """A score that looks at the other frames."""
    return (pool.counts - pool.counts.double().mean()) / (1 + pool.counts.double().std())


def against_all(box_scores: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """An aggregation that looks at the other frames: each frame's last box, less the mean of all boxes."""
    return box_scores[offsets[1:] - 1] - box_scores.mean()


MANY_SIGNALS = max_zscore("entropy", ("least", "sum"), most_boxes_of_all)
BY_FRAME = ("least", "margin", "ratio", "entropy", "probability", "random")
NULL_POLICIES = ("protocol", "skip", "last", "sample")


def random_stage(generator: random.Random, n: int, **given: Any) -> DetectionSampling:
    # weighted_kmeans weighs frames by the scores of the stage before
    strategies = [
        *BY_FRAME,
        most_boxes_of_all,
        MANY_SIGNALS,
        "clustering",
        "weighted_kmeans",
        "k_center",
        "auto",
        "ppal",
        "diverse_prototypes",
    ]
    options = {
        "selection_strategy": generator.choice(strategies),
        "bbox_selection_policy": generator.choice(["min", "max", "mean", "sum", None, against_all]),
        "sort_strategy": generator.choice(["ascending", "descending", None]),
        "null_policy": generator.choice(NULL_POLICIES),
        "seed": generator.randrange(5),
        "num_of_boxes": generator.choice([None, None, 3, 8]),
        "num_of_minutes": generator.choice([None, None, 2, 5]),
        "min_distance": generator.choice([None, None, None, 0.5]),
    }
    options |= given
    if options["selection_strategy"] in ("least", "margin", "ratio", "entropy") or generator.random() < 0.05:
        options["class_weights"] = generator.choice([None, {0: 2.5, 1: 0.3, 9: 7}, "balanced"])
    if options["selection_strategy"] in (*BY_FRAME, most_boxes_of_all, "auto"):
        options["class_quotas"] = generator.choice([None, None, {0: 2, 2: 3}, {1: 50}])
    frames = None if options["num_of_boxes"] is not None and generator.random() < 0.5 else n
    return DetectionSampling(num_of_samples=frames, **options)


def backend_of(rank: int, number: int) -> LocalBackend:
    """Each process knows of other annotated objects, and rank 0's count; for some cases none are known."""
    return LocalBackend(labeled_counts=None if number % 8 == 7 else {0: 9, 1: 1 + 50 * rank})


def cases() -> Iterator[tuple[random.Random, Pool, list[DetectionSampling]]]:
    """Each first stage that needs no pool in one place, alone or before others; then stages of all kinds at random."""
    firsts = itertools.product(BY_FRAME, ("ascending", "descending"), NULL_POLICIES)
    for seed, given in enumerate([*firsts, *[None] * 24]):
        generator = random.Random(seed)
        frames = generator.choice([40, 30] if given else [1, 2, 20, 40])
        pool = random_pool(generator, frames, activation=generator.choice(["softmax", "sigmoid", None]))
        numbers = generator.choice([[12], [12, 4], [15, 10, 3]] if given else [[5], [12, 4], [50], [15, 10, 3]])
        stages = [random_stage(generator, n) for n in numbers]
        if given:
            strategy, sort, policy = given
            options = {"selection_strategy": strategy, "sort_strategy": sort, "null_policy": policy}
            stages[0] = random_stage(generator, numbers[0], **options)
        yield generator, pool, stages


def outcome_of(select_: Callable[[], tuple[Selection, Pool]]) -> Any:
    """The choice in words, or the error in words."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            selection, pool = select_()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    said = sorted(str(warning.message) for warning in caught)
    assert list(selection.frame_ids) == [pool.frame_ids[row] for row in selection.rows.tolist()]
    numbers = [str(selection.scores.tolist()), selection.estimated_boxes.tolist(), selection.indices.tolist()]
    return [list(selection.frame_ids), numbers, said]


@scenario
def every_kind_of_stage_chooses_as_in_one_process(_: Path) -> Any:
    """Random pools, dealt at random, with ties and frames without boxes; what differs is returned."""
    differing = []
    for number, (generator, whole, stages) in enumerate(cases()):
        owners = [generator.randrange(processes()) for _ in range(len(whole))]
        mine = [row for row in range(len(whole)) if owners[row] == rank()]
        together = outcome_of(
            lambda mine=mine, whole=whole, stages=stages, number=number: choose_together(
                whole.take(mine), mine, stages, backend_of(rank(), number), Ranks()
            )
        )
        alone = outcome_of(
            lambda whole=whole, stages=stages, number=number: (backend_of(0, number).select(whole, stages), whole)
        )
        if rank() == 0 and together != alone:
            differing.append([number, together, alone])
        everybodys = Ranks().exchange(lambda together=together: together[:2])
        if isinstance(together, list) and any(other != everybodys[0] for other in everybodys):
            differing.append([number, everybodys])
    return differing


@scenario
def the_class_weights_of_rank_zero_hold(_: Path) -> Any:
    """Each process has tracked other difficulties."""
    whole = random_pool(random.Random(3), 40, activation="softmax")
    mine = list(range(rank(), 40, processes()))
    stages = [
        DetectionSampling(selection_strategy="entropy", num_of_samples=9, class_weights={each: 5.0, 2: 0.1})
        for each in range(2)
    ]
    together, _pool = choose_together(whole.take(mine), mine, stages[rank() % 2 :][:1], LocalBackend(), Ranks())
    alone = LocalBackend().select(whole, stages[0])
    return together.frame_ids == alone.frame_ids != LocalBackend().select(whole, stages[1]).frame_ids


@scenario
def only_frames_that_were_kept_travel(_: Path) -> Any:
    """Of 40 frames with 1 kB of embeddings each, the bytes that are sent are far fewer than 40 kB."""
    sent: list[int] = []
    send = Ranks.send

    def counting(self: Ranks, tensor: torch.Tensor, **options: Any) -> torch.Tensor:
        sent.append(tensor.numel() * tensor.element_size())
        return send(self, tensor, **options)

    whole = random_pool(random.Random(1), 40, activation=None).replace(frame_embeddings=torch.rand(40, 256))
    mine = list(range(rank(), 40, processes()))
    Ranks.send = counting  # type: ignore[method-assign]
    try:
        stages = [
            DetectionSampling(selection_strategy="entropy", num_of_samples=4),
            DetectionSampling(selection_strategy="clustering", num_of_samples=2),
        ]
        choose_together(whole.take(mine), mine, stages, LocalBackend(), Ranks())
    finally:
        Ranks.send = send  # type: ignore[method-assign]
    return sum(sent)
