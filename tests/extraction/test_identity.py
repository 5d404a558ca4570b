"""`extract(..., cache_dir=...)` never mixes two passes: what is another pass, and who may not go on with one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from model_variants import Graded, Holder
from one_box import OneBox
from tiny_rcnn import Frames, Stream, loader_of, make_faster_rcnn
from torch import nn
from torch.utils.data import ConcatDataset, Subset
from watched_passes import Watched, run

from cval_torch import Pool, extract
from cval_torch.errors import ExtractionError, InvalidInputError, LoaderOrderError
from cval_torch.extraction.identity import (
    ADAPTERS,
    CODE,
    LOADING,
    SETTINGS,
    UNREAD,
    WEIGHTS,
    changes,
    dataset_identity,
    machine_identity,
    model_identity,
    option_identity,
    pass_identity,
    without_parameters,
)
from cval_torch.extraction.loading import plan_loading
from cval_torch.extraction.options import PassOptions


def changed_weights() -> nn.Module:
    model = make_faster_rcnn()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    return model


def changed_threshold() -> nn.Module:
    return make_faster_rcnn(score_thresh=0.07)


class NamedFrames(Watched):
    def __init__(self, first: str) -> None:
        super().__init__()
        self.frame_ids = [first, *map(str, range(1, 12))]


CHANGES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"model": changed_weights},
        r"weights: backbone.0.weight was float32 \(8, 3, 3, 3\) [0-9a-f]{16} and is float32",
    ),
    ({}, {"model": changed_threshold}, r"the model's roi_heads.score_thresh was 0.05 and is 0.07 now"),
    ({}, {"model": lambda: nn.Linear(1, 1), "adapter": OneBox()}, r"the adapter was .*; the model's class was"),
    ({}, {"dataset": Watched(11)}, r"the dataset's length was 12 and is 11 now"),
    ({"dataset": NamedFrames("a")}, {"dataset": NamedFrames("b")}, r"the dataset's frame ids was"),
    ({"dataset": Subset(Frames(20), range(12))}, {"dataset": Subset(Frames(20), range(1, 13))}, "the dataset was Sub"),
    ({"dataset": Frames(12)}, {"dataset": ConcatDataset([Frames(6), Frames(6)])}, r"the dataset was .*Frames of 12"),
    ({}, {"batch_size": 3}, r"the loader's batch size was 2 and is 3 now"),
    ({}, {"sampler": range(5)}, r"the loader's frames were 12 and are 5 now \(row 5 is gone\)"),
    ({}, {"sampler": range(11, -1, -1)}, r"the loader's batch 0 was of rows \[0, 1\] and is of \[11, 10\] now"),
    ({}, {"embedding_dtype": torch.float16}, r"`embedding_dtype` was None and is torch.float16 now"),
    ({}, {"top_boxes": 3}, r"`top_boxes` was None and is 3 now"),
    ({}, {"autocast": torch.bfloat16}, r"`autocast` was None and is torch.bfloat16 now"),
    ({}, {"probabilities": False}, r"the columns left out was none and is probabilities now"),
    ({}, {"frame_id": lambda row, _: f"f{row}"}, r"`frame_id` was None and is <lambda> now"),
    ({}, {"split": lambda batch: batch}, r"`split` was None and is <lambda> now"),
]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("then", "now", "message"), CHANGES, ids=[message[:24] for *_, message in CHANGES])
def test_another_pass_is_refused_by_name(
    tmp_path: Path, then: dict[str, Any], now: dict[str, Any], message: str, finished: bool
) -> None:
    run(tmp_path, **then)
    if not finished:
        os.truncate(next(tmp_path.glob("part-*/journal")), 10)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if "model" in now:
        now = {**now, "model": now["model"]()}
    with pytest.raises(
        InvalidInputError, match=f"holds another pass: .*{message}.*begin anew give another `cache_dir`"
    ):
        run(tmp_path, **{**then, **now})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_an_autocast_of_the_callers_counts_as_an_option(tmp_path: Path) -> None:
    run(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(InvalidInputError, match="`autocast` was None"):
        run(tmp_path)


@pytest.mark.parametrize("library", ["torch", "torchvision"])
def test_another_version_ends_no_pass_but_reads_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    run(tmp_path / "finished")
    with pytest.raises(ExtractionError):
        run(tmp_path / "begun", Watched(breaks=9))
    monkeypatch.setattr({"torch": torch, "torchvision": torchvision}[library], "__version__", "0.1")
    assert len(run(tmp_path / "finished")) == 12
    with pytest.raises(InvalidInputError, match=f"{library} was .* and is 0.1 now"):
        run(tmp_path / "begun")


def test_a_stream_cannot_be_resumed_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoaderOrderError, match="`cache_dir` needs a loader whose frames have rows"):
        extract(make_faster_rcnn(), loader_of(Stream()), cache_dir=tmp_path, progress=False)


class TestValues:
    """The identities themselves."""

    def test_kinds_of_what_a_model_and_an_adapter_hold(self) -> None:
        model = nn.Sequential(nn.Linear(2, 3), Holder(limits=[1, 2.5]))
        found = model_identity(model, Graded(rows=[torch.zeros(2)]))
        assert (found["the model's class"], found["the adapter"]) == (
            "torch.nn.modules.container.Sequential",
            "model_variants.Graded",
        )
        assert found[WEIGHTS].keys() == {"0.weight", "0.bias"}
        assert (found[SETTINGS]["1.limits"], found[SETTINGS]["1"]) == ("(1, 2.5)", "model_variants.Holder")
        assert "" not in found[SETTINGS]
        assert (found[ADAPTERS]["conf"], found[ADAPTERS]["_held.rows[0]"]) == ("0.25", "float32 (0.0, 0.0)")
        assert {"model_variants.Holder.forward", "one_box.OneBox.forward", "one_box.OneBox.read"} <= found[CODE].keys()
        assert found[UNREAD] == []
        json.dumps(found)
        changing = without_parameters(model, Graded())
        assert changing.keys() == {WEIGHTS, SETTINGS, ADAPTERS, CODE}
        assert changing[WEIGHTS] == {}
        assert changing[SETTINGS] == found[SETTINGS]

    def test_a_pass_has_one_record_of_everything(self) -> None:
        model, adapter = nn.Linear(1, 1), Graded()
        plan = plan_loading(loader_of(Listed(["a", "b"])))
        found = pass_identity(model.train(), adapter, plan, PassOptions(), torch.device("cpu"))
        assert model.training
        alone = model_identity(model, adapter)
        assert {name: found[name] for name in alone if name != CODE} == {
            name: value for name, value in alone.items() if name != CODE
        }
        assert alone[CODE].items() <= found[CODE].items()
        assert found[LOADING] == {"collate_fn": "tiny_rcnn.pairs"}
        assert found["`split`"] == "None"
        assert found["the dataset's length"] == 2

    def test_datasets_are_told_by_what_they_are_made_of(self) -> None:
        named = NamedFrames("a")
        datasets = [Frames(4), Frames(5), Subset(Frames(5), [0, 1]), Subset(Frames(5), [0, 2]), named,
                    ConcatDataset([Frames(2), Frames(2)]), ConcatDataset([Frames(1), Frames(3)])]  # fmt: skip
        found = [json.dumps(dataset_identity(dataset)) for dataset in datasets]
        assert len(set(found)) == len(datasets)
        assert found == [json.dumps(dataset_identity(dataset)) for dataset in datasets]
        assert (
            dataset_identity(named)["the dataset's frame ids"]
            != dataset_identity(NamedFrames("b"))["the dataset's frame ids"]
        )

    def test_what_two_identities_do_not_agree_on(self) -> None:
        then = {"a": 1, "b": {"x": 1, "y": 2}, "only then": 3}
        now = {"a": 2, "b": {"x": 1, "y": 5}, "only now": 4}
        assert changes(then, now) == ["a was 1 and is 2 now", "b y was 2 and is 5 now"]
        assert changes(then, now, form="{name}: {old}|{new}") == ["a: 1|2", "b y: 2|5"]
        assert changes({"a": {"x": 1}}, {"a": 3}) == ["a was {'x': 1} and is 3 now"]
        assert changes(then, then) == []

    def test_machines_and_options(self) -> None:
        cpu = torch.device("cpu")
        assert machine_identity(cpu) == {
            "torch": torch.__version__, "torchvision": torchvision.__version__, "the kind of device": "cpu"
        }  # fmt: skip
        versions = machine_identity(cpu, nn.Sequential(Holder()), Graded())
        assert versions == machine_identity(cpu), "the user's modules have no version"
        plain = option_identity(PassOptions(), cpu)
        assert plain["the columns left out"] == "none"
        for options in (
            PassOptions(autocast=torch.bfloat16),
            PassOptions(embedding_dtype=torch.float16),
            PassOptions(probabilities=False),
            PassOptions(frame_id=lambda row, target: "a"),
            PassOptions(split=lambda batch: batch),
        ):
            assert len(changes(plain, option_identity(options, cpu))) == 1
        for unseen in (PassOptions(progress=False), PassOptions(frames_per_shard=3), PassOptions(device="cpu")):
            assert option_identity(unseen, cpu) == plain
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert option_identity(PassOptions(), cpu)["`autocast`"] == "torch.bfloat16"


class Listed(Frames):
    """Images that come from a list of files, and have no ids."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(len(names))
        self.my_list = names


def test_a_dataset_that_lists_other_files_is_another_pass(tmp_path: Path) -> None:
    def run_over(names: list[str]) -> Pool:
        return extract(make_faster_rcnn(), loader_of(Listed(names)), cache_dir=tmp_path / "cache", progress=False)

    assert run_over(["a", "b", "c"]).frame_ids == run_over(["a", "b", "c"]).frame_ids
    with pytest.raises(InvalidInputError, match="what the dataset lists was"):
        run_over(["d", "e", "f"])
    with pytest.raises(InvalidInputError, match="what the dataset lists was"):
        run_over(["1", "2", "3"])
