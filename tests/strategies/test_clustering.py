"""`clustering` by hand, and the turns of clusters against a loop."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import blobs

from cval_torch.strategies.clustering import clustering, rows_by_turns


class TestClustering:
    def test_the_frame_nearest_to_each_centre_largest_cluster_first(self) -> None:
        points, truth = blobs([10, 40, 20])
        rows = clustering(points, 3, seed=0)
        assert truth[rows].tolist() == [1, 2, 0]
        for row in rows.tolist():
            members = (truth == truth[row]).nonzero().squeeze(1)
            middle = points[members].mean(0)
            assert row == members[(points[members] - middle).square().sum(1).argmin()].item()

    def test_fewer_clusters_take_turns(self) -> None:
        points, truth = blobs([10, 40, 2])
        assert truth[clustering(points, 8, seed=0, num_of_clusters=3)].tolist() == [1, 0, 2, 1, 0, 2, 1, 0]

    def test_more_clusters_than_frames_asked_for(self) -> None:
        points, truth = blobs([10, 40, 20])
        assert truth[clustering(points, 2, seed=0, num_of_clusters=3)].tolist() == [1, 2]

    @pytest.mark.parametrize("n", [1, 3, 4, 9, 30])
    def test_fewer_distinct_points_than_frames_asked_for(self, n: int) -> None:
        points = torch.eye(3).repeat(10, 1)
        rows = clustering(points, n, seed=0)
        assert len(set(rows.tolist())) == n
        assert len(points[rows].unique(dim=0)) == min(n, 3), "copies come last"

    def test_what_is_labeled_is_left_for_last(self) -> None:
        points, truth = blobs([40, 20, 10])
        labeled = torch.eye(8)[:1] * 3 + 0.01
        assert truth[clustering(points, 2, seed=0, labeled=labeled)].tolist() == [1, 2]
        rows = clustering(points, 70, seed=0, labeled=labeled, num_of_clusters=2)
        assert sorted(rows.tolist()) == list(range(70))
        assert set(truth[rows[30:]].tolist()) == {0}

    def test_nothing_labeled_yet(self) -> None:
        points, _ = blobs([40, 20, 10])
        plain = clustering(points, 4, seed=0)
        assert torch.equal(plain, clustering(points, 4, seed=0, labeled=points[:0]))


@given(data=st.data(), rows=st.integers(1, 15))
@settings(max_examples=100, deadline=None)
def test_turns_against_a_loop(data: st.DataObject, rows: int) -> None:
    labels = data.draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows))
    order = data.draw(st.permutations(range(rows)))
    last = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    n = data.draw(st.integers(1, rows))
    queues = [[row for row in order if labels[row] == label] for label in set(labels)]
    queues.sort(key=lambda queue: (-len(queue), queue[0]))
    turns = [queue[turn] for turn in range(rows) for queue in queues if turn < len(queue)]
    expected = [row for row in turns if not last[row]] + [row for row in turns if last[row]]
    got = rows_by_turns(torch.tensor(labels), torch.tensor(order), n, last=torch.tensor(last))
    assert got.tolist() == expected[:n]
