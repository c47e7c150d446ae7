"""How a queue ends: `close`, leaving a ``with`` block, and what both promise."""

from __future__ import annotations

import concurrent.futures
import threading
from types import TracebackType
from typing import Self

from mpqueue._parent.machinery import Engine
from mpqueue._queue.mailbox import Bell
from mpqueue._queue.run import JobRun


class Closable:
    """The closing half of `JobQueue`, which sets these attributes."""

    _engine: Engine
    _runs: dict[int, list[JobRun]]  #: the unresolved ones of each job, in the order they were started
    _closed: bool
    _closer: threading.Thread | None

    def _check_open(self, what: str) -> None:
        raise NotImplementedError

    def _close_pages(self) -> None:
        raise NotImplementedError

    def close(self, *, wait: bool = True, kill: bool = False) -> None:
        """End the queue. Afterwards its calls raise `QueueClosedError`; jobs and their results stay readable.

        Started jobs are waited for, also their retries; paused ones are cancelled; pending ones stay pending. With
        ``wait=False`` running jobs are cancelled, and what runs ends in the background. With ``kill`` running items
        are ended at once, and listeners are not waited for. From a listener it acts as ``wait=False``. A second call
        does nothing, but ``close(kill=True)`` cuts a close short that still waits. Raises `JournalError` where the end
        was waited for, and not all of it could be written into the journal.
        """
        self._engine.check_process()
        self._closed = True
        here = self._engine.listeners.is_here
        if kill and not here:
            for runs in list(self._runs.values()):
                for run in runs:
                    run.end_bar()
            self._engine.shutdown(kill=True)
            self._close_pages()
            return
        self._engine.close_jobs(cancel=here or not wait)
        if wait and not here:
            self._finish_closing(kill=False)
            self._engine.check_written()
        elif self._closer is None:
            self._closer = threading.Thread(
                target=self._finish_closing, args=(kill,), name="mpqueue-closer", daemon=True
            )
            self._closer.start()

    def _finish_closing(self, kill: bool) -> None:
        if not kill:
            concurrent.futures.wait([run for runs in list(self._runs.values()) for run in runs])
        self._engine.shutdown(kill=kill, wait_for_listeners=not kill)
        self._close_pages()

    def __enter__(self) -> Self:
        self._check_open("enter a queue")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.close(kill=True)
            return
        try:
            self.close()
        except BaseException:
            self.close(kill=True)
            raise

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closed: concurrent.futures.Future[None] = concurrent.futures.Future()
        alarm = Bell()

        def close() -> None:
            try:
                self.__exit__(kind, error, trace)
                closed.set_result(None)
            except BaseException as failure:  # noqa: BLE001 - raised by whoever leaves the block
                closed.set_exception(failure)
            finally:
                alarm.ring()

        closer = threading.Thread(target=close, name="mpqueue-closer", daemon=True)
        closer.start()
        try:
            await alarm.wait()
        except BaseException:
            self.close(kill=True)
            closer.join()
            raise
        closed.result()
