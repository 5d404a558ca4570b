"""Batches as loaders yield them, taken apart into images and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any

from torch import Tensor

from cval_torch.errors import InvalidInputError
from cval_torch.hooks.base import BatchParts, DetectorAdapter, SplitsBatches
from cval_torch.hooks.finite import is_finite
from cval_torch.pool.targets import CollatedTarget

_IMAGE_KEYS = ("images", "image")


def split_batch(batch: Any, *, single: bool = False) -> BatchParts:
    """Take a loader's batch apart into images and targets.

    Args:
        batch: a tensor (N, C, H, W); a list of N tensors (C, H, W); a tuple or list that begins with one of these
            and goes on with the targets; or a dict with `images` or `image`, and perhaps `targets`.
        single: `batch` is one sample instead: an image (C, H, W), alone or first in a tuple.

    Raises:
        InvalidInputError: it is none of these.
    """
    if single:
        image, *rest = batch if isinstance(batch, (tuple, list)) and batch else (batch,)
        if isinstance(image, Tensor) and image.ndim == 3:
            if rest and _is_images(batch):
                raise InvalidInputError(
                    f"{_describe(batch)} may be {len(batch)} images or an image and what belongs to it; "
                    "pass `split=` to say which"
                )
            return BatchParts([image], 1, targets=rest[:1] or None)
    if isinstance(batch, Mapping):
        for key in _IMAGE_KEYS:
            if key in batch and _is_images(batch[key]):
                images = list(batch[key])
                return BatchParts(images, len(images), _targets_of(batch.get("targets", batch), len(images)))
    elif _is_images(batch):
        return BatchParts(list(batch), len(batch))
    elif isinstance(batch, (tuple, list)) and batch and _is_images(batch[0]):
        images = list(batch[0])
        return BatchParts(images, len(images), _targets_of(batch[1] if len(batch) > 1 else None, len(images)))
    raise InvalidInputError(
        "a batch must be images, (images, targets, ...) or a dict with `images`, where images are a tensor "
        f"(N, C, H, W) or a list of tensors (C, H, W); got {_describe(batch)}. Pass `split=` to take your own apart"
    )


def _is_images(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 4
    if not isinstance(value, (list, tuple)):
        return False
    return len(value) > 0 and all(isinstance(image, Tensor) and image.ndim == 3 for image in value)


def _targets_of(targets: Any, count: int) -> list[Any] | None:
    """One target a frame; a dict of collated columns gives back its `image_id` column."""
    if isinstance(targets, Mapping):
        column = targets.get("image_id")
        if column is None or not isinstance(column, Sized) or len(column) != count:
            return None
        return [CollatedTarget(image_id=value) for value in column]  # type: ignore[attr-defined]
    if isinstance(targets, (list, tuple)) and len(targets) == count:
        return list(targets)
    return None


def _describe(batch: Any) -> str:
    if isinstance(batch, Tensor):
        return f"a tensor {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return f"a dict with {sorted(map(str, batch))}"
    if isinstance(batch, (list, tuple)):
        return f"a {type(batch).__name__} of {', '.join(_describe(part) for part in batch[:3]) or 'nothing'}"
    return type(batch).__name__


Split = Callable[[Any], BatchParts]
"""`batch of the loader -> BatchParts`, for loaders whose batches are of a kind of their own."""


def parts_of(
    data: Any, adapter: DetectorAdapter, split: Split | None, *, single: bool, largest: int | None = None
) -> BatchParts:
    """A batch of the loader taken apart: by `split` if there is one, else in the adapter's own way or the ordinary one.

    Args:
        data: as the loader gave it.
        adapter: asked first, if it has a `split`.
        split: the user's own, which nobody else is asked before.
        single: see `split_batch`.
        largest: the most frames that a batch of this loader has; None: not known.

    Raises:
        InvalidInputError: it is no batch that is known, or may be read in two ways.
    """
    if split is not None:
        return split(data)
    parts = adapter.split(data) if isinstance(adapter, SplitsBatches) else None
    if parts is None:
        if not single:
            _check_not_samples(data, largest)
        parts = split_batch(data, single=single)
    return parts


def _check_not_samples(batch: Any, largest: int | None) -> None:
    """Refuse a list of samples of several images each where it looks like a list of images and what belongs to them."""
    if not isinstance(batch, (list, tuple)) or len(batch) < 2:
        return
    lengths = {len(part) if isinstance(part, (list, tuple)) and _is_images(part) else 0 for part in batch}
    # As columns, the lists would be as long as the batch is large; as samples, there are as many as it is large.
    if len(lengths) == 1 and (lengths == {len(batch)} == {largest} or (largest is None and min(lengths) > 1)):
        raise InvalidInputError(
            f"{_describe(batch)} may be {len(batch)} samples of {max(lengths)} images each, or {max(lengths)} images "
            "and what belongs to them; pass `split=` to say which"
        )


def broken_images(images: Any, count: int) -> list[int]:
    """The positions of the images that have NaN or inf.

    Args:
        images: `BatchParts.images`: N images; or a dict with tensors, of which those of four axes and N rows are looked
            at.
        count: N.
    """
    if isinstance(images, Mapping):
        columns = [value for value in images.values() if isinstance(value, Tensor) and value.ndim == 4]
        return [place for place in range(count) if not all(is_finite(v[place]) for v in columns if len(v) == count)]
    return [place for place, image in enumerate(images) if isinstance(image, Tensor) and not is_finite(image)]
