"""A large body, read some frames at a time: what is in memory of it is one run of frames, whatever its size.

The models, and the parser, are those of a small body, and so are the answers: `splitting` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from cval_torch.selection.stage import Payload
from cval_torch.service.protocol import BBoxScores, Embedding, FrameEmbedding, SampledFrame
from cval_torch.service.server.payloads import (
    EMBEDDINGS,
    MESSAGES,
    SAMPLING,
    Body,
    SamplingRequest,
    describe,
    message_of,
    not_collecting,
    parsed,
    said,
)
from cval_torch.service.server.settings import RefusedError
from cval_torch.service.server.splitting import RUN, Run, Split, split

Frame = TypeVar("Frame", bound=BaseModel)


@dataclass(frozen=True)
class Portion(Generic[Frame]):
    """Some frames of a body.

    Attributes:
        frames: in order, at least one.
        continued: whether the first goes on from the last one of the portion before.
        unended: whether the last goes on in the next portion.
    """

    frames: Sequence[Frame]
    continued: bool = False
    unended: bool = False


class _Predictions(Payload):
    predictions: list[BBoxScores]


class _Embeddings(Payload):
    embeddings: list[Embedding]


class _Frames(Payload):
    frames: list[SampledFrame]


class _FramesInPart(Payload):
    frames: list[_Predictions]


_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@dataclass(frozen=True)
class _Form(Generic[Frame]):
    """What a body is like.

    Attributes:
        key: of its frames; None: it is the list of them.
        inner: the key, in a frame, of what there may be much of.
        whole: the model of a body.
        frames: of frames within a body that has nothing else.
        parts: of frames with their inner lists alone.
        make: a frame of the model that it is given, with these items.
    """

    key: str | None
    inner: str
    whole: TypeAdapter[Any]
    frames: TypeAdapter[Any]
    parts: TypeAdapter[Any]
    make: Callable[[Frame, list[Any]], Frame]

    def body(self, frames: bytes) -> bytes:
        """A body of nothing but these frames: as deep as they are in theirs, and named alike in messages."""
        return b"[" + frames + b"]" if self.key is None else b'{"%b":[%b]}' % (self.key.encode(), frames)

    def listed(self, body: Any) -> list[Any]:
        """The frames of a body that was read."""
        found: list[Any] = body if self.key is None else getattr(body, self.key)
        return found

    @property
    def before(self) -> tuple[str, ...]:
        """What comes before a frame's number where a message says what it is about."""
        return () if self.key is None else (self.key,)


_SAMPLING = _Form[SampledFrame](
    "frames",
    "predictions",
    SAMPLING,
    TypeAdapter(_Frames),
    TypeAdapter(_FramesInPart),
    lambda frame, items: frame.model_copy(update={"predictions": items}),
)
_EMBEDDINGS = _Form[FrameEmbedding](
    None,
    "embeddings",
    EMBEDDINGS,
    EMBEDDINGS,
    TypeAdapter(list[_Embeddings]),
    lambda frame, items: FrameEmbedding.model_construct(frame_id=frame.frame_id, embeddings=items),
)


def incoming_sampling(body: Body, *, most: int) -> tuple[SamplingRequest, Iterator[Portion[SampledFrame]]]:
    """A request without its frames, and its frames, which are read as they are asked for.

    Args:
        body: a small one is read at once.
        most: bytes, in a large one, of what is read in one piece: a single box, and all that is neither a box nor a
            frame.

    Raises:
        RefusedError: 422, as from `parsed`; 413, a piece is longer than that. If frames are wrong, it is raised as they
            are read, at the latest after the last one that is right.
    """
    if isinstance(body, bytes):
        request = parsed(body, SAMPLING)
        frames = request.frames
        return request.model_copy(update={"frames": []}), _one_portion(frames)
    reader = _Reader(body, _SAMPLING, most)
    return reader.rest(), reader.portions()


def incoming_embeddings(body: Body, *, most: int) -> Iterator[Portion[FrameEmbedding]]:
    """The frames of an upload, as those of a request."""
    if isinstance(body, bytes):
        return _one_portion(parsed(body, EMBEDDINGS))
    reader = _Reader(body, _EMBEDDINGS, most)
    reader.rest()
    return reader.portions()


def _one_portion(frames: list[Frame]) -> Iterator[Portion[Frame]]:
    return iter([Portion(frames)] if frames else [])


class _Faults:
    """What is wrong with a body: how many things, and the first of them in words."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, error: ValidationError, place: Callable[[tuple[Any, ...]], tuple[Any, ...]] = tuple) -> None:
        """Take an error in, `place` being where in the body that is which the error has.

        Raises:
            RefusedError: 422, it is not JSON.
        """
        self.count += error.error_count()
        if len(self.first) < MESSAGES or error.error_count() == 1:
            for each in _errors(error)[:MESSAGES]:
                if each["type"] == "json_invalid":
                    raise RefusedError(422, said([message_of(each["loc"], each["msg"])], 1)) from error
                self.first.append(message_of(place(each["loc"]), each["msg"]))


class _Reader(Generic[Frame]):
    """Reads a body from its file."""

    def __init__(self, path: Path, form: _Form[Frame], most: int) -> None:
        self._path, self._form, self._most = path, form, most
        self._sound = True  # so far, all of it
        self._faults = _Faults()
        self._before, self._after = _Faults(), _Faults()  # what is wrong beside the frames
        with path.open("rb") as file:
            size = path.stat().st_size
            if size > most:
                self._check_opening(file)
            self._split = split(file, 0, size, form.key, most=most)
        self._rest: Any = None
        self._ours = bool(self._split.arrays)  # whether the last of the arrays is that of the frames
        try:
            self._rest = form.whole.validate_json(bytes(self._split.rest))
        except ValidationError as error:
            self._take_apart(error)

    def rest(self) -> Any:
        """The body without its frames.

        Raises:
            RefusedError: 422, it is not what it must be; the frames have been looked at, too.
        """
        if not self._sound:
            for _ in self.portions():
                pass
        return self._rest

    def portions(self) -> Iterator[Portion[Frame]]:
        """The frames.

        Raises:
            RefusedError: 422, at the end, with all that is wrong, or as soon as something is no JSON.
        """
        with self._path.open("rb") as file:
            *others, last = self._split.arrays or [[]]
            for runs in others if self._ours else self._split.arrays:
                for run in runs:  # what stands twice counts where it stands last, but must be JSON anywhere
                    self._check_json(self._form.body(self._text(file, run, runs)))
            for run in last if self._ours else ():
                for portion in self._portions_of(file, run, last):
                    if self._sound:
                        yield portion
        faults = (self._before, self._faults, self._after)
        if not self._sound:
            raise RefusedError(
                422, said([text for each in faults for text in each.first], sum(f.count for f in faults))
            )

    def _check_opening(self, file: BinaryIO) -> None:
        """A body that is not even of the right kind is not read to its end."""
        head = file.read(RUN).lstrip()
        if head[:1] not in (b"[" if self._form.key is None else b"{", b""):
            short = {b"[": b"[]", b"{": b"{}", b'"': b'""'}.get(head[:1], head[:100])
            parsed(short, self._form.whole)

    def _take_apart(self, error: ValidationError) -> None:
        """What is wrong beside the frames, before and after them in the order of the fields."""
        self._sound = False
        fields = list(SamplingRequest.model_fields)
        at = fields.index(self._form.key) if self._form.key in fields else 0
        for each in _errors(error):
            if each["type"] == "json_invalid":
                self._before.add(error)
            where = each["loc"][0] if each["loc"] else None
            if where == self._form.key:
                self._ours = False
            is_after = where in fields and fields.index(where) > at
            faults = self._after if is_after else self._before
            faults.count += 1
            if len(faults.first) < MESSAGES:
                faults.first.append(message_of(each["loc"], each["msg"]))

    def _portions_of(self, file: BinaryIO, run: Run, runs: list[Run]) -> Iterator[Portion[Frame]]:
        if run.stop - run.start > RUN:
            yield from self._parts_of(file, run, runs)
            return
        found = self._validated(self._form.body(self._text(file, run, runs)), self._form.frames, run.first)
        if found is not None and (frames := self._form.listed(found)):
            yield Portion(frames)

    def _parts_of(self, file: BinaryIO, run: Run, runs: list[Run]) -> Iterator[Portion[Frame]]:
        """A single frame that is large."""
        form = self._form
        within = split(file, run.start, run.stop, form.inner, most=self._most)
        if not within.rest.strip():
            if len(runs) > 1:
                raise _nothing_between_commas()
            return
        body = form.body(bytes(within.rest))
        ours = bool(within.arrays)
        frame = None
        try:
            (frame,) = form.listed(form.frames.validate_json(body))
            ours = ours and getattr(frame, form.inner) == []
        except ValidationError as error:
            self._fault(error, run.first)
            inner = (*form.before, 0, form.inner)
            ours = ours and not any(each["loc"][: len(inner)] in (inner, inner[:-1]) for each in _errors(error))
        yield from self._inner_portions(file, within, frame, run.first, ours=ours)

    def _inner_portions(
        self, file: BinaryIO, within: Split, frame: Frame | None, row: int, *, ours: bool
    ) -> Iterator[Portion[Frame]]:
        form = self._form
        *others, last = within.arrays or [[]]
        for runs in others if ours else within.arrays:
            for run in runs:
                self._check_json(self._part(file, run, runs))
        if not ours and frame is not None:
            yield Portion([frame])
        for run in last if ours else ():
            found = self._validated(self._part(file, run, last), form.parts, row, run.first)
            if found is not None and frame is not None:
                items = getattr(form.listed(found)[0], form.inner)
                yield Portion([form.make(frame, items)], run is not last[0], run is not last[-1])

    def _part(self, file: BinaryIO, run: Run, runs: Sequence[Run]) -> bytes:
        return self._form.body(b'{"%b":[%b]}' % (self._form.inner.encode(), self._text(file, run, runs)))

    def _validated(self, text: bytes, adapter: TypeAdapter[Any], row: int, item: int = 0) -> Any:
        """What was read; None, and what is wrong is noted, if it is not what it must be."""
        try:
            with not_collecting():
                return adapter.validate_json(text)
        except ValidationError as error:
            self._fault(error, row, item)
            return None

    def _fault(self, error: ValidationError, row: int, item: int = 0) -> None:
        """Note what is wrong with frames from number `row` on, or with items of that frame from `item` on."""
        at = len(self._form.before)

        def place(loc: tuple[Any, ...]) -> tuple[Any, ...]:
            shifts = {at: row, at + 2: item}
            return tuple(part + shifts.get(n, 0) if isinstance(part, int) else part for n, part in enumerate(loc))

        self._sound = False
        self._faults.add(error, place)

    def _check_json(self, text: bytes) -> None:
        try:
            _ANYTHING.validate_json(text)
        except ValidationError as error:
            raise RefusedError(422, describe(error)) from error

    def _text(self, file: BinaryIO, run: Run, runs: Sequence[Run]) -> bytes:
        if run.stop - run.start > max(RUN, self._most):
            raise RefusedError(413, f"at most {self._most} bytes of a JSON value are taken")
        file.seek(run.start)
        text = file.read(run.stop - run.start)
        if len(runs) > 1 and not text.strip():  # nothing between two commas
            raise _nothing_between_commas()
        return text


def _nothing_between_commas() -> RefusedError:
    return RefusedError(422, "Invalid JSON: expected value")


def _errors(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_context=False, include_input=False))
