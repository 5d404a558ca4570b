"""The silhouette against scikit-learn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from points import noise
from sklearn.metrics import silhouette_score as sklearn_silhouette

from cval_torch.strategies.silhouette import candidate_counts, silhouette_score


class TestSilhouette:
    @given(seed=st.integers(0, 1000), k=st.integers(2, 6))
    @settings(max_examples=20, deadline=None)
    def test_is_that_of_scikit_learn(self, seed: int, k: int) -> None:
        points = noise(40, 3, seed).double()
        labels = torch.cat(
            [torch.arange(k), torch.randint(0, k, (39 - k,), generator=torch.Generator().manual_seed(seed))]
        )
        labels = torch.cat([labels, torch.tensor([k + 3])])  # one alone, and a gap among the labels
        got = silhouette_score(torch.cdist(points, points), labels)
        assert got == pytest.approx(sklearn_silhouette(points.numpy(), labels.numpy()), abs=1e-9)

    def test_copies_apart_are_perfect(self) -> None:
        points = torch.eye(2).repeat(3, 1).double()
        assert silhouette_score(torch.cdist(points, points), torch.tensor([0, 1] * 3)) == 1

    @pytest.mark.parametrize(("most", "expected"), [(0, []), (1, []), (2, [2]), (5, [2, 3, 4, 5])])
    def test_candidates(self, most: int, expected: list[int]) -> None:
        assert candidate_counts(most) == expected
