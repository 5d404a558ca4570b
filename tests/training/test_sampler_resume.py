"""`SamplerCallback` over interruptions and over processes: the same choices, bit for bit."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shades import Shades, Tiny, all_of, make, naive_choice, train_epoch

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.pipeline import SelectedFrames
from cval_torch.training import SamplerCallback, WhenStalled

WORLDS = Path(__file__).parents[1] / "worlds"


# Going on where a run stopped


def run(callback: SamplerCallback, model: Tiny, epochs: range) -> None:
    for epoch in epochs:
        torch.manual_seed(epoch)
        loss = train_epoch(model, callback.labels.labeled)
        callback.on_epoch_end(model, epoch, {"loss": loss})
        if epoch % 2 and callback.pending:
            callback.confirm(callback.pending[:2])


@pytest.mark.filterwarnings("ignore:no frames are chosen")
@pytest.mark.parametrize("annotate", [all_of, None])
@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_stopped_run_goes_on_bit_for_bit(stop: int, annotate: Any) -> None:
    def fresh() -> tuple[SamplerCallback, Tiny]:
        schedule = WhenStalled("loss", patience=1, higher_is_better=False)
        return make(30, schedule=schedule, annotate=annotate, max_rounds=4), Tiny()

    whole, model = fresh()
    run(whole, model, range(7))
    assert len(whole.labels.rounds) > 2
    first, early = fresh()
    run(first, early, range(stop))
    file = io.BytesIO()
    torch.save({"callback": first.state_dict(), "model": early.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    second, late = fresh()
    second.load_state_dict(state["callback"])
    late.load_state_dict(state["model"])
    run(second, late, range(stop, 7))
    assert second.state_dict() == whole.state_dict()
    assert second.pending == whole.pending
    assert model_fingerprint(late) == model_fingerprint(model)


def test_a_file_follows_every_change(tmp_path: Path) -> None:
    path = tmp_path / "sampler.json"
    states = []

    def annotate(selected: SelectedFrames) -> list[str]:
        states.append(json.loads(path.read_text()))  # the choice is safe before anyone is asked to label it
        return [selected.frame_ids[0]]

    callback = make(annotate=annotate, save_to=path)
    chosen = callback.choose(Tiny())
    assert chosen is not None
    assert states[0]["pending"]["frame_ids"] == list(chosen.frame_ids)
    after = make(annotate=None)
    after.load(path)
    assert after.pending == chosen.frame_ids[1:]
    assert after.labels.rounds == callback.labels.rounds
    callback.confirm([chosen.frame_ids[1]])
    assert json.loads(path.read_text()).items() >= callback.state_dict().items()
    callback.discard()
    assert json.loads(path.read_text()).items() >= callback.state_dict().items()
    callback.save(tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "must be a SamplerCallback state of 'cval_torch.sampler/1'; got 'other'"),
        ({"pending": {}}, "damaged: KeyError: 'frame_ids'"),
        ({"rounds_chosen": "x"}, "damaged: ValueError"),
        ({"labels": {}}, "LabelPool state"),
        ({"labels": make(21).labels.state_dict()}, "another dataset"),
    ],
)
def test_a_foreign_state_is_refused_whole(change: dict[str, Any], message: str) -> None:
    callback = make(schedule=WhenStalled("loss"), annotate=None)
    callback.schedule.due(0, {"loss": 1.0})
    callback.choose(Tiny())
    before = callback.state_dict()
    with pytest.raises(InvalidInputError, match=message):
        callback.load_state_dict({**before, "schedule": {"stalled": 2}, **change})
    assert callback.state_dict() == before
    with pytest.raises(InvalidInputError, match="got 'int'"):
        callback.load_state_dict(3)  # type: ignore[arg-type]


def test_it_can_be_pickled() -> None:
    callback = make()
    again = pickle.loads(pickle.dumps(callback))
    assert again.state_dict() == callback.state_dict()
    model = Tiny()
    first, second = callback.choose(model), again.choose(model)
    assert first.frame_ids == second.frame_ids


# Several processes


SCRIPT = """
import json, sys
import torch, torch.distributed as dist
from shades import Tiny, make, make_loader
from cval_torch.training import AtEpochs

rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{store}/store", rank=rank, world_size=2)


def run(shared):
    asked, loaded, returned, failure = [], [], [], None

    def annotate(selected):
        asked.append(list(selected.frame_ids))
        return selected.frame_ids[:2]

    class Loads:
        def __init__(self, subset):
            self.subset = subset

        def __len__(self):
            return len(self.subset)

        def __getitem__(self, row):
            loaded.append(row)
            return self.subset[row]

    callback = make(
        annotate=annotate,
        schedule=AtEpochs(0, 2, 3),
        save_to=f"{store}/{shared}{rank}.json",
        distributed=shared,
        make_loader=lambda subset: make_loader(Loads(subset)),
    )
    model = Tiny()
    model.norm.running_mean.fill_(rank)
    if not shared:
        with torch.no_grad():
            model.linear.bias.sub_(rank)
    for epoch in range(3):
        chosen = callback.on_epoch_end(model, epoch)
        returned.append(None if chosen is None else [list(chosen.frame_ids), chosen.indices, chosen.scores.tolist()])
        if callback.pending:
            callback.discard()
    if rank == 1 or not shared:
        callback.make_loader = lambda subset: 1 / 0
    try:
        callback.on_epoch_end(model, 3)
    except Exception as error:
        failure = [type(error).__name__, str(error)]
    mean = float(model.norm.running_mean)
    return {"asked": asked, "loaded": loaded, "returned": returned, "failure": failure, "mean": mean,
            "state": callback.state_dict()}


print(json.dumps([run(True), run(False)]))
"""


def test_two_processes_make_one_choice(tmp_path: Path) -> None:
    """Rank 0 chooses and annotates, the other has the same, and errors reach both.

    Their batch statistics differ, as in any training; where rank 0 infers alone, so may their weights.
    """
    ranks = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    found = [json.loads(process.communicate(timeout=200)[0].splitlines()[-1]) for process in ranks]
    expected, _ = naive_choice(Tiny(), Shades(20), range(3, 20), 3)
    for shared, first, second in zip((True, False), *found, strict=True):
        assert [len(first["asked"]), len(second["asked"])] == [2, 0]
        assert first["returned"] == second["returned"]
        assert first["returned"][0][0] == expected
        assert first["returned"][1] is None
        assert first["state"] == second["state"]
        assert len(first["state"]["labels"]["rounds"]) == 3
        assert sorted([*first["loaded"], *second["loaded"]]) == sorted([*range(17), *range(15)])
        assert bool(second["loaded"]) == shared
        assert [first["mean"], second["mean"]] == [0, 1]
        failed, told = (second, first) if shared else (first, second)
        assert failed["failure"] == ["ZeroDivisionError", "division by zero"]
        assert told["failure"][0] == "RankError"
        assert "ZeroDivisionError: division by zero" in told["failure"][1]
        assert [(tmp_path / f"{shared}{rank}.json").exists() for rank in (0, 1)] == [True, False]
