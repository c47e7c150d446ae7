"""Every error of mpqueue, in one tree.

Owns the names only: nothing here imports the rest of the package except the showing of values, so that workers can
raise and unpickle these errors without loading the parent's half.

Three kinds, by cause: *refused* (the call was wrong: raised in the caller's frame, before anything is queued), *failed*
(one item: it is in ``item.exception``), *broken* (a worker, a disk). A fourth should never occur: `InternalError`, a
mistake in mpqueue itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from mpqueue._text import shown as shown  # noqa: PLC0414 - for all that raise

if TYPE_CHECKING:
    from mpqueue._queue.job_items import JobItem

__all__ = [
    "GiveUp",
    "HandlerPicklingError",
    "InternalError",
    "ItemCancelledError",
    "ItemError",
    "ItemPicklingError",
    "ItemTimeoutError",
    "JobExistsError",
    "JobFullError",
    "JobNotFoundError",
    "JobStateError",
    "JournalError",
    "JournalMismatchError",
    "MPQueueError",
    "MemoryLimitError",
    "PicklingError",
    "QueueClosedError",
    "RemoteError",
    "ResultPicklingError",
    "Retry",
    "SetupError",
    "SinkError",
    "StageError",
    "TooManyFailuresError",
    "WorkerCrashedError",
    "WorkerStartError",
]


class MPQueueError(Exception):
    """Base of every error that mpqueue raises on its own account.

    A handler's own exception reaches the caller as itself and is not one of these.
    """

    #: Not pickled: it shows this process's data; `run` adds ``job`` to the errors that it raises.
    _STAYS: ClassVar[frozenset[str]] = frozenset({"job"})

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {name: value for name, value in vars(self).items() if name not in self._STAYS}

    def __copy__(self) -> Self:
        make, arguments, *_ = self.__reduce__()
        copied: Self = make(*arguments)
        vars(copied).update(vars(self))
        return copied


class JobNotFoundError(MPQueueError, KeyError):
    """The queue has no job of that id."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0]) if self.args else ""


class JobExistsError(MPQueueError, ValueError):
    """The queue has a job of that id already; `clear_job` removes it once it has ended."""


class JobStateError(MPQueueError):
    """The call is not allowed in the job's state; nothing was changed."""


class QueueClosedError(MPQueueError):
    """The queue was closed, belongs to another process (a fork), or the program is ending.

    Jobs and their results stay readable.
    """


class ItemError(MPQueueError):
    """One item that failed for good: ``item`` is its `JobItem`, ``__cause__`` the failure itself.

    Pickling it (to leave a worker or a process pool, say) loses both: ``item`` is then None.
    """

    _STAYS = frozenset({"job", "item"})

    def __init__(self, message: str, item: Any = None) -> None:
        super().__init__(message)
        self.item: JobItem[Any, Any] | Any = item  #: seldom None; its type spares programs the check


class PicklingError(MPQueueError, TypeError):
    """Base of errors about objects that can't be sent between processes. Never retried: another try would fail too."""


class HandlerPicklingError(PicklingError):
    """The handler, or its ``setup``, can't be serialized. Raised by `create_job`; names the variable at fault."""


class ItemPicklingError(PicklingError):
    """An item can't be pickled. Its handler was not called."""


class ResultPicklingError(PicklingError):
    """A handler's result can't be pickled in the worker, or unpickled here.

    ``value`` is the result's repr, if it is known, ``reason`` the error of pickling it, both as text.
    """

    def __init__(self, message: str, value: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.value = value
        self.reason = reason


class JobFullError(MPQueueError):
    """The job has ``max_waiting`` items that wait already. No item was added."""


class TooManyFailuresError(MPQueueError):
    """More items failed than ``max_failures`` allows, so the rest did not run; ``__cause__`` is the first failure."""


class StageError(MPQueueError):
    """An item failed in a stage of `run_stages`: ``stage`` is its name, ``__cause__`` the failure itself."""

    def __init__(self, message: str, stage: str = "") -> None:
        super().__init__(message)
        self.stage = stage


class ItemCancelledError(MPQueueError):
    """The item was cancelled on its own, before or while it ran."""


class SetupError(MPQueueError):
    """``setup``, or loading the handler, failed in every worker; ``__cause__`` is the real error."""


class ItemTimeoutError(MPQueueError, TimeoutError):
    """A try ran longer than its ``timeout``; its worker was killed.

    ``stack`` is where it hung, as text, if the worker could report it.
    """

    def __init__(self, message: str, stack: str | None = None) -> None:
        super().__init__(message)
        self.stack = stack


class WorkerCrashedError(MPQueueError):
    """The worker process died while it ran the item.

    ``exitcode`` is the process's exit code (negative: minus the signal's number), ``signal`` the signal's name; both
    are None if the system does not report them.
    """

    def __init__(
        self,
        message: str,
        exitcode: int | None = None,
        signal: str | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message)
        self.exitcode = exitcode
        self.signal = signal
        self.pid = pid


class WorkerStartError(MPQueueError):
    """No worker could be started for 30 s; ``__cause__`` is the last reason, if there was one.

    The items are not at fault: the job is cancelled, its run raises this error, and items that have not ended are
    pending.
    """


class MemoryLimitError(MPQueueError, MemoryError):
    """The item used more memory than ``per_worker={"memory": ...}`` allows; its worker was killed."""


class SinkError(MPQueueError):
    """A job's results can't be written into its sink; ``__cause__`` is the reason. The job was stopped.

    The message says what has been kept. Waiting for the job's run raises it.
    """


class JournalError(MPQueueError):
    """The journal can't be read or written. Its contents are left as they were."""


class JournalMismatchError(JournalError, JobExistsError):
    """The journal has a job of that id with other items; with ``strict``, also if its items or code have changed."""


class InternalError(MPQueueError):
    """mpqueue itself made a mistake; please report it, with ``traceback``. The queue and all its jobs have ended.

    Their runs raise it, and so do all calls of the queue but `close`. Items that had not ended lose no attempt. A
    journal does not record it: the next run goes on. ``traceback`` is the traceback as text.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback
        if traceback:
            self.add_note(f"the mistake, in mpqueue:\n{traceback.rstrip()}")


class RemoteError(MPQueueError):
    """Stands in for a handler's exception that can't be sent as itself, and for a `BaseException`.

    ``type_name`` is the qualified name of the original type, ``message`` its text, ``traceback`` the worker's
    traceback as text. ``bases`` are the qualified names of all its base classes, nearest first: retry filters look
    at the original type through them.
    """

    _STAYS = frozenset({"job", "_itself"})

    def __init__(self, type_name: str, message: str, traceback: str, bases: tuple[str, ...] = ()) -> None:
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback
        self.bases = bases
        self._itself: BaseException | None = None  #: no `Exception`, if it could be sent; not pickled

    def __reduce__(self) -> tuple[Any, ...]:
        make, _, state = super().__reduce__()
        return make, (self.type_name, self.message, self.traceback, self.bases), state


def type_name_of(error: BaseException) -> str:
    """The name of the error's type, without its module; for a stand-in, the name of the original type."""
    return error.type_name.rpartition(".")[2] if isinstance(error, RemoteError) else type(error).__name__


def text_of(error: BaseException) -> str:
    """The error's text, without its type's name."""
    return error.message if isinstance(error, RemoteError) else str(error)


def typed(type_name: str, text: str) -> str:
    """``KeyError: 'height'``: an error's type, with its ``text`` if that differs from the type's name."""
    return type_name if text in ("", type_name) else f"{type_name}: {text}"


class RemoteTraceback(Exception):
    """The worker's traceback as text: the ``__cause__`` of a handler's exception."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n\nin the worker:\n{self.text}"


class Retry(Exception):
    """Raised by a handler: try this item again after ``delay`` seconds (None: as the policy says). The try counts."""

    def __init__(self, message: str = "the handler asked for another try", *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else float(delay)


class GiveUp(Exception):
    """Raised by a handler: this item has failed for good, even if tries are left."""
