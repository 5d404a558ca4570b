"""`Labeled`: what stages look at of annotated frames, read from it as from a pool."""

from __future__ import annotations

import pytest
import torch
from tied_frames import make_tied_pool

from cval_torch.errors import InvalidInputError
from cval_torch.selection.checks import check_apart
from cval_torch.selection.labeled import Labeled, boxes_of, contents_of, vectors_of
from cval_torch.selection.local import LocalBackend
from cval_torch.selection.stage import DetectionSampling
from cval_torch.strategies.class_gain import Contents
from cval_torch.strategies.descriptor import Descriptors, frame_descriptors


def test_a_pool_and_a_record_of_it_give_the_same() -> None:
    pool = make_tied_pool([2, 0, 1, 3])
    record = Labeled(pool.frame_ids, Descriptors.of(pool), Contents.of(pool), pool)
    assert len(record) == 4
    for known in (pool, record):
        vectors, contents = vectors_of(known), contents_of(known)
        assert vectors is not None
        assert contents is not None
        assert torch.equal(vectors[:], frame_descriptors(pool))
        assert torch.equal(contents.descriptors[:], Contents.of(pool).descriptors[:])
        assert boxes_of(known) is pool
        with pytest.raises(InvalidInputError, match="is in both"):
            check_apart([pool.frame_ids[1]], known)


def test_no_annotated_frames() -> None:
    assert vectors_of(None) is contents_of(None) is boxes_of(None) is None


@pytest.mark.parametrize("read", [vectors_of, contents_of, boxes_of])
def test_a_record_that_was_made_for_other_stages_is_refused(read: object) -> None:
    with pytest.raises(ValueError, match="made for stages that look at something else"):
        read(Labeled(["a"]))  # type: ignore[operator]


def test_contents_without_anything_to_describe_frames_by_are_refused_as_those_of_a_pool_are() -> None:
    pool = make_tied_pool([0, 0]).replace(frame_embeddings=None)
    record = Labeled(pool.frame_ids, contents=Contents.of(pool, part=True))
    for known in (pool, record):
        with pytest.raises(InvalidInputError, match="no frame has boxes"):
            contents_of(known)


def test_objects_are_not_counted_in_a_record() -> None:
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=1, class_weights="balanced")
    pool = make_tied_pool([2, 1])
    with pytest.raises(InvalidInputError, match="needs the class counts"):
        LocalBackend(labeled=Labeled(["z"])).select(pool, stage)
    assert len(LocalBackend(labeled=Labeled(["z"]), labeled_counts={0: 3}).select(pool, stage)) == 1
