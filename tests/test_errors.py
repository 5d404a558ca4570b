"""The error tree survives a trip between processes, and warnings point at the user's own line."""

from __future__ import annotations

import functools
import inspect
import pickle
import warnings
from pathlib import Path

import pytest
import torch

from cval_torch import DetectionSampling, LocalBackend, Pool, choose_frames, errors, score_frames
from cval_torch.errors import CvalError, InvalidInputError, callable_name, dotted_name, warn_user

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, CvalError)]


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in KINDS if kind.__name__ not in drawn] == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_travels_with_its_attributes(kind: type[CvalError]) -> None:
    given = {"batch": 3, "frames_done": 96, "rank": 1, "task_id": "abc", "stage": 0, "status": 503, "needed_for": "x"}
    own = {name: given[name] for name in inspect.signature(kind.__init__).parameters if name in given}
    error = kind("what went wrong", **own)
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert back.args == error.args
    assert "what went wrong" in str(back)
    assert back.__dict__ == error.__dict__
    for name in own.keys() - {"needed_for"}:
        assert getattr(back, name) == own[name]


def test_what_callables_are_called() -> None:
    def inner() -> None:
        """Nothing."""

    assert callable_name(inner).endswith("test_what_callables_are_called.<locals>.inner")
    assert callable_name(functools.partial(inner)) == "partial"
    assert dotted_name(functools.partial) == dotted_name(functools.partial(inner)) == "functools.partial"


def test_a_warning_points_at_the_line_that_called_the_library() -> None:
    pool = Pool(["a", "b"], torch.arange(3), scores=torch.tensor([0.4, 0.7]))
    stage = DetectionSampling(selection_strategy="entropy", num_of_samples=5)
    scored = score_frames(pool, stage)
    calls = [lambda: LocalBackend().select(pool, stage), lambda: choose_frames(scored, stage)]
    for call in calls:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call()
        (warning,) = caught
        assert warning.filename == __file__
        assert "lambda" in Path(__file__).read_text().splitlines()[warning.lineno - 1]


def test_called_from_here_it_is_this_line() -> None:
    with pytest.warns(UserWarning, match="careful") as caught:
        warn_user("careful")
    assert Path(caught[0].filename).name == "test_errors.py"


def test_an_input_error_is_a_value_error() -> None:
    assert issubclass(InvalidInputError, ValueError)
