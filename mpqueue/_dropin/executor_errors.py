"""The errors of the executor's futures, of the kinds that `concurrent.futures.ProcessPoolExecutor` raises.

The executor never breaks. But programs for one that can break use ``except BrokenProcessPool`` for a worker that dies,
so these errors are of that kind too.
"""

from __future__ import annotations

import pickle
from concurrent.futures.process import BrokenProcessPool, _RemoteTraceback
from typing import Any

from mpqueue._core.state.item_table import Failure
from mpqueue.errors import (
    ItemPicklingError,
    RemoteError,
    RemoteTraceback,
    ResultPicklingError,
    SetupError,
    WorkerCrashedError,
    WorkerStartError,
)


class ExecutorCrashedError(WorkerCrashedError, BrokenProcessPool):
    """The worker died while it ran the call. The executor and other calls are not affected."""


class ExecutorSetupError(SetupError, BrokenProcessPool):
    """The initializer failed in every worker; ``__cause__`` is its last error."""


class ExecutorStartError(WorkerStartError, BrokenProcessPool):
    """No worker could be started for 30 s; ``__cause__`` is the last reason."""


class ExecutorResultError(ResultPicklingError, pickle.PicklingError):
    """The call's result can't be pickled in the worker."""


class ExecutorUnpicklingError(ResultPicklingError, BrokenProcessPool):
    """The call's result can't be unpickled here; ``__cause__`` is the reason."""


def error_of(failure: Failure) -> BaseException:
    """Return the error that a failed call's future raises, with the worker's traceback as its cause."""
    error = failure.error
    made = error if failure.own is None else _kin(failure.own)
    cause = error.__cause__ if made.__cause__ is None else made.__cause__
    if isinstance(cause, RemoteTraceback):
        cause = _traceback(cause.text)
    made.__cause__ = cause
    return made


def _kin(error: BaseException) -> BaseException:
    match error:
        case WorkerCrashedError():
            return ExecutorCrashedError(str(error), error.exitcode, error.signal, error.pid)
        case SetupError():
            return ExecutorSetupError(str(error))
        case WorkerStartError():
            return ExecutorStartError(str(error))
        case ItemPicklingError() if error.__cause__ is not None:
            note = f"the call's function or arguments can't be pickled; it was not made ({error})"
            error.__cause__.add_note(f"mpqueue: {note}")
            return error.__cause__
        case ResultPicklingError():
            there = isinstance(error.__cause__, RemoteTraceback)
            return (ExecutorResultError if there else ExecutorUnpicklingError)(str(error))
        case RemoteError() if error._itself is not None:  # a SystemExit, CancelledError or the like
            return error._itself
        case _:
            return error


def _traceback(text: str) -> BaseException:
    """The type that the standard library uses: some programs look at its ``tb``."""
    made: type[Any] = _RemoteTraceback
    remote: BaseException = made(f'\n"""\n{text}"""')
    return remote
