"""Label issues: as cleanlab finds them, injected faults come first, and nothing depends on an order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cleanlab.object_detection import rank
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_boxes import Target, clean_world, noisy_world, pool_of

from cval_torch import Pool
from cval_torch.comparison import label_issues
from cval_torch.comparison.label_issues import HIGH_SCORE, LOW_SCORE
from cval_torch.errors import InvalidInputError

PAPER = {"high_score": 0.95, "low_score": 0.5}


def for_cleanlab(pool: Pool, targets: list[Target], classes: int) -> tuple[list[dict[str, np.ndarray]], list[object]]:
    labels = [{"bboxes": target["boxes"].numpy(), "labels": target["labels"].numpy()} for target in targets]
    predictions = []
    for row in range(len(pool)):
        part = pool.part(row, row + 1)
        columns = torch.cat([part.boxes, part.scores[:, None]], 1).numpy()
        predictions.append(np.array([columns[part.labels.numpy() == k] for k in range(classes)] + [None], object)[:-1])
    return labels, predictions


@pytest.mark.parametrize("seed", range(8))
def test_frames_have_the_scores_of_cleanlab(seed: int) -> None:
    assert (HIGH_SCORE, LOW_SCORE) == (rank.HIGH_PROBABILITY_THRESHOLD, rank.LOW_PROBABILITY_THRESHOLD)
    pool, targets = noisy_world(seed, frames=30)
    labels, predictions = for_cleanlab(pool, targets, 3)
    expected = rank.get_label_quality_scores(labels, predictions, verbose=False, overlapping_label_check=False)
    found = label_issues(pool, targets, **PAPER)
    by_id = dict(zip(found.checked_ids, found.checked_scores.tolist(), strict=True))
    assert [by_id[frame_id] for frame_id in pool.frame_ids] == pytest.approx(expected.tolist(), rel=1e-9)
    assert len(set(expected.round(6))) > 10
    ranked = [pool.frame_ids[row] for row in np.argsort(expected, kind="stable") if expected[row] < 1 - 1e-6]
    assert list(found.checked_ids[: len(ranked)]) == ranked


@pytest.mark.parametrize("seed", range(4))
def test_issues_have_the_scores_of_cleanlab(seed: int) -> None:
    """Every one of ours; those that it does not list are spoken for by another annotated box."""
    pool, targets = noisy_world(seed, frames=30)
    labels, predictions = for_cleanlab(pool, targets, 3)
    low, high = {"low_probability_threshold": 0.5}, {"high_probability_threshold": 0.95}
    given = {"labels": labels, "predictions": predictions}
    located = rank.compute_badloc_box_scores(**given, **low)
    swapped = rank.compute_swap_box_scores(**given, **high, overlapping_label_check=False)
    overlooked = rank.compute_overlooked_box_scores(**given, **high)
    found = label_issues(pool, targets, **PAPER)
    for frame_id, kind, score, place in zip(
        found.frame_ids, found.kinds, found.scores.tolist(), found.annotation_rows.tolist(), strict=True
    ):
        row = pool.frame_ids.index(frame_id)
        if kind == "overlooked":
            assert min(abs(overlooked[row] - score)[~np.isnan(overlooked[row])]) < 1e-12
        elif kind == "badly_located":
            assert located[row][place] == pytest.approx(score)
        else:
            assert swapped[row][place] <= score + 1e-12
    theirs = sum(int((values <= 0.5).sum()) for values in overlooked)
    assert found.kinds.count("overlooked") == theirs > 0
    assert 0 < found.kinds.count("badly_located") <= sum(int((values <= 0.5).sum()) for values in located)
    assert 0 < found.kinds.count("swapped") <= sum(int((values <= 0.5).sum()) for values in swapped)


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_perfect_annotations_have_no_issues(seed: int) -> None:
    """Whatever overlaps, where every prediction stands on an annotated box of its class."""
    pool, _ = noisy_world(seed)
    parts = [pool.part(row, row + 1) for row in range(len(pool))]
    targets = [{"boxes": part.boxes, "labels": part.labels} for part in parts]
    assert len(label_issues(pool, targets)) == 0
    assert len(label_issues(pool, targets, high_score=0.1, low_score=0.1)) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limits", [{}, PAPER])
def test_clean_annotations_with_shaky_predictions_have_no_issues(seed: int, limits: dict[str, float]) -> None:
    pool, targets = clean_world(seed)
    assert len(label_issues(pool, targets, **limits)) == 0


def with_fault(targets: list[Target], frame: int, kind: str) -> list[Target]:
    made = [{name: values.clone() for name, values in target.items()} for target in targets]
    target = made[frame]
    if kind == "overlooked":
        made[frame] = {name: values[1:] for name, values in target.items()}
    elif kind == "swapped":
        target["labels"][0] = (target["labels"][0] + 1) % 4
    else:
        target["boxes"][0] += 25
    return made


@pytest.mark.parametrize("kind", ["overlooked", "badly_located", "swapped"])
@given(seed=st.integers(0, 1000), frame=st.integers(0, 19))
@settings(deadline=None, max_examples=15)
def test_an_injected_fault_comes_first(kind: str, seed: int, frame: int) -> None:
    pool, targets = clean_world(seed)
    found = label_issues(pool, with_fault(targets, frame, kind), **PAPER)
    assert (found.frame_ids, found.kinds) == ((f"f{frame}",), (kind,))
    assert found.checked_ids[0] == f"f{frame}"
    assert found.for_review() == (f"f{frame}",)
    assert found.suggested_labels.tolist() == [int(targets[frame]["labels"][0])]
    assert found.prediction_rows.tolist() == [3 * frame]
    if kind != "swapped":
        assert torch.equal(found.suggested_boxes[0], pool.boxes[3 * frame])


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_no_order_of_frames_and_boxes_matters(seed: int) -> None:
    pool, targets = noisy_world(seed)
    rng = torch.Generator().manual_seed(seed)
    frames = torch.randperm(len(pool), generator=rng).tolist()
    parts, mixed = [], []
    for row in frames:
        part, target = pool.part(row, row + 1), targets[row]
        order = torch.randperm(part.num_boxes, generator=rng)
        parts.append((part.boxes[order], part.labels[order], part.scores[order]))
        order = torch.randperm(len(target["labels"]), generator=rng)
        mixed.append({name: values[order] for name, values in target.items()})
    shuffled = pool_of(parts).replace(frame_ids=[pool.frame_ids[row] for row in frames])
    one, other = label_issues(pool, targets), label_issues(shuffled, mixed)
    assert (one.frame_ids, one.kinds, one.checked_ids) == (other.frame_ids, other.kinds, other.checked_ids)
    for name in ("scores", "frame_scores", "checked_scores", "suggested_labels", "confidences"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("annotated_boxes", "suggested_boxes"):
        assert torch.equal(getattr(one, name).nan_to_num(-1), getattr(other, name).nan_to_num(-1)), name


def test_nothing_predicted_nothing_annotated() -> None:
    pool, targets = clean_world(0, frames=3)
    empty = pool_of([(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0))] * 3)
    found = label_issues(empty, targets)
    assert (len(found), found.checked_scores.tolist()) == (0, [1, 1, 1])
    bare = Pool(["f0", "f1", "f2"], torch.zeros(4, dtype=torch.int64))  # as an adapter without boxes leaves it
    assert len(label_issues(bare, targets)) == 0
    found = label_issues(pool, [{"image_id": 0}] * 3)
    assert (set(found.kinds), len(found)) == ({"overlooked"}, 9)
    found = label_issues(pool, [None] * 3)
    assert (len(found), found.checked_ids, found.for_review()) == (0, (), ())
    assert [len(each) for each in found.review_pools()] == [0, 0]


def test_frames_that_are_not_annotated_change_nothing() -> None:
    pool, targets = noisy_world(3)
    some: list[Target | None] = [None if row % 3 == 0 else target for row, target in enumerate(targets)]
    kept = [row for row in range(len(pool)) if row % 3]
    one, other = label_issues(pool, some), label_issues(pool.take(kept), [targets[row] for row in kept])
    assert (one.frame_ids, one.kinds, one.scores.tolist()) == (other.frame_ids, other.kinds, other.scores.tolist())
    taken = pool.take(kept)
    for mine, theirs in zip(one.prediction_rows.tolist(), other.prediction_rows.tolist(), strict=True):
        assert torch.equal(pool.boxes[mine], taken.boxes[theirs])
    assert set(one.checked_ids) == {f"f{row}" for row in kept}


def test_limits_follow_the_scores_that_the_detector_gives_when_it_is_right() -> None:
    """A detector that is never sure by the paper's measure still finds faults; the quartiles are of its own classes."""
    pool, targets = clean_world(1)
    weak = pool.replace(scores=(pool.scores - 0.95) * 5)  # 0.05 to 0.2
    faulty = with_fault(with_fault(with_fault(targets, 2, "swapped"), 5, "badly_located"), 9, "overlooked")
    sure = torch.tensor([3 * row for row in (2, 5, 9)])
    scores = weak.scores.clone()
    scores[sure] = 0.21
    weak = weak.replace(scores=scores)
    assert len(label_issues(weak, faulty, **PAPER)) == 0
    found = label_issues(weak, faulty)
    assert {(frame_id, kind) for frame_id, kind in zip(found.frame_ids, found.kinds, strict=True)} == {
        ("f2", "swapped"),
        ("f5", "badly_located"),
        ("f9", "overlooked"),
    }
    unsure = scores.clone()
    unsure[sure] = 0.01  # below either quartile
    assert len(label_issues(weak.replace(scores=unsure), faulty)) == 0


def test_quartiles_of_a_class_are_its_own() -> None:
    """Class 0 is told with scores of 0.9, class 1 with 0.3: a stray of 0.4 is sure for class 1 alone."""
    place, stray = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[80.0, 80, 99, 99]])
    frames, targets = [], []
    for row in range(40):
        label = torch.tensor([row % 2])
        frames.append((place, label, torch.tensor([0.3 if row % 2 else 0.9])))
        targets.append({"boxes": place, "labels": label})
    for label in (0, 1):
        frames.append((stray, torch.tensor([label]), torch.tensor([0.4])))
        targets.append({"image_id": label})
    found = label_issues(pool_of(frames), targets)
    assert (found.frame_ids, found.suggested_labels.tolist()) == (("f41",), [1])
    few = label_issues(pool_of(frames[:12] + frames[-2:]), [*targets[:12], *targets[-2:]])
    assert len(few) == 0  # six of each: the upper quartile of all is 0.9


def wavering(of_given: float) -> Pool:
    """One sure prediction of class 2; `of_given` is what it says of class 1."""
    return Pool(
        ["a"],
        torch.tensor([0, 1]),
        boxes=torch.tensor([[0.0, 0.0, 20.0, 20.0]]),
        labels=torch.tensor([2]),
        scores=torch.tensor([0.97]),
        probabilities=torch.tensor([[0.01, of_given, 0.97]]),
        activation="sigmoid",
    )


def test_a_detector_that_wavers_between_two_classes_says_little() -> None:
    targets = [{"boxes": [[0.0, 0.0, 20.0, 20.0]], "labels": [1]}]
    sure, wavers = (label_issues(wavering(p), targets, **PAPER) for p in (0.0, 0.9))
    assert (sure.kinds, sure.scores.tolist()) == (("swapped",), pytest.approx([0.1]))
    assert wavers.kinds == ()
    assert wavers.checked_scores[0] > sure.checked_scores[0]
    blank = wavering(0.9).replace(probabilities=None, activation=None)
    assert label_issues(blank, targets, **PAPER).kinds == ("swapped",)


def test_sparse_labels_name_their_columns() -> None:
    targets = [{"boxes": [[0.0, 0.0, 20.0, 20.0]], "labels": [17]}]
    sparse = wavering(0.9).replace(labels=torch.tensor([90]))
    with pytest.raises(InvalidInputError, match="has 3 columns, and none for label 90"):
        label_issues(sparse, targets)
    with pytest.raises(InvalidInputError, match="none for label 90"):
        label_issues(sparse, targets, class_columns={17: 1})
    assert label_issues(sparse, targets, class_columns={17: 1, 90: 2}, **PAPER).kinds == ()
    assert label_issues(sparse, targets, class_columns={17: 0, 90: 2}, **PAPER).kinds == ("swapped",)
    unknown = [{"boxes": [[0.0, 0.0, 20.0, 20.0]], "labels": [55]}]  # a class that the detector does not have
    assert label_issues(sparse, unknown, class_columns={17: 1, 90: 2}, **PAPER).kinds == ("swapped",)


def test_a_background_column_belongs_to_no_label() -> None:
    """As torchvision's R-CNN has it: column 0 is the background, labels begin with 1."""
    pool = Pool(
        ["a"],
        torch.tensor([0, 1]),
        boxes=torch.tensor([[0.0, 0.0, 20.0, 20.0]]),
        labels=torch.tensor([1]),
        scores=torch.tensor([0.5]),
        probabilities=torch.tensor([[0.48, 0.5, 0.02]]),
        activation="softmax",
    )
    targets = [{"boxes": [[0.0, 0.0, 20.0, 20.0]], "labels": [2]}]
    found = label_issues(pool, targets, high_score=0.5)
    assert found.scores.tolist() == pytest.approx([0.1])  # 1 - (1 - 0.02 / 0.5) is less than the floor


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"high_score": 1.5}, r"`high_score` must be in \[0, 1\]; got 1.5"),
        ({"low_score": -0.1}, "`low_score`"),
        ({"max_score": 2}, "`max_score`"),
        ({"alpha": float("nan")}, "`alpha`"),
        ({"temperature": 0}, "`temperature` must be above 0; got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, float], said: str) -> None:
    pool, targets = clean_world(0, frames=2)
    with pytest.raises(InvalidInputError, match=said):
        label_issues(pool, targets, **options)


@pytest.mark.parametrize("name", ["boxes", "labels", "scores"])
def test_a_missing_column_is_named(name: str) -> None:
    pool, targets = clean_world(0, frames=2)
    with pytest.raises(InvalidInputError, match=f"`pool` must have .*it has no `{name}`"):
        label_issues(pool.replace(**{name: None}), targets)
