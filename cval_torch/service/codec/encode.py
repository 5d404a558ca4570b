"""From a `Pool` to payloads, and straight to JSON."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from pydantic_core import to_json
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.pool import Pool
from cval_torch.selection.stage import DetectionSampling
from cval_torch.service.codec.numbers import HIGHEST_SCORE, NO_DETECTION, inner_scores, short_decimals
from cval_torch.service.protocol import BBoxScores, FrameEmbedding, FrameEmbeddingMeta, FramePrediction
from cval_torch.strategies.scores import class_distribution, distribution_weights

FRAMES_A_BATCH = 1000
BYTES_A_BODY = 8 << 20
NUMBERS_A_PIECE = 1 << 17
"""Numbers of boxes that are text, or objects on the way to it, at a time: some 5 MB of it."""

_BYTES_A_FLOAT = 12


class PayloadBatch(NamedTuple):
    """Payloads of some frames of a pool, in order. `pool_from_payloads(*batch)` reads them back.

    Attributes:
        predictions: one a frame.
        embeddings: one a frame that has any; empty if the pool has none, or they were not asked for.
    """

    predictions: list[FramePrediction]
    embeddings: list[FrameEmbedding]


class EmbeddingsBody(NamedTuple):
    """One upload of embeddings.

    Attributes:
        body: a JSON array with one element a frame.
        frames: the names of what is in it.
    """

    body: bytes
    frames: tuple[FrameEmbeddingMeta, ...]


def pool_to_payloads(
    pool: Pool, *, batch_size: int = FRAMES_A_BATCH, embeddings: bool | None = None
) -> Iterator[PayloadBatch]:
    """The pool as payloads of the protocol, `batch_size` frames at a time.

    Args:
        pool: what to send. Boxes' pixel coordinates and dataset indices have no place on the wire, nor have the
            `frame_embeddings` of frames with boxes.
        batch_size: frames in a batch, at least 1.
        embeddings: whether boxes name their embeddings, which are then in the batch, and frames without boxes stand
            in the predictions by their own. None means: if the pool has any.

    Raises:
        InvalidInputError: `embeddings=True`, and the pool has none; `batch_size` below 1; embeddings are to be sent,
            and the pool has those of some boxes only (`embedded`).

    >>> import torch
    >>> pool = Pool(["a"], torch.tensor([0, 1]), scores=torch.tensor([0.75]), labels=torch.tensor([2]))
    >>> for predictions, embeddings in pool_to_payloads(pool):
    ...     predictions[0].frame_id, predictions[0].predictions[0].score, embeddings
    ('a', 0.75, [])
    """
    with_embeddings = _wants_embeddings(pool, embeddings)
    for part in _slices(pool, batch_size):
        yield PayloadBatch(
            _frame_predictions(part, embeddings=with_embeddings),
            _frame_embeddings(part) if with_embeddings else [],
        )


def predictions_json(
    pool: Pool,
    *,
    probabilities: bool = True,
    embeddings: bool | None = None,
    batch_size: int = FRAMES_A_BATCH,
    whole: bool = False,
    labeled: Pool | None = None,
) -> Iterator[bytes]:
    """The predictions as the pieces of one JSON array; null fields are left out.

    Args:
        pool: what to send.
        probabilities: whether to send them, if the pool has them.
        embeddings: as for `pool_to_payloads`.
        batch_size: frames in a piece, at most. A piece is what is held in memory at a time, so that there are fewer in
            it if they have many boxes, and a frame with very many is several pieces.
        whole: whether frames with boxes name their own embeddings, too: beyond the protocol.
        labeled: frames that follow as annotated ones, with the columns of `pool`: beyond the protocol.

    Raises:
        InvalidInputError: as `pool_to_payloads`.
    """
    pieces = _frames_json(pool, probabilities=probabilities, embeddings=embeddings, size=batch_size, whole=whole)
    if labeled is not None:
        mark = b',"labeled":true'
        known = _frames_json(
            labeled, probabilities=probabilities, embeddings=embeddings, size=batch_size, whole=whole, mark=mark
        )
        pieces = itertools.chain(pieces, known)
    first = next(pieces, b",")
    yield b"[" + first[1:]
    yield from pieces
    yield b"]"


def _frames_json(
    pool: Pool, *, probabilities: bool, embeddings: bool | None, size: int, whole: bool, mark: bytes = b""
) -> Iterator[bytes]:
    """The frames with a comma before each; `mark` is what each has more of."""
    with_embeddings = _wants_embeddings(pool, embeddings)
    columns = (column for column in (pool.probabilities,) if column is not None and probabilities)
    most_boxes = max(1, NUMBERS_A_PIECE // (3 + sum(column.shape[1] for column in columns)))
    for part in _slices(pool, size, most_boxes, whole=whole and with_embeddings):
        if part.stop - part.first > most_boxes:  # of one frame
            yield b"," + _frame_head(part, part.frames[0], mark) + b"["
            for boxes in part.of_boxes(most_boxes):
                text = _boxes_text(boxes, probabilities=probabilities, embeddings=with_embeddings)
                yield (b"," if boxes.first > part.first else b"") + b",".join(b"{%b}" % box for box in text)
            yield b"]}"
        else:
            texts = _predictions_text(part, probabilities=probabilities, embeddings=with_embeddings, mark=mark)
            yield b"," + b",".join(texts)


def embeddings_json(
    pool: Pool, *, max_bytes: int = BYTES_A_BODY, without: Collection[str] = (), whole: bool = False
) -> Iterator[EmbeddingsBody]:
    """The embeddings that `predictions_json(embeddings=True)` names, as uploads of at most `max_bytes`.

    Args:
        pool: with `box_embeddings`, or with `frame_embeddings` for its frames without boxes.
        max_bytes: of a body; a single frame that is larger goes alone.
        without: ids of frames to leave out, such as those that arrived before.
        whole: as for `predictions_json`.

    Raises:
        InvalidInputError: the pool has no embeddings.
    """
    _wants_embeddings(pool, True)
    most = max_bytes // _BYTES_A_FLOAT  # numbers, whose doubles are about one body's worth, not the pool's
    boxes, frames = pool.box_embeddings, pool.frame_embeddings
    at_once = min(FRAMES_A_BATCH, most // max(1, 0 if frames is None else frames.shape[1]))
    most_boxes = max(1, most // max(1, 0 if boxes is None else boxes.shape[1]))
    parts = _slices(pool, max(1, at_once), most_boxes, whole=whole)
    return bodies_of(itertools.chain.from_iterable(_embeddings_text(part, without) for part in parts), max_bytes)


def bodies_of(
    texts: Iterable[tuple[FrameEmbeddingMeta, bytes]], max_bytes: int = BYTES_A_BODY
) -> Iterator[EmbeddingsBody]:
    """Join the JSON of frames to arrays of at most `max_bytes`, or of one frame."""
    held, frames, size = list[bytes](), list[FrameEmbeddingMeta](), 2
    for meta, text in texts:
        if held and size + len(text) > max_bytes:
            yield EmbeddingsBody(b"[" + b",".join(held) + b"]", tuple(frames))
            held, frames, size = [], [], 2
        held.append(text)
        frames.append(meta)
        size += len(text) + 1
    if held:
        yield EmbeddingsBody(b"[" + b",".join(held) + b"]", tuple(frames))


def whole_frames(pool: Pool) -> Pool:
    """Frames without boxes, each with its embedding: how a pool without box embeddings enters a diversity stage.

    Raises:
        InvalidInputError: the pool has no `frame_embeddings`.
    """
    if pool.frame_embeddings is None:
        raise InvalidInputError(f"the pool must have `box_embeddings` or `frame_embeddings`; got {pool!r}")
    return Pool(pool.frame_ids, pool.offsets.new_zeros(len(pool) + 1), frame_embeddings=pool.frame_embeddings)


def one_width(pool: Pool) -> Pool:
    """The same pool with `frame_embeddings` as wide as `box_embeddings`: cut, or filled with zeros.

    For a service that takes all embeddings for points of one space. A server of one's own keeps them apart instead.
    """
    boxes, frames = pool.box_embeddings, pool.frame_embeddings
    if boxes is None or frames is None or frames.shape[1] == boxes.shape[1]:
        return pool
    fitted = frames.new_zeros(len(pool), boxes.shape[1])
    width = min(frames.shape[1], boxes.shape[1])
    fitted[:, :width] = frames[:, :width]
    return pool.replace(frame_embeddings=fitted)


def wire_weights(stage: DetectionSampling, pool: Pool) -> list[float] | None:
    """`probs_weights` as long as a box's probabilities are on the wire, where sigmoids have a "none" that weighs 1.

    Raises:
        InvalidInputError: their number does not fit the pool's probabilities.
    """
    if stage.probs_weights is None or pool.probabilities is None or pool.activation is None:
        return stage.probs_weights
    return distribution_weights(stage.probs_weights, pool.probabilities.shape[1], pool.activation)


class _Slice:
    """Frames of a pool from `start` up to `stop`, as the wire sees them. Boxes are counted from the slice's first.

    With `whole`, frames with boxes have an embedding of their own, too, if the pool has some.
    """

    def __init__(self, pool: Pool, start: int, stop: int, *, whole: bool = False) -> None:
        self.pool, self.whole = pool, whole and pool.frame_embeddings is not None
        self.frames = range(start, min(stop, len(pool)))
        bounds: list[int] = pool.offsets[start : stop + 1].tolist()
        self.first, self.stop = bounds[0], bounds[-1]
        self.bounds = [bound - self.first for bound in bounds]

    def box_column(self, name: str) -> Tensor | None:
        column: Tensor | None = getattr(self.pool, name)
        return None if column is None else column[self.first : self.stop].detach().cpu()

    def distributions(self) -> list[list[float]] | None:
        column, activation = self.box_column("probabilities"), self.pool.activation
        if column is None or activation is None:
            return None
        rows: list[list[float]] = short_decimals(class_distribution(column, activation)).tolist()
        return rows

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """(frame row, first box, box after the last) of every frame."""
        return zip(self.frames, self.bounds, self.bounds[1:], strict=False)

    def embedding_ids(self) -> list[str]:
        """One a box, its row in the pool: unlike any other box's, also where the service wants that of a dataset."""
        return [str(row) for row in range(self.first, self.stop)]

    def of_boxes(self, size: int) -> Iterator[_Slice]:
        """The boxes of a slice of one frame, so many at a time."""
        for first in range(self.first, self.stop, size):
            part = copy.copy(self)
            part.first, part.stop = first, min(first + size, self.stop)
            part.bounds = [0, part.stop - first]
            yield part

    def lone_rows(self) -> set[int]:
        """The rows of frames without boxes that have an embedding."""
        if self.pool.frame_embeddings is None:
            return set()
        return {row for row, start, stop in self.spans() if start == stop}

    def own_embeddings(self) -> dict[int, list[float]]:
        """By frame row, the embeddings that frames have on the wire beside those of their boxes."""
        column, rows = self.pool.frame_embeddings, list(self.frames) if self.whole else sorted(self.lone_rows())
        if column is None or not rows:
            return {}
        vectors: list[list[float]] = short_decimals(column[rows].detach().cpu()).tolist()
        return dict(zip(rows, vectors, strict=True))


def _slices(pool: Pool, size: int, most_boxes: int | None = None, *, whole: bool = False) -> Iterator[_Slice]:
    """All frames in order, at most `size` at a time, and with at most so many boxes, but at least one frame."""
    if size < 1:
        raise InvalidInputError(f"`batch_size` must be at least 1; got {size}")
    offsets = pool.offsets.cpu()
    start = 0
    while start < len(pool):
        stop = min(start + size, len(pool))
        if most_boxes is not None:
            within = torch.searchsorted(offsets[start : stop + 1], offsets[start] + most_boxes, right=True)
            stop = start + max(1, int(within) - 1)
        yield _Slice(pool, start, stop, whole=whole)
        start = stop


def _wants_embeddings(pool: Pool, embeddings: bool | None) -> bool:
    there = pool.box_embeddings is not None or pool.frame_embeddings is not None
    if embeddings and not there:
        raise InvalidInputError(f"the pool must have `box_embeddings` or `frame_embeddings`; got {pool!r}")
    wanted = there if embeddings is None else embeddings
    if wanted and pool.embedded is not None:
        raise InvalidInputError(
            "the pool has embeddings of some boxes only (`embedded`), and the protocol takes those of all: extract "
            "without `top_boxes`, or select with LocalBackend"
        )
    return wanted


def _own_id(row: int) -> str:
    return f"frame-{row}"


def _frame_predictions(part: _Slice, *, embeddings: bool) -> list[FramePrediction]:
    count = part.stop - part.first
    nothing: list[None] = [None] * count
    scores, labels = part.box_column("scores"), part.box_column("labels")
    named = embeddings and part.pool.box_embeddings is not None
    boxes = [
        BBoxScores(category_id=label, score=score, embedding_id=name, probabilities=row)
        for label, score, name, row in zip(
            nothing if labels is None else labels.tolist(),
            nothing if scores is None else inner_scores(scores).tolist(),
            part.embedding_ids() if named else nothing,
            part.distributions() or nothing,
            strict=True,
        )
    ]
    lone = part.own_embeddings() if embeddings else {}
    return [
        FramePrediction(
            frame_id=part.pool.frame_ids[row],
            predictions=[_stand_in(row)] if row in lone else boxes[start:stop],
        )
        for row, start, stop in part.spans()
    ]


def _stand_in(row: int) -> BBoxScores:
    return BBoxScores(category_id=NO_DETECTION, score=HIGHEST_SCORE, embedding_id=_own_id(row))


def _frame_embeddings(part: _Slice) -> list[FrameEmbedding]:
    return [FrameEmbedding.model_validate_json(text) for _, text in _embeddings_text(part)]


def _predictions_text(part: _Slice, *, probabilities: bool, embeddings: bool, mark: bytes) -> Iterator[bytes]:
    """One JSON object a frame."""
    boxes = _boxes_text(part, probabilities=probabilities, embeddings=embeddings)
    lone = part.lone_rows() if embeddings else ()
    for row, start, stop in part.spans():
        if row in lone:
            text = _stand_in(row).model_dump_json(exclude_none=True)[1:-1].encode()
        else:
            text = b"},{".join(boxes[start:stop])
        within = b"[{%b}]" % text if stop > start or row in lone else b"[]"
        yield _frame_head(part, row, mark, named=row not in lone) + within + b"}"


def _frame_head(part: _Slice, row: int, mark: bytes, *, named: bool = True) -> bytes:
    """What comes before a frame's predictions."""
    own = b',"embedding_id":"%b"' % _own_id(row).encode() if named and part.whole else b""
    return b'{"frame_id":%b%b%b,"predictions":' % (json.dumps(part.pool.frame_ids[row]).encode(), own, mark)


def _boxes_text(part: _Slice, *, probabilities: bool, embeddings: bool) -> list[bytes]:
    """What stands between the braces of each box."""
    fields: list[Sequence[bytes]] = []
    labels, scores = part.box_column("labels"), part.box_column("scores")
    if labels is not None:
        classes: list[int] = labels.tolist()
        texts = {label: b'"category_id":%d' % label for label in set(classes)}
        fields.append([texts[label] for label in classes])
    if scores is not None:
        fields.append([b'"score":' + number for number in _numbers(inner_scores(scores).tolist())])
    if embeddings and part.pool.box_embeddings is not None:
        fields.append([b'"embedding_id":"%d"' % row for row in range(part.first, part.stop)])
    distributions = part.distributions() if probabilities else None
    if distributions is not None:
        fields.append([b'"probabilities":' + row for row in _rows(distributions)])
    return [b",".join(box) for box in zip(*fields, strict=True)] if fields else [b""] * (part.stop - part.first)


def _embeddings_text(part: _Slice, without: Collection[str] = ()) -> Iterator[tuple[FrameEmbeddingMeta, bytes]]:
    """What it names, and the JSON object, of every frame that has embeddings."""
    column = part.box_column("box_embeddings")
    vectors = [] if column is None else _rows(short_decimals(column).tolist())
    own = part.own_embeddings()
    for row, start, stop in part.spans():
        frame_id = part.pool.frame_ids[row]
        mine = vectors[start:stop]
        names = [str(box) for box in range(part.first + start, part.first + start + len(mine))]
        if row in own:
            names, mine = [*names, _own_id(row)], [*mine, to_json(own[row])]
        if names and frame_id not in without:
            items = b",".join(
                b'{"embedding_id":"%b","embedding":%b}' % (n.encode(), v) for n, v in zip(names, mine, strict=True)
            )
            meta = FrameEmbeddingMeta(frame_id=frame_id, embeddings_quantity=len(names), embeddings=names)
            yield meta, b'{"frame_id":%b,"embeddings":[%b]}' % (json.dumps(frame_id).encode(), items)


def _numbers(values: list[float]) -> list[bytes]:
    return to_json(values)[1:-1].split(b",") if values else []


def _rows(rows: list[list[float]]) -> list[bytes]:
    """The JSON of each row, from one call of the encoder."""
    return [b"[" + row + b"]" for row in to_json(rows)[2:-2].split(b"],[")] if rows else []
