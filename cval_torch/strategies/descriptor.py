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

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.offsets import chunks
from cval_torch.pool.pool import Pool
from cval_torch.strategies.reduce import sum as sum_of_frames

CLASS_SCALE = 0.5

_CHUNK_ELEMENTS = 2**22


def frame_descriptors(pool: Pool, *, classes: Tensor | None = None, part: bool = False) -> Tensor:
    """Where each frame lies among the others; distances are Euclidean.

    Without `box_embeddings` it is the frame's own L2-normalised embedding alone. Half precision is worked on in
    float32.

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
    boxes, frames = pool.box_embeddings, pool.frame_embeddings
    if boxes is None or (boxes.numel() == 0 and boxes.shape[1] == 0 and frames is not None):
        if frames is None:
            raise InvalidInputError(
                "diversity and `min_distance` need the column `box_embeddings` or `frame_embeddings`: "
                "extract(..., box_embeddings=True), or upload embeddings"
            )
        return unit_rows(frames)
    if pool.num_boxes == 0 and frames is None and not part:
        raise InvalidInputError(
            "no frame has boxes, so diversity and `min_distance` need the column `frame_embeddings`: "
            "extract(..., frame_embeddings=True)"
        )
    classes = classes_of(pool) if classes is None else classes
    width = boxes.shape[1]
    own = 0 if frames is None or frames.shape[1] == width else frames.shape[1]
    result = torch.zeros(len(pool), width + own + 1 + len(classes), device=pool.device)
    looks, shares = result[:, :width], result[:, width + own :]
    for begin, end in chunks(pool.offsets, boxes=max(_CHUNK_ELEMENTS // (width + len(classes) + 1), 1)):
        looks[begin:end], shares[begin:end, 1:] = _describe(pool, begin, end, classes)
    nulls = pool.is_empty.nonzero().squeeze(1)
    shares[nulls, 0] = CLASS_SCALE
    if frames is not None:
        place = result[:, width : width + own] if own else looks
        place[nulls] = unit_rows(frames[nulls])
    return result


def descriptors_beside(pool: Pool, labeled: Pool | None) -> tuple[Tensor, Tensor | None]:
    """`frame_descriptors` of both pools in one space.

    Raises:
        InvalidInputError: as `frame_descriptors`; the pools' embeddings differ in width, or only one has a column.
    """
    if labeled is None or len(labeled) == 0:
        return frame_descriptors(pool), None
    (pool, labeled), classes = in_one_space(pool, labeled)
    return frame_descriptors(pool, classes=classes), frame_descriptors(labeled, classes=classes)


def in_one_space(pool: Pool, labeled: Pool) -> tuple[tuple[Pool, Pool], Tensor]:
    """The pools as they have to be described, and the `classes` to describe them with.

    Raises:
        InvalidInputError: as `descriptors_beside`.
    """
    pools = [pool, labeled]
    widths = [each.box_embeddings.shape[1] for each in pools if each.box_embeddings is not None and each.num_boxes]
    for number, each in enumerate(pools):
        if each.box_embeddings is not None and each.num_boxes == 0 and widths:  # no box told the width
            pools[number] = each.replace(box_embeddings=each.box_embeddings.new_zeros(0, widths[0]))
    classes = classes_of(*pools)
    ours, theirs = (frame_descriptors(each.take([]), classes=classes, part=True) for each in pools)
    if ours.shape[1] != theirs.shape[1]:
        raise InvalidInputError(
            "`labeled` must have the embedding columns of `pool`, and their widths, as one model gives them; "
            f"`pool` is {pool!r}, `labeled` is {labeled!r}"
        )
    return (pools[0], pools[1]), classes


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
    largest = vectors.abs().amax(1, keepdim=True).to(torch.promote_types(vectors.dtype, torch.float32))
    scaled = (vectors / largest.clamp_min(torch.finfo(torch.float32).tiny)).float()
    lengths: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    return scaled / lengths.clamp_min(1)  # the largest entry is 1, or the row is zero


def _describe(pool: Pool, begin: int, end: int, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Looks (f, E) and class shares (f, K) of the frames `begin:end`; zeros for frames without boxes."""
    offsets = pool.offsets[begin : end + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    offsets = offsets - first
    weights = _weights(pool, first, last, offsets)
    boxes = weights[:, :0] if pool.box_embeddings is None else unit_rows(pool.box_embeddings[first:last])
    looks = unit_rows(sum_of_frames(boxes * weights, offsets))
    if pool.labels is None or len(classes) == 0:
        return looks, looks.new_zeros(end - begin, len(classes))
    column = torch.searchsorted(classes, pool.labels[first:last])
    one_hot = torch.nn.functional.one_hot(column, len(classes)) * weights
    total = sum_of_frames(weights, offsets).clamp_min_(torch.finfo(torch.float32).tiny)
    return looks, sum_of_frames(one_hot, offsets) / total * CLASS_SCALE


def _weights(pool: Pool, first: int, last: int, offsets: Tensor) -> Tensor:
    """(b, 1) float32: the scores, or 1 in frames whose scores are all zero, and without scores."""
    if pool.scores is None:
        return torch.ones(last - first, 1, device=pool.device)
    scores = pool.scores[first:last, None].float()
    silent = (sum_of_frames(scores, offsets) == 0).repeat_interleave(offsets.diff(), dim=0)
    return torch.where(silent, 1.0, scores)
