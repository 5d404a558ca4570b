"""`class_gain`: what the annotated set lacks, from places it does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from cval_torch.pool.pool import Pool
from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.columns import UNCERTAIN_CLASSES, check_columns
from cval_torch.strategies.descriptor import Descriptors, LongRows, beside, check_described, unit_rows
from cval_torch.strategies.gain_greedy import Quotas, add_by_class, gain_greedy
from cval_torch.strategies.parts import Here, Part, Workers
from cval_torch.strategies.points import Points, Taken
from cval_torch.strategies.scores import box_evidence, entropy
from cval_torch.strategies.standard import Standard

W = TypeVar("W")

_CHUNK_ELEMENTS = 2**20


@dataclass(frozen=True, eq=False)
class Contents:
    """What `class_gain` reads of F frames: a vector or two, and a few numbers for each class that a frame shows.

    Attributes:
        descriptors: (F,), of half precision; of the boxes that are embedded.
        objects: of each frame and class the doubtful and the expected objects, sums of `s^2 H` and `s^2` over all
            boxes.
        frame_embeddings: (F, D), to be standardised over all frames; None: there are none, or nothing beside them.
        rows: (F',) int64, the rows of `frame_embeddings` that are meant; None: all.
        elsewhere: gives the frame embeddings instead.
    """

    descriptors: Descriptors
    objects: ClassSums
    frame_embeddings: Tensor | None
    rows: Tensor | None = None
    elsewhere: LongRows | None = None

    @classmethod
    def of(cls, pool: Pool, *, part: bool = False, name: str = "pool") -> Contents:
        """Read a pool.

        Args:
            pool: F frames with the columns that `class_gain` needs.
            part: whether these are some frames of a larger pool.
            name: what to call the pool in a message.

        Raises:
            InvalidInputError: a column is missing.
        """
        check_columns(pool, UNCERTAIN_CLASSES, "class_gain", name=name)
        descriptors = Descriptors.of(pool, part=True, dtype=torch.float16)
        if not part:
            check_described(descriptors)
        expected = expected_of_boxes(pool)
        labels = expected[:0].long() if pool.labels is None else pool.labels
        objects = ClassSums.of(pool.offsets, labels, torch.stack([expected * _entropies(pool), expected], 1))
        beside_looks = pool.box_embeddings is not None and descriptors.shares is not None
        return cls(descriptors, objects, pool.frame_embeddings if beside_looks else None)

    @classmethod
    def cat(cls, parts: Sequence[Contents]) -> Contents:
        """One after another, the frames of one or more parts of one pool, each with all of its rows."""
        frames = [part.frame_embeddings for part in parts if part.frame_embeddings is not None]
        return cls(
            Descriptors.cat([part.descriptors for part in parts]),
            ClassSums.cat([part.objects for part in parts]),
            torch.cat(frames) if frames else None,
        )

    def __len__(self) -> int:
        return len(self.objects)

    def take(self, rows: Tensor) -> Contents:
        """The frames at (n,) int64 `rows`, in that order; vectors are not copied."""
        if len(rows) == len(self) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return self
        own = rows if self.rows is None else self.rows[rows]
        return replace(self, descriptors=self.descriptors.take(rows), objects=self.objects.take(rows), rows=own)

    def without_vectors(self, rows: Tensor | None = None) -> Contents:
        """The small part of the frames at (n,) `rows`, or of all, where vectors are kept elsewhere."""
        objects = self.objects if rows is None else self.objects.take(rows)
        return Contents(self.descriptors.without_looks(rows), objects, None)

    def with_vectors(self, looks: LongRows, frames: LongRows | None) -> Contents:
        """The same with vectors that are elsewhere."""
        return replace(self, descriptors=replace(self.descriptors, elsewhere=looks), elsewhere=frames)

    def copied(self) -> Contents:
        """The same frames by themselves, with no others beside them."""
        frames = self.frame_embeddings
        if frames is not None and self.rows is not None:
            frames = frames[self.rows]
        return Contents(self.descriptors.copied(), self.objects, frames)

    def frame_points(self) -> Points | None:
        """(F, D), all frame embeddings, which stay where they are; None where there are none."""
        if self.elsewhere is not None:
            return self.elsewhere.points(self.rows)
        frames = self.frame_embeddings
        return frames if frames is None or self.rows is None else Taken(frames, self.rows)


def class_gain(
    pool: Pool | Contents,
    n: int,
    *,
    seed: int,
    labeled: Pool | Contents | None = None,
    labeled_counts: Mapping[int, float] | None = None,
    weights: Tensor | None = None,
    quotas: Quotas = (),
) -> Tensor:
    """Expected gain in doubtful objects of scarce classes, from places that are not labeled yet.

    Greedy. A box of score `s_b` counts as `p_b = s_b^2` objects: faint boxes are many, and most of them are wrong. Its
    doubt `u_b` is its entropy `H_b` (see `strategies.scores.entropy`) over the mean entropy of its class in the pool,
    where boxes weigh `p_b`: a class that the detector is sure of does not starve beside one that no labels settle.
    With `N_c` the objects of class c that are known so far, each choice is the frame `f` with the greatest

        g(f) near(f) / sqrt(1/2 + sum of p_b),   g(f) = sum over its boxes of p_b (a + (1 - a) u_b) / (N_c(b) + 1)

    where a = 0.3. `N_c` begins as `labeled_counts`, or as the sum of `p_b` of class c in `labeled`, and grows by that
    of each chosen frame: once a class is well served, others come first. With `d(f)` the distance to the nearest
    labeled or chosen frame, `near(f) = d(f)^2 / (d(f)^2 + t)`: a near-duplicate is worth next to nothing, whatever it
    shows, and an outlier no more than its objects. `t` is the median of `d^2` over the pool at the beginning (without
    labeled frames after the first choice), so that no radius has to be chosen. The root of the expected objects, which
    is what annotation costs, stands between the best gain a frame and the best gain a box.
    Distances are those of `frame_descriptors`, whose looks are rounded to half precision, beside which stand, where the
    pool has them, the frames' own embeddings, standardised over both pools and made unit vectors: the objects and the
    place count alike. Of a pool with `embedded`, places are of those boxes, and objects are counted of all.

    Exact, though most frames are compared with few choices: gains and distances only fall, so a frame need not be
    looked at again before all that were worth more are chosen, or worth less. Frames are compared in the processes that
    have them. Memory is that of `Contents`, some numbers a frame, the places of the chosen and labeled frames in each
    process, and blocks.

    It does what an annotator with all labels would do, as far as predictions tell: scarce classes, and one frame of
    each scene. Powers and constants were settled on composed frames and on half of the board designs of real scans
    that no published table uses (`examples/benchmarks/real_pool.py`, `label_efficiency.py`). Related: submodular
    coverage of classes, and BADGE's volume.

    Args:
        pool: N frames; needs `labels`, `scores` or `probabilities`, and embeddings of boxes or frames. Or what
            `Contents.of` made of them.
        n: frames to choose, 1 to N.
        seed: not used.
        labeled: the frames that are annotated already.
        labeled_counts: annotated objects by label; labels that are missing have none. None: nobody counted.
        weights: not used.
        quotas: (N,) bool, which frames show a class, and how many of these come before any others, in this order.

    Returns:
        (n,) int64 distinct rows in the order of choice; equally good ones by row. Frames of no gain (without boxes)
        come when all others are chosen, the farthest first.

    Raises:
        InvalidInputError: a column is missing.
    """
    frames = pool if isinstance(pool, Contents) else Contents.of(pool)
    known = Contents.of(labeled, name="labeled") if isinstance(labeled, Pool) else labeled
    ours, theirs = beside(frames.descriptors, None if known is None else known.descriptors)
    held = None if theirs is None else known
    standard = Standard.of([each.frame_points() for each in ([frames] if held is None else [frames, held])])
    places = Places(ours, frames.frame_points(), standard, frames.elsewhere)
    objects = [frames.objects] if held is None else [frames.objects, held.objects]
    classes = torch.unique(torch.cat([each.labels for each in objects]), sorted=True)
    objects_known = torch.zeros(len(classes), dtype=torch.float64, device=ours.device)
    around = places[torch.arange(0, device=ours.device)]
    if held is not None and theirs is not None:
        around = Places(theirs, held.frame_points(), standard)[torch.arange(len(held), device=ours.device)]
        if labeled_counts is None:
            add_by_class(objects_known, torch.searchsorted(classes, held.objects.labels), held.objects.sums[:, 1])
    if labeled_counts is not None:
        numbers = [float(labeled_counts.get(label, 0.0)) for label in classes.tolist()]
        objects_known += torch.tensor(numbers, dtype=torch.float64, device=ours.device)
    return gain_greedy(places, frames.objects, classes=classes, known=objects_known, labeled=around, n=n, quotas=quotas)


def expected_objects(pool: Pool) -> dict[int, float]:
    """The objects of each class that `class_gain` expects in a pool with `labels`: sums of squared scores.

    >>> expected_objects(Pool(["a"], torch.tensor([0, 2]), scores=torch.tensor([1, 0.5]), labels=torch.tensor([7, 7])))
    {7: 1.25}
    """
    if pool.labels is None:
        return {}
    expected = expected_of_boxes(pool).double()
    labels: list[int] = torch.unique(pool.labels, sorted=True).tolist()
    return {label: float(expected[pool.labels == label].sum()) for label in labels}


class Places:
    """Where frames lie, as `Points`: their descriptors, and beside these, where there are any, standardised frame
    embeddings.

    Args:
        looks: of F frames.
        frames: (F, D), their embeddings, where they have some.
        standard: of these; None: they do not count.
        apart: the same embeddings where they lie, if that is in several processes.
    """

    def __init__(
        self, looks: Descriptors, frames: Points | None, standard: Standard | None, apart: LongRows | None = None
    ) -> None:
        self._looks, self._apart = looks, apart
        self._beside = None if standard is None or frames is None else (frames, standard)

    def __len__(self) -> int:
        return len(self._looks)

    @property
    def shape(self) -> tuple[int, int]:
        """(F, the number of coordinates)."""
        return len(self), self._looks.shape[1] + (0 if self._beside is None else self._beside[0].shape[1])

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self._looks.device

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """(r, D) float32."""
        looks = self._looks[rows]
        if self._beside is None:
            return looks
        frames, standard = self._beside
        return torch.cat([looks, unit_rows(standard.standardised(frames[rows].double()))], 1)

    def workers(self, new: Callable[..., W], *args: Any) -> Workers[W]:
        """Workers where the frames are; see `workers_of`."""
        if self._looks.elsewhere is None:
            return Here(new(Part(self, torch.arange(len(self), device=self.device), len(self)), *args))
        standard = None if self._beside is None else self._beside[1]
        beside = () if standard is None or self._apart is None else (self._apart,)
        return self._looks.elsewhere.workers(self._looks, partial(_placed, new, standard), *args, beside=beside)


def _placed(new: Callable[..., W], standard: Standard | None, part: Part, *others: Any) -> W:
    """A worker for some frames, of which there are looks, and their embeddings if these count."""
    frames, args = (None, others) if standard is None else (others[0], others[1:])
    if not isinstance(part.points, Descriptors):
        raise TypeError(f"frames have looks; got {type(part.points).__name__}")
    return new(replace(part, points=Places(part.points, frames, standard)), *args)


def expected_of_boxes(pool: Pool) -> Tensor:
    """(B,) float32, as how many objects `class_gain` counts each box: the square of its score, or of its best class."""
    if pool.scores is not None:
        return pool.scores.float().square()
    if pool.probabilities is None:
        return torch.empty(0, device=pool.device)
    return pool.probabilities.float().amax(1).square()


def _entropies(pool: Pool) -> Tensor:
    """(B,) float32 in [0, 1]."""
    result = torch.empty(pool.num_boxes, device=pool.device)
    width = 1 if pool.probabilities is None else pool.probabilities.shape[1]
    step = max(_CHUNK_ELEMENTS // max(width, 1), 1)
    for first in range(0, pool.num_boxes, step):
        last = min(first + step, pool.num_boxes)
        result[first:last] = entropy(box_evidence(pool, first, last))
    return result
