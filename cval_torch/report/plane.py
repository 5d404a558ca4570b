"""Many-dimensional points in a plane, to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cval_torch.errors import InvalidInputError, MissingExtraError

MapMethod = Literal["pca", "tsne"]


@dataclass(frozen=True)
class Plane:
    """Points in the unit square.

    Attributes:
        points: (N, 2) float64 in [0, 1], in one scale for both axes.
        said: how they came there, in a sentence.
    """

    points: Tensor
    said: str


def check_method(method: str) -> None:
    """Raise an `InvalidInputError` for an unknown method, and a `MissingExtraError` where its package is missing."""
    if method not in get_args(MapMethod):
        raise InvalidInputError(f"`map_method` must be one of {', '.join(get_args(MapMethod))}; got {method!r}")
    try:
        if method == "tsne":
            import openTSNE  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError("maps", needed_for=f"map_method={method!r}") from error


def plane_of(vectors: Tensor, method: MapMethod, *, seed: int) -> Plane:
    """Lay out (N, D) points in a plane.

    Args:
        vectors: finite; N at least 1.
        method: `pca`: principal components, by torch. `tsne`: t-SNE, by openTSNE; of fewer than 5 points the principal
            components are taken.
        seed: of `tsne`.

    Raises:
        MissingExtraError: the package of the method is not installed.
    """
    check_method(method)
    if method == "pca" or len(vectors) < 5:
        points, share = principal_components(vectors)
        return Plane(_in_unit_square(points), f"The first two principal components, {share:.0%} of the variance.")
    from openTSNE import TSNE  # noqa: PLC0415

    perplexity = max(min(30, (len(vectors) - 1) // 3), 1)
    laid: Any = TSNE(perplexity=perplexity, random_state=seed, n_jobs=1).fit(vectors.numpy())
    said = f"t-SNE with perplexity {perplexity} and seed {seed}. Distances between groups mean little."
    return Plane(_in_unit_square(torch.as_tensor(laid, dtype=torch.float64)), said)


def principal_components(vectors: Tensor) -> tuple[Tensor, float]:
    """(N, 2) float64, the first two principal components of (N, D) points, and their share of the variance in [0, 1].

    The sign of each is such that its largest coordinate is positive. Missing components are 0.
    """
    centred = vectors.double() - vectors.double().mean(0)
    wide = centred.shape[1] > centred.shape[0]
    values, axes = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    values, axes = values.flip(0)[:2].clamp_min(0), axes.flip(1)[:, :2]
    points = axes * values.sqrt() if wide else centred @ axes
    if points.shape[1] < 2:
        points = torch.cat([points, points.new_zeros(len(points), 2 - points.shape[1])], 1)
    largest = points.gather(0, points.abs().argmax(0, keepdim=True))
    points = points * torch.where(largest < 0, -1.0, 1.0)
    total = float((centred * centred).sum())
    return points, min(float(values.sum()) / total, 1.0) if total > 0 else 0.0


def _in_unit_square(points: Tensor) -> Tensor:
    low, high = points.amin(0), points.amax(0)
    span = float((high - low).max())
    if span <= 0:
        return torch.full_like(points, 0.5)
    return 0.5 + (points - (low + high) / 2) / span
