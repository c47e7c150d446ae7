"""What a job answers to "why is this slow?": `Job.report` and `Job.trace`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from mpqueue._core.state.job_book import JobBook
    from mpqueue._report.job_report import Report


class Reportable:
    """The part of `Job` that explains where its time went; also when its queue is closed."""

    __slots__ = ()
    _book: JobBook

    def report(self, *, alone: Reportable | None = None) -> Report:
        """Why it took as long as it did: where the time went, and what could make it quicker.

        ``print(job.report())``, or ``job.report().save("report.html")``. Of a job that runs still: so far; after
        `retry_failed`: of the last run. ``alone`` is a job with the same handler that one worker ran, to compare with.
        Costs about 1 us an item. Raises ValueError for a job that was never started, or not by this program.
        """
        from mpqueue._report.job_report import make_report  # which few programs need

        return make_report(self._book, None if alone is None else alone._book)  # noqa: SLF001 - one of its kind

    def trace(self, path: str | os.PathLike[str]) -> Path:
        """Write its run as a trace, to be opened in https://ui.perfetto.dev or chrome://tracing. Returns its path.

        With ``create_job(trace=True)`` it has each chunk and item; else chunks, of long jobs some merged into one. The
        file is there when it is whole. Raises ValueError for a job that was never started, or not by this program.
        """
        from mpqueue._report.job_report import save_trace  # which few programs need

        return save_trace(self._book, path)
