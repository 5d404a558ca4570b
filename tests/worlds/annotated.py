"""Annotations of any form, for the round trip through a format, and what must be the same after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from PIL import Image

from cval_torch.formats import Annotations
from cval_torch.pool.offsets import offsets_of

HOSTILE = [
    "</script><b>",
    'quo"te',
    "apo'strophe",
    "a&b;",
    "100%",
    "#1?",
    "日本語",
    "Ünïcode",
    "\u202eright to left",
    "C:\\folder\\x",
    "../../up",
    "/etc/passwd",
    "a/../b",
    "con",
    "=1+1",
    "-rf",
    " spaces ",
    "com,ma;semi",
    "]]>",
    "x" * 120,
    "tab\there",
    "line\nbreak",
]


@st.composite
def annotations(draw: st.DrawFn, *, names: Sequence[str] = HOSTILE, scored: bool = True) -> Annotations:
    """Some frames, each annotated with boxes, annotated and empty, or with a detector's boxes alone."""
    count = draw(st.integers(1, 5))
    ids = draw(st.lists(st.one_of(st.sampled_from(names), _plain()), min_size=count, max_size=count, unique=True))
    classes = draw(
        st.dictionaries(st.integers(0, 90), st.one_of(st.sampled_from(names), _plain()), min_size=1, max_size=4)
    )
    labels_known = list({name.strip(): label for label, name in classes.items() if name.strip()}.items())
    class_names = {label: name for name, label in labels_known} or {1: "bolt"}
    sizes, boxes, labels, scores, looked, counts = [], [], [], [], [], []
    for _ in range(count):
        width, height = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
        annotated = draw(st.booleans())
        mine = draw(st.integers(0, 3))
        sizes.append((width, height))
        looked.append(annotated)
        counts.append(mine)
        for _ in range(mine):
            boxes.append(draw(_box(width, height)))
            labels.append(draw(st.sampled_from(sorted(class_names))))
            scores.append(torch.nan if annotated or not scored else draw(st.floats(0, 1, width=16)))
    return Annotations(
        [f"images/{number}.png" for number in range(count)],
        offsets_of(torch.tensor(counts, dtype=torch.int64)),
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=class_names,
        frame_ids=ids,
        is_annotated=torch.tensor(looked, dtype=torch.bool),
        sizes=torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2),
        scores=torch.tensor(scores, dtype=torch.float32),
        ranks=torch.randperm(count, generator=torch.Generator().manual_seed(count)) + 1,
        uncertainties=torch.tensor(draw(st.lists(st.floats(0, 10, width=32), min_size=count, max_size=count))),
        rounds=torch.full((count,), draw(st.integers(-1, 3))),
    )


def _plain() -> Any:
    return st.text("abcdefgh_0123456789", min_size=1, max_size=12)


@st.composite
def _box(draw: st.DrawFn, width: int, height: int) -> list[float]:
    parts = st.floats(0, 1, width=32)
    xs = sorted(draw(st.sampled_from([(0.0, 1.0), (0.0, 0.0)]) | st.tuples(parts, parts)))
    ys = sorted(draw(st.sampled_from([(0.0, 1.0), (1.0, 1.0)]) | st.tuples(parts, parts)))
    return [xs[0] * width, ys[0] * height, xs[1] * width, ys[1] * height]


def write_images(marked: Annotations, folder: Path) -> dict[str, Path]:
    """A file of the right size for each frame, by id."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for number, (frame_id, (width, height)) in enumerate(zip(marked.frame_ids, marked.sizes.tolist(), strict=True)):
        assert frame_id is not None
        files[frame_id] = folder / f"{number}.png"
        Image.new("1", (width, height)).save(files[frame_id])
    return files


def assert_same(found: Annotations, given: Annotations, *, within: float, travels: bool = True) -> None:
    """The same frames, found by id, with the same boxes (to so many pixels, or thousandths of a side) and labels."""
    assert len(found) == len(given)
    row_of = {frame_id: row for row, frame_id in enumerate(found.frame_ids)}
    found = found.take([row_of[frame_id] for frame_id in given.frame_ids])
    assert found.is_annotated.tolist() == given.is_annotated.tolist()
    assert found.counts.tolist() == given.counts.tolist()
    theirs = [found.class_names[label] for label in found.labels.tolist()]
    assert theirs == [given.class_names[label] for label in given.labels.tolist()]
    torch.testing.assert_close(found.boxes, given.boxes, atol=within, rtol=1e-5)
    torch.testing.assert_close(found.scores, given.scores, atol=1e-4, rtol=1e-4, equal_nan=True)
    if travels:
        assert found.ranks.tolist() == given.ranks.tolist()
        assert found.rounds.tolist() == given.rounds.tolist()
        torch.testing.assert_close(found.uncertainties, given.uncertainties, equal_nan=True)
