"""Scenarios for `together.py`: the share of each process, and what is wrong in one of them."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from pathlib import Path
from typing import Any

import torch
from one_box import OneBox
from tiny_rcnn import Frames, Stream, hooks_of, loader_of, make_faster_rcnn, pairs
from together import rank, run, scenario
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, Subset
from watched_passes import Watched, same

from cval_torch import DetectionSampling, extract, pipeline, select
from cval_torch.pool.ranks import Ranks, from_rank_zero, is_rank_zero, processes


@scenario
def extraction_is_that_of_one_process(_: Path) -> Any:
    """Even, uneven, and fewer batches than processes."""
    return [same(run(Frames(n)), run(Frames(n), distributed=False)) for n in (16, 9, 1)]


@scenario
def shuffling_loaders_agree_on_rank_zeros_order(_: Path) -> Any:
    torch.manual_seed(rank())
    state = torch.get_rng_state()
    pool = run(Frames(8), loading={"shuffle": True})
    assert torch.equal(torch.get_rng_state(), state)
    order = pool.indices.tolist()
    batches = [order[start : start + 2] for start in range(0, 8, 2)]
    alone = DataLoader(Frames(8), batch_sampler=batches, collate_fn=pairs)
    return order, same(pool, extract(make_faster_rcnn(), alone, distributed=False, progress=False))


@scenario
def shares_are_disjoint_and_together_the_whole(_: Path) -> Any:
    share = run(Frames(9), gather=False)
    whole = run(Frames(9), distributed=False)
    return list(share.frame_ids), same(share, whole.take([whole.frame_ids.index(name) for name in share.frame_ids]))


@scenario
def a_rank_without_frames_has_an_empty_share(_: Path) -> Any:
    share = run(Frames(1), gather=False)
    return len(share), share.num_boxes, [name for name, _ in share.columns()]


@scenario
def a_selection_is_that_of_one_process(_: Path) -> Any:
    model = nn.parallel.DistributedDataParallel(make_faster_rcnn())
    stages = [
        DetectionSampling(selection_strategy="entropy", num_of_samples=6),
        DetectionSampling(selection_strategy="clustering", num_of_samples=3),
    ]
    both = [
        select(model, loader_of(Frames(9)), stages=stages, progress=False, distributed=distributed)
        for distributed in (None, False)
    ]
    assert same(both[0].predictions, both[1].predictions)
    assert both[0].stages == both[1].stages
    assert both[0].dataset[3][1]["row"] == 3
    assert len(both[0]) == 3
    return [[list(each.frame_ids), each.indices, each.scores.tolist()] for each in both]


@scenario
def selections_of_every_kind_are_those_of_one_process(_: Path) -> Any:
    """First stages of each kind, with predictions that are kept and that are had again; a draw before anything."""
    model, chosen = make_faster_rcnn(), []
    kept_or_not = ("entropy", "k_center", "auto", "random", "ppal")
    others = ("clustering", "weighted_kmeans", "kmeans_plus_plus", "typicality", "facility_location", "hierarchical")
    for strategy in (*kept_or_not, *others):
        for few in (0, 16) if strategy in kept_or_not else (0,):
            pipeline._FEW_FRAMES = few  # type: ignore[attr-defined]
            both = [
                select(
                    model,
                    loader_of(Frames(9)),
                    num_of_samples=4,
                    selection_strategy=strategy,
                    progress=False,
                    distributed=distributed,
                )
                for distributed in (None, False)
            ]
            assert both[0].predictions.frame_ids == both[0].frame_ids
            assert torch.equal(both[0].predictions.counts, both[1].predictions.counts)
            chosen.append([[list(each.frame_ids), each.indices] for each in both])
    return chosen


@scenario
def an_error_in_one_is_an_error_in_all(_: Path) -> Any:
    """Row 2 is in the second batch, rank 1's; rank 0 has three batches of its own."""
    model = make_faster_rcnn().train()
    try:
        extract(model, loader_of(Watched(10, breaks=2)), progress=False)
    finally:
        assert hooks_of(model) == 0
        assert all(module.training for module in model.modules())
        assert same(run(Frames(4)), run(Frames(4), distributed=False))  # and they go on together


@scenario
def an_interruption_of_one_is_an_error_in_the_others(_: Path) -> Any:
    run(Watched(10, breaks=2, error=KeyboardInterrupt()))


@scenario
def an_error_in_a_plan_is_an_error_in_all(_: Path) -> Any:
    run(Frames(4), loading={"sampler": range(4) if rank() == 0 else [9]})


@scenario
def padding_of_samplers_vanishes(_: Path) -> Any:
    """Five frames for two or three processes: one is padding. With one frame a batch the numbers are the same too."""
    rows = []
    for options in ({"shuffle": False}, {"shuffle": True, "seed": 3}, {"shuffle": False, "drop_last": True}):
        frames = Frames(5, size=48)
        sampler: DistributedSampler[Any] = DistributedSampler(frames, **options)
        pool = run(frames, loading={"sampler": sampler, "batch_size": 1})
        alone = run(frames, loading={"batch_size": 1}, distributed=False)
        rows.append(pool.indices.tolist())
        assert same(pool.take(pool.indices.argsort()), alone)
    return rows


@scenario
def shares_made_by_hand_are_kept(_: Path) -> Any:
    read = Watched(7)
    pool = run(read, loading={"sampler": range(rank(), 7, processes())})
    return sorted(pool.indices.tolist()), read.rows


@scenario
def samplers_that_leave_a_rank_out_are_refused(_: Path) -> Any:
    sampler: DistributedSampler[Any] = DistributedSampler(Frames(6), rank=0, shuffle=False)
    run(Frames(6), loading={"sampler": sampler})


@scenario
def samplers_that_overlap_by_chance_are_refused(_: Path) -> Any:
    run(Frames(6), loading={"sampler": [0, 1, 2 + rank()]})


@scenario
def datasets_that_differ_are_refused(_: Path) -> Any:
    run(Subset(Frames(9), range(rank(), rank() + 4)))


@scenario
def a_stream_is_refused(_: Path) -> Any:
    run(Stream())


@scenario
def other_weights_are_refused(_: Path) -> Any:
    model = make_faster_rcnn()
    with torch.no_grad():
        next(model.parameters()).add_(rank())
    extract(model, loader_of(Frames(4)), progress=False)


@scenario
def other_batchnorm_statistics_are_rank_zeros_meanwhile(_: Path) -> Any:
    model = make_faster_rcnn()
    statistics = dict(model.named_buffers())["backbone.1.running_mean"]
    statistics.add_(rank() / 4)
    before = statistics.clone()
    pool = extract(model, loader_of(Frames(6)), progress=False)
    return same(pool, run(Frames(6), distributed=False)), torch.equal(statistics, before)


@scenario
def an_id_twice_is_found_between_processes(_: Path) -> Any:
    run(Frames(4), frame_id=lambda row, _: str(row % 2))


@scenario
def an_id_twice_is_found_in_a_selection(_: Path) -> Any:
    options = {"num_of_samples": 2, "frame_id": lambda row, _: str(row % 2), "progress": False}
    select(make_faster_rcnn(), loader_of(Frames(4)), **options)


@scenario
def targets_of_two_kinds_are_refused(_: Path) -> Any:
    class HalfNamed(Frames):
        def __getitem__(self, row: int) -> Any:
            image, target = super().__getitem__(row)
            return image, target if row < 2 else {**target, "image_id": row}

    run(HalfNamed(4))


@scenario
def other_columns_are_refused(_: Path) -> Any:
    adapter = OneBox(box_embeddings=lambda output: torch.zeros(len(output), 2 + rank()))
    extract(nn.Linear(1, 1).requires_grad_(False).apply(zeroed), loader_of(Frames(4)), adapter=adapter, progress=False)


def zeroed(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()


@scenario
def no_frames_at_all_are_an_error(_: Path) -> Any:
    run(Frames(0))


@scenario
def the_bar_is_rank_zeros_and_counts_all(_: Path) -> Any:
    with contextlib.redirect_stderr(io.StringIO()) as bar:
        run(Frames(9), progress=True)
    return bar.getvalue()


@scenario
def one_alone_waits_for_nobody(_: Path) -> Any:
    return len(run(Frames(3), distributed=False)) if rank() == 1 else None


@scenario
def values_are_exchanged(_: Path) -> Any:
    ranks = Ranks(True)
    tensor = torch.full((3,), float(ranks.rank), dtype=torch.bfloat16)
    sent = ranks.send(tensor.clone(), source=1)
    to_zero = ranks.send(tensor.clone(), source=1, to=0)
    return [
        ranks.exchange(lambda: ranks.rank * 10),
        from_rank_zero(lambda: f"of {rank()}"),
        is_rank_zero(),
        processes(),
        sent.tolist(),
        to_zero.tolist(),
    ]


@scenario
def what_cannot_travel_is_an_error_in_all(_: Path) -> Any:
    Ranks().exchange(lambda: (lambda: 1) if rank() == 1 else 1)


@scenario
def what_rank_zero_raises_is_an_error_in_all(_: Path) -> Any:
    from_rank_zero(lambda: {}["missing"])


@scenario
def a_rank_dies(_: Path) -> Any:
    """Rank 1 is killed at its first row."""

    class Deadly(Frames):
        def __getitem__(self, row: int) -> Any:
            if row == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(row)

    run(Deadly(10))
