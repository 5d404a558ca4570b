"""`labels.json`: what is labelled, and what waits, as the sampler and the label pool have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cval_torch import LabelPool
from cval_torch.config.labels_file import LabelsFile, load_labels
from cval_torch.errors import InvalidInputError
from cval_torch.training import Round

IDS = ["a", "b", "c", "d"]


def pool(labeled: list[str] | None = None) -> LabelPool:
    return LabelPool([1, 2, 3, 4], labeled=labeled or [], frame_ids=IDS)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "labels.json"
    LabelsFile.of(path, pool(["b"]), Round(("c", "a", "d"), (3.0, 2.0, 1.0))).write()
    return path


def test_what_waits_is_confirmed_some_at_a_time(path: Path) -> None:
    record = LabelsFile.read(path)
    assert (record.num_frames, record.pending) == (4, ("c", "a", "d"))
    record.confirm(["d", "c"]).write()
    record = LabelsFile.read(path)
    assert record.pending == ("a",)
    assert record.rounds[-1].frame_ids == ("c", "d")
    assert record.rounds[-1].scores == (3.0, 1.0)
    record.confirm().write()
    labels = pool()
    load_labels(path, labels)
    assert labels.labeled_ids == ("b", "c", "d", "a")


def test_what_is_discarded_may_be_chosen_again(path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"3 frames in .* wait for annotators.*labels confirm"):
        load_labels(path, pool())
    LabelsFile.read(path).discard().write()
    labels = pool()
    load_labels(path, labels)
    assert labels.unlabeled_ids == ("a", "c", "d")


def test_the_record_of_a_label_pool_will_do(tmp_path: Path) -> None:
    pool(["b", "c"]).save(tmp_path / "labels.json")
    record = LabelsFile.read(tmp_path / "labels.json")
    assert (record.pending, record.rounds[0].frame_ids) == ((), ("b", "c"))
    labels = pool()
    load_labels(tmp_path / "labels.json", labels)
    assert labels.labeled_ids == ("b", "c")


def test_rows_keep_their_marks(tmp_path: Path) -> None:
    class Files(list[int]):
        paths_of = ["x.jpg", "y.jpg", "z.jpg"]  # noqa: RUF012

    labels = LabelPool(Files([1, 2, 3]), labeled=["0"])  # type: ignore[arg-type]
    path = tmp_path / "labels.json"
    LabelsFile.of(path, labels, Round(("2", "1"))).write()
    LabelsFile.read(path).confirm(["1"]).write()
    record = LabelsFile.read(path)
    marks = labels.row_marks_of(["0", "1", "2"])
    assert marks is not None
    assert record.state["labels"]["row_marks"] == marks[:2]
    assert record.state["pending_row_marks"] == marks[2:]


def test_what_does_not_wait(path: Path) -> None:
    record = LabelsFile.read(path)
    with pytest.raises(InvalidInputError, match=r"frame 'b' does not wait in .*: 3 do"):
        record.confirm(["b"])
    with pytest.raises(InvalidInputError, match="no frames wait"):
        record.discard().confirm()


@pytest.mark.parametrize("change", [{"format": "x"}, {"labels": 3}, {"labels": {"rounds": [{}]}}, {"pending": 3}])
def test_damaged_records_are_named(path: Path, change: dict[str, object]) -> None:
    state = json.loads(path.read_text())
    del state["checksum"]
    path.write_text(json.dumps(state | change))
    with pytest.raises(InvalidInputError, match=r"labels.json"):
        LabelsFile.read(path)
