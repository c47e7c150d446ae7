"""A job, a queue and a live page in notebooks: small tables, as HTML. All texts are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from mpqueue._output.failure_groups import shown_groups
from mpqueue._text import counted, label, number, took

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobView
    from mpqueue._queue.job import Job

#: The most kinds of failures, and jobs, that are shown.
MAX_ROWS = 10


def job_as_html(job: Job, page: str | None = None) -> str:
    """The job's state and counts; below them its failures, similar ones in one line.

    ``page`` is the address of an open page that shows it: there is a link.
    """
    failures = [[escape(text)] for text in shown_groups(job.failure_groups(), MAX_ROWS)] if job.failed else []
    link = "" if page is None else _link(f"{page}#/{quote(job.id, safe='')}")
    return link + _table(_JOB_COLUMNS, [_line_of(job)]) + (_table(["failures"], failures) if failures else "")


def queue_as_html(title: str, jobs: Sequence[Job]) -> str:
    """The queue's jobs, the newest first."""
    return f"<p><code>{escape(title)}</code></p>" + _jobs_as_html(jobs)


def page_as_html(url: str | None, jobs: Sequence[JobView]) -> str:
    """A link to a page, whose address is None once it is closed, and its jobs, the newest first."""
    return ("<p>The live page is closed.</p>" if url is None else _link(url)) + _jobs_as_html(jobs)


def _link(url: str) -> str:
    return f'<p><a href="{escape(url)}" target="_blank" rel="noopener noreferrer">Live page</a></p>'


def _jobs_as_html(jobs: Sequence[Job | JobView]) -> str:
    lines = [_line_of(job) for job in jobs[: -MAX_ROWS - 1 : -1]]
    if len(jobs) > MAX_ROWS:
        lines.append([f"... and {counted(len(jobs) - MAX_ROWS, 'earlier job')}", *[""] * (len(_JOB_COLUMNS) - 1)])
    return _table(_JOB_COLUMNS, lines) if lines else ""


_JOB_COLUMNS = ("job", "status", "ended", "completed", "failed", "items", "retries", "took")


def _line_of(job: Job | JobView) -> list[str]:
    status = str(job.status) if job.stopped_why is None else f"{job.status}: {job.stopped_why}"
    counts = map(number, (job.completed, job.failed, job.total, job.retries))
    times = "" if job.duration is None else took(job.duration)
    ended, total = job.completed + job.failed, job.total
    # The browser's own bar, in the colours of the notebook's theme; the share as text where it has none.
    bar = f'<progress max="{total}" value="{ended}">{100 * ended // total} %</progress>' if total else ""
    return [escape(label(job.id)), escape(status), bar, *counts, times]


def _table(columns: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = ("".join(f"<td>{cell}</td>" for cell in line) for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
