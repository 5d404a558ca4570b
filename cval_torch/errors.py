"""Every error that this library raises on purpose, and how messages name things and reach the user.

The tree::

    CvalError
    ├── InvalidInputError (ValueError)      an argument, a column or a payload is not what was expected
    │   └── LoaderOrderError                the rows that a loader yields cannot be told
    ├── UnsupportedModelError (TypeError)   no adapter knows the model
    ├── NoSubsetError (TypeError)           frames were chosen, but their dataset cannot be indexed
    ├── HookError (RuntimeError)            a hook did not fire, or what it recorded does not fit the output
    ├── ExtractionError (RuntimeError)      the inference pass failed; carries the position
    ├── NotEnoughMemoryError (MemoryError)  what a pass keeps of its frames is not going to fit
    ├── RankError (RuntimeError)            another process of torch.distributed failed; carries its rank
    ├── MissingExtraError (ImportError)     an optional dependency is not installed
    └── ServiceError (RuntimeError)         the selection service
        ├── ServiceUnreachableError         no answer: refused, reset, timed out
        ├── DeadlineExceededError (TimeoutError)   no result before the deadline; carries the task_id
        ├── ProtocolError                   an answer that the protocol does not allow
        ├── UnsupportedByServiceError       a stage that the service does not have
        └── ResponseError                   an error status; carries it
            ├── AuthenticationError         401, 403
            ├── NotFoundError               404
            ├── RequestRejectedError        400, 406, 409, 413, 422
            ├── RateLimitedError            429
            └── ServerFaultError            5xx
"""

from __future__ import annotations

import sys
import warnings


class CvalError(Exception):
    """The root: `except CvalError` catches whatever this library raises on purpose."""

    def __reduce__(self) -> tuple[object, ...]:
        """Errors travel between processes, with their attributes, whatever their constructors ask for."""
        return _rebuilt, (type(self), self.args), self.__dict__


class InvalidInputError(CvalError, ValueError):
    """An argument, a column or a payload is not what was expected; the message names it."""


class LoaderOrderError(InvalidInputError):
    """The dataset rows that a `DataLoader` yields, and their order, cannot be told."""


class UnsupportedModelError(CvalError, TypeError):
    """No adapter knows the model; the message lists those that exist and how to pass one."""


class NoSubsetError(CvalError, TypeError):
    """Frames were chosen, but their dataset has no rows to index, so there is no `Subset`."""


class HookError(CvalError, RuntimeError):
    """A hook did not fire, or what it recorded does not fit the model's output."""


class ExtractionError(CvalError, RuntimeError):
    """The inference pass failed.

    Attributes:
        batch: zero-based number of the batch that failed.
        frames_done: frames extracted before it.
    """

    def __init__(self, message: str, *, batch: int, frames_done: int) -> None:
        super().__init__(message)
        self.batch = batch
        self.frames_done = frames_done


class NotEnoughMemoryError(CvalError, MemoryError):
    """What a pass keeps of its frames is not going to fit into memory; the message says how to keep less."""


class RankError(CvalError, RuntimeError):
    """Another process of `torch.distributed` failed, so this one could not go on.

    Attributes:
        rank: of the process that failed; None if it cannot be told which one died.
    """

    def __init__(self, message: str, *, rank: int | None) -> None:
        super().__init__(message)
        self.rank = rank


class MissingExtraError(CvalError, ImportError):
    """An optional dependency is not installed; the message is the command that installs it."""

    def __init__(self, extra: str, *, needed_for: str) -> None:
        super().__init__(f'{needed_for} needs an extra: pip install "cval_torch[{extra}]"')
        self.extra = extra


class ServiceError(CvalError, RuntimeError):
    """The selection service failed, or could not be reached."""


class ServiceUnreachableError(ServiceError):
    """The service gave no answer: the connection was refused, reset or timed out."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """The result was not there before the deadline.

    Attributes:
        task_id: the task that goes on at the service, to wait for again; None where none was made.
        stage: of a selection in stages, the number (from 0) of the stage that the task is for; None elsewhere.
    """

    def __init__(self, message: str, *, task_id: str | None = None, stage: int | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.stage = stage


class ProtocolError(ServiceError):
    """The service answered something that the protocol does not allow."""


class UnsupportedByServiceError(ServiceError):
    """A stage asks for something that the service does not have; nothing was uploaded."""


class ResponseError(ServiceError):
    """The service answered with an error status.

    Attributes:
        status: the HTTP status code.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class AuthenticationError(ResponseError):
    """401 or 403: the API key is missing, wrong, or not allowed to do this."""


class NotFoundError(ResponseError):
    """404: no such dataset, embedding or task."""


class RequestRejectedError(ResponseError):
    """400, 406, 409, 413 or 422: the service refused what was sent."""


class RateLimitedError(ResponseError):
    """429: too many requests, and the deadline leaves no time to wait as asked."""


class ServerFaultError(ResponseError):
    """5xx: the service failed."""


def _rebuilt(kind: type[CvalError], arguments: tuple[object, ...]) -> CvalError:
    builtin = OSError if issubclass(kind, OSError) else Exception  # `TimeoutError` is an `OSError`, made by it alone
    error: CvalError = builtin.__new__(kind, *arguments)
    error.args = arguments
    return error


def callable_name(function: object) -> str:
    """What to call a user's callable in a message: its own name, or that of its class.

    >>> callable_name(len)
    'len'
    """
    name: str = getattr(function, "__qualname__", None) or type(function).__qualname__
    return name


def dotted_name(value: object) -> str:
    """Where a function or class is defined, or the class of any other object: what a record of a run keeps of it.

    >>> dotted_name(0)
    'builtins.int'
    """
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def warn_user(message: str) -> None:
    """Warn at the line of the user's own code from which this library was called, however deep the call was."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_own(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _is_own(module: str) -> bool:
    """Whether a frame of this module stands between the user and a warning: one of ours, or of a `with` of ours."""
    return module.partition(".")[0] in (__name__.partition(".")[0], "contextlib")
