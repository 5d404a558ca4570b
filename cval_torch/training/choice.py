"""A choice of frames, told by the labels' own ids and rows whatever the loader made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import FrameIdOf
from cval_torch.pipeline import SelectedFrames
from cval_torch.pool.pool import Pool
from cval_torch.selection.backend import Selection
from cval_torch.selection.stage import DetectionSampling, describe_stage
from cval_torch.training.labels import LabelPool
from cval_torch.training.rounds import Round, as_scores


@dataclass(frozen=True)
class Choice:
    """What was chosen, in a form that travels between processes.

    Attributes:
        round: ids, scores and stages, as they will be in the history.
        scores: (n,) float64, as the selection gave them.
        predictions: n frames, whose `indices` are rows of the labels' dataset.
    """

    round: Round
    scores: Tensor
    predictions: Pool

    @classmethod
    def of(
        cls,
        chosen: SelectedFrames,
        labels: LabelPool,
        stages: Sequence[DetectionSampling],
        *,
        drawn: SelectedFrames | None = None,
        epoch: int | None,
        model_fingerprint: str,
    ) -> Choice:
        """The choice that a selection, with ids from `names_of`, made.

        Args:
            chosen: the selection.
            labels: whose frames they are.
            stages: that were asked for.
            drawn: frames that were drawn at random; those that were not chosen, too, follow the others.
            epoch: see `Round`.
            model_fingerprint: see `Round`.
        """
        frame_ids, scores, predictions = chosen.frame_ids, chosen.scores, chosen.predictions
        random_ids: tuple[str, ...] = ()
        if drawn is not None:
            random_ids, known = drawn.frame_ids, set(frame_ids)
            more = [row for row, frame_id in enumerate(random_ids) if frame_id not in known]
            frame_ids = (*frame_ids, *(random_ids[row] for row in more))
            scores = torch.cat([scores, scores.new_full((len(more),), torch.nan)])
            skipped = predictions.skipped
            predictions = Pool.cat([predictions, drawn.predictions.take(more)]).with_skipped(skipped)
        predictions = predictions.replace(indices=torch.tensor(labels.indices_of(frame_ids), dtype=torch.int64))
        round_ = Round(
            frame_ids,
            as_scores(scores.tolist(), frame_ids, random_ids=random_ids),
            tuple(describe_stage(stage) for stage in stages),
            epoch,
            model_fingerprint,
            random_ids,
        )
        return cls(round_, scores, predictions)

    def frames(self, dataset: Dataset[Any], stages: Sequence[DetectionSampling]) -> SelectedFrames:
        """The chosen rows of `dataset`."""
        rows = torch.arange(len(self.predictions))
        selection = Selection(self.round.frame_ids, rows, self.scores, tuple(stages))
        return SelectedFrames(dataset, selection, self.predictions)


def names_of(loader: Any, labels: LabelPool, *, labeled: bool = False) -> FrameIdOf:
    """What names the loader's frames as `labels` does: a function of the row, which refuses frames of the other part.

    Args:
        loader: over the part's `Subset`, some of it, the whole dataset, or as many rows of another view of the part.
        labels: whose ids they are.
        labeled: which part: the labelled one, or the unlabelled one.

    Raises:
        InvalidInputError: the loader's dataset is none of these.
    """
    dataset = getattr(loader, "dataset", None)
    ids: Sequence[str] | None = labels.ids_of(dataset)
    if ids is None:
        ids = labels.labeled_ids if labeled else labels.unlabeled_ids
        length = len(dataset) if isinstance(dataset, Sized) else None
        if length != len(ids):
            raise InvalidInputError(
                f"`make_loader` must return a DataLoader over the Subset that it gets, of {len(ids)} frames, or over "
                f"as many rows of another view of it; got {type(loader).__name__} over {length} rows"
            )
    known = ids

    def frame_id(index: int, _: Any) -> str:
        name = known[index]
        if labels.is_labeled(name) != labeled:
            raise InvalidInputError(
                f"`make_loader` must give frames of the Subset that it gets, here {'' if labeled else 'un'}labelled "
                f"ones; got {name!r}, which is {'not ' if labeled else ''}labelled"
            )
        return name

    return frame_id


def annotated_ids(answer: object, chosen: SelectedFrames) -> list[str]:
    """What an `annotate` function returned, checked: the ids that it has labels for, among those of `chosen`.

    Raises:
        InvalidInputError: they are no ids, or others.
    """
    if answer is None:
        return []
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise InvalidInputError(f"`annotate` must return frame ids, or None for later; got {answer!r}")
    annotated, known = list(answer), set(chosen.frame_ids)
    for frame_id in annotated:
        if frame_id not in known:
            raise InvalidInputError(f"`annotate` returned {frame_id!r}, which is not among the chosen frames")
    return annotated
