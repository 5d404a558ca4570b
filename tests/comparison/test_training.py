"""Learning curves against a plain loop, and trainings that go on where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quick_comparison import Known, Trainer, loader_of, quick, same, trained
from shades import OneBox, Tiny

from cval_torch import DetectionSampling, LocalBackend, extract
from cval_torch.comparison import CurvePoint
from cval_torch.comparison.training import Record, backend_beside, fingerprint_of
from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool


def naive_curve(stage: DetectionSampling, *, rounds: int, seed: int) -> list[CurvePoint]:
    """One arm, written out: look, choose, train, measure."""
    dataset, model, labelled = Known(), Tiny(), ["1", "2"]
    points = [CurvePoint(2, 1 + 2, Trainer.evaluate(model))]
    for number in range(rounds):
        everything = extract(model, loader_of(dataset), adapter=OneBox(), progress=False)
        rows = [int(name) for name in labelled]
        rest = everything.take([row for row in range(30) if row not in rows])
        again = stage.model_copy(update={"seed": stage.seed + number * 1_000_003})
        labelled += LocalBackend(labeled=everything.take(rows)).select(rest, again).frame_ids
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Tiny()
            bias = -sum(float(dataset.shades[int(name)]) for name in labelled) / len(labelled)
            bias -= 0.01 * float(torch.rand(()))
        with torch.no_grad():
            model.linear.bias.fill_(bias)
        points.append(CurvePoint(len(labelled), sum(int(name) % 3 for name in labelled), bias))
    return points


def test_learning_curves_beside_a_plain_loop() -> None:
    trainer = Trainer()
    state = torch.get_rng_state()
    found = trained(trainer, labeled=["2", "1", "2"])
    assert torch.equal(torch.get_rng_state(), state)
    assert len(trainer.trained) == 3 * (2 + 2)
    assert all(names[:2] == ("1", "2") and len(set(names)) == len(names) for names in trainer.trained)
    arms = {name: DetectionSampling(selection_strategy=name, num_of_samples=4) for name in ("least", "k_center")}
    drawn = [DetectionSampling(selection_strategy="random", num_of_samples=4, seed=draw) for draw in range(2)]
    curves = [*found.curves.items(), *zip(("random 0", "random 1"), found.random_curves, strict=True)]
    for (name, curve), stage in zip(curves, [*arms.values(), *drawn], strict=True):
        for point, expected in zip(curve, naive_curve(stage, rounds=3, seed=0), strict=True):
            assert (point.frames, point.boxes) == (expected.frames, expected.boxes), name
            assert point.metric == pytest.approx(expected.metric, abs=1e-5)


@pytest.mark.parametrize("fail_at", [0, 1, 5, 11])
def test_a_comparison_goes_on_where_it_stopped(tmp_path: Any, fail_at: int) -> None:
    whole = trained(Trainer())
    broken = Trainer(fail_at)
    with pytest.raises(KeyboardInterrupt):
        trained(broken, cache_dir=tmp_path)
    trainer, dataset = Trainer(), Known()
    same(trained(trainer, cache_dir=tmp_path, dataset=dataset), whole)
    assert len(broken.trained) + len(trainer.trained) == 12
    again = Trainer()
    same(trained(again, cache_dir=tmp_path), whole)
    assert again.trained == []


def test_another_comparison_is_not_mixed_in(tmp_path: Any) -> None:
    trained(Trainer(), cache_dir=tmp_path)
    for options, what in (
        ({"rounds": 2}, "`rounds` was 3 and is 2 now"),
        ({"labeled": ["1"]}, "the frames labelled before was"),
        ({"strategies": {"k_center": "least"}}, r"the strategy k_center was \[.*k_center.*\] and is \[.*least.*\] now"),
        ({"seed": 3}, "`seed` was 0 and is 3 now"),
    ):
        with pytest.raises(InvalidInputError, match=f"is the record of another comparison: .*{what}"):
            trained(Trainer(), cache_dir=tmp_path, **options)
    (tmp_path / "trainings.json").write_text('{"format": "other"}')
    with pytest.raises(InvalidInputError, match="is not the record of a comparison"):
        trained(Trainer(), cache_dir=tmp_path)


def test_a_strategy_may_be_added_later(tmp_path: Any) -> None:
    trained(Trainer(), cache_dir=tmp_path)
    more: dict[str, Any] = {"strategies": ["least", "margin"], "trained_draws": 4}
    trainer = Trainer()
    same(trained(trainer, cache_dir=tmp_path, **more), trained(Trainer(), **more))
    assert len(trainer.trained) == 3 * (1 + 2)
    with pytest.raises(InvalidInputError, match="the strategy k_center was"):  # not forgotten
        trained(Trainer(), cache_dir=tmp_path, strategies={"k_center": "margin"})


def test_what_train_and_evaluate_return_is_checked() -> None:
    def nothing(frames: Any) -> None:
        return None

    with pytest.raises(InvalidInputError, match="`train` must return a detector; got NoneType for 'strategy least', r"):
        quick(train=nothing, evaluate=lambda model: 0.5, trained_draws=2)
    for value in (float("nan"), "high"):
        with pytest.raises(InvalidInputError, match=f"`evaluate` must return a finite number; got {value!r} for the s"):
            quick(train=lambda frames: Tiny(), evaluate=lambda model, value=value: value, trained_draws=2)


def test_a_record_is_read_back_and_may_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    record = Record(path, {"rounds": 3, "strategies": {"a": "1"}})
    assert record.runs == {}
    record.runs["a"] = {"chosen": [["x"]], "metrics": [0.5]}
    record.save()
    again = Record(path, {"rounds": 3, "strategies": {"b": "2"}})
    assert again.runs == record.runs
    assert again.identity == {"rounds": 3, "strategies": {"a": "1", "b": "2"}}, "what was there is not forgotten"
    for identity, message in (
        ({"rounds": 4, "strategies": {}}, "rounds was 3 and is 4 now"),
        ({"rounds": 3, "strategies": {"a": "2"}}, "strategies a was 1 and is 2 now"),
    ):
        with pytest.raises(InvalidInputError, match=f"is the record of another comparison: {message}. Give another"):
            Record(path, identity)
    for content in ("[]", "{}", '{"format": "another"}'):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match="is not the record of a comparison of format"):
            Record(path, {})
    kept = Record(None, {})
    kept.save()
    assert kept.runs == {}


@given(ids=st.lists(st.text(max_size=3), max_size=5, unique=True), data=st.data())
def test_a_set_of_ids_has_one_fingerprint(ids: list[str], data: st.DataObject) -> None:
    assert fingerprint_of(data.draw(st.permutations(ids))) == fingerprint_of(ids)
    assert fingerprint_of([*ids, "another"]) != fingerprint_of(ids)
    assert len(fingerprint_of(ids)) == 16


def test_where_nothing_is_labelled_every_class_counts_as_not_annotated() -> None:
    labeled = Pool(["a"], torch.tensor([0, 1]), labels=torch.tensor([3]))
    assert (backend_beside(None).labeled, backend_beside(None).labeled_counts) == (None, {})
    assert (backend_beside(labeled).labeled, backend_beside(labeled).labeled_counts) == (labeled, None)
