"""`Chooser`: one choice among the unlabelled frames, by inference in this and perhaps other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.hooks.holding import find_detector
from cval_torch.pipeline import SelectedFrames, select_frames
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.backend import Backend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.training.annotated import backend_for
from cval_torch.training.choice import Choice, names_of
from cval_torch.training.labels import LabelPool

MakeLoader = Callable[[Subset[Any]], DataLoader[Any]]


@dataclass(frozen=True)
class Chooser:
    """How frames are chosen; `SamplerCallback` says what the attributes are."""

    labels: LabelPool
    make_loader: MakeLoader
    stages: Sequence[DetectionSampling]
    options: PassOptions
    backend: Backend | None = None
    avoid_labeled: bool = True
    labeled_counts: Callable[[], Mapping[int, int]] | None = None
    random_share: float = 0.0

    def choose(self, model: nn.Module, epoch: int | None, ranks: Ranks) -> Choice:
        """Infer and choose, with the processes in `ranks`."""
        core = ranks.exchange_local(lambda: find_detector(model, adapter=self.options.adapter)).model
        loader = ranks.exchange_local(lambda: self.make_loader(self.labels.unlabeled))
        names = ranks.exchange_local(lambda: names_of(loader, self.labels))
        cuda = sorted({tensor.device for tensor in core.parameters() if tensor.is_cuda}, key=str)
        selecting = partial(
            select_frames,
            model,
            loader,
            options=replace(self.options, frame_id=names),
            distributed=_distributed(ranks),
        )
        with torch.random.fork_rng(devices=cuda):  # a training with choices draws the same numbers as one without
            stages, num_random = self._shared_out()
            chosen = selecting(stages, backend=self._backend(model, ranks))
            drawn = self._drawn(selecting, chosen, num_random) if num_random else None
        fingerprint = ranks.from_rank_zero(lambda: model_fingerprint(core))
        return Choice.of(chosen, self.labels, self.stages, drawn=drawn, epoch=epoch, model_fingerprint=fingerprint)

    def _shared_out(self) -> tuple[Sequence[DetectionSampling], int]:
        """The stages that choose what is not drawn at random, and how many frames are."""
        *before, last = self.stages
        asked, left = last.num_of_samples or 0, len(self.labels) - len(self.labels.labeled_ids)
        if not self.random_share or asked >= left:  # all that are left are chosen
            return self.stages, 0
        num_random = min(max(round(self.random_share * asked), 1), asked - 1)
        return [*before, last.model_copy(update={"num_of_samples": asked - num_random})], num_random

    def _drawn(self, selecting: Callable[..., SelectedFrames], chosen: SelectedFrames, more: int) -> SelectedFrames:
        """Frames at random from all that are unlabelled, so many that `more` of them were not chosen."""
        known, wanted = set(chosen.frame_ids), more
        while True:
            stage = DetectionSampling(
                selection_strategy="random",
                num_of_samples=wanted,
                seed=(self.stages[-1].seed + len(self.labels.labeled_ids)) % 2**63,
            )
            drawn = selecting([stage], backend=None)
            missing = more - sum(frame_id not in known for frame_id in drawn.frame_ids)
            if not missing or len(drawn) < wanted:
                return drawn
            wanted += missing  # the order is the same: what was drawn before comes first again

    def _backend(self, model: nn.Module, ranks: Ranks) -> Backend | None:
        """The user's; or one that knows what is labelled, where a stage has a use for that."""
        if self.backend is not None:
            return self.backend

        def make_pass() -> InferencePass:
            loader = ranks.exchange_local(lambda: self.make_loader(self.labels.labeled))
            names = ranks.exchange_local(lambda: names_of(loader, self.labels, labeled=True))
            options = replace(self.options, frame_id=names)
            return InferencePass(model, loader, options, distributed=_distributed(ranks))

        counts = None if self.labeled_counts is None else self.labeled_counts()
        return backend_for(
            self.stages, self.labels.labeled_ids, make_pass, avoid_labeled=self.avoid_labeled, counts=counts
        )


def checked_share(share: float, stages: Sequence[DetectionSampling]) -> float:
    """A `random_share`, if it is one. Raises an `InvalidInputError`."""
    if not 0 <= share < 1:
        raise InvalidInputError(f"`random_share` must be in [0, 1); got {share}")
    asked = stages[-1].num_of_samples
    if share and (asked is None or asked < 2):
        raise InvalidInputError(
            f"`random_share` is a share of the frames that the last stage keeps: its `num_of_samples` must be at "
            f"least 2; got {asked}"
        )
    return share


def _distributed(ranks: Ranks) -> bool | None:
    """What to tell a pass, so that just these processes make it."""
    return None if ranks.size > 1 else False
