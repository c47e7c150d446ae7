"""A job as users hold it: `Job`, a view of the scheduler's books.

A view holds no data of its own, and stays readable when the queue is closed.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, cast

from mpqueue._call_checks import no_such_attribute
from mpqueue._core.state.item_table import DISCARD, ONWARD
from mpqueue._queue.job_items import Items, JobItem, R_co, T_co, WithDefaults
from mpqueue._text import visible
from mpqueue.errors import ItemError, JobStateError
from mpqueue.events import milliseconds
from mpqueue.status import FAILED, JobStatus

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import polars as pl

    from mpqueue._core.state.job_book import JobView
    from mpqueue._output.failure_groups import FailureGroup
    from mpqueue._report.job_report import Report
    from mpqueue._report.profile import Profile

log = logging.getLogger("mpqueue")

#: Names that users look for in a job, with the right ones.
_ELSEWHERE = {
    **dict.fromkeys(("start", "pause", "resume", "cancel", "retry_failed"), "queue.{name}(job)"),
    "cancel_items": "queue.cancel_items(job, items)",
    **dict.fromkeys(("result", "wait", "join", "get"), "queue.start(job).result()"),
    "exception": "job.items[n].exception, or job.failures",
    "errors": "job.failures",
    "progress": "job.completed and job.total",
    "done": "job.status.final",
    "clear": "queue.clear_job(job)",
    "trace": "job.report(), which draws what each worker did, or mpqueue.otel with chunks=True",
}


class Job(WithDefaults, Generic[T_co, R_co]):
    """A batch of items and their handler: a live view, readable from any thread, also after the queue is closed.

    ``Job[T, R]`` for a type checker: items of type ``T``, results of type ``R``.
    """

    __slots__ = ("__weakref__", "_book", "_read_early", "_saw_failures", "_unseen")

    def __init__(self, book: JobView) -> None:
        self._book = book
        self._read_early = False  #: results were asked for before the start
        self._saw_failures = False  #: its failures were looked at
        #: Results that are None because items failed were read: logged when the job is dropped or the program ends.
        self._unseen: weakref.finalize[[str, int, int, int], Job] | None = None

    @property
    def id(self) -> str:
        """The job's id."""
        return self._book.id

    @property
    def status(self) -> JobStatus:
        """The job's state. Its last change comes with ``job:finished``."""
        return self._book.status

    @property
    def total(self) -> int:
        """The number of items."""
        return self._book.total

    @property
    def completed(self) -> int:
        """The number of items that completed."""
        return self._book.completed

    @property
    def failed(self) -> int:
        """The number of items that failed for good."""
        self._see_failures()
        return self._book.failed

    @property
    def retries(self) -> int:
        """The number of failed tries that were followed by another one, or were to be."""
        return self._book.retries

    @property
    def seed(self) -> int:
        """The seed of its items' random numbers: given to `create_job`, or drawn there."""
        return self._book.options.seed

    @property
    def started_at(self) -> float | None:
        """The start of the job, in seconds since the epoch; None before."""
        return self._book.started_at

    @property
    def finished_at(self) -> float | None:
        """The end of the job, in seconds since the epoch; None before."""
        return self._book.finished_at

    @property
    def duration(self) -> float | None:
        """Seconds from start to end, by the monotonic clock; None before the end."""
        return self._book.duration

    @property
    def paused(self) -> bool:
        """True between `pause` and `resume`."""
        return self._book.paused

    @property
    def sealed(self) -> bool:
        """False while `JobQueue.add_items` may add items: from `JobQueue.open_job` to `JobQueue.seal`."""
        return self._book.sealed

    @property
    def cancelled(self) -> bool:
        """True from `cancel` on, at once."""
        return self._book.cancelled

    @property
    def stopped_why(self) -> str | None:
        """The reason if the job stopped by itself: ``max_failures``, ``deadline`` or no workers; else None."""
        return self._book.stopped_why

    @property
    def items(self) -> Items[T_co, R_co]:
        """All items, in the order they were given, as views."""
        self._see_failures()
        return Items(self._book.table)

    @property
    def results(self) -> list[R_co | None]:
        """The results in item order, None for items that have not completed. A new list: 8 bytes per item.

        With a journal, results that are not in memory are read from it. To hold one at a time, use ``item.result``.
        Raises `JournalError` if one can't be read. A warning is logged once if results are read before the start; and
        if items failed and their failures were not looked at, when the job is dropped or the program ends.

        If the job has a sink (``results=``), this is the sink, not a list, which type checkers don't know. Raises
        `JobStateError` if results were discarded, and for a single stage of `JobQueue.run_stages`.
        """
        table = self._book.table
        if table.sink is None:
            self._note_read()
            return table.all_results()
        if table.sink is DISCARD:
            raise JobStateError(f"job {self.id!r}: expected one that keeps its results, got one with results='discard'")
        if table.sink is ONWARD:
            raise JobStateError(
                f"job {self.id!r}: expected one that keeps its results, got a stage, whose results go on to the next "
                "one, or to the job of all stages"
            )
        sink: Any = table.sink
        return cast("list[R_co | None]", sink)

    def _note_read(self) -> None:
        """Note that results were asked for: log once if the job was not started; failed items are logged at the end."""
        book = self._book
        if book.status is JobStatus.PENDING:
            if book.here and book.completed < book.total and not self._read_early:
                self._read_early = True
                log.warning(
                    "job %r: its results are None, since it has not been started: queue.start(job).result() runs it",
                    book.id,
                )
        elif book.failed and book.status.final and self._unseen is None and not self._saw_failures:
            self._unseen = weakref.finalize(self, _say_unseen, book.id, book.failed, book.total, os.getpid())

    def _see_failures(self) -> None:
        """Note that failures were looked at: nothing is logged when the job is dropped."""
        self._saw_failures = True
        if self._unseen is not None:
            self._unseen.detach()
            self._unseen = None

    @property
    def failures(self) -> list[ItemError]:
        """One `ItemError` per failed item, in item order; its ``.item`` is the item, its ``__cause__`` the failure."""
        self._see_failures()
        table = self._book.table
        return [
            _item_error(self.id, JobItem(table, index))
            for index in sorted(table.failures)
            if table.status[index] == FAILED
        ]

    def failure_groups(self) -> list[FailureGroup]:
        """The failed items, grouped by the type and place of their errors, the largest group first.

        The text of a group is ``ValueError × 29 at h.py:12, first: img_003.jpg: bad header``. The place is the
        innermost line of the traceback outside of libraries. In a job with stages, the error is the stage's, and the
        text names the stage. Costs a few microseconds per failed item.
        """
        from mpqueue._output.failure_groups import groups_of  # few programs need it

        self._see_failures()
        return groups_of(self._book.table)

    def raise_for_failures(self) -> None:
        """Raise an `ExceptionGroup` of all `failures`, if there are any.

        Raises `WorkerStartError` if the job was interrupted because no worker could be started any more.
        """
        if (interrupted := self._book.interrupted) is not None:
            raise interrupted
        failures = self.failures
        if failures:
            raise ExceptionGroup(f"job {self.id!r}: {len(failures)} of {self.total} items failed", failures)

    def report(self, *, alone: Job | None = None) -> Report:
        """A report of why the job took its time: where the time went, and what could make it quicker.

        ``print(job.report())``, or ``job.report().save("report.html")``. For a running job, it covers the run so far;
        after `retry_failed`, the last run. ``alone`` is a job with the same handler that one worker ran, to compare
        with. Costs about 1 us per item. If only a journal has the job, it has no times of workers. Raises ValueError
        for a job whose times are not known.
        """
        from mpqueue._report.job_report import make_report  # few programs need it

        return make_report(self._book, None if alone is None else alone._book)

    @property
    def profile(self) -> Profile | None:
        """The lines that its handlers spent time in, with the times; None without ``create_job(profile=True)``.

        Covers the items that have ended by now, in the last run. ``job.profile.to_speedscope("profile.json")`` writes
        it for https://www.speedscope.app; `report` draws it. Each access computes it anew: about 10 us per stack.
        """
        if not self._book.options.profile:
            return None
        from mpqueue._report.profile import make_profile  # few programs need it

        return make_profile(self._book)

    def to_dict(self) -> dict[str, Any]:
        """The wire form: camelCase keys, milliseconds as whole numbers, unset keys absent."""
        wire: dict[str, Any] = {
            "id": self.id,
            "status": str(self.status),
            "total": self.total,
            "completed": self.completed,
            "failed": self.failed,
            "items": [item.to_dict() for item in self.items],
            "paused": self.paused,
            "cancelled": self.cancelled,
        }
        if self.started_at is not None:
            wire["startedAt"] = milliseconds(self.started_at)
        if self.finished_at is not None:
            wire["finishedAt"] = milliseconds(self.finished_at)
        return wire

    def to_records(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One dict per item: id, status, attempts, elapsed, error, result; or the given ``columns``.

        Columns are attributes of `JobItem`, or keys of the results or payloads: ``"label"``, ``"payload.file"``. Raises
        ValueError for a column that no item has.
        """
        from mpqueue._output.export import records  # few programs need it

        return records(self._book.table, columns)

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        format: str | None = None,
        escape_formulas: bool = True,
    ) -> Path:
        """Write the items into a file: ``.jsonl``, ``.json``, ``.csv``, ``.tsv``, or with pyarrow ``.parquet``.

        ``columns`` are as in `to_records`; tables spread results that are mappings over a column for each key. The file
        appears once it is complete. Values that JSON can't hold are written as their ``repr``. In CSV and TSV, texts
        that a spreadsheet would take for a formula (``=``, ``+``, ``-``, ``@``) get an apostrophe before them, unless
        ``escape_formulas=False``. Returns its path.
        """
        from mpqueue._output.formats import export  # few programs need it

        return export(self._book.table, path, columns, format, escape_formulas=escape_formulas)

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A data frame of the items, with the columns of `export`. Raises ImportError without pandas."""
        from mpqueue._output.export import to_pandas  # few programs need it

        return to_pandas(self._book.table, columns)

    def to_polars(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A data frame of the items, with the columns of `export`. Raises ImportError without polars.

        A column whose values polars can't hold together, or would change, becomes text.
        """
        from mpqueue._output.export import to_polars  # few programs need it

        frame: pl.DataFrame = to_polars(self._book.table, columns)
        return frame

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __await__(self) -> Any:
            raise TypeError(
                "expected something to wait for, got a Job: queue.run() has waited already, and has held up the event "
                "loop meanwhile; `await queue.start(queue.create_job(...))` does not"
            )

        def __getattr__(self, name: str) -> Any:
            raise no_such_attribute("Job", name, _ELSEWHERE, self)

    def __repr__(self) -> str:
        counts = f"{self.completed:,} completed, {self.failed:,} failed of {self.total:,}"
        why = "" if self.stopped_why is None else f"; stopped: {self.stopped_why}"
        return f"<Job {self.id!r} {self.status}: {counts}{why}>"

    def _repr_html_(self) -> str:
        """Return for notebooks a link to the queue's live page, while it is open, and the state, counts, failures."""
        from mpqueue._live_page.served import address_for  # few programs need them
        from mpqueue._output.notebook_forms import job_as_html

        return job_as_html(self, address_for(self._book))


def _say_unseen(job_id: str, failed: int, total: int, owner: int) -> None:
    """Log that a job was dropped, or the program ends, before its failures were looked at. Not in a fork."""
    if os.getpid() == owner:
        log.warning(
            "job %r: %d of its %d results were None, since these items failed: job.failures says why, and "
            "job.raise_for_failures() raises",
            job_id,
            failed,
            total,
        )


def _item_error(job_id: str, item: JobItem) -> ItemError:
    tries = "1 try" if item.attempts == 1 else f"{item.attempts} tries"
    error = ItemError(f"item {item._named} of job {job_id!r} failed after {tries}: {visible(str(item.error))}", item)
    error.__cause__ = item.exception
    return error
