"""`Summary`: of F frames, what one stage needs to choose among them.

It is made of each frame's own boxes. So it can be made wherever the frames are, also a batch after another while a
model infers them, and everything else can be let go. Only strategies that compare single boxes need the pool itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.pool.growing import GrowingColumn
from cval_torch.pool.offsets import offsets_of
from cval_torch.pool.pool import Pool
from cval_torch.pool.ranks import Ranks
from cval_torch.selection.constraints import bounds_of, check_labels
from cval_torch.selection.labeled import Labeled, vectors_of
from cval_torch.selection.null_policy import check_null_detections
from cval_torch.selection.scored import Scored, score_frames
from cval_torch.selection.spacing import Spacing
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.class_sums import ClassSums
from cval_torch.strategies.descriptor import Descriptors, LongRows, beside, check_described
from cval_torch.strategies.registry import find_strategy

_LONG = ("looks", "half_looks", "frames")


@dataclass(frozen=True, eq=False)
class Summary:
    """What one stage reads of F frames.

    Attributes:
        scored: ids, scores (NaN under a strategy that gives none), and what budgets and quotas look at.
        vectors: where the frames lie, for strategies that see vectors, and for a `min_distance`.
        contents: for strategies that see these.
        pool: the frames themselves, for strategies that see boxes. For a `min_distance` it may stand for `vectors`,
            which are then made of the frames that are asked for.
    """

    scored: Scored
    vectors: Descriptors | None = None
    contents: Contents | None = None
    pool: Pool | None = None

    @classmethod
    def of(
        cls,
        pool: Pool,
        stage: DetectionSampling,
        *,
        part: bool = False,
        vectors: Descriptors | None = None,
        contents: Contents | None = None,
    ) -> Summary:
        """Read a pool.

        Args:
            pool: F frames.
            stage: what is to be done with them. Weights of classes must be numbers.
            part: whether these are some frames of a larger pool, which is not going to be there.
            vectors: those of these frames, where they are known already.
            contents: the same.

        Raises:
            InvalidInputError: a missing column; see `score_frames`.
        """
        check_null_detections(pool.is_empty, pool.frame_ids, stage)
        strategy = find_strategy(stage.selection_strategy)
        if strategy.is_diversity:
            check_labels(pool, stage)
            unscored = torch.tensor(torch.nan, dtype=torch.float64, device=pool.device).expand(len(pool))
            scored = Scored(pool.frame_ids, pool.is_empty, unscored, *bounds_of(pool, stage), pool.ids_from)
        else:
            scored = score_frames(pool, stage)
        spaced = stage.min_distance is not None
        if strategy.sees != "vectors" and not spaced:
            vectors = None
        elif vectors is not None:
            check_described(vectors)
        elif strategy.sees == "vectors" or part:
            vectors = Descriptors.of(pool, part=part)
        if strategy.sees != "contents":
            contents = None
        elif contents is None:
            contents = Contents.of(pool, part=part)
        looked_at = strategy.sees == "boxes" or (spaced and vectors is None)
        return cls(scored, vectors, contents, pool if looked_at else None)

    @classmethod
    def cat(cls, parts: Sequence[Summary]) -> Summary:
        """One after another, the frames of one or more parts that were made for the same stage.

        Raises:
            InvalidInputError: a frame in two of them.
        """
        vectors = [part.vectors for part in parts if part.vectors is not None]
        contents = [part.contents for part in parts if part.contents is not None]
        return cls(
            Scored.cat([part.scored for part in parts]),
            Descriptors.cat(vectors) if vectors else None,
            Contents.cat(contents) if contents else None,
        )

    def without_vectors(self) -> Summary:
        """The small part of it, where long vectors are elsewhere."""
        vectors, contents = self.vectors, self.contents
        return replace(
            self,
            vectors=None if vectors is None else vectors.without_looks(),
            contents=None if contents is None else contents.without_vectors(),
        )

    def long_vectors(self) -> dict[str, Tensor]:
        """The vectors that `without_vectors` leaves out, by name, (F, ...) each."""
        found = {} if self.vectors is None else {"looks": self.vectors.looks}
        if self.contents is not None:
            found["half_looks"] = self.contents.descriptors.looks
            if self.contents.frame_embeddings is not None:
                found["frames"] = self.contents.frame_embeddings
        return found

    def described(self) -> dict[str, Descriptors]:
        """Its descriptors, by the name that `long_vectors` gives their looks."""
        found = {} if self.vectors is None else {"looks": self.vectors}
        return found if self.contents is None else {**found, "half_looks": self.contents.descriptors}

    def with_vectors(self, long: Mapping[str, LongRows]) -> Summary:
        """The same with vectors that are elsewhere, as `long_vectors` names them."""
        vectors, contents = self.vectors, self.contents
        return replace(
            self,
            vectors=None if vectors is None else replace(vectors, elsewhere=long["looks"]),
            contents=None if contents is None else contents.with_vectors(long["half_looks"], long.get("frames")),
        )

    def take(self, rows: Tensor) -> Summary:
        """The small part of the frames at (n,) int64 `rows`, in that order."""
        vectors, contents = self.vectors, self.contents
        return Summary(
            self.scored.take(rows),
            None if vectors is None else vectors.without_looks(rows),
            None if contents is None else contents.without_vectors(rows),
        )

    def __len__(self) -> int:
        return len(self.scored)

    def columns(self) -> dict[str, Tensor]:
        """All of its tensors but a pool's, by name: rows of frames, or of pairs of a frame and a class."""
        scored, vectors, contents = self.scored, self.vectors, self.contents
        found = {"is_empty": scored.is_empty, "scores": scored.scores}
        found |= {} if scored.costs is None else {"costs": scored.costs}
        found |= {f"shows {label}": shows for label, shows in scored.shown.items()}
        described = vectors if contents is None else contents.descriptors
        shares = None if described is None else described.shares
        # of objects there are more classes, where only some boxes are embedded
        for name, sums in (("shares", shares), ("objects", None if contents is None else contents.objects)):
            if sums is not None:
                found |= {f"{name} a frame": sums.offsets.diff(), f"labels of {name}": sums.labels, name: sums.sums}
        return found | self.long_vectors()

    def with_columns(self, frame_ids: Sequence[str], columns: Mapping[str, Tensor]) -> Summary:
        """A summary of other frames of the same kind, from what `columns` gave of them."""
        scored, vectors, contents = self.scored, self.vectors, self.contents
        sums = {
            name: ClassSums(offsets_of(columns[f"{name} a frame"]), columns[f"labels of {name}"], columns[name])
            for name in ("shares", "objects")
            if name in columns
        }
        scored = Scored(
            frame_ids,
            columns["is_empty"],
            columns["scores"],
            columns.get("costs"),
            {label: columns[f"shows {label}"] for label in scored.shown},
            scored.ids_from,
        )

        def described(like: Descriptors, looks: Tensor) -> Descriptors:
            shares = None if like.shares is None else sums["shares"]
            classes = like.classes if shares is None else torch.unique(shares.labels, sorted=True)
            return replace(like, looks=looks, is_null=scored.is_empty, shares=shares, classes=classes)

        if vectors is not None:
            vectors = described(vectors, columns["looks"])
        if contents is not None:
            descriptors = described(contents.descriptors, columns["half_looks"])
            contents = Contents(descriptors, sums["objects"], columns.get("frames"))
        return Summary(scored, vectors, contents)

    def spacing(self, stage: DetectionSampling, labeled: Pool | Labeled | None) -> Callable[[], Spacing] | None:
        """Makes what keeps the `min_distance` of the stage; None if it has none."""
        if stage.min_distance is None:
            return None
        if self.vectors is None and self.pool is not None:
            return partial(Spacing.of, self.pool, stage.min_distance, labeled=labeled)
        ours, theirs = self.described_beside(labeled)
        return partial(Spacing, ours, stage.min_distance, labeled=theirs)

    def described_beside(self, labeled: Pool | Labeled | None) -> tuple[Descriptors, Descriptors | None]:
        """The frames and the labeled ones in one space. Raises as `beside` does."""
        if self.vectors is None:
            raise ValueError("this summary was made for a stage that sees no vectors")
        return beside(self.vectors, vectors_of(labeled))


@dataclass(frozen=True, eq=False)
class Scattered:
    """The summaries of all processes. The small part of each is here; long vectors stay where they are.

    Attributes:
        parts: those of the processes that have frames, without vectors.
        places: by rank, (f,) int64, which of all frames its are.
        like: by name, (0, ...), the long vectors that there are, without rows.
        mine: by name, (f, ...), those of this process.
    """

    parts: Sequence[Summary]
    places: Sequence[Tensor]
    like: Mapping[str, Tensor]
    mine: Mapping[str, Tensor]

    @classmethod
    def of(cls, own: Summary | None, places: Sequence[int], ranks: Ranks) -> Scattered:
        """Every process must call this.

        Args:
            own: of this process's frames, without a pool; None if it has none.
            places: for each of its frames the row in the whole.
            ranks: the processes.
        """
        mine = {} if own is None else own.long_vectors()
        none = {name: column[:0].clone() for name, column in mine.items()}
        shares = ranks.exchange(lambda: (None if own is None else own.without_vectors(), list(places), none))
        return cls(
            [part for part, _, _ in shares if part is not None],
            [torch.tensor(theirs, dtype=torch.int64) for _, theirs, _ in shares],
            next((columns for part, _, columns in shares if part is not None), {}),
            mine,
        )

    def joined(self) -> Summary:
        """The small part of all frames, of which there must be some, in the order of the whole.

        Raises:
            InvalidInputError: a frame in two parts.
        """
        return Summary.cat(self.parts).take(torch.cat(list(self.places)).argsort())


class GrowingSummary:
    """The summary of frames that come batch by batch; its columns are in memory once, or the long ones in files.

    Columns grow in blocks of their own. Small tensors that stay between large ones that go would keep the allocator
    from giving memory back.

    Args:
        scratch: a folder for the vectors; None: memory.
    """

    def __init__(self, scratch: Path | None = None) -> None:
        self._scratch = scratch
        self._frame_ids: list[str] = []
        self._columns: dict[str, GrowingColumn] = {}
        self._first: Summary | None = None

    def add(self, summary: Summary) -> None:
        """Take in a part, made for the same stage as those before, and without a pool."""
        if self._first is None:
            self._first = summary
        self._frame_ids += summary.scored.frame_ids
        for name, rows in summary.columns().items():
            if name not in self._columns:
                on_disk = self._scratch is not None and name in _LONG
                self._columns[name] = GrowingColumn(self._scratch / name if on_disk and self._scratch else None)
            self._columns[name].append(rows)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory, without ids."""
        return sum(column.nbytes for column in self._columns.values())

    def join(self) -> Summary:
        """All of it. Nothing can be taken in after that.

        Raises:
            InvalidInputError: no frames; or an id twice.
        """
        if self._first is None:
            raise InvalidInputError("`loader` must yield at least one frame; got none")
        columns = {name: self._columns.pop(name).join() for name in list(self._columns)}
        found = self._first.with_columns(self._frame_ids, columns)
        return replace(found, scored=Scored.cat([found.scored]))
