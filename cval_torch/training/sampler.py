"""`SamplerCallback`: chooses frames from within a training loop of any kind; knows no framework."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Subset

from cval_torch.errors import InvalidInputError, warn_user
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.files import read_record, write_record
from cval_torch.pool.ranks import Ranks, from_rank_zero, is_rank_zero
from cval_torch.selection.backend import Backend, ChecksPasses
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.choice import Choice, annotated_ids
from cval_torch.training.choosing import Chooser, MakeLoader, checked_share
from cval_torch.training.labels import LabelPool
from cval_torch.training.learning_curve import GainForecast
from cval_torch.training.loggers import RoundLog
from cval_torch.training.measurements import Measurements, watched_metric
from cval_torch.training.rounds import Round
from cval_torch.training.schedules import EveryEpochs, Schedule

STATE_FORMAT = "cval_torch.sampler/1"

Annotate = Callable[[SelectedFrames], Iterable[str] | None]


class SamplerCallback:
    """Chooses unlabelled frames after some epochs, has them annotated, and moves them to the labelled part.

    Call `on_epoch_end` once an epoch, in every process; or `choose`, whenever you like. Make the training loader
    anew from `labels.labeled` after that. While chosen frames wait for their labels no others are chosen.
    If evaluations do not come once an epoch, call `on_evaluation` after each.

    Args:
        labels: which frames are labelled; this callback is what adds to it.
        make_loader: makes a loader over the `Subset` it is given, the unlabelled part: all of it or a sample of it,
            without augmentation. It may read the same rows through another view of the dataset.
        stages: how to choose; see `DetectionSampling`.
        schedule: after which epochs. None: after every one.
        annotate: given the chosen frames, returns the ids of those that have labels now: all of them (an oracle,
            a tool that waits), some, or, with None or an empty list, none yet (a human who comes back later);
            the others are then `pending` until `confirm`, `discard`, or `labels.label`. It runs on rank 0
            alone. None: every choice is pending.
        max_rounds: choices to make at most. None: no limit.
        save_to: a file to write with everything `state_dict` has, on rank 0, at each change.
        backend: what chooses; None: in process.
        options: how the inference passes are made; None: `PassOptions()`. Frames have the ids of `labels`, so
            `frame_id` must be left alone.
        avoid_labeled: whether diversity strategies, and stages with a `min_distance`, stay away from what is labelled,
            where `backend` is None: then the labelled frames are inferred too, by `make_loader`, before each choice
            that has such a stage; as they are, whatever this says, where a stage balances classes.
        labeled_counts: gives the annotated objects by the detector's labels, before each choice on each process. `auto`
            then knows a class by what people drew, and not by what the detector sees. None: the detector counts.
        distributed: whether all processes of `torch.distributed`, if there are several, share the inference; their
            weights must be the same. False: rank 0 infers alone, with its own weights, and the others wait.
        metric: name of one that evaluations measure: its change by the frames that were chosen is forecast. None: the
            one that a `WhenStalled` watches, if the schedule is one.
        random_share: of the frames of each choice, how many are drawn at random, in [0, 1): whether selection is worth
            it can be seen from them. See `Round.random_ids`. The last stage must have `num_of_samples`.
        loggers: what each choice is logged to, on rank 0: the `SummaryWriter`, the wandb or mlflow run, the logger of
            Lightning that the training has; see `as_round_logger`. A logger that fails gives a warning.
    """

    def __init__(
        self,
        labels: LabelPool,
        make_loader: MakeLoader,
        stages: DetectionSampling | Sequence[DetectionSampling],
        *,
        schedule: Schedule | None = None,
        annotate: Annotate | None = None,
        max_rounds: int | None = None,
        save_to: str | os.PathLike[str] | None = None,
        backend: Backend | None = None,
        options: PassOptions | None = None,
        avoid_labeled: bool = True,
        labeled_counts: Callable[[], Mapping[int, int]] | None = None,
        distributed: bool = True,
        metric: str | None = None,
        random_share: float = 0.0,
        loggers: Sequence[Any] = (),
    ) -> None:
        self.labels, self.make_loader, self.annotate = labels, make_loader, annotate
        self.stages = (stages,) if isinstance(stages, DetectionSampling) else tuple(stages)
        if not self.stages:
            raise InvalidInputError("`stages` must be at least one DetectionSampling; got none")
        if max_rounds is not None and max_rounds < 1:
            raise InvalidInputError(f"`max_rounds` must be at least 1; got {max_rounds}")
        self.schedule = EveryEpochs(1) if schedule is None else schedule
        self.max_rounds = max_rounds
        self.save_to = None if save_to is None else Path(save_to)
        self.backend, self.avoid_labeled, self.distributed = backend, avoid_labeled, distributed
        self.options = PassOptions() if options is None else options
        if self.options.frame_id is not None:
            raise InvalidInputError(
                "`options.frame_id` must be None: frames have the names that `labels` gives them; give LabelPool "
                "others, by `frame_ids=`"
            )
        if backend is not None and isinstance(backend, ChecksPasses):
            backend.check_pass(self.stages, top_boxes=self.options.top_boxes)
        self.metric = watched_metric(self.schedule) if metric is None else metric
        self.random_share = checked_share(random_share, self.stages)
        self.labeled_counts = labeled_counts
        self._log = RoundLog(loggers)
        self.rounds_chosen = 0
        self._waiting: Round | None = None
        self._warned = False
        self._measurements = Measurements()
        self._forecast: GainForecast | None = None

    @property
    def forecast(self) -> GainForecast | None:
        """What the frames of the last choice were expected to gain when they were chosen; None: not known.

        `labels.learning_curve` has the measurements that it is made from. Two rounds must have been evaluated.
        """
        return self._forecast

    @property
    def last_round(self) -> Round | None:
        """The last choice as it was made, `random_ids` included; None where none was made here."""
        return self._waiting

    @property
    def pending(self) -> tuple[str, ...]:
        """Ids that were chosen, in rank order, and have no labels yet."""
        if self._waiting is None:
            return ()
        labeled = self.labels.is_labeled
        return tuple(frame_id for frame_id in self._waiting.frame_ids if not labeled(frame_id))

    @property
    def watched_metric(self) -> str | None:
        """Name of the metric that the schedule waits for, if it is a `WhenStalled`; else None."""
        return watched_metric(self.schedule)

    def on_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Keep what one evaluation measured, until the schedule is asked about it at the end of the epoch.

        For loops that evaluate several times in an epoch, or not in each. Only what rank 0 is given counts.
        """
        self._measurements.add(metrics)

    def on_epoch_end(
        self,
        model: nn.Module,
        epoch: int,
        metrics: Mapping[str, float] | None = None,
        *,
        training_metrics: Mapping[str, float] | None = None,
        complete: bool = True,
    ) -> SelectedFrames | None:
        """Choose, if the schedule says so after this epoch.

        Args:
            model: the detector in training, wrapped or not; left as it was.
            epoch: counted from 0.
            metrics: what the evaluation at the end of this epoch measured. None or empty: there was none, or
                `on_evaluation` was told. Never pass the values of an earlier evaluation once more.
            training_metrics: what the training itself measured in this epoch, such as its mean loss.
            complete: False if more is measured after this call. Then call `check_metric` when it was.

        Returns:
            The chosen frames, a `Subset` of `labels.dataset`; None if none were chosen: it is not the time,
            frames are pending, none are left, or `max_rounds` were chosen.

        Raises:
            InvalidInputError: see `check_metric`.
        """
        self.on_evaluation(metrics or {})
        measured = self._measurements.take(training_metrics or {})
        due, state = from_rank_zero(
            lambda: (any(self.schedule.due(epoch, each) for each in measured), self.schedule.state_dict())
        )
        self.schedule.load_state_dict(state)
        if complete:
            self.check_metric(epoch)
        return self.choose(model, epoch=epoch) if due else None

    def check_metric(self, epoch: int, also: Mapping[str, float] | None = None) -> None:
        """Make sure that evaluations measure what a `WhenStalled` watches. Call it in every process.

        Args:
            epoch: the last one that ended.
            also: metrics that the schedule will be asked about at the end of the next one.

        Raises:
            InvalidInputError: there was an evaluation, and the metric was never measured.
        """
        from_rank_zero(lambda: self._measurements.check(self.schedule, epoch, also or {}))

    def on_training_end(self) -> None:
        """Warn if this training never measured what a `WhenStalled` watches: then no frames could be chosen."""
        told = self._measurements.end(self.schedule)
        if told is not None and is_rank_zero():
            warn_user(told)

    def choose(self, model: nn.Module, *, epoch: int | None = None) -> SelectedFrames | None:
        """Choose now, whatever the schedule says.

        Args:
            model: as for `on_epoch_end`.
            epoch: written down in the round.

        Returns:
            As `on_epoch_end`.

        Raises:
            InvalidInputError: `make_loader` gave other frames than the unlabelled ones, or `annotate` returned
                ids that were not chosen.
            CvalError: see `select`; `RankError` where another process failed.
        """
        if not from_rank_zero(self._may_choose):
            return None
        self.labels.measured(from_rank_zero(self._measurements.take_newest))
        if self.distributed:
            choice = self._make_choice(model, epoch, Ranks())
        else:
            choice = from_rank_zero(lambda: self._make_choice(model, epoch, Ranks(distributed=False)))
        self._waiting, self._warned = choice.round, False
        self.rounds_chosen += 1
        self._changed()
        chosen = choice.frames(self.labels.dataset, self.stages)
        self._forecast = self._expected(len(chosen))
        if is_rank_zero():  # before people annotate: their picture is there while they do
            self._log.log(chosen, self.labels, number=self.rounds_chosen, epoch=epoch, forecast=self._forecast)
        annotate = self.annotate
        if annotated := from_rank_zero(lambda: [] if annotate is None else annotated_ids(annotate(chosen), chosen)):
            self.confirm(annotated)
        return chosen

    def confirm(self, frame_ids: Iterable[str] | None = None) -> Round:
        """Say that pending frames have labels now: they become a round of `labels`, with their scores and stages.

        In several processes, call it in every one.

        Args:
            frame_ids: those that do. None: all that are pending.

        Returns:
            The round.

        Raises:
            InvalidInputError: an id is not pending, or none is.
        """
        pending = self.pending
        confirmed = set(pending if frame_ids is None else frame_ids)
        if self._waiting is None or not confirmed:
            raise InvalidInputError(f"there must be frames to confirm; got {sorted(confirmed)}, pending: {pending}")
        for frame_id in sorted(confirmed.difference(pending)):
            raise InvalidInputError(f"frame {frame_id!r} is not pending; {len(pending)} are: {pending[:5]} ...")
        round_ = self._waiting.part(confirmed)
        self.labels.record(round_)
        self._changed()
        return round_

    def discard(self) -> tuple[str, ...]:
        """Wait no longer: what is pending goes back to the unlabelled frames, and may be chosen again."""
        pending, self._waiting = self.pending, None
        self._changed()
        return pending

    def rehearse(self, model: nn.Module, *, frames: int = 2) -> None:
        """Run `model` over the first few unlabelled frames, and forget what it said: to fail early, if it must.

        Nothing is chosen, annotated or remembered, and no backend is asked.

        Raises:
            CvalError: see `extract`.
        """
        few = Subset(self.labels.dataset, self.labels.unlabeled_indices[:frames])
        if len(few):
            InferencePass(model, self.make_loader(few), replace(self.options, progress=False), distributed=False).pool()

    def state_dict(self) -> dict[str, Any]:
        """Everything: labels and their history, what is pending, the schedule and evaluations it has not seen yet.

        Plain values only.
        """
        state: dict[str, Any] = {
            "format": STATE_FORMAT,
            "labels": self.labels.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rounds_chosen": self.rounds_chosen,
        }
        if self.pending and self._waiting is not None:
            state["pending"] = self._waiting.part(self.pending).state_dict()
            marks = self.labels.row_marks_of(self.pending)
            if marks is not None:
                state["pending_row_marks"] = marks
        measured = self._measurements.state()
        return {**state, "measured": measured} if measured else state

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Take over what a `state_dict` says, labels included. All of it, or nothing.

        Args:
            state: from `state_dict`.
            strict: as for `LabelPool.load_state_dict`. With False, pending frames that the dataset no longer has are
                dropped, with a warning.

        Raises:
            InvalidInputError: not a state of this format, or of another dataset.
        """
        found = state.get("format") if isinstance(state, Mapping) else type(state).__name__
        if found != STATE_FORMAT:
            raise InvalidInputError(f"`state` must be a SamplerCallback state of {STATE_FORMAT!r}; got {found!r}")
        try:
            waiting = Round.from_state(state["pending"]) if "pending" in state else None
            labels, rounds_chosen = state["labels"], _as_count(state["rounds_chosen"])
            measured = Measurements.read_state(state.get("measured", []))
            schedule = self.schedule.state_dict()
            self.schedule.load_state_dict(state["schedule"])
        except InvalidInputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidInputError(f"`state` is damaged: {type(error).__name__}: {error}") from error
        try:
            if waiting is not None:
                waiting = self._still_there(waiting, state.get("pending_row_marks"), strict=strict)
            self.labels.load_state_dict(labels, strict=strict)
        except InvalidInputError:
            self.schedule.load_state_dict(schedule)
            raise
        self.rounds_chosen, self._waiting, self._warned = rounds_chosen, waiting, False
        self._measurements.load(measured)
        self._forecast = None

    def _still_there(self, waiting: Round, marks: Any, *, strict: bool) -> Round | None:
        """What the dataset still has of a pending round; None if nothing."""
        known = set(self.labels.frame_ids)
        gone = [frame_id for frame_id in waiting.frame_ids if frame_id not in known]
        if gone:
            what = f"{len(gone)} frames of `state` that were pending are no longer in the dataset: {gone[:5]}"
            if strict:
                raise InvalidInputError(f"{what}. Pass strict=False to go on without them")
            warn_user(f"{what}. They are not waited for any more")
        mark_of = dict(zip(waiting.frame_ids, marks if isinstance(marks, list) else (), strict=False))
        left = waiting.part(known)
        self.labels.check_rows_stayed([mark_of.get(frame_id) for frame_id in left.frame_ids], left.frame_ids)
        return left if left.frame_ids else None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `state_dict` as JSON, whole or not at all. Raises OSError."""
        write_record(path, self.state_dict())

    def load(self, path: str | os.PathLike[str], *, strict: bool = True) -> None:
        """Take over what `save`, or `save_to`, wrote. Raises as `load_state_dict` does, and OSError."""
        state = read_record(path, what="a saved SamplerCallback", form=STATE_FORMAT)
        self.load_state_dict(state, strict=strict)

    def _may_choose(self) -> bool:
        """Whether a choice can be made at all. Frames that wait for labels are worth a word, once."""
        if self.pending:
            if not self._warned:
                self._warned = True
                warn_user(
                    f"no frames are chosen while {len(self.pending)} wait for labels: call `confirm` when they have "
                    "them, or `discard`"
                )
            return False
        return len(self.labels.labeled_ids) < len(self.labels) and (
            self.max_rounds is None or self.rounds_chosen < self.max_rounds
        )

    def _make_choice(self, model: nn.Module, epoch: int | None, ranks: Ranks) -> Choice:
        chooser = Chooser(
            self.labels,
            self.make_loader,
            self.stages,
            self.options,
            self.backend,
            avoid_labeled=self.avoid_labeled,
            labeled_counts=self.labeled_counts,
            random_share=self.random_share,
        )
        return chooser.choose(model, epoch, ranks)

    def _expected(self, added: int) -> GainForecast | None:
        curve = self.labels.learning_curve
        return curve.forecast(self.metric, added) if self.metric in curve.metrics else None

    def _changed(self) -> None:
        if self.save_to is not None and is_rank_zero():
            self.save(self.save_to)


def _as_count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"`rounds_chosen` is {value!r}")
    return value
