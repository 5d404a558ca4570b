"""How ids, names and numbers read on a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cval_torch.errors import InvalidInputError


def visible(text: str) -> str:
    r"""The text with every character that cannot be seen, or that moves others, written as an escape.

    >>> visible("a\x00b\u202ec")
    'a\\x00b\\u202ec'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def isolated(text: str) -> str:
    """The text between marks that keep its direction from turning the words around it. It has to be visible."""
    return f"\u2068{text}\u2069"


def shortened(text: str, longest: int) -> str:
    """At most so many characters: the middle is cut out, because ids differ at their ends.

    >>> shortened("frames/scene/000123.jpg", 12)
    'frames…3.jpg'
    """
    if len(text) <= longest:
        return text
    kept = longest - 1
    return text[: kept - kept // 2] + "…" + text[len(text) - kept // 2 :]


class ClassNames:
    """Names of classes by label, fit to be shown; `class 7` where none was given.

    Args:
        given: names by label, or one a label from 0; None: there are none.

    Raises:
        InvalidInputError: they are something else.
    """

    def __init__(self, given: Mapping[int, str] | Sequence[str] | None) -> None:
        if isinstance(given, (str, bytes)) or not isinstance(given, (Mapping, Sequence, type(None))):
            raise InvalidInputError(
                f"`class_names` must be a dict of label to name, or names in the order of labels; got {given!r}"
            )
        named = given if isinstance(given, Mapping) else dict(enumerate(given or ()))
        self._names = {int(label): visible(str(name)) for label, name in named.items()}

    def __call__(self, label: int) -> str:
        """The name of one class."""
        return self._names.get(label) or f"class {label}"

    def short(self, label: int) -> str:
        """At most 24 characters of the name."""
        return shortened(self(label), 24)


def decimal(value: float | None, digits: int = 3) -> str:
    r"""A number as it reads; a dash for none and for NaN.

    >>> decimal(0.12345), decimal(1234.5, 1), decimal(None) == "\N{EN DASH}"
    ('0.123', '1,234.5', True)
    """
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    return f"{value:,.{digits}f}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number and what it counts.

    >>> counted(1, "box", "boxes"), counted(1200, "frame")
    ('1 box', '1,200 frames')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def ordinal(number: int) -> str:
    """A place in an order.

    >>> [ordinal(number) for number in (1, 2, 3, 4, 11, 112, 1021)]
    ['1st', '2nd', '3rd', '4th', '11th', '112th', '1,021st']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
