"""What a selection is going to take: the pictures that are inferred for it stand for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cval_torch import extract
from cval_torch.config import load_config, open_work
from cval_torch.config.forecast import forecast
from tests.worlds.first_user import BUILDER, make_place


@pytest.mark.filterwarnings("default::UserWarning")
def test_of_few_images_it_is_what_they_take(tmp_path: Path) -> None:
    place = make_place(tmp_path)
    values = {
        "source": str(place / "photos" / "cats"),
        "model.builder": BUILDER,
        "model.checkpoint": str(place / "detector.pt"),
        "model.num_classes": 3,
        "workers": 0,
        "device": "cpu",
    }
    work = open_work(load_config(None, values=values))
    found = forecast(work)
    pool = extract(work.detector.model, work.loader(work.labels.unlabeled), progress=False)
    assert found["images"] == 8
    assert found["labeled"] == 0
    assert pool.scores is not None
    assert found["boxes"] == pytest.approx(float(pool.scores.sum()), rel=1e-4)
    assert found["kept_bytes"] == pytest.approx(sum(column.nbytes for _, column in pool.columns()), rel=1e-6)
    assert found["seconds"] > 0
