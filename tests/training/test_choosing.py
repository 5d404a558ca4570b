"""`Chooser`: what is chosen, told by the labels' ids, and what it is told of labelled frames."""

from __future__ import annotations

import pytest
import torch
from shades import STAGE, OneBox, Shades, Tiny, make_loader, naive_choice
from torch import nn

from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.options import PassOptions
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.choosing import Chooser
from cval_torch.training.labels import LabelPool


def chooser(
    dataset: Shades, *stages: DetectionSampling, labeled: tuple[str, ...] = ("0", "1", "2"), **given: object
) -> Chooser:
    labels = LabelPool(dataset, labeled=labeled)
    return Chooser(labels, make_loader, stages or (STAGE,), PassOptions(adapter=OneBox(), progress=False), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_choice(wrapped: bool) -> None:
    dataset, model = Shades(20), Tiny()
    expected, scores = naive_choice(model, dataset, range(3, 20), 3)
    state = torch.get_rng_state()
    choice = chooser(dataset).choose(nn.DataParallel(model) if wrapped else model, 5, Ranks(distributed=False))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(choice.round.frame_ids) == expected
    assert choice.scores.tolist() == pytest.approx(scores, rel=1e-5)
    assert (choice.round.epoch, choice.round.model_fingerprint) == (5, model_fingerprint(model))
    assert choice.predictions.indices is not None
    assert [str(row) for row in choice.predictions.indices.tolist()] == expected


def test_labelled_frames_are_avoided_unless_told_otherwise() -> None:
    dataset, model, ranks = Shades(20), Tiny(), Ranks(distributed=False)
    stage = DetectionSampling(selection_strategy="k_center", num_of_samples=1)
    [first] = chooser(dataset, stage, avoid_labeled=False).choose(model, None, ranks).round.frame_ids
    distances = (dataset.shades - dataset.shades[int(first)]).abs()
    near = tuple(str(row) for row in distances.argsort().tolist()[1:4])  # not the frame itself
    [unaware] = chooser(dataset, stage, labeled=near, avoid_labeled=False).choose(model, None, ranks).round.frame_ids
    [aware] = chooser(dataset, stage, labeled=near).choose(model, None, ranks).round.frame_ids
    given = dataset.shades[[int(name) for name in near]]
    others = [row for row in range(20) if str(row) not in near]
    assert aware == str(max(others, key=lambda row: float((dataset.shades[row] - given).abs().min())))
    assert aware != unaware


def test_a_backend_of_the_user_is_asked_alone() -> None:
    asked = []

    class Own(LocalBackend):
        def select(self, pool, stages):  # type: ignore[no-untyped-def]
            asked.append(len(pool))
            return super().select(pool, stages)

    stage = DetectionSampling(selection_strategy="k_center", num_of_samples=2)
    choice = chooser(Shades(20), stage, backend=Own()).choose(Tiny(), None, Ranks(distributed=False))
    assert len(choice.round.frame_ids) == 2
    assert asked == [17]
