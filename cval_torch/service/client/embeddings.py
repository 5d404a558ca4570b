"""Embeddings of a dataset: uploads in pieces that survive a broken connection, and what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from cval_torch.errors import InvalidInputError, NotFoundError, ProtocolError, ServiceUnreachableError
from cval_torch.pool.pool import Pool
from cval_torch.service.client.deadline import Backoff, Deadline
from cval_torch.service.client.readback import Sent, checked_pages
from cval_torch.service.client.resource import ANYTHING, Resource, quoted
from cval_torch.service.client.transport import Transport
from cval_torch.service.codec import EmbeddingsBody, bodies_of, embeddings_json
from cval_torch.service.protocol import DatasetPart, EmbeddingsMeta, FrameEmbedding, FrameEmbeddingMeta

_FRAME = TypeAdapter(FrameEmbedding)
_FRAMES = TypeAdapter(list[FrameEmbedding])
_META = TypeAdapter(EmbeddingsMeta)
_PARTS = get_args(DatasetPart)

UPLOAD_BYTES = 8 << 20
_FRAMES_A_PAGE = 1000
_MAX_TRIES = 5


class EmbeddingResource(Resource):
    """Embeddings of one part of one dataset.

    Raises:
        InvalidInputError: no dataset, or a part that is none.
    """

    def __init__(self, transport: Transport, timeout: float, dataset_id: str, part_of_dataset: str) -> None:
        super().__init__(transport, timeout)
        if part_of_dataset not in _PARTS:
            raise InvalidInputError(f"`part_of_dataset` must be one of {', '.join(_PARTS)}; got {part_of_dataset!r}")
        self.dataset_id, self.part_of_dataset = dataset_id, part_of_dataset
        self._path = f"/dataset/{quoted(dataset_id, '`dataset_id`')}/{part_of_dataset}"

    def upload_many(self, embeddings: Iterable[FrameEmbedding | Mapping[str, Any]]) -> EmbeddingsMeta:
        """Upload embeddings, about 8 MiB of JSON at a time.

        Args:
            embeddings: one a frame, as models or dicts; an iterator is read as it is sent.

        Returns:
            What the service stored, for all of them together.
        """
        frames = []
        for body in bodies_of(_texts(embeddings), UPLOAD_BYTES):
            frames.extend(self._upload(body, self._deadline()).frames)
        return EmbeddingsMeta(frames_quantity=len(frames), frames=frames)

    def upload_pool(
        self,
        pool: Pool,
        *,
        resume: bool = False,
        max_bytes: int = UPLOAD_BYTES,
        timeout: float | None = None,
        progress: bool = True,
        whole_frames: bool = False,
    ) -> int:
        """Upload the embeddings of a pool straight from its columns, without a second copy of them.

        Args:
            pool: with `box_embeddings`, or `frame_embeddings` for frames without boxes.
            resume: ask first which frames are stored, and leave those out: for the same pool, after an upload
                that broke off.
            max_bytes: of one request.
            timeout: seconds for all of it; None leaves it to the bound of each request.
            progress: whether to show a bar.
            whole_frames: whether to send the frames' own embeddings of frames with boxes, too, as `frame-ROW`.

        Returns:
            The number of frames that were sent.
        """
        whole = self._deadline(float("inf") if timeout is None else timeout)
        stored = set(self.stored_frames(timeout=timeout)) if resume else set[str]()
        sent = 0
        with tqdm(
            total=len(pool), desc="uploading embeddings", unit=" frames", disable=not progress, leave=False
        ) as bar:
            for body in _one_ahead(embeddings_json(pool, max_bytes=max_bytes, without=stored, whole=whole_frames)):
                self._upload(body, whole.within(self._timeout))
                sent += len(body.frames)
                bar.update(len(body.frames))
        return sent

    def get_many(self, start_limit: int = 0, stop_limit: int = 1000) -> list[FrameEmbedding]:
        """The frames `start_limit:stop_limit` with their embeddings."""
        return self._slice(self._deadline(), start_limit, stop_limit)

    def get_meta(self, start_limit: int = 0, stop_limit: int = 1000) -> EmbeddingsMeta:
        """The frames `start_limit:stop_limit` with the names of their embeddings."""
        return self._names(self._deadline(), start_limit, stop_limit)

    def stored_frames(self, *, timeout: float | None = None) -> Iterator[str]:
        """The ids of all frames that have embeddings, asked for a page at a time.

        Args:
            timeout: seconds for all pages; None leaves it to the bound of each request.

        Raises:
            ProtocolError: the service answers the same frames again.
        """
        whole = self._deadline(float("inf") if timeout is None else timeout)
        for page in checked_pages(
            lambda start, stop: self._names(whole.within(self._timeout), start, stop).frames, _FRAMES_A_PAGE
        ):
            yield from (frame.frame_id for frame in page)

    def get_by_id(self, frame_id: str, embedding_id: str) -> FrameEmbedding:
        """One embedding, in its frame."""
        return self._transport.call("GET", self._path_of(frame_id, embedding_id), _FRAME, deadline=self._deadline())

    def delete_by_id(self, frame_id: str, embedding_id: str = "all") -> None:
        """Delete one embedding of a frame, or `all` of them."""
        self._transport.call("DELETE", self._path_of(frame_id, embedding_id), ANYTHING, deadline=self._deadline())

    def delete_all(self) -> None:
        """Delete the embeddings of this part of the dataset."""
        self._transport.call("DELETE", f"{self._path}/embeddings", ANYTHING, deadline=self._deadline())

    def _path_of(self, frame_id: str, embedding_id: str) -> str:
        return f"{self._path}/embedding/{quoted(frame_id, '`frame_id`')}/{quoted(embedding_id, '`embedding_id`')}"

    def _upload(self, body: EmbeddingsBody, deadline: Deadline) -> EmbeddingsMeta:
        """Send one body. If the connection breaks, see whether it arrived before it is sent again.

        Raises:
            ProtocolError: the service says that it stored something else, and it has.
        """
        backoff = Backoff(0.25, 10.0)
        for _ in range(_MAX_TRIES):
            try:
                answer = self._transport.call(
                    "POST", f"{self._path}/embeddings", _META, body=body.body, deadline=deadline, repeatable=False
                )
            except ServiceUnreachableError:
                wait = backoff.next()
                if wait >= deadline.remaining():
                    raise
                self._transport.sleep(wait)
                if self._has(body, deadline):
                    return EmbeddingsMeta(frames_quantity=len(body.frames), frames=list(body.frames))
                continue
            if _named(answer.frames) == _named(body.frames) or self._has(body, deadline):
                return answer
            raise ProtocolError(
                f"{len(body.frames)} frames were uploaded, and the service says that it stored {len(answer.frames)}; "
                "what it has is not what was sent"
            )
        raise ServiceUnreachableError(f"an upload of {len(body.frames)} frames broke off {_MAX_TRIES} times")

    def _has(self, body: EmbeddingsBody, deadline: Deadline) -> bool:
        """Whether the service has every embedding of the body as it was sent."""
        frame = next((each for each in body.frames if each.embeddings and each.frame_id not in (".", "..")), None)
        if frame is not None:
            try:  # most often nothing arrived, which one question tells
                path = self._path_of(frame.frame_id, frame.embeddings[0])
                self._transport.call("GET", path, _FRAME, deadline=deadline)
            except NotFoundError:
                return False
        return Sent(body.body).is_stored(self._pages(deadline), partial(self._slice, deadline))

    def _pages(self, deadline: Deadline) -> Iterator[Sequence[FrameEmbeddingMeta]]:
        return checked_pages(lambda start, stop: self._names(deadline, start, stop).frames, _FRAMES_A_PAGE)

    def _names(self, deadline: Deadline, start: int, stop: int) -> EmbeddingsMeta:
        query = {"start_limit": start, "stop_limit": stop}
        return self._transport.call("GET", f"{self._path}/embeddings/meta", _META, query=query, deadline=deadline)

    def _slice(self, deadline: Deadline, start: int, stop: int) -> list[FrameEmbedding]:
        query = {"start_limit": start, "stop_limit": stop}
        return self._transport.call("GET", f"{self._path}/embeddings", _FRAMES, query=query, deadline=deadline)


def _named(frames: Iterable[FrameEmbeddingMeta]) -> list[tuple[str, list[str]]]:
    return sorted((frame.frame_id, sorted(frame.embeddings)) for frame in frames)


def _one_ahead(bodies: Iterator[EmbeddingsBody]) -> Iterator[EmbeddingsBody]:
    """The same, the next one being encoded while this one is on its way."""
    with ThreadPoolExecutor(1) as encoder:
        following = encoder.submit(next, bodies, None)
        while (body := following.result()) is not None:
            following = encoder.submit(next, bodies, None)
            yield body


def _texts(embeddings: Iterable[FrameEmbedding | Mapping[str, Any]]) -> Iterator[tuple[FrameEmbeddingMeta, bytes]]:
    """What each payload names, and its JSON."""
    for row, item in enumerate(embeddings):
        try:
            frame = item if isinstance(item, FrameEmbedding) else FrameEmbedding.model_validate(item)
        except ValidationError as error:
            message = str(error.errors(include_url=False, include_input=False)[0]["msg"])
            raise InvalidInputError(f"`embeddings` must be FrameEmbedding; number {row} is not: {message}") from error
        names = [vector.embedding_id for vector in frame.embeddings]
        meta = FrameEmbeddingMeta(frame_id=frame.frame_id, embeddings_quantity=len(names), embeddings=names)
        yield meta, frame.model_dump_json().encode()
