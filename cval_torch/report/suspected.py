"""Labels that look wrong, as a page shows them: one card a frame, with what is annotated and what is suggested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from cval_torch.errors import InvalidInputError
from cval_torch.extraction.ids import frame_ids_of
from cval_torch.pool.pool import Pool
from cval_torch.report.palette import place_of
from cval_torch.report.shown_boxes import Corners, corners_in
from cval_torch.report.thumbnails import LARGE_SIDE, Picture, picture_of
from cval_torch.report.wording import ClassNames, counted, decimal, isolated, visible

IssueImages = Callable[[str], Any] | Dataset[Any]
"""Where pictures of annotated frames come from: the dataset of the pool that was judged, or a function of the id."""

MOST_ISSUES = 8
"""No more issues of one frame are shown."""

_TITLES = {"overlooked": "Overlooked", "badly_located": "Badly located", "swapped": "Swapped"}
_GIVE_IMAGES = "Pass `issue_images=`, the dataset of the annotated frames or a function of the id, to see it."
_NO_PICTURE = Picture("", 1.0, LARGE_SIDE, LARGE_SIDE * 3 // 4, fault=_GIVE_IMAGES)


class SuspectedLabels(Protocol):
    """Annotations that look wrong, the worst first: I issues; `LabelIssues` is one."""

    @property
    def frame_ids(self) -> Sequence[str]:
        """I names; a frame may have several issues."""

    @property
    def kinds(self) -> Sequence[str]:
        """I of `overlooked`, `badly_located` and `swapped`."""

    @property
    def scores(self) -> Tensor:
        """(I,) the quality of each label in [0, 1], 1 = clean."""

    @property
    def annotated_boxes(self) -> Tensor:
        """(I, 4) xyxy in pixels; NaN where an object is overlooked."""

    @property
    def annotated_labels(self) -> Tensor:
        """(I,) classes."""

    @property
    def object_rows(self) -> Tensor:
        """(I,) rows in `annotated`; -1 where an object is overlooked."""

    @property
    def suggested_boxes(self) -> Tensor:
        """(I, 4) xyxy in pixels."""

    @property
    def suggested_labels(self) -> Tensor:
        """(I,) classes."""

    @property
    def confidences(self) -> Tensor:
        """(I,) in [0, 1], the scores of the predictions that say so."""

    @property
    def checked_ids(self) -> Sequence[str]:
        """All annotated frames, the worst first."""

    @property
    def checked_scores(self) -> Tensor:
        """The quality of each."""

    @property
    def annotated(self) -> Pool:
        """The same frames, with the annotated `boxes`."""

    def for_review(self, n: int | None = None) -> Sequence[str]:
        """The frames with issues, at most n, the worst first."""


@dataclass(frozen=True)
class ShownIssue:
    """One issue.

    Attributes:
        number: in its frame, from 1.
        title: its kind.
        text: what is annotated and what is suggested, in words.
        quality: of the label, in words.
        sure: the score of the prediction that says so, in words.
        name: of the suggested class.
        colour: of that class, its place in the palette.
        given: the annotated box in the overlay of the picture; None: there is none, or it cannot be drawn.
        said: the suggested box; None: it cannot be drawn.
    """

    number: int
    title: str
    text: str
    quality: str
    sure: str
    name: str
    colour: int
    given: Corners | None
    said: Corners | None


@dataclass(frozen=True)
class Suspect:
    """A frame with issues.

    Attributes:
        rank: from 1, the worst first.
        frame_id: as it can be shown.
        quality: of the frame, in words.
        boxes: how many are annotated, in words.
        picture: of the frame.
        issues: the worst first.
        left_out: how many more issues it has.
        others: the annotated boxes that nothing is said about, in the overlay of the picture.
    """

    rank: int
    frame_id: str
    quality: str
    boxes: str
    picture: Picture
    issues: tuple[ShownIssue, ...]
    left_out: int
    others: tuple[Corners, ...]


class Suspects:
    """The frames with issues that a report shows, made one after another.

    Args:
        found: the issues.
        images: gives pictures; None: there are none to be shown.
        names: of classes.
        max_frames: frames that are shown, from the worst.
        step: is called after each frame.

    Raises:
        InvalidInputError: `max_frames` is below 1; `images` is something else, or a dataset without one of the frames.
    """

    def __init__(
        self,
        found: SuspectedLabels,
        images: IssueImages | None,
        names: ClassNames,
        *,
        max_frames: int,
        step: Callable[[], object],
    ) -> None:
        if max_frames < 1:
            raise InvalidInputError(f"`max_issue_frames` must be at least 1; got {max_frames}")
        self._found, self._names, self._step = found, names, step
        self._ids = tuple(found.for_review(max_frames))
        self._load = _loader(images, self._ids)
        self.flagged = len(set(found.frame_ids))

    @property
    def total(self) -> int:
        """How many frames are shown."""
        return len(self._ids)

    @property
    def said(self) -> str:
        """How many issues there are, in words."""
        counts = Counter(self._found.kinds)
        kinds = ", ".join(f"{counts[kind]:,} {title.lower()}" for kind, title in _TITLES.items())
        checked = len(self._found.checked_ids)
        return f"{kinds}, in {self.flagged:,} of {counted(checked, 'annotated frame')}."

    def frames(self) -> Iterator[Suspect]:
        """The frames, the worst first."""
        found = self._found
        issues_of: dict[str, list[int]] = {frame_id: [] for frame_id in self._ids}
        for place, frame_id in enumerate(found.frame_ids):
            if frame_id in issues_of:
                issues_of[frame_id].append(place)
        row_of = {frame_id: row for row, frame_id in enumerate(found.checked_ids)}
        for rank, (frame_id, places) in enumerate(issues_of.items(), start=1):
            yield self._frame(rank, frame_id, row_of[frame_id], places)
            self._step()

    def _frame(self, rank: int, frame_id: str, row: int, places: list[int]) -> Suspect:
        load = self._load
        picture = _NO_PICTURE if load is None else picture_of(lambda: load(frame_id), frame_id)
        annotated = self._found.annotated
        begin, end = int(annotated.offsets[row]), int(annotated.offsets[row + 1])
        meant = set(self._found.object_rows[places].tolist())
        boxes = () if annotated.boxes is None else annotated.boxes
        others = [corners_in(boxes[place], picture) for place in range(begin, end) if place not in meant]
        shown = places[:MOST_ISSUES]
        return Suspect(
            rank,
            visible(frame_id),
            decimal(float(self._found.checked_scores[row])),
            counted(end - begin, "box", "boxes"),
            picture,
            tuple(self._issue(number, place, picture) for number, place in enumerate(shown, start=1)),
            len(places) - len(shown),
            tuple(each for each in others if each is not None),
        )

    def _issue(self, number: int, place: int, picture: Picture) -> ShownIssue:
        from torchvision.ops import box_iou  # noqa: PLC0415, it takes seconds, and most processes need none of it

        found, kind = self._found, self._found.kinds[place]
        label = int(found.suggested_labels[place])
        given, said = found.annotated_boxes[place], found.suggested_boxes[place]
        name = isolated(self._names(label))
        if kind == "overlooked":
            text = f"Nothing is annotated where the detector sees {name}."
        elif kind == "swapped":
            text = f"Annotated as {isolated(self._names(int(found.annotated_labels[place])))}; suggested: {name}."
        else:
            shared = float(box_iou(given[None], said[None]))
            text = f"The annotated box of {name} and the suggested one overlap by {100 * shared:.0f} % (IoU)."
        return ShownIssue(
            number,
            _TITLES[kind],
            text,
            decimal(float(found.scores[place])),
            decimal(float(found.confidences[place]), 2),
            self._names.short(label),
            place_of(label),
            None if kind == "overlooked" else corners_in(given, picture),
            corners_in(said, picture),
        )


def _loader(images: IssueImages | None, frame_ids: Sequence[str]) -> Callable[[str], Any] | None:
    if images is None:
        return None
    if callable(images):
        return images
    if not (hasattr(images, "__getitem__") and hasattr(images, "__len__")) or isinstance(images, (str, dict)):
        raise InvalidInputError(
            "`issue_images` must be a dataset with a length, or a function that gives an image for a frame id; got "
            f"{type(images).__name__}"
        )
    row_of = {frame_id: row for row, frame_id in enumerate(frame_ids_of(images))}
    for frame_id in frame_ids:
        if frame_id not in row_of:
            raise InvalidInputError(
                f"`issue_images` must have all frames with label issues. {frame_id!r} is not among its ids, such as "
                f"{next(iter(row_of), None)!r}; pass a function that gives an image for a frame id"
            )
    return lambda frame_id: images[row_of[frame_id]]
