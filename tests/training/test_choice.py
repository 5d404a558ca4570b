"""A choice in the labels' own ids and rows, whatever the loader made of them."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.pool import Pool
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.choice import Choice, names_of
from cval_torch.training.labels import LabelPool


def labels_of(n: int = 8, labeled: tuple[str, ...] = ("f1", "f4")) -> LabelPool:
    return LabelPool(list(range(100, 100 + n)), frame_ids=[f"f{row}" for row in range(n)], labeled=list(labeled))


def by_row(pool: Pool) -> torch.Tensor:
    """The frames by their place in the loader, the last one first."""
    assert pool.indices is not None
    return pool.indices.double()


STAGES = (
    DetectionSampling(selection_strategy=by_row, num_of_samples=3),
    DetectionSampling(selection_strategy="random", num_of_samples=2, seed=9),
)


def chosen_from(labels: LabelPool) -> SelectedFrames:
    """A choice from the unlabelled part, named as the labels name it, whose rows are those of that part."""
    loader: DataLoader[Any] = DataLoader(labels.unlabeled)
    name = names_of(loader, labels)
    frames = len(labels.unlabeled)
    pool = Pool([name(row, None) for row in range(frames)], torch.arange(frames + 1), scores=torch.rand(frames),
                indices=torch.arange(frames), box_embeddings=torch.rand(frames, 2))  # fmt: skip
    return SelectedFrames(labels.unlabeled, LocalBackend().select(pool, STAGES), pool)


def test_a_choice_has_the_rows_of_the_labels_dataset() -> None:
    """Unlabelled are f0 f2 f3 f5 f6 f7: the last three of them are in the running, and two of these are drawn."""
    labels = labels_of()
    chosen = chosen_from(labels)
    choice = Choice.of(chosen, labels, STAGES, epoch=3, model_fingerprint="abc")
    assert set(choice.round.frame_ids) < {"f5", "f6", "f7"}
    assert choice.round.frame_ids == chosen.frame_ids
    assert choice.predictions.indices is not None
    assert choice.predictions.indices.tolist() == [int(name[1:]) for name in chosen.frame_ids]
    assert choice.predictions.frame_ids == chosen.frame_ids
    assert choice.round.scores == tuple(chosen.scores.tolist())
    assert torch.equal(choice.scores, chosen.scores)
    assert (choice.round.epoch, choice.round.model_fingerprint, choice.round.seed) == (3, "abc", 9)
    assert choice.round.strategy == f"{__name__}.by_row, random"


def test_it_travels_and_is_a_subset_where_it_arrives() -> None:
    """Callables stay behind: only the stages that the other process has itself come back."""
    labels = labels_of()
    chosen = chosen_from(labels)
    arrived: Choice = pickle.loads(pickle.dumps(Choice.of(chosen, labels, STAGES, epoch=None, model_fingerprint="abc")))
    dataset: Any = list(range(100, 108))
    frames = arrived.frames(dataset, STAGES)
    assert frames.frame_ids == chosen.frame_ids
    assert [frames[row] for row in range(2)] == [100 + int(name[1:]) for name in frames.frame_ids]
    assert frames.indices == [int(name[1:]) for name in frames.frame_ids]
    assert frames.stages == STAGES
    assert torch.equal(frames.scores, chosen.scores)
    assert frames.predictions.num_boxes == 2


def test_nothing_scored_is_no_scores() -> None:
    labels = labels_of()
    pool = Pool(["f0", "f2"], torch.arange(3), indices=torch.arange(2))
    random = DetectionSampling(selection_strategy="random", num_of_samples=2)
    chosen = SelectedFrames(labels.unlabeled, LocalBackend().select(pool, random), pool)
    choice = Choice.of(chosen, labels, [random], epoch=0, model_fingerprint="")
    assert choice.round.scores is None
    assert choice.scores.isnan().all()


class View(Dataset[Any]):
    """Another view of as many rows, which does not say what it is a view of."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, row: int) -> int:
        return row


@given(labeled=st.sets(st.integers(0, 7), min_size=1, max_size=7), part=st.booleans(), data=st.data())
@settings(deadline=None)
def test_frames_have_the_labels_names_through_any_loader(labeled: set[int], part: bool, data: st.DataObject) -> None:
    """Over the part, over a subset of it, over the whole dataset, or over as many rows of another view."""
    labels = labels_of(labeled=tuple(f"f{row}" for row in sorted(labeled)))
    subset = labels.labeled if part else labels.unlabeled
    rows = list(subset.indices)
    wanted = [f"f{row}" for row in rows]
    some = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(1, len(rows)))]
    views = (
        (subset, wanted),
        (Subset(subset, some), [wanted[row] for row in some]),
        (View(len(rows)), wanted),
    )
    for dataset, names in views:
        name = names_of(DataLoader(dataset), labels, labeled=part)  # type: ignore[arg-type]
        assert [name(row, None) for row in range(len(names))] == names


@pytest.mark.parametrize(("labeled", "said"), [(False, "here unlabelled ones; got 'f1', which is labelled"),
                                               (True, "here labelled ones; got 'f0', which is not")])  # fmt: skip
def test_frames_of_the_other_part_are_refused_when_they_come(labeled: bool, said: str) -> None:
    labels = labels_of()
    everything: Any = Subset(labels.unlabeled.dataset, range(8))
    name = names_of(DataLoader(everything), labels, labeled=labeled)
    assert name(4 if labeled else 0, None) == ("f4" if labeled else "f0")
    with pytest.raises(InvalidInputError, match=said):
        name(0 if labeled else 1, None)


def test_another_number_of_frames_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"it gets, of 6 frames, .* got DataLoader over 5 rows"):
        names_of(DataLoader(View(5)), labels_of())
    with pytest.raises(InvalidInputError, match=r"of 2 frames, or over as many .* got list over None rows"):
        names_of([1], labels_of(), labeled=True)
