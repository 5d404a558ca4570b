"""The benchmark of memory: the detector is as wide as it says, and its kinds of stages run."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

import memory
from cval_torch import extract


def test_the_detector_gives_many_wide_boxes() -> None:
    pool = extract(memory.make_model(), DataLoader(memory.Frames(3), collate_fn=list), progress=False)
    assert pool.counts.tolist() == [memory.DETECTIONS] * 3
    assert pool.box_embeddings is not None
    assert pool.probabilities is not None
    assert pool.box_embeddings.shape[1] == 1024
    assert pool.probabilities.shape[1] == memory.CLASSES


def test_a_line_a_kind(capsys: pytest.CaptureFixture[str]) -> None:
    memory.main(["--frames", "8", "16", "--stages", "auto", "--warm-up", "4"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("| auto | ")
    assert lines[-1].count("|") == 4


def test_the_most_that_is_held() -> None:
    def hold() -> None:
        numbers = torch.ones(2**24)  # 64 MiB
        numbers += 1

    before = memory.anonymous()
    assert memory.most_held(hold) - before > 2**25


@pytest.mark.filterwarnings("ignore:the stage")
@pytest.mark.parametrize("kind", memory.STAGES)
def test_every_kind_chooses(kind: str) -> None:
    model, loader = memory.make_model(), DataLoader(memory.Frames(6), batch_size=2, collate_fn=list)
    stages = [stage.model_copy(update={"num_of_samples": 2}) for stage in memory.STAGES[kind]]
    chosen = memory.select(model, loader, stages=stages, progress=False)
    assert len(chosen) == 2
