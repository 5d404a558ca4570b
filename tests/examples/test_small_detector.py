"""The detector of the examples: its measure, its training, and the weights learnt on letters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Subset

import digits_on_photos as digits
import small_detector


@pytest.fixture(scope="module")
def small_pool():
    return digits.pool_frames(digits.PoolSettings(frames=150), seed=5)


class Oracle(nn.Module):
    """Answers with what it is told, whatever it sees."""

    def __init__(self, frames, *, shift: int = 0) -> None:
        super().__init__()
        answers = zip(frames.boxes, frames.labels, strict=True)
        self.answers = [
            {"boxes": boxes, "labels": (labels + shift) % 10, "scores": torch.full((len(labels),), 0.9)}
            for boxes, labels in answers
        ]
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.answers[self.seen - len(images) : self.seen]


def test_map50_of_right_and_wrong_answers() -> None:
    frames = digits.unseen_frames(20)
    assert small_detector.evaluate_map50(Oracle(frames), frames) == 1
    assert small_detector.evaluate_map50(Oracle(frames, shift=1), frames) == 0


def test_training_is_the_same_for_the_same_seed(small_pool) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = small_detector.small_fcos(10, seed=0)
        small_detector.train(model, Subset(small_pool, range(20)), steps=2, seed=seed)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_letters_are_learnt_once_and_carried_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "deep" / "letters.pt"
    first = small_detector.pretrained_on_letters(cache, steps=2)
    monkeypatch.setattr(small_detector, "train", lambda *_, **__: pytest.fail("trained again"))
    letters = small_detector.pretrained_on_letters(cache, steps=2)
    detector = small_detector.detector_of_digits(letters, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(letters.state_dict()[name], value)
        assert "cls_logits" in name or torch.equal(detector.state_dict()[name], value)


def test_the_shipped_letters_are_small_and_know_letters() -> None:
    assert small_detector.LETTERS.stat().st_size < 1_000_000
    weights = torch.load(small_detector.LETTERS, weights_only=True)
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.int64}
    frames = digits.letter_frames(60, seed=1)  # other letters, on other crops, than those of the training
    shipped = small_detector.evaluate_map50(small_detector.letters_as_shipped(), frames)
    untrained = small_detector.evaluate_map50(small_detector.small_fcos(26), frames)
    assert shipped > 0.5
    assert untrained < 0.05


def test_letters_are_shipped_as_they_are_made(tmp_path: Path) -> None:
    path = tmp_path / "letters.pt"
    small_detector.ship_letters(path, steps=2)
    trained = small_detector.pretrained_on_letters(steps=2).state_dict()
    for name, value in small_detector.letters_as_shipped(path).state_dict().items():
        expected = trained[name].half().float() if value.is_floating_point() else trained[name]
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("there_is", ["nothing", "other weights"])
def test_letters_that_do_not_fit_say_how_to_remake_them(tmp_path: Path, there_is: str) -> None:
    path = tmp_path / "letters.pt"
    if there_is == "other weights":
        torch.save(small_detector.small_fcos(10).state_dict(), path)
    with pytest.raises(RuntimeError, match=r"letters\.pt cannot be used; `python examples/data/small_detector\.py`"):
        small_detector.letters_as_shipped(path)
