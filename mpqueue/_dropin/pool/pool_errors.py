"""What the pool raises: what `multiprocessing.pool.Pool` would, at the same moments."""

from __future__ import annotations

from multiprocessing import pool
from typing import Any

from mpqueue._core.state.item_table import Failure
from mpqueue.errors import (
    HandlerPicklingError,
    ItemPicklingError,
    RemoteError,
    ResultPicklingError,
)

#: Two that the standard library's types don't tell of.
_standard: Any = pool


class _Told(str):
    """A text that is its own repr: `MaybeEncodingError` takes the reprs of objects that only the worker had."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def error_of(failure: Failure) -> BaseException:
    """What a call that failed for good raises, with the worker's traceback as its cause."""
    error, own = failure.error, failure.own
    if isinstance(own, ItemPicklingError) and own.__cause__ is not None:
        return _own_error(own, own.__cause__)
    if isinstance(own, ResultPicklingError):
        made: BaseException = _standard.MaybeEncodingError(_Told(own.reason or own), _Told(own.value or "(not known)"))
    elif isinstance(own, RemoteError) and "builtins.Exception" in own.bases:
        made = _standard.MaybeEncodingError(_Told("the exception can't be pickled"), _Told(own))
    else:
        made = error
    if failure.traceback is not None:
        made.__cause__ = _standard.RemoteTraceback(f'\n"""\n{failure.traceback}"""')
    elif made is not error:
        made.__cause__ = error
    return made


def own_error(error: HandlerPicklingError) -> BaseException:
    """The error that stood in the way of pickling a function or an initializer, with a note that names the culprit."""
    return error if error.__cause__ is None else _own_error(error, error.__cause__)


def _own_error(error: Exception, cause: BaseException) -> BaseException:
    note = f"mpqueue: {error}"
    if note not in getattr(cause, "__notes__", ()):
        cause.add_note(note)
    return cause
