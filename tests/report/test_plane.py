"""Points in a plane."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from cval_torch.errors import InvalidInputError, MissingExtraError
from cval_torch.report.plane import check_method, plane_of, principal_components


def clusters() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(3, 12, generator=generator, dtype=torch.float64)
    return (centres[:, None] + torch.randn(3, 20, 12, generator=generator, dtype=torch.float64)).reshape(60, 12)


@pytest.mark.parametrize("shape", [(60, 12), (6, 12), (5, 2), (4, 1)])
def test_principal_components_are_those_of_numpy(shape: tuple[int, int]) -> None:
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points, share = principal_components(vectors)
    centred = (vectors - vectors.mean(0)).numpy()
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = (left * values)[:, :2]
    assert points.shape == (len(vectors), 2)
    for axis in range(expected.shape[1]):
        assert np.allclose(np.abs(points[:, axis].numpy()), np.abs(expected[:, axis]), atol=1e-8)
        assert float(points[points[:, axis].abs().argmax(), axis]) >= 0
    assert share == pytest.approx((values[:2] ** 2).sum() / (values**2).sum())


def test_points_lie_in_the_unit_square_in_one_scale() -> None:
    points = plane_of(clusters(), "pca", seed=0).points
    low, high = points.amin(0), points.amax(0)
    assert float(low.min()) >= -1e-12
    assert float(high.max()) <= 1 + 1e-12
    assert float((high - low).max()) == pytest.approx(1)
    plain, _ = principal_components(clusters())
    ratio = torch.pdist(points) / torch.pdist(plain)
    assert torch.allclose(ratio, ratio[0].expand_as(ratio))


@pytest.mark.parametrize("count", [1, 3])
def test_equal_points_are_in_the_middle(count: int) -> None:
    plane = plane_of(torch.ones(count, 7), "pca", seed=0)
    assert plane.points.tolist() == [[0.5, 0.5]] * count
    assert "0% of the variance" in plane.said


def test_neighbours_stay_neighbours() -> None:
    pytest.importorskip("openTSNE")
    plane = plane_of(clusters(), "tsne", seed=3)
    distances = torch.cdist(plane.points, plane.points).fill_diagonal_(torch.inf)
    assert (distances.argmin(1) // 20).tolist() == [row // 20 for row in range(60)]
    assert "seed 3" in plane.said
    assert torch.equal(plane.points, plane_of(clusters(), "tsne", seed=3).points)
    assert len(plane_of(clusters()[:6], "tsne", seed=3).points) == 6


def test_few_points_have_principal_components_whatever_was_asked_for() -> None:
    pytest.importorskip("openTSNE")
    assert "principal components" in plane_of(clusters()[:4], "tsne", seed=0).said


def test_methods_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="`map_method` must be one of pca, tsne; got 'lda'"):
        check_method("lda")
    monkeypatch.setitem(sys.modules, "openTSNE", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cval_torch\[maps\]"'):
        check_method("tsne")
    check_method("pca")
