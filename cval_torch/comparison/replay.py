"""`compare`: replay choices on frames whose labels are known already."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cval_torch.comparison.asked import Strategy, check_numbers, check_ranges, frames_of, plans_of, random_stage
from cval_torch.comparison.measures import MEASURES, Ruler
from cval_torch.comparison.result import Comparison, MeasuredChoice
from cval_torch.comparison.training import Evaluate, Record, Train, Training, backend_beside, fingerprint_of
from cval_torch.comparison.truth import Targets
from cval_torch.errors import InvalidInputError, NoSubsetError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.pool.pool import Pool
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.stage import DetectionSampling, describe_stage
from cval_torch.training.labels import LabelPool


def compare(
    model: nn.Module,
    loader: Iterable[Any] | LabelPool,
    strategies: Mapping[str, Strategy] | Sequence[str],
    *,
    num_of_samples: int,
    targets: Targets | None = None,
    labeled: Iterable[str] | None = None,
    make_loader: Callable[[Dataset[Any]], DataLoader[Any]] | None = None,
    draws: int = 100,
    seed: int = 0,
    train: Train | None = None,
    evaluate: Evaluate | None = None,
    rounds: int = 1,
    trained_draws: int = 5,
    min_score: float = 0.3,
    duplicate_radius: float = 0.25,
    options: PassOptions | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Comparison:
    """See on labelled frames of your own what each strategy would have chosen, beside random choice.

    One inference pass over all frames (see `extract`), then every strategy chooses from the same candidates, in
    process, as if they had no labels; what they truly show is counted afterwards. The measures of a choice are:

    - `frames`: how many there are;
    - `scarce_objects`: true boxes in them, of which the n-th of a class that has N annotated ones in `labeled` counts
      for `1 / (N + n)`: the tenth object of a class is worth more than its thousandth. Of all measures here it went
      best with what training on a choice gained (`examples/benchmarks/results/measures_of_gain.md`), so
      `Comparison.headline` goes by it;
    - `objects`: true boxes in them, which is the work of annotating;
    - `empty_share`: the share of frames that show no object;
    - `classes`: how many of the candidates' classes occur, and `rare_objects`: objects of the rarest quarter of these
      classes (rounded up, counted among the candidates; of classes as rare, those with the smaller label);
    - `class_balance`: the entropy of the class counts over that of equal counts, in [0, 1];
    - `duplicate_share`: the share of frames that have another chosen one within `duplicate_radius`: the distance of
      normalised frame embeddings (without them, of what diversity strategies see), in units of the median distance
      between two candidates;
    - `misses`: true boxes that no detection of at least `min_score`, of whatever class, overlaps with an IoU of 0.5.

    With `train` and `evaluate` the choice goes on for some rounds: train on all that is labelled so far, measure, infer
    all frames with the new detector, choose. `model` makes the first choice, and what `evaluate` says of it is where
    the curves begin, so it should be what `train` gives on `labeled`. Torch's random numbers begin at `seed` for every
    training, and the caller's go on as they were.

    Over a `LabelPool` its labelled frames are replayed. If its first round was labelled before any choice, and there
    are others, those frames are the start, and the rest the candidates; else all are candidates.

    It is the work of one process; `torch.distributed` is left alone.

    Args:
        model: a detector; see `extract`.
        loader: a `DataLoader` over labelled frames, or a `LabelPool`, then with `make_loader`.
        strategies: by name, what to compare: a strategy's name or a callable, for one stage with its defaults, or
            a stage or stages of which the last keeps `num_of_samples` frames. A list of names is enough. `random` is
            always there, and is no name for another.
        num_of_samples: frames that each chooses, at least 1; less than there are candidates.
        targets: `row of the dataset -> target`, where the loader's own will not do: a frame's labels (integers, [] for
            none), or a dict of `labels` and `boxes` (xyxy, or `BoundingBoxes` in XYXY, XYWH or CXCYWH). Objects that an
            `iscrowd` column marks are left out. Of a `LabelPool` it is a row of its dataset. None: the loader's targets
            are such dicts, as torchvision's detectors are trained on; a dict with `image_id` alone is an empty frame.
        labeled: ids of frames of the loader that are annotated to begin with: they are not chosen, and diversity
            strategies stay away from them. None: as said for a `LabelPool`, else no frame.
        make_loader: for a `LabelPool`: `Subset -> DataLoader`, without augmentation.
        draws: random choices to measure, at least 2. What is outside of all of them is marked.
        seed: of the random choices, and of strategies given by name.
        train: `Subset of the loader's dataset -> a detector trained on it`, from the same beginning every time.
        evaluate: `detector -> metric`, higher = better, on frames that are not in the loader.
        rounds: how often to choose and train.
        trained_draws: how many of the random draws are trained too, at least 2.
        min_score: see `misses`. In [0, 1].
        duplicate_radius: see `duplicate_share`. At least 0.
        options: how the inference pass is made, and whether to show bars; None: `PassOptions()`.
        cache_dir: a folder in which the inference pass and every finished training survive the process: the same call
            goes on from there, also with strategies or `trained_draws` more. Another model, dataset or option is
            refused; changed code of `train` and `evaluate` is not noticed.

    Returns:
        A `Comparison`: print it, or see its `table`, `to_csv` and `plot`.

    Raises:
        InvalidInputError: an option is out of range; a frame without a target, by name; a strategy that cannot choose.
        NoSubsetError: the loader's dataset has no rows to index.
        CvalError: see `extract`.
    """
    check_numbers(
        num_of_samples=(num_of_samples, 1),
        draws=(draws, 2),
        seed=(seed, 0),
        rounds=(rounds, 1),
        trained_draws=(trained_draws, 2),
    )
    check_ranges(min_score=(min_score, 1.0), duplicate_radius=(duplicate_radius, math.inf))
    plans = plans_of(strategies, num_of_samples, seed)
    if (train is None) != (evaluate is None):
        raise InvalidInputError("`train` and `evaluate` must be given together")
    if train is None and rounds != 1:
        raise InvalidInputError(f"`rounds` are of training: pass `train` and `evaluate`; got rounds={rounds} alone")
    if train is not None and trained_draws > draws:
        raise InvalidInputError(f"`trained_draws` must be at most draws={draws}; got {trained_draws}")
    frames = frames_of(loader, make_loader, labeled, targets)
    folder = None if cache_dir is None else Path(cache_dir)
    how = PassOptions() if options is None else options
    run = InferencePass(model, frames.loader, how, distributed=False, watch=frames.reader.watch)
    if run.shares.plan.batches is None:
        raise NoSubsetError(
            "a comparison looks at frames again: the loader must be a DataLoader over rows of a dataset"
        )
    everything, _ = run.infer(None if folder is None else folder / "pass")
    before, rest = _parted(everything, frames.start, num_of_samples * rounds)
    replay = _Replay(
        everything=everything,
        truth=frames.reader.truth(everything, run),
        before=before,
        rest=rest,
        plans=plans,
        num_of_samples=num_of_samples,
        random=[random_stage(num_of_samples, seed + draw) for draw in range(draws)],
        progress=how.progress,
    )
    found = replay.measured(frames.notes, min_score=min_score, duplicate_radius=duplicate_radius)
    if train is None or evaluate is None:
        return found

    def look(trained: nn.Module) -> Pool:
        again = replace(how, progress=False)
        return InferencePass(trained, frames.loader, again, distributed=False).share()

    identity = {
        "the model's weights": model_fingerprint(run.model),
        "the frames": fingerprint_of(everything.frame_ids),
        "the frames labelled before": fingerprint_of(frames.start),
        "the first choice of": {name: fingerprint_of(choice.frame_ids) for name, choice in found.strategies.items()},
        "the strategy": {name: str([describe_stage(stage) for stage in stages]) for name, stages in plans.items()},
        "`num_of_samples`": num_of_samples,
        "`rounds`": rounds,
        "`seed`": seed,
    }
    training = Training(
        dataset=run.shares.plan.dataset,
        everything=everything,
        boxes_of=dict(zip(everything.frame_ids, replay.truth.counts.tolist(), strict=True)),
        start=frames.start,
        train=train,
        evaluate=evaluate,
        look=look,
        rounds=rounds,
        seed=seed,
        record=Record(None if folder is None else folder / "trainings.json", identity),
    )
    return replay.trained(found, training, model, draws=trained_draws)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Replay:
    """One pass, and what is to be chosen from it."""

    everything: Pool
    truth: Pool
    before: list[int]
    rest: list[int]
    num_of_samples: int
    plans: Mapping[str, tuple[DetectionSampling, ...]]
    random: list[DetectionSampling]
    progress: bool

    def measured(self, notes: Sequence[str], *, min_score: float, duplicate_radius: float) -> Comparison:
        """Every first choice, and its measures."""
        pool = self.everything.take(self.rest)
        ruler = Ruler(
            pool,
            self.truth.take(self.rest),
            counts=class_counts(self.truth.take(self.before)),
            min_score=min_score,
            duplicate_radius=duplicate_radius,
        )
        backend = backend_beside(self.everything.take(self.before) if self.before else None)
        missing = [f"there is no {MEASURES[name].title!r}, since {why}" for name, why in ruler.missing.items()]
        with ExitStack() as stack:
            step = self._bar(stack, "compare", len(self.plans) + len(self.random), unit="choice")

            def choose(stages: Sequence[DetectionSampling]) -> MeasuredChoice:
                selection = backend.select(pool, stages)
                step()
                return MeasuredChoice(selection.frame_ids, ruler.measure(selection.rows))

            return Comparison(
                candidates=len(pool),
                start=len(self.before),
                num_of_samples=self.num_of_samples,
                strategies={name: choose(stages) for name, stages in self.plans.items()},
                random=tuple(choose([stage]) for stage in self.random),
                measures=ruler.measures,
                rare_classes=tuple(ruler.classes[ruler.rare].tolist()),
                notes=(*notes, *missing),
            )

    def trained(self, found: Comparison, training: Training, model: nn.Module, *, draws: int) -> Comparison:
        """The same with learning curves, of the strategies and of the first `draws` random choices."""
        with ExitStack() as stack:
            step = self._bar(stack, "train", training.rounds * (len(self.plans) + draws), unit="training")
            start = training.begin(model)
            curves = {
                name: training.curve(f"strategy {name}", found.strategies[name].frame_ids, stages, start, step)
                for name, stages in self.plans.items()
            }
            drawn = [
                training.curve(f"random {draw}", found.random[draw].frame_ids, [stage], start, step, blind=True)
                for draw, stage in enumerate(self.random[:draws])
            ]
        return replace(found, curves=curves, random_curves=tuple(drawn))

    def _bar(self, stack: ExitStack, what: str, total: int, *, unit: str) -> Callable[[], object]:
        """A bar that moves by one at each call, or nothing."""
        if not self.progress:
            return lambda: None
        return stack.enter_context(tqdm(total=total, desc=what, unit=unit)).update


def _parted(pool: Pool, start: Sequence[str], wanted: int) -> tuple[list[int], list[int]]:
    """The rows of the frames labelled before, and those of the candidates."""
    known = set(start)
    before = [row for row, frame_id in enumerate(pool.frame_ids) if frame_id in known]
    if len(before) < len(known):
        missing = min(known.difference(pool.frame_ids))
        raise InvalidInputError(f"`labeled` must be frames of the loader, which has no {missing!r}")
    rest = [row for row, frame_id in enumerate(pool.frame_ids) if frame_id not in known]
    if wanted >= len(rest):
        raise InvalidInputError(
            f"`num_of_samples` x `rounds` must be less than the {len(rest)} candidates, or all choices are the same; "
            f"got {wanted}"
        )
    return before, rest
