"""Whether a pass that was begun is the one that is asked for, and by name what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cval_torch.extraction.identity import (
    ADAPTERS,
    CODE,
    FUNCTIONS,
    LOADING,
    ONCE_UNSAID,
    SETTINGS,
    TRANSFORMS,
    UNREAD,
    WEIGHTS,
    changes,
)
from cval_torch.extraction.probing import Probe, answer_changes, around

CHANGED, ANSWERS = "what a forward pass changes", "the answers to test images"

Ask = Callable[[], Probe | None]
"""Asks the model what it answers to test images; that takes as long as two frames."""

_SHOWN = 3  # differences of a kind that are told one by one
_TITLES = {
    WEIGHTS: "the model's weights",
    SETTINGS: "the model's settings",
    ADAPTERS: "the adapter's settings",
    TRANSFORMS: "the dataset's transforms",
    LOADING: "the loader's settings",
    FUNCTIONS: "the functions' constants",
    CODE: "the functions",
}
_UNSET = (None, "None", "''")

Differences = dict[str, tuple[str | None, str | None]]
"""By name: what was, and what is now; None: it was, or is, not there."""


def with_answers(identity: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """The identity of a new pass, with what the model answers to test images, to be compared with by later runs."""
    probe = ask()
    if probe is None:
        return dict(identity)
    return {**identity, CHANGED: probe.changed, ANSWERS: probe.answers}


def pass_changes(then: Mapping[str, Any], now: Mapping[str, Any], ask: Ask, *, same_machine: bool) -> list[str]:
    """What differs between a pass that was begun and the one that is asked for, in words.

    What a forward pass changes of a model, such as a cache of anchors, is no difference. The model is asked only where
    that has to be found out, or where it holds what cannot be read.

    Args:
        then: of the pass that was begun, from `with_answers`.
        now: of this run, from `pass_identity`.
        ask: asks this run's model.
        same_machine: whether the versions of the packages are the same. Otherwise only names that both have compare:
            another version of a package gives its classes other attributes.
    """
    then = {**{name: value for name, value in ONCE_UNSAID.items() if name in now}, **then}
    kinds = [kind for kind in _TITLES if kind in then and kind in now]
    rest = {name for name in now if name not in (*_TITLES, UNREAD)}
    found = changes({name: then[name] for name in rest & then.keys()}, now)
    differing = {kind: _differences(then[kind], now[kind], both=not same_machine) for kind in kinds}
    changing = {kind: set(names) for kind, names in then.get(CHANGED, {}).items()}
    differing = _without(differing, changing)
    unread = bool(then.get(UNREAD) or now.get(UNREAD))
    if found or not (unread or any(differing.values())):
        return found + _told(differing)
    probe = ask()
    if any(differing.values()):
        if probe is not None:
            differing = _without(differing, {kind: set(names) for kind, names in probe.changed.items()})
        elif CHANGED not in then:  # it cannot be found out: what is filled later is no difference
            differing[SETTINGS] = {
                name: pair for name, pair in differing.get(SETTINGS, {}).items() if not set(pair) & set(_UNSET)
            }
    return _told(differing) or (changed_answers(then, ask) if same_machine else [])


def changed_answers(then: Mapping[str, Any], ask: Ask) -> list[str]:
    """How the answers to test images differ from those of the pass that was begun, if both are known."""
    probe = ask() if ANSWERS in then else None
    return [] if probe is None else answer_changes(then[ANSWERS], probe.answers)


def _differences(then: Mapping[str, str], now: Mapping[str, str], *, both: bool) -> Differences:
    names = then.keys() & now.keys() if both else then.keys() | now.keys()
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def _without(differing: Mapping[str, Differences], changing: Mapping[str, set[str]]) -> dict[str, Differences]:
    """Less what stands in `changing`, and less what is within such a thing."""
    return {
        kind: {
            name: pair
            for name, pair in differences.items()
            if not (changing.get(kind) and any(part in changing[kind] for part in (name, *around(name))))
        }
        for kind, differences in differing.items()
    }


def _told(differing: Mapping[str, Differences]) -> list[str]:
    """The first few differences of each kind, and how many more there are."""
    found: list[str] = []
    for kind, differences in differing.items():
        heads = [name for name in sorted(differences) if not any(part in differences for part in around(name))]
        if kind == CODE and found:  # code that came or went did so with what is told already
            heads = [name for name in heads if None not in differences[name]]
        found += [_change(kind, name, *differences[name]) for name in heads[:_SHOWN]]
        if len(heads) > _SHOWN:
            found.append(f"{len(heads) - _SHOWN} more of {_TITLES[kind]} differ")
    return found


def _change(kind: str, name: str, old: str | None, new: str | None) -> str:
    what = f"{kind}{':' if kind == WEIGHTS else ''} {name}"
    if old is None:
        return f"{what} was not there and is {new} now"
    return f"{what} was {old} and is {'gone' if new is None else new} now"
