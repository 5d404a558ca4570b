"""`LabelPool`: against a naive model of sets, through files and checkpoints, and every guard."""

from __future__ import annotations

import copy
import io
import json
import os
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from chosen_frames import ChosenSubset, by_size
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from shades import OneBox, Shades, Tiny, make_loader
from tiny_rcnn import make_faster_rcnn, pairs
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import frame_ids_of
from cval_torch.extraction.passes import extract
from cval_torch.pipeline import SelectedFrames, select
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.labels import LabelPool


def make(n: int = 6, **options: Any) -> LabelPool:
    """Frames "f0" ... whose items are their rows."""
    return LabelPool(list(range(n)), frame_ids=[f"f{row}" for row in range(n)], **options)


def through_torch(state: dict[str, Any]) -> dict[str, Any]:
    """What is left of a state after a checkpoint that trusts nothing."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


class Labelling(RuleBasedStateMachine):
    """Any series of rounds, refusals, saves and loads, beside a model made of plain lists."""

    @initialize(n=st.integers(1, 12), data=st.data())
    def begin(self, n: int, data: st.DataObject) -> None:
        self.names = data.draw(st.lists(st.text(min_size=1, max_size=5), min_size=n, max_size=n, unique=True))
        first = data.draw(st.lists(st.sampled_from(self.names), unique=True))
        self.labels = LabelPool(list(range(n)), labeled=first, frame_ids=self.names)
        self.model: list[list[str]] = [first] if first else []

    def known(self) -> list[str]:
        return [name for names in self.model for name in names]

    def unknown(self) -> list[str]:
        return [name for name in self.names if name not in self.known()]

    @precondition(lambda self: self.unknown())
    @rule(data=st.data(), scored=st.booleans())
    def label(self, data: st.DataObject, scored: bool) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.unknown()), min_size=1, unique=True))
        scores = [len(chosen) - rank / 7 for rank in range(len(chosen))] if scored else None
        round_ = self.labels.label(chosen, scores=scores, epoch=len(self.model))
        assert round_.scores == (None if scores is None else tuple(scores))
        self.model.append(chosen)

    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        """One bad id among good ones: none of them is taken."""
        good = data.draw(st.lists(st.sampled_from(self.unknown()), unique=True)) if self.unknown() else []
        bad = data.draw(st.sampled_from([*self.known(), *good, "not a frame", 7]))
        with pytest.raises(InvalidInputError) as caught:
            self.labels.label([*good, bad])
        assert repr(bad) in str(caught.value)

    @rule(data=st.data(), strict=st.booleans())
    def reload(self, data: st.DataObject, strict: bool) -> None:
        """Into a pool of the same frames in another order, which has labels of its own."""
        order = data.draw(st.permutations(range(len(self.names))))
        again = LabelPool(
            [int(row) for row in order], labeled=self.names[:1], frame_ids=[self.names[row] for row in order]
        )
        again.load_state_dict(through_torch(self.labels.state_dict()), strict=strict)
        assert again.rounds == self.labels.rounds
        assert list(again.labeled) == list(self.labels.labeled)
        assert sorted(again.unlabeled) == list(self.labels.unlabeled)

    @invariant()
    def parted(self) -> None:
        labels = self.labels
        assert [list(round_.frame_ids) for round_ in labels.rounds] == self.model
        assert list(labels.labeled_ids) == self.known()
        assert list(labels.unlabeled_ids) == self.unknown()
        assert [self.names[row] for row in labels.labeled] == self.known()
        assert [self.names[row] for row in labels.unlabeled] == self.unknown()
        assert sorted([*labels.labeled_indices, *labels.unlabeled_indices]) == list(range(len(self.names)))


Labelling.TestCase.settings = settings(max_examples=60, stateful_step_count=12, deadline=None)


TestLabelling = Labelling.TestCase


def test_rows_count_where_a_selection_named_frames_otherwise() -> None:
    """A selection from `unlabeled` may call its frames by their places in it: "0" is then not our "0"."""
    labels = LabelPool(TensorDataset(torch.arange(5)), labeled=["0", "2"])
    assert labels.frame_ids == ("0", "1", "2", "3", "4")
    chosen = ChosenSubset(labels.unlabeled, [2, 0], ("2", "0"))
    assert labels.label(chosen).frame_ids == ("4", "1")
    assert labels.rounds[-1].scores is None
    assert labels.label(Subset(labels.dataset, [3])).frame_ids == ("3",)


@pytest.mark.parametrize("nested", [False, True])
def test_a_choice_from_the_unlabelled_part_has_our_ids(nested: bool) -> None:
    """Not places in the part, and not the targets' `image_id`, each of which is some other frame's id here."""
    dataset = Shades(8, image_ids=True)
    labels = LabelPool(dataset, labeled=["0", "1", "2"])
    part = Subset(labels.unlabeled, [4, 1]) if nested else labels.unlabeled
    chosen = select(Tiny(), make_loader(part), num_of_samples=len(part), adapter=OneBox(), progress=False)
    rows = {"7", "4"} if nested else {"3", "4", "5", "6", "7"}
    assert set(chosen.frame_ids) == rows
    assert labels.label(chosen.frame_ids).frame_ids == chosen.frame_ids
    assert frame_ids_of(labels.labeled) == list(labels.labeled_ids)


def test_a_subset_of_another_dataset_counts_by_its_ids() -> None:
    labels = make()
    assert labels.label(ChosenSubset(list(range(6)), [0, 1], ("f4", "f2"))).frame_ids == ("f4", "f2")
    with pytest.raises(InvalidInputError, match="several frame ids; got <torch"):
        labels.label(Subset(list(range(6)), [0]))  # type: ignore[arg-type]


def test_a_subset_handed_out_does_not_change() -> None:
    labels = make(labeled=["f1"])
    before, left = labels.labeled, labels.unlabeled
    labels.label(["f0"])
    assert list(before) == [1]
    assert list(left) == [0, 2, 3, 4, 5]
    assert list(labels.labeled) == [1, 0]


def test_the_state_holds_plain_values_only() -> None:
    labels = make(labeled=["f1"])
    stage = DetectionSampling(selection_strategy=by_size, num_of_samples=1, bbox_selection_policy="sum")
    labels.label(["f2"], scores=[1.0], stages=[stage], epoch=0, model_fingerprint="x")

    def check(value: Any) -> None:
        assert type(value) in (str, int, float, bool, list, dict)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(part)

    check(labels.state_dict())
    assert json.loads(json.dumps(labels.state_dict())) == labels.state_dict()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b"], "one a row, of which there are 3; got 2"),
        (["a", "b", "a"], "'a' for row 0 and for row 2"),
        (["a", "", "b"], "1 to 128 characters; got '' for row 1"),
        (["a", 4, "b"], "must be a string of 1 to 128 characters; got 4 for row 1"),
    ],
)
def test_ids_that_do_not_fit(ids: list[Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        LabelPool([1, 2, 3], frame_ids=ids)


def test_a_dataset_without_a_length() -> None:
    with pytest.raises(InvalidInputError, match="must have a length"):
        LabelPool(iter([1]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ("f1", {}, "`frames` must be several frame ids; got 'f1'"),
        (None, {}, "`frames` must be several frame ids; got None"),
        ([], {}, "at least one frame"),
        (["f1", "f1"], {}, "'f1' is named twice"),
        (["f0"], {}, "'f0' is labelled already, since round 0"),
        (["x"], {}, "'x' is not in the dataset, which has 6"),
        ([["f1"]], {}, "is not in the dataset"),
        (["f1", "f2"], {"scores": [1.0]}, "of which there are 2; got 1"),
        (["f1", "f2"], {"scores": [1.0, float("nan")]}, "got nan for frame 'f2'"),
        (["f1", "f2"], {"scores": [float("inf"), 1.0]}, "got inf for frame 'f1'"),
    ],
)
def test_refusals_change_nothing(frames: Any, options: dict[str, Any], message: str) -> None:
    labels = make(labeled=["f0"])
    before = copy.deepcopy(labels.state_dict())
    with pytest.raises(InvalidInputError, match=message):
        labels.label(frames, **options)
    assert labels.state_dict() == before
    assert labels.labeled_ids == ("f0",)


def test_another_dataset_is_refused() -> None:
    state = make(labeled=["f1"]).state_dict()
    other = LabelPool([0, 1], frame_ids=["f1", "g"], labeled=["g"])
    with pytest.raises(InvalidInputError, match=r"another dataset: that had 6 frames, .*; this has 2"):
        other.load_state_dict(state)
    assert other.labeled_ids == ("g",)
    other.load_state_dict(state, strict=False)
    assert other.labeled_ids == ("f1",)
    without = LabelPool([0], frame_ids=["g"])
    with pytest.raises(InvalidInputError, match="frame 'f1' is not in the dataset"):
        without.load_state_dict(state, strict=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": "cval_torch.labels/0"},
            "must be a LabelPool state of format 'cval_torch.labels/1'; got 'cval_t",
        ),
        ({"rounds": None}, "damaged: TypeError"),
        ({"rounds": [{"stages": []}]}, "damaged: KeyError: 'frame_ids'"),
        ({"rounds": ["f1"]}, "damaged: TypeError"),
        ({"rounds": [{"frame_ids": ["f1"], "stages": [], "scores": ["high"]}]}, "damaged: ValueError"),
        ({"rounds": [{"frame_ids": ["f1", "f1"], "stages": []}]}, "'f1' is named twice"),
        ({"rounds": [{"frame_ids": ["f1"], "stages": []}] * 2}, "'f1' is labelled already, since round 0"),
        ({"rounds": [{"frame_ids": [], "stages": []}]}, "at least one frame"),
    ],
)
def test_a_damaged_state_is_refused_whole(change: dict[str, Any], message: str) -> None:
    labels = make(labeled=["f3"])
    with pytest.raises(InvalidInputError, match=message):
        labels.load_state_dict({**labels.state_dict(), **change})
    assert labels.labeled_ids == ("f3",)
    with pytest.raises(InvalidInputError, match="got 'list'"):
        labels.load_state_dict([])  # type: ignore[arg-type]


def test_files(tmp_path: Path) -> None:
    labels = make(labeled=["f2"])
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=2)
    labels.label(["f1", "f0"], scores=[0.1 + 0.2, 1e-300], stages=[stage])
    labels.save(tmp_path / "labels.json")
    again = make()
    again.load(tmp_path / "labels.json")
    assert again.rounds == labels.rounds
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"broken.json' is not a saved LabelPool"):
        again.load(tmp_path / "broken.json")
    LabelPool([0], frame_ids=["x"]).save(tmp_path / "other.json")
    with pytest.raises(InvalidInputError, match=r"other.json': `state` is of another dataset"):
        again.load(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError):
        again.load(tmp_path / "none.json")


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    labels = make(labeled=["f2"])
    labels.save(tmp_path / "labels.json")
    before = (tmp_path / "labels.json").read_bytes()
    labels.label(["f1"])

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        labels.save(tmp_path / "labels.json")
    assert (tmp_path / "labels.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["labels.json"]


def test_what_it_says_of_itself() -> None:
    assert repr(make(labeled=["f2"])) == "LabelPool(6 frames: 1 labelled in 1 rounds)"


class Plain(Dataset[Any]):
    """Images without any id, from a list of files under a name of its own."""

    def __init__(self, names: list[str]) -> None:
        self.my_list = names

    def __len__(self) -> int:
        return len(self.my_list)

    def __getitem__(self, row: int) -> Any:
        generator = torch.Generator().manual_seed(int(self.my_list[row]))
        return torch.rand(3, 48, 56, generator=generator), {}


class Transformed(Dataset[Any]):
    """What people write to give a part of a dataset a transform."""

    def __init__(self, base: Dataset[Any]) -> None:
        self.base = base

    def __len__(self) -> int:
        return len(self.base)  # type: ignore[arg-type]

    def __getitem__(self, row: int) -> Any:
        image, target = self.base[row]
        return image.flip(-1), target


def chosen_from(dataset: Dataset[Any], **options: Any) -> SelectedFrames:
    loader = DataLoader(dataset, batch_size=2, collate_fn=pairs)
    return select(make_faster_rcnn(), loader, num_of_samples=2, progress=False, seed=1, **options)


@pytest.fixture
def plain() -> LabelPool:
    return LabelPool(Plain([str(number) for number in range(8)]), labeled=["0", "3", "4"])


def test_rows_of_a_wrapper_around_a_part_are_not_taken_for_ours(plain: LabelPool) -> None:
    chosen = chosen_from(Transformed(plain.unlabeled), selection_strategy="random")
    with pytest.raises(InvalidInputError, match=r"rows in a Transformed with 5 frames.*`labels\.unlabeled_of\(view\)`"):
        plain.label(chosen)
    assert len(plain.rounds) == 1


def test_a_view_of_the_whole_gives_the_frames_that_were_seen(plain: LabelPool) -> None:
    view = Transformed(plain.dataset)
    for part in (plain.unlabeled_of(view), Subset(view, plain.unlabeled_indices)):
        labels = LabelPool(plain.dataset, labeled=plain.labeled_ids)
        chosen = chosen_from(part, selection_strategy="random")
        expected = [plain.unlabeled_indices[index] for index in chosen.indices]
        assert labels.label(chosen).frame_ids == tuple(str(row) for row in expected)
        assert torch.equal(chosen[0][0], view[expected[0]][0])


def test_rows_of_another_label_pools_dataset_are_not_taken_for_ours(plain: LabelPool) -> None:
    other = LabelPool(Plain([str(number) for number in range(20, 28)]))
    for part in (other.unlabeled, other.unlabeled_of(Transformed(other.dataset)), Subset(other.unlabeled, range(5))):
        with pytest.raises(
            InvalidInputError, match="are from a LabelPool of another dataset, which knows them by their"
        ):
            plain.label(chosen_from(part, selection_strategy="random"))
    named = LabelPool(Plain(["7", "8", "9"]), frame_ids=["1", "2", "x"])  # names of the user's own are names anywhere
    chosen = chosen_from(Subset(named.unlabeled, [0, 1]), selection_strategy="random")
    assert sorted(plain.label(chosen).frame_ids) == ["1", "2"]


def test_a_view_must_show_all_rows(plain: LabelPool) -> None:
    assert [int(name) for name in plain.labeled_of(Transformed(plain.dataset)).frame_ids] == [0, 3, 4]
    with pytest.raises(InvalidInputError, match=r"`view` must have the 8 rows of the dataset, in its order; got 5"):
        plain.unlabeled_of(Transformed(plain.unlabeled))


def test_a_selection_that_knows_rows_only_is_refused_and_the_remedy_works(plain: LabelPool) -> None:
    view = Transformed(plain.dataset)
    loader = DataLoader(Subset(view, plain.unlabeled_indices), batch_size=2, collate_fn=pairs)
    pool = extract(make_faster_rcnn(), loader, progress=False)
    selection = LocalBackend().select(pool, DetectionSampling(selection_strategy="random", num_of_samples=2))
    with pytest.raises(
        InvalidInputError, match=r"a dataset that the selection does not tell.*label the SelectedFrames"
    ):
        plain.label(selection)
    expected = [plain.unlabeled_indices[row] for row in selection.rows.tolist()]
    round_ = plain.label(SelectedFrames(loader.dataset, selection, pool))
    assert [int(name) for name in round_.frame_ids] == expected


def test_rows_are_no_ids_of_a_dataset_that_has_some() -> None:
    labels = LabelPool(Plain(["5", "6", "7"]), frame_ids=["0", "2", "1"])
    with pytest.raises(InvalidInputError, match="have no ids but their rows in a Plain with 3 frames"):
        labels.label(chosen_from(Plain(["5", "6", "7"])))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    "names",
    [
        ["7", "6", "5", "4", "3", "2", "1", "0"],
        ["0", "1", "2", "9", "4", "5", "6", "7"],
        ["9", "0", "1", "2", "3", "4", "5", "6", "7"],
    ],
    ids=["another order", "one exchanged", "one in front"],
)
def test_labels_do_not_move_to_other_frames(plain: LabelPool, tmp_path: Path, names: list[str], strict: bool) -> None:
    plain.save(tmp_path / "labels.json")
    labels = LabelPool(Plain(names))
    with pytest.raises(InvalidInputError, match=r"row \d of the dataset is another frame now.*frame_ids="):
        labels.load(tmp_path / "labels.json", strict=strict)
    assert labels.rounds == ()


def test_labels_known_by_rows_outlive_new_frames_behind_them(plain: LabelPool, tmp_path: Path) -> None:
    plain.save(tmp_path / "labels.json")
    labels = LabelPool(Plain([str(number) for number in range(10)]))
    labels.load(tmp_path / "labels.json", strict=False)
    assert labels.labeled_ids == ("0", "3", "4")


def test_an_unknown_id_is_told_what_ids_there_are() -> None:
    with pytest.raises(InvalidInputError, match=r"which has 3 frames: '0', '1', '2', \.\.\. .*`frame_ids=`"):
        LabelPool(Plain(["1", "2", "3"]), labeled=["07050"])
    with pytest.raises(InvalidInputError, match=r"frame 1 is not in the dataset.* Ids are strings"):
        LabelPool(Plain(["1", "2", "3"])).label([1])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match="a frame id must be a string of 1 to 128 characters"):
        LabelPool(Plain(["1"]), frame_ids=["x" * 129])
