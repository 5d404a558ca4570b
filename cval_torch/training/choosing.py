"""`Chooser`: one choice among the unlabelled frames, by inference in this and perhaps other processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from cval_torch.extraction.fingerprint import model_fingerprint
from cval_torch.extraction.inference_pass import InferencePass
from cval_torch.extraction.options import PassOptions
from cval_torch.hooks.holding import find_detector
from cval_torch.pipeline import select_frames
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

    def choose(self, model: nn.Module, epoch: int | None, ranks: Ranks) -> Choice:
        """Infer and choose, with the processes in `ranks`."""
        core = ranks.exchange_local(lambda: find_detector(model, adapter=self.options.adapter)).model
        loader = ranks.exchange_local(lambda: self.make_loader(self.labels.unlabeled))
        names = ranks.exchange_local(lambda: names_of(loader, self.labels))
        cuda = sorted({tensor.device for tensor in core.parameters() if tensor.is_cuda}, key=str)
        with torch.random.fork_rng(devices=cuda):  # a training with choices draws the same numbers as one without
            chosen = select_frames(
                model,
                loader,
                self.stages,
                backend=self._backend(model, ranks),
                options=replace(self.options, frame_id=names),
                distributed=_distributed(ranks),
            )
        fingerprint = ranks.from_rank_zero(lambda: model_fingerprint(core))
        return Choice.of(chosen, self.labels, epoch=epoch, model_fingerprint=fingerprint)

    def _backend(self, model: nn.Module, ranks: Ranks) -> Backend | None:
        """The user's; or one that knows what is labelled, where a stage has a use for that."""
        if self.backend is not None:
            return self.backend

        def make_pass() -> InferencePass:
            loader = ranks.exchange_local(lambda: self.make_loader(self.labels.labeled))
            names = ranks.exchange_local(lambda: names_of(loader, self.labels, labeled=True))
            options = replace(self.options, frame_id=names)
            return InferencePass(model, loader, options, distributed=_distributed(ranks))

        return backend_for(self.stages, self.labels.labeled_ids, make_pass, avoid_labeled=self.avoid_labeled)


def _distributed(ranks: Ranks) -> bool | None:
    """What to tell a pass, so that just these processes make it."""
    return None if ranks.size > 1 else False
