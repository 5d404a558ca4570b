"""Several rounds of active learning, simulated: train, choose, label from an oracle, repeat; beside random choice.

    python examples/study/active_learning.py                 # about four minutes on two cores
    python examples/study/active_learning.py --quick         # less than a minute, too small to mean anything

Stop it at any time, with Ctrl-C or worse: the same command goes on from there, and ends with the same figures. All it
knows is in `--folder`: a labels file for each arm, the weights of each training, `results.json`, and the picture.

Every arm starts from the same labelled frames, and trains anew from the same weights after every round, for the same
number of steps. One pool and one start prove little: between starts the figures differ by .04 to .06 mAP. And a frame
is not a unit of work: uncertain frames have more boxes to draw, so those are printed too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # a file, no window
import torch
from matplotlib import pyplot as plt
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import FCOS

sys.path.append(str(Path(__file__).resolve().parents[1] / "data"))  # the frames and the detector of all examples

from cval_torch import DetectionSampling, PassOptions
from cval_torch.training import SamplerCallback
from cval_torch.training.labels import LabelPool
from digits_on_photos import DigitFrames, PoolSettings, pool_frames, unseen_frames
from small_detector import collate, detector_of_digits, evaluate_map50, pretrained_on_letters, train


@dataclass(frozen=True)
class Settings:
    """How large the experiment is.

    Attributes:
        pool: frames to choose from, the first labelled ones included.
        test: other frames, to measure on.
        start: frames labelled at first, at random.
        batch: frames labelled each round.
        rounds: rounds.
        steps: training steps of each round.
        letters: training steps on letters, from which every training starts.
        letter_frames: frames of letters.
        random_draws: how often random choice is repeated.
    """

    pool: int = 2000
    test: int = 400
    start: int = 80
    batch: int = 80
    rounds: int = 3
    steps: int = 350
    letters: int = 1000
    letter_frames: int = 2000
    random_draws: int = 2


FULL = Settings()
QUICK = Settings(pool=120, test=20, start=12, batch=12, rounds=2, steps=6, letters=10, letter_frames=50, random_draws=1)


def main() -> None:
    """Run every arm to its end, and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path("active_learning"), help="where everything is kept")
    parser.add_argument("--seed", type=int, default=0, help="of the pool, the start and the training")
    parser.add_argument("--quick", action="store_true", help="a few seconds of training, to see it run")
    options = parser.parse_args()
    settings = QUICK if options.quick else FULL
    folder = options.folder / f"{'quick' if options.quick else 'full'}-seed{options.seed}"
    folder.mkdir(parents=True, exist_ok=True)

    experiment = Experiment(settings, folder, options.seed)
    for name, stages in arms(settings).items():
        experiment.run(name, stages)
    experiment.draw(folder / "map_over_frames.png")
    print(f"the picture is {folder / 'map_over_frames.png'}")


def arms(settings: Settings) -> dict[str, list[DetectionSampling]]:
    """What is compared: by name, the stages that choose a round's frames."""
    n = settings.batch
    chosen = [
        DetectionSampling(selection_strategy="entropy", bbox_selection_policy="sum", num_of_samples=4 * n),
        DetectionSampling(selection_strategy="clustering", num_of_samples=n),
    ]
    random = {
        f"random {draw}": [DetectionSampling(selection_strategy="random", num_of_samples=n, seed=draw)]
        for draw in range(settings.random_draws)
    }
    return {"entropy, clustering": chosen, **random}


class Experiment:
    """One pool and one start; what was done already is in the folder."""

    def __init__(self, settings: Settings, folder: Path, seed: int) -> None:
        self.settings, self.folder, self.seed = settings, folder, seed
        self.pool = pool_frames(PoolSettings(frames=settings.pool), seed=seed)
        self.test = unseen_frames(settings.test, seed=seed)
        self.letters = self._begin()
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(self.pool), generator=generator)[: settings.start]
        self.start = [self.pool.frame_ids[row] for row in rows]
        self.results: dict[str, dict[str, float]] = self._read_results()

    def run(self, arm: str, stages: list[DetectionSampling]) -> None:
        """Go on with an arm until it has all its rounds."""
        labels = LabelPool(self.pool, labeled=self.start)
        record = self.folder / f"{arm.replace(', ', '-').replace(' ', '-')}.json"
        sampler = SamplerCallback(
            labels,
            make_loader,
            stages,
            annotate=lambda frames: frames.frame_ids,  # the oracle: the pool has every label
            max_rounds=self.settings.rounds,
            save_to=record,
            options=PassOptions(progress=False),
        )
        if record.exists():
            sampler.load(record)
            if sampler.pending:  # stopped between the choice and its labels
                sampler.confirm()
        while True:
            detector = self._trained(labels)
            done = self.results.setdefault(arm, {})
            if str(len(labels.labeled)) not in done:
                done[str(len(labels.labeled))] = evaluate_map50(detector, self.test)
                write(self.folder / "results.json", json.dumps(self.results, indent=1))
            frames, boxes = len(labels.labeled), count_boxes(self.pool, labels.labeled_indices)
            print(f"{arm:20} {frames:4} frames, {boxes:4} boxes: mAP@50 {done[str(frames)]:.3f}", flush=True)
            if sampler.choose(detector) is None:
                return

    def draw(self, path: Path) -> None:
        """The mAP of each arm over the frames that it had labelled."""
        figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
        draws = [curve for arm, curve in self.results.items() if arm.startswith("random")]
        for curve in draws:
            axes.plot([int(n) for n in curve], list(curve.values()), color="tab:gray", linewidth=0.8, alpha=0.6)
        frames = [int(n) for n in draws[0]]
        mean = [sum(curve[str(n)] for curve in draws) / len(draws) for n in frames]
        axes.plot(frames, mean, "o--", color="tab:gray", label=f"random (mean of {len(draws)}; each draw thin)")
        for arm, curve in self.results.items():
            if not arm.startswith("random"):
                axes.plot([int(n) for n in curve], list(curve.values()), "o-", color="tab:blue", label=arm)
        axes.set(xlabel="labelled frames", ylabel=f"mAP@50 on {len(self.test)} other frames", xticks=frames)
        axes.set_title(f"Digits on photos, one start (seed {self.seed})", fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)

    def _begin(self) -> FCOS:
        """The detector of letters; its file is put in place whole, so a run that is killed leaves no half of it."""
        path = self.folder / "letters.pt"
        if not path.exists():
            print(f"training on letters, {self.settings.letters} steps", flush=True)
            model = pretrained_on_letters(steps=self.settings.letters, frames=self.settings.letter_frames)
            save_weights(model, path)
        return pretrained_on_letters(path)

    def _trained(self, labels: LabelPool) -> FCOS:
        """A detector trained on what is labelled: from the folder, or anew, which gives the same one."""
        names = "\n".join(sorted(labels.labeled_ids)).encode()
        path = self.folder / f"{len(labels.labeled)}-{fingerprint(names)}.pt"
        detector = detector_of_digits(self.letters, seed=self.seed)
        if path.exists():
            detector.load_state_dict(torch.load(path, weights_only=True))
            return detector
        train(detector, labels.labeled, steps=self.settings.steps, seed=self.seed)
        save_weights(detector, path)
        return detector

    def _read_results(self) -> dict[str, dict[str, float]]:
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}


def make_loader(unlabeled: Dataset[Any]) -> DataLoader[Any]:
    """What the detector is to look at, to choose from."""
    return DataLoader(unlabeled, batch_size=100, collate_fn=collate)


def count_boxes(pool: DigitFrames, indices: list[int]) -> int:
    """What an annotator would have had to draw."""
    return sum(len(pool.labels[index]) for index in indices)


def fingerprint(content: bytes) -> str:
    """A short name for it."""
    return hashlib.sha256(content).hexdigest()[:12]


def save_weights(model: nn.Module, path: Path) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    torch.save(model.state_dict(), temporary)
    temporary.replace(path)


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


if __name__ == "__main__":
    main()
