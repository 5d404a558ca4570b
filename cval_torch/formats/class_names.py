"""Names of classes and their numbers: formats have the one, the other, or both."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence

from cval_torch.errors import InvalidInputError

ClassNames = Mapping[int, str] | Sequence[str]
"""Names by label, or a list of names whose positions are the labels."""


def as_names(class_names: ClassNames | None) -> dict[int, str]:
    """Names by label.

    Raises:
        InvalidInputError: a label that is no integer, a name that is no text or empty, or one name for two labels.
    """
    if class_names is None:
        return {}
    if isinstance(class_names, str) or not isinstance(class_names, (Mapping, Sequence)):
        raise InvalidInputError(f"`class_names` must be names by label, or a list of names; got {class_names!r}")
    names = dict(class_names) if isinstance(class_names, Mapping) else dict(enumerate(class_names))
    label_of: dict[str, int] = {}
    for label, name in names.items():
        if isinstance(label, bool) or not isinstance(label, int) or not isinstance(name, str) or not name.strip():
            raise InvalidInputError(f"`class_names` must map integers to names; got {label!r}: {name!r}")
        if label_of.setdefault(name, label) != label:
            raise InvalidInputError(f"`class_names` gives the name {name!r} to {label_of[name]} and to {label}")
    return names


def names_for(labels: Iterable[int], class_names: ClassNames | None) -> dict[int, str]:
    """The names to write: all that are given, or, with none given, the numbers of the labels that occur.

    Raises:
        InvalidInputError: names are given, but not for one of the labels.
    """
    occurring = sorted(set(labels))
    if class_names is None:
        return {label: str(label) for label in occurring}
    names = as_names(class_names)
    for label in occurring:
        if label not in names:
            raise InvalidInputError(
                f"`class_names` must name every label that is written; label {label} has no name among those of "
                f"{', '.join(map(str, list(names)[:20])) or 'no labels'}"
            )
    return names


def renumbered(
    found: Mapping[int, str] | Iterable[str], class_names: ClassNames | None, source: str
) -> tuple[dict[int, str], dict[str, int]]:
    """The names of the classes by label, and the labels by name, of a file that was read.

    Args:
        found: what the file says: names by number, or names alone.
        class_names: the user's names. Given, they alone decide: a class of the file is the one of the same name.
        source: what to call the file in messages.

    Returns:
        Without `class_names`, the file's own numbers; where it has none, the names in alphabetical order, from 1, as
        torchvision's detectors count (0 is the background).

    Raises:
        InvalidInputError: a class of the file that `class_names` has not; one name for two numbers.
    """
    if class_names is None:
        names = dict(found) if isinstance(found, Mapping) else dict(enumerate(sorted(set(found)), start=1))
    else:
        names = as_names(class_names)
    label_of: dict[str, int] = {}
    for label, name in names.items():
        if label_of.setdefault(name, label) != label:
            raise InvalidInputError(f"{source} gives the name {name!r} to the classes {label_of[name]} and {label}")
    for name in found.values() if isinstance(found, Mapping) else found:
        if name not in label_of:
            close = difflib.get_close_matches(name, label_of, n=1, cutoff=0.6)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise InvalidInputError(
                f"{source} has the class {name!r}, which is not among `class_names`: "
                f"{', '.join(map(repr, list(label_of)[:20]))}.{hint} Add it there, or leave `class_names` out"
            )
    return names, label_of
