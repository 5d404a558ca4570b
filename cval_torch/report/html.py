"""`report`: a selection as one HTML file, to look at, to filter and to send to somebody."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.report.annotated import ForecastsGain, KnowsLabeled, expected_gains, part_pool
from cval_torch.report.cards import Cards
from cval_torch.report.charts import Chart, boxes_histogram, score_histogram
from cval_torch.report.class_shares import ClassShares, class_shares
from cval_torch.report.compared import Compared, compared_view
from cval_torch.report.facts import Facts, ReportedFrames, facts_of
from cval_torch.report.map_view import MapView, map_view
from cval_torch.report.page import check_jinja, write_page
from cval_torch.report.palette import place_of
from cval_torch.report.plane import MapMethod, check_method
from cval_torch.report.reasons import scoring_stage
from cval_torch.report.recipe import snippet, stage_rows, versions
from cval_torch.report.suspected import IssueImages, SuspectedLabels, Suspects
from cval_torch.report.wording import ClassNames, counted, visible
from cval_torch.selection.class_weights import class_counts
from cval_torch.selection.costs import estimated_boxes, total

_MAX_GAINS = 6  # metrics whose change is forecast


def report(
    selected: ReportedFrames,
    path: str | os.PathLike[str],
    *,
    pool: Pool | None = None,
    labeled: Pool | KnowsLabeled | Sequence[str] | None = None,
    comparison: Compared | None = None,
    learning_curve: ForecastsGain | None = None,
    label_issues: SuspectedLabels | None = None,
    issue_images: IssueImages | None = None,
    class_names: Mapping[int, str] | Sequence[str] | None = None,
    title: str | None = None,
    max_frames: int = 200,
    max_issue_frames: int = 24,
    min_score: float = 0.3,
    map_method: MapMethod = "pca",
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a selection as one HTML file that needs no network.

    Each chosen frame is shown with its picture, its boxes and why it was chosen. Beside them stand charts of scores,
    boxes and classes, a map of the pool, frames that were not chosen, and how to make the choice again. The page can be
    read without scripts. Its own script filters, sorts, searches, marks frames, and saves the marked ids.

    Whatever cannot be known from what was passed is said on the page, with what to pass.

    Args:
        selected: what `select` returned.
        path: the file. Its folder is made if it is not there.
        pool: what `extract` gave for the same loader. It adds the scores of all frames, the map, the near-duplicates
            that each frame stands for, and frames that were not chosen.
        labeled: what was annotated before the choice: what `extract` gave for it, a `LabelPool`, or ids, which may be
            those of frames of `pool`; `[]` if nothing was. Ids alone add their number.
        comparison: what `compare` returned.
        learning_curve: what was measured as labels grew, such as `labels.learning_curve`: the page says what these
            frames may be expected to gain. None: that of the `LabelPool` in `labeled`, if it is one.
        label_issues: what `label_issues` returned: annotations that look wrong.
        issue_images: pictures for these: the dataset whose annotations they are, or a function that gives an image for
            a frame id. Pass a function if ids are those of targets, or rows of another dataset.
        class_names: names of the classes by label; None: numbers.
        title: of the page; None: what was chosen.
        max_frames: no more than this many of the chosen frames get a picture, the first ones. 200 make a file of at
            most 6 MB.
        max_issue_frames: no more than this many of the frames with label issues are shown, the worst first.
        min_score: predicted boxes below it are counted, but not shown. In [0, 1].
        map_method: `pca`, or `tsne`, which needs the extra `maps`.
        seed: of the frames that are drawn for comparison, and of the map.
        progress: whether to show a bar.

    Returns:
        `path`.

    Raises:
        InvalidInputError: no frames; an option out of range; predictions of another number of frames; a chosen frame
            that is not in `pool`; a frame of `labeled` that is in `pool`; `issue_images` without `label_issues`, or a
            dataset without one of their frames.
        MissingExtraError: jinja2 is not installed, or what `map_method` needs.
        OSError: the file cannot be written. An older one then stays as it was.
    """
    target = _checked(selected, path, max_frames=max_frames, min_score=min_score)
    if issue_images is not None and label_issues is None:
        raise InvalidInputError("`issue_images` shows frames of `label_issues`; pass both, or neither")
    check_jinja()
    check_method(map_method)
    names = ClassNames(class_names)
    annotated, candidates = part_pool(_on_cpu(pool), _on_cpu(labeled), selected.frame_ids)
    view = None if comparison is None else compared_view(comparison)
    with tqdm(desc="report", unit="frame", total=min(len(selected), max_frames), disable=not progress) as bar:
        suspects = None
        if label_issues is not None:
            limit = max_issue_frames
            suspects = Suspects(label_issues, issue_images, names, max_frames=limit, step=_stepper(bar))
        target.parent.mkdir(parents=True, exist_ok=True)
        facts = facts_of(selected, annotated, candidates, shown=min(len(selected), max_frames), seed=seed)
        plane = None
        if facts.places is not None and facts.pool is not None and facts.chosen_rows is not None:
            plane = map_view(facts.places, facts.pool, facts.chosen_rows, annotated.pool, method=map_method, seed=seed)
        cards = Cards(selected, facts, names, min_score=min_score, max_frames=max_frames, step=_stepper(bar))
        bar.total = cards.total + (0 if suspects is None else suspects.total)
        said = _said(selected, facts, cards, plane, names, title=title, labeled=labeled)
        gains = expected_gains(labeled, learning_curve, len(selected))[:_MAX_GAINS]
        write_page(
            target,
            {**said, "gains": gains, "compared": view, "suspects": suspects, "min_score": min_score},
            _data(cards, plane, selected, names),
        )
    return target


def _checked(selected: ReportedFrames, path: str | os.PathLike[str], *, max_frames: int, min_score: float) -> Path:
    if len(selected) == 0:
        raise InvalidInputError("`selected` must hold at least one frame to report; got none")
    if len(selected.predictions) != len(selected):
        raise InvalidInputError(
            f"`predictions` must be of the {len(selected)} frames; got those of {len(selected.predictions)}"
        )
    if max_frames < 1:
        raise InvalidInputError(f"`max_frames` must be at least 1; got {max_frames}")
    if not 0 <= min_score <= 1:
        raise InvalidInputError(f"`min_score` must be in [0, 1]; got {min_score}")
    target = Path(path)
    if target.is_dir():
        raise InvalidInputError(f"no report can be written to {os.fspath(path)!r}, which is a folder")
    return target


def _on_cpu(given: Any) -> Any:
    return given.to("cpu") if isinstance(given, Pool) and given.device.type != "cpu" else given


def _stepper(bar: Any) -> Callable[[], object]:
    return lambda: bar.update(1)


def _said(
    selected: ReportedFrames,
    facts: Facts,
    cards: Cards,
    view: MapView | None,
    names: ClassNames,
    *,
    title: str | None,
    labeled: object,
) -> dict[str, Any]:
    """What the template is given."""
    stages = " → ".join(visible(stage.name) for stage in selected.stages)
    num_annotated = None if facts.annotated.frame_ids is None else len(facts.annotated.frame_ids)
    chosen = counted(len(selected), "frame")
    boxes = total(selected.estimated_boxes)
    return {
        "title": visible(title) if title else f"{chosen} worth annotating",
        "chosen": chosen,
        "num_chosen": len(selected),
        "num_shown": cards.shown,
        "num_pool": None if facts.pool is None else len(facts.pool),
        "num_annotated": num_annotated,
        "stages": stages,
        "boxes_total": boxes,
        "minutes": selected.stages[-1].minutes(boxes, frames=len(selected)),
        "scores_chart": _scores_chart(selected, facts),
        "boxes_chart": _boxes_chart(selected, facts),
        "classes": _classes(selected, facts, names),
        "map": view,
        "facts": facts,
        "cards": cards,
        "recipe": snippet(selected.stages, labeled=isinstance(labeled, Pool), num_annotated=num_annotated),
        "stage_rows": stage_rows(selected.stages),
        "versions": versions(),
        "skipped": [visible(str(frame)) for frame in selected.predictions.skipped],
    }


def _scores_chart(selected: ReportedFrames, facts: Facts) -> Chart | None:
    stage = scoring_stage(selected.stages)
    if facts.scores is None or facts.chosen_rows is None or stage is None:
        return None
    is_chosen = torch.zeros(len(facts.scores), dtype=torch.bool)
    is_chosen[facts.chosen_rows] = True
    own = selected.scores[~selected.scores.isnan()]
    cut = None if len(own) == 0 else float(own.min() if stage.descending else own.max())
    if bool(facts.scores.isnan().all()):
        return None
    return score_histogram(facts.scores, is_chosen, cut=cut, name=visible(stage.name))


def _boxes_chart(selected: ReportedFrames, facts: Facts) -> Chart:
    costs: dict[str, Tensor] = {}
    if facts.pool is not None:
        costs["pool"] = estimated_boxes(facts.pool)
    if facts.annotated.pool is not None:
        costs["annotated"] = estimated_boxes(facts.annotated.pool)
    return boxes_histogram({**costs, "chosen": selected.estimated_boxes.cpu()})


def _classes(selected: ReportedFrames, facts: Facts, names: ClassNames) -> ClassShares | None:
    """None where the predictions have no labels."""
    if selected.predictions.labels is None:
        return None
    counts: dict[str, dict[int, float]] = {}
    if facts.pool is not None and facts.pool.labels is not None:
        counts["pool"] = class_counts(facts.pool)
    if facts.counts is not None and not facts.annotated.is_none:
        counts["annotated"] = facts.counts
    shares = class_shares({**counts, "chosen": class_counts(selected.predictions)}, names)
    return shares if shares.rows else None


def _data(cards: Cards, view: MapView | None, selected: ReportedFrames, names: ClassNames) -> dict[str, Any]:
    """What the script is given: ids as they are, which no HTML could carry, names of classes, and the map's points."""
    labels = set() if selected.predictions.labels is None else set(selected.predictions.labels.tolist())
    labels |= cards.other_labels
    return {
        "ids": cards.frame_ids,
        "classes": {str(label): [names(label), place_of(label)] for label in sorted(labels)},
        "map": None if view is None else {"names": view.names, "points": view.points, "pool": view.num_pool},
    }
