"""A round logger that keeps what it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


class Notes:
    """All calls as (method, name, content, step)."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any, int]] = []

    def of(self, method: str) -> list[Any]:
        return [content for called, _, content, _ in self.calls if called == method]

    def steps(self, method: str) -> list[int]:
        return [step for called, _, _, step in self.calls if called == method]

    def scalars(self, values: Mapping[str, float], *, step: int) -> None:
        self.calls.append(("scalars", "", dict(values), step))

    def histogram(self, name: str, values: Tensor, *, step: int) -> None:
        self.calls.append(("histogram", name, values.tolist(), step))

    def image(self, name: str, path: Path, *, step: int) -> None:
        self.calls.append(("image", name, path.read_bytes(), step))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, step: int) -> None:
        self.calls.append(("table", name, [tuple(columns), *(tuple(row) for row in rows)], step))

    def file(self, name: str, path: Path, *, step: int) -> None:
        self.calls.append(("file", name, (path.name, path.read_text()), step))


class Broken(Notes):
    """Fails at one method."""

    def __init__(self, at: str, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = OSError("the disk is full") if error is None else error
        setattr(self, at, self._fail)

    def _fail(self, *_: Any, **__: Any) -> None:
        raise self.error
