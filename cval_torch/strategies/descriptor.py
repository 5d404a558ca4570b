"""One vector a frame, for the diversity strategies: what two frames have to share to be called alike.

A frame holds any number of boxes, and a clustering of frames needs one point for each. The point is made only of what
the wire carries too (a box's embedding, class and score), so that a server clusters the same points. It has two parts.

1. *What its objects look like*: the mean of the boxes' L2-normalised embeddings, weighted by score, made a unit vector.
   Normalised, because the length of a detector's feature says how strongly it fired, not what it saw; weighted, because
   a sure box shows an object, and a doubtful one perhaps a shadow; a mean and not a sum, so that a frame of thirty cars
   lies beside a frame of three, and the number of boxes is left to the scoring strategies.
2. *Which classes they are*: the score-weighted share of each class, times `CLASS_SCALE`. Two frames of different
   classes are apart even if their features are not, as after little training. At 0.5 two frames with no class in
   common are as far apart by class alone as two with a cosine of 0.75 by looks: appearance leads, class settles.

A frame without boxes is one box of score 1 and of a class of its own ("no detection"), with the embedding of the whole
frame. That is often of another width than a box's (Faster R-CNN: 256 and 1024). Of equal width, it shares the boxes'
coordinates, as the protocol has it; of another, the two spaces cannot be compared, and it has coordinates of its own,
orthogonal to the others. Either way frames without boxes are apart from frames with boxes, and near one another as
far as they look alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import chunks
from cval_torch.pool.pool import Pool
from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.columns import DESCRIBED
from cval_torch.strategies.parts import Here, Part, Workers
from cval_torch.strategies.points import Points
from cval_torch.strategies.reduce import sum as sum_of_frames

W = TypeVar("W")

CLASS_SCALE = 0.5

# Numbers that are worked on at a time: some megabytes, and enough for the cost of a call not to matter on a CPU.
_CHUNK_ELEMENTS = 2**20
_MORE_ON_GPU = 16


class LongRows(Protocol):
    """The long vectors of F frames, where they are not all in this process (see `SharedRows`)."""

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """(r, W), brought here."""
        ...

    @property
    def name(self) -> str:
        """Of the column."""
        ...

    @property
    def like(self) -> Tensor:
        """(0, W)."""
        ...

    def widened(self, width: int) -> LongRows:
        """With zeros to the right."""
        ...

    def workers(
        self, frames: Descriptors, new: Callable[..., W], *args: Any, beside: Sequence[LongRows] = ()
    ) -> Workers[W]:
        """Workers where the rows are; each is also given, before `args`, its rows of what is `beside`."""
        ...

    def points(self, rows: Tensor | None) -> Points:
        """The rows at (n,) int64 `rows`, or all, as points, which stay where they are."""
        ...


@dataclass(frozen=True, eq=False)
class Descriptors:
    """Where each of F frames lies, in few bytes, and dense rows of it on request.

    Frames have objects or the embedding of the whole frame, never both, and a handful of many classes. So one vector a
    frame is kept and a list of its classes, while the coordinates are those that `frame_descriptors` documents. It can
    be given to every strategy that takes `Points`.

    Attributes:
        looks: (F, W) float32 or float16: of frames with boxes the mean look of these, (E,); of others the unit
            embedding of the frame, (D,); W is the greater of the two.
        is_null: (F,) bool, whether a frame has no boxes.
        shares: of each frame the share of its classes, times `CLASS_SCALE`. None: there is no class coordinate at all,
            because frames are described by their own embeddings alone.
        widths: E and D; None for what there is no column of.
        classes: (K,) int64, sorted, the labels that have a coordinate.
        rows: (F',) int64, the rows of `looks` and of the others that are meant, in that order; None: all.
        elsewhere: gives the looks instead, of which `looks` then has none.
    """

    looks: Tensor
    is_null: Tensor
    shares: ClassSums | None
    widths: tuple[int | None, int | None]
    classes: Tensor
    rows: Tensor | None = None
    elsewhere: LongRows | None = None

    @classmethod
    def of(
        cls, pool: Pool, *, classes: Tensor | None = None, part: bool = False, dtype: torch.dtype | None = None
    ) -> Descriptors:
        """Describe the frames of a pool, by those of their boxes that have an embedding.

        Args:
            pool: F frames with the columns that `frame_descriptors` needs.
            classes: (K,) sorted labels that have a coordinate; None: those that occur.
            part: whether these are some frames of a larger pool, where it is no error that none of them has boxes.
            dtype: to keep looks in; None: float32.

        Raises:
            InvalidInputError: no embeddings to describe the frames by.
        """
        pool = pool.only(DESCRIBED).embedded_boxes()
        boxes, frames = pool.box_embeddings, pool.frame_embeddings
        if boxes is None or (boxes.numel() == 0 and boxes.shape[1] == 0 and frames is not None):
            if frames is None:
                raise InvalidInputError(
                    "diversity and `min_distance` need the column `box_embeddings` or `frame_embeddings`: "
                    "extract(..., box_embeddings=True), or upload embeddings"
                )
            looks = torch.empty(frames.shape, dtype=dtype or torch.float32, device=pool.device)
            step = max(_CHUNK_ELEMENTS // max(frames.shape[1], 1), 1)
            for begin in range(0, len(frames), step):
                looks[begin : begin + step] = unit_rows(frames[begin : begin + step])
            none = torch.empty(0, dtype=torch.int64, device=pool.device)
            return cls(looks, pool.is_empty, None, (None if boxes is None else 0, frames.shape[1]), none)
        width, frame_width = boxes.shape[1], None if frames is None else frames.shape[1]
        looks = torch.zeros(len(pool), max(width, frame_width or 0), dtype=dtype or torch.float32, device=pool.device)
        shares = [no_shares(0, looks)]
        elements = _CHUNK_ELEMENTS * (1 if pool.device.type == "cpu" else _MORE_ON_GPU)
        for begin, end in chunks(pool.offsets, boxes=max(elements // max(width, 1), 1)):
            looks[begin:end, :width], share = _describe(pool, begin, end)
            shares.append(share)
        nulls = pool.is_empty.nonzero().squeeze(1)
        if frames is not None:
            looks[nulls, : frames.shape[1]] = unit_rows(frames[nulls]).to(looks)
        classes = classes_of(pool) if classes is None else classes
        found = cls(looks, pool.is_empty, ClassSums.cat(shares), (width, frame_width), classes)
        if not part:
            check_described(found)
        return found

    @classmethod
    def cat(cls, parts: Sequence[Descriptors]) -> Descriptors:
        """One after another, the frames of one or more parts of one pool, each with all of its rows."""
        first = parts[0]
        shares = [part.shares for part in parts if part.shares is not None]
        return cls(
            torch.cat([part.looks for part in parts]),
            torch.cat([part.is_null for part in parts]),
            ClassSums.cat(shares) if shares else None,
            first.widths,
            torch.unique(torch.cat([part.classes for part in parts]), sorted=True),
        )

    def __len__(self) -> int:
        return len(self.is_null) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(F, the number of coordinates)."""
        if self.shares is None:
            return len(self), self.looks.shape[1]
        return len(self), (self.widths[0] or 0) + self._own + 1 + len(self.classes)

    @property
    def _own(self) -> int:
        """The coordinates that only frames without boxes have: D where it is not E."""
        width, frame_width = self.widths
        return 0 if frame_width is None or frame_width == width else frame_width

    @property
    def device(self) -> torch.device:
        """Where the rows are."""
        return self.looks.device

    @property
    def _source(self) -> Tensor | LongRows:
        return self.looks if self.elsewhere is None else self.elsewhere

    def workers(self, new: Callable[..., W], *args: Any) -> Workers[W]:
        """Workers where the frames are; see `workers_of`."""
        if self.elsewhere is not None:
            return self.elsewhere.workers(self, new, *args)
        return Here(new(Part(self, torch.arange(len(self), device=self.device), len(self)), *args))

    def take(self, rows: Tensor) -> Descriptors:
        """The frames at (n,) int64 `rows`, in that order; nothing is copied."""
        if len(rows) == len(self) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return self
        return replace(self, rows=rows if self.rows is None else self.rows[rows])

    def without_looks(self, rows: Tensor | None = None) -> Descriptors:
        """The small part of the frames at (n,) `rows`, or of all, where looks are kept elsewhere."""
        if rows is None:
            return replace(self, looks=self.looks[:0].clone())
        shares = None if self.shares is None else self.shares.take(rows)
        return replace(self, looks=self.looks[:0].clone(), is_null=self.is_null[rows], shares=shares)

    def copied(self) -> Descriptors:
        """The same frames by themselves: with no others beside them, and coordinates for their own classes alone."""
        rows, shares = self.rows, self.shares
        if shares is not None and rows is not None:
            shares = shares.take(rows)
        classes = self.classes if shares is None else torch.unique(shares.labels, sorted=True)
        if rows is None:
            return replace(self, classes=classes)
        return Descriptors(self.looks[rows], self.is_null[rows], shares, self.widths, classes)

    def like(self, others: Descriptors) -> Descriptors:
        """The same frames in the space of others of the same pool, which have all of their classes."""
        return self if self.shares is None else replace(_of_width(self, others.widths[0]), classes=others.classes)

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Tensor:
        """(r, D) float32, the dense rows of some frames."""
        if isinstance(rows, slice):
            picked = torch.arange(len(self), device=self.device)[rows] if self.rows is None else self.rows[rows]
            plain = self.rows is None and rows.step in (None, 1)
            looks = self._source[rows] if plain else self._source[picked]
        else:
            picked = torch.as_tensor(rows, dtype=torch.int64, device=self.device)
            picked = picked if self.rows is None else self.rows[picked]
            looks = self._source[picked]
        if self.shares is None:
            return looks.float()
        width, own = self.widths[0] or 0, self._own
        result = torch.zeros(len(picked), self.shape[1], device=self.device)
        nulls = self.is_null[picked]
        if own:
            result[:, :width] = looks[:, :width].float().masked_fill(nulls[:, None], 0)
            result[nulls, width : width + own] = looks[nulls, :own].float()
        else:
            result[:, :width] = looks
        begin = width + own
        result[nulls, begin] = CLASS_SCALE
        shown = self.shares.take(picked)
        owners = torch.arange(len(picked), device=self.device).repeat_interleave(shown.offsets.diff())
        result[owners, begin + 1 + torch.searchsorted(self.classes, shown.labels)] = shown.sums[:, 0]
        return result


def frame_descriptors(pool: Pool, *, classes: Tensor | None = None, part: bool = False) -> Tensor:
    """Where each frame lies among the others; distances are Euclidean.

    Without `box_embeddings` it is the frame's own L2-normalised embedding alone. Half precision is worked on in
    float32. Of a pool with `embedded`, only those boxes count.

    Args:
        pool: F frames; needs `box_embeddings` (and `frame_embeddings` if no frame has boxes), or `frame_embeddings`.
        classes: (K,) sorted labels that have a coordinate, to describe two pools in one space (see `classes_of`).
        part: whether these are some frames of a larger pool, where it is no error that none of them has boxes.

    Returns:
        (F, E) float32 plus, if it has boxes and their embeddings, 1 + K class coordinates and D more where frame
        embeddings are of another width.

    Raises:
        InvalidInputError: no embeddings to describe the frames by.

    >>> pool = Pool(["a", "b"], torch.tensor([0, 1, 2]), box_embeddings=torch.tensor([[2.0, 0.0], [0.0, 3.0]]))
    >>> frame_descriptors(pool)
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    return Descriptors.of(pool, classes=classes, part=part)[:]


def beside(ours: Descriptors, labeled: Descriptors | None) -> tuple[Descriptors, Descriptors | None]:
    """Both in one space: with a coordinate for the classes of both.

    Raises:
        InvalidInputError: no frame has boxes, and there are no embeddings of frames; or the embeddings of the two
            differ in width, or only one has a column.
    """
    check_described(ours)
    if labeled is None or len(labeled) == 0:
        return ours, None
    ours, labeled = _of_width(ours, labeled.widths[0]), _of_width(labeled, ours.widths[0])
    if ours.widths != labeled.widths or (ours.shares is None) != (labeled.shares is None):
        raise InvalidInputError(
            "`labeled` must have the embedding columns of `pool`, and their widths, as one model gives them; "
            f"`pool` has (box_embeddings, frame_embeddings) of {ours.widths}, `labeled` of {labeled.widths}"
        )
    classes = torch.unique(torch.cat([ours.classes, labeled.classes.to(ours.device)]), sorted=True)
    return _among(ours, classes), _among(labeled, classes)


def classes_of(*pools: Pool) -> Tensor:
    """(K,) int64, the labels that occur, sorted."""
    labels = [pool.labels for pool in pools if pool.labels is not None]
    if not labels:
        return torch.empty(0, dtype=torch.int64, device=pools[0].device)
    occurring: Tensor = torch.unique(torch.cat(labels), sorted=True)
    return occurring


def unit_rows(vectors: Tensor) -> Tensor:
    """(N, D) float32 with rows of length 1; a row of zeros stays. Safe where squares would overflow float32."""
    if vectors.shape[1] == 0:
        return vectors.float()
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))  # half precision is slow on a CPU
    largest = vectors.abs().amax(1, keepdim=True)
    scaled = (vectors / largest.clamp_min(torch.finfo(torch.float32).tiny)).float()
    lengths: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / lengths.clamp_min(1)  # the largest entry is 1, or the row is zero


def _describe(pool: Pool, begin: int, end: int) -> tuple[Tensor, ClassSums]:
    """Looks (f, E) and class shares of the frames `begin:end`; zeros, and no class, for frames without boxes."""
    offsets = pool.offsets[begin : end + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    offsets = offsets - first
    weights = _weights(pool, first, last, offsets)
    boxes = weights[:, :0] if pool.box_embeddings is None else unit_rows(pool.box_embeddings[first:last])
    looks = unit_rows(sum_of_frames(boxes * weights, offsets))
    if pool.labels is None:
        return looks, no_shares(end - begin, looks)
    found = ClassSums.of(offsets, pool.labels[first:last], weights)
    total = sum_of_frames(weights, offsets).clamp_min_(torch.finfo(torch.float32).tiny)
    total = total.repeat_interleave(found.offsets.diff(), dim=0)
    return looks, replace(found, sums=(found.sums.double() / total * CLASS_SCALE).float())


def _weights(pool: Pool, first: int, last: int, offsets: Tensor) -> Tensor:
    """(b, 1) float32: the scores, or 1 in frames whose scores are all zero, and without scores."""
    if pool.scores is None:
        return torch.ones(last - first, 1, device=pool.device)
    scores = pool.scores[first:last, None].float()
    silent = (sum_of_frames(scores, offsets) == 0).repeat_interleave(offsets.diff(), dim=0)
    return torch.where(silent, 1.0, scores)


def check_described(frames: Descriptors) -> None:
    """Raise an `InvalidInputError` where no frame has boxes, and no embedding of a frame stands for them."""
    if frames.shares is not None and frames.widths[1] is None and bool(frames.is_null.all()):
        raise InvalidInputError(
            "no frame has boxes, so diversity and `min_distance` need the column `frame_embeddings`: "
            "extract(..., frame_embeddings=True)"
        )


def _among(frames: Descriptors, classes: Tensor) -> Descriptors:
    return frames if frames.shares is None else replace(frames, classes=classes)


def _of_width(frames: Descriptors, wider: int | None) -> Descriptors:
    """The frames with room for boxes of another width, if they have none that told one."""
    width, frame_width = frames.widths
    if width is None or wider is None or width == wider or not bool(frames.is_null.all()):
        return frames
    looks = frames.looks.new_zeros(len(frames.looks), max(wider, frame_width or 0))
    if frame_width is not None:
        looks[:, :frame_width] = frames.looks[:, :frame_width]
    shares = no_shares(len(frames.is_null), looks) if frames.shares is None else frames.shares
    elsewhere = None if frames.elsewhere is None else frames.elsewhere.widened(looks.shape[1])
    return replace(frames, looks=looks, shares=shares, widths=(wider, frame_width), elsewhere=elsewhere)


def no_shares(frames: int, like: Tensor) -> ClassSums:
    """Of so many frames without a class."""
    offsets = torch.zeros(frames + 1, dtype=torch.int64, device=like.device)
    return ClassSums(offsets, offsets[:0], like.new_zeros(0, 1, dtype=torch.float32))
