"""``mpqueue status``, ``failures``, ``retry``, ``export`` and ``prune``: what a journal holds, and what it need not."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import takewhile
from typing import TYPE_CHECKING

from mpqueue._cli.early_end import EarlyEnd, add_options
from mpqueue._cli.options.declared_flags import duration
from mpqueue._cli.outputs import ROW, StdoutRows, open_output, rows_on_stdout
from mpqueue._cli.run_command import (
    RAW_CSV,
    WORKERS,
    again,
    count_or_none,
    describe_failure,
    log_to_stderr,
    progress_of,
    say_drained,
    say_end,
    workers,
)
from mpqueue._cli.usage import Exit, OutputError, UsageError, coloured, say, tell
from mpqueue._core.state.item_table import ItemTable
from mpqueue._os.monotonic import monotonic
from mpqueue._output.export import absent_columns, as_json_line, no_such_column, record_of
from mpqueue._output.row_outlet import RowOutlet
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import Items, JobItem
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.recorded.recorded_book import RecordedBook
from mpqueue._queue.run import JobRun
from mpqueue._text import label, visible
from mpqueue.retry import RetryPolicy
from mpqueue.status import FAILED, ItemStatus, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

EXAMPLES = """\
examples:
  mpqueue run thumbnails:make 'pictures/*.jpg' --journal run.db -o thumbnails.csv
  mpqueue status run.db
  mpqueue failures run.db --traceback
  mpqueue retry run.db --timeout 60
  mpqueue export run.db -o thumbnails.parquet
  mpqueue prune run.db --older-than 30d

exit codes: 0 good, 1 some items failed or it could not be read, 2 wrong usage, 75 drained (SIGTERM, --time-limit),
130 interrupted (Ctrl-C)
"""


def add_command(commands: Parsers) -> None:
    """Add them to the command line."""
    _add(commands, "status", status, "list the jobs of a journal", job=False)
    parser = _add(commands, "failures", failures, "list the failed items of a journal")
    parser.add_argument("--traceback", action="store_true", help="with the worker's traceback of each")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each")
    parser = _add(commands, "retry", retry, "run the failed items of a journal again, or what is left of a job")
    parser.add_argument("-j", "--jobs", type=workers, metavar="N", help=WORKERS)
    parser.add_argument("--retries", type=count_or_none, default=3, metavar="N", help="tries after the first (3)")
    parser.add_argument("--retry-delay", type=duration, default=2.0, metavar="T", help="time before the first (2s)")
    parser.add_argument("--timeout", type=duration, metavar="T", help="time that one try may take")
    add_options(parser)
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show a bar (on a terminal only)")
    parser = _add(commands, "export", export, "write the items of a job in a journal as rows")
    parser.add_argument("-o", "--output", metavar="FILE", help="as for run (default: JSON Lines on stdout)")
    parser.add_argument("--columns", metavar="A,B,...", help="as for run")
    parser.add_argument("--raw-csv", action="store_true", help=RAW_CSV)
    parser.add_argument("--failed", action="store_true", help="failed items only")
    _add_prune(commands)


def _add_prune(commands: Parsers) -> None:
    parser = _add(commands, "prune", prune, "make a journal smaller", job=False)
    add = parser.add_argument
    add("--job", metavar="JOB", help="only this job (default: all)")
    add("--older-than", type=duration, metavar="T", help="remove jobs that ended longer ago: 12h, 30d")
    add("--gone", action=argparse.BooleanOptionalAction, default=True, help="drop results of items that are no "
        "longer in their job's list (default: yes)")  # fmt: skip


def _add(
    commands: Parsers, name: str, command: Callable[[argparse.Namespace], int], text: str, *, job: bool = True
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("journal", metavar="run.db", help="the file that was given to run as --journal")
    if job:
        parser.add_argument("job", metavar="JOB", nargs="?", help="the job's id, if there are several")
    parser.set_defaults(command=command, takes_job=job)
    return parser


def status(args: argparse.Namespace) -> int:
    """A line for each job."""
    reader = _reader(args.journal)
    in_use = reader.in_use
    rows = [("STATUS", "COMPLETED", "FAILED", "TOTAL", "JOB")]
    rows += [
        (_status(job, in_use), str(job.completed), str(job.failed), str(job.total), label(job.id))
        for job in reader.jobs()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        numbers = [text.rjust(width) for text, width in zip(row[1:4], widths[1:4], strict=True)]
        tell("  ".join([row[0].ljust(widths[0]), *numbers, row[4]]))
    return Exit.GOOD


def _status(job: RecordedJob, in_use: bool) -> str:
    over = job.status.final or job.status is JobStatus.PENDING or in_use
    return str(job.status) if over else "interrupted"


def failures(args: argparse.Namespace) -> int:
    """A line for each failed item."""
    reader = _reader(args.journal)
    jobs = reader.jobs() if args.job is None else [_choose(reader, args.job)]
    with rows_on_stdout() if args.json else nullcontext() as rows:
        for job in jobs:
            for item in _failed(_opened(reader, job)):
                if rows is not None:
                    rows.write(as_json_line({"job": job.id, **record_of(item, [*ROW, "traceback"])}))
                    continue
                tell(f"{label(job.id)}: {describe_failure(item)}" if len(jobs) > 1 else describe_failure(item))
                if args.traceback and item.traceback:
                    tell("\n".join(f"    {line}" for line in visible(item.traceback).splitlines()))
    return Exit.GOOD


def export(args: argparse.Namespace) -> int:
    """The rows of one job."""
    columns = None if args.columns is None else [name.strip() for name in args.columns.split(",")]
    with open_output(args.output, columns, raw_csv=args.raw_csv, journal=args.journal) as output:
        log_to_stderr("WARNING")
        reader = _reader(args.journal)
        table = RecordedBook(reader, line := _choose(reader, args.job)).table
        _check_columns(columns, table)
        outlet = RowOutlet(output, table, line.id, captured=bool(table.output))
        indices = range(len(table))
        try:
            outlet.open()
            outlet.put([at for at in indices if table.status[at] == FAILED] if args.failed else indices, 0)
            outlet.finish()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            if isinstance(output, StdoutRows):
                raise OutputError(f"stdout: {error.strerror}") from None
            raise UsageError(f"--output: {error}; kept: {outlet.leave()}") from None
        except BaseException:
            outlet.leave()
            raise
    return Exit.GOOD


def _check_columns(columns: Sequence[str] | None, table: ItemTable) -> None:
    """Raise UsageError for one that no item has, where results are there to tell. Reads them until all are found."""
    missing, result = set(columns or ()), None
    for item in Items(table):
        if not missing:
            return
        missing &= absent_columns(item, missing)
        if result is None and item._has_result:
            result = item.result
    if missing and result is not None:
        raise UsageError(f"--columns: {no_such_column(min(missing), [result])}")


def retry(args: argparse.Namespace) -> int:
    """Run what failed, or was left, with the handler that is in the journal."""
    began_at = monotonic()
    log_to_stderr("WARNING")
    with EarlyEnd(args, began_at) as early_end:
        return _retry(args, early_end)


def _retry(args: argparse.Namespace, early_end: EarlyEnd) -> int:
    reader = _reader(args.journal)
    job = _choose(reader, args.job)
    job_id = job.id
    policy = RetryPolicy(args.retries, base_delay=args.retry_delay)
    _search_as_then(reader, job)
    with JobQueue(args.jobs, retry=policy, timeout=args.timeout, journal=args.journal) as queue:
        queue._starter.tell_failures = False  # `say_end` does
        book = queue._host.take_up(job_id, "run it again", unfinished=True).book
        progress = progress_of(args.progress)
        if book.status is JobStatus.PENDING:
            run: JobRun = queue.start(job_id, progress=progress)
        else:
            run = queue.retry_failed(job_id, progress=progress)
        early_end.drain_from_now(queue, run)
        try:
            run.result()
            early_end.wait()
        except KeyboardInterrupt:
            run._end_display()
            say("\n", coloured("interrupted;", "yellow"), f" to go on: {again()}")
            queue.close(kill=True)
            return Exit.INTERRUPTED
    say_end(run.job)
    if early_end.left_some:
        return say_drained(recorded=True)
    return Exit.GOOD if run.job.status is JobStatus.COMPLETED else Exit.FAILED


def _search_as_then(reader: Reader, job: RecordedJob) -> None:
    """Search modules where the run found them, then in the current folder: another file there may have the same name.

    Only in what came before Python's own modules, which are those of this Python.
    """
    kept = reader.handler(job)
    then = takewhile(_is_no_part_of_python, [] if kept is None else kept[1])
    first = list(dict.fromkeys([*then, os.getcwd()]))
    sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]


def _is_no_part_of_python(folder: str) -> bool:
    return not folder.endswith(".zip") and not os.path.exists(os.path.join(folder, "os.py"))


def prune(args: argparse.Namespace) -> int:
    """Rows written anew, and what is gone or old dropped."""
    log_to_stderr("WARNING")
    reader = _reader(args.journal)
    if args.job is not None:
        _choose(reader, args.job)
    with JobQueue(1, journal=args.journal) as queue:
        pruned = queue.prune(args.job, gone=args.gone, older_than=args.older_than)
    jobs, items = (_counted(pruned.jobs, "job"), _counted(pruned.items, "gone item"))
    say(f"{args.journal}: {jobs} and {items} removed, {pruned.bytes / 1e6:.1f} MB smaller")
    return Exit.GOOD


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# -- jobs of a journal -------------------------------------------------------------------------------------------------


def _reader(path: str) -> Reader:
    from mpqueue._parent.journal.guards import own_path
    from mpqueue._parent.journal.journal_reader import Reader  # with SQLite, which `run` may not need

    if not os.path.exists(path):
        raise UsageError(f"{path}: expected a journal, got a name that is not there")
    return Reader(own_path(path))


def _choose(reader: Reader, job_id: str | None) -> RecordedJob:
    jobs = reader.jobs()
    names = ", ".join(repr(job.id) for job in jobs) or "none"
    found = jobs if job_id is None else [job for job in jobs if job.id == job_id]
    if len(found) != 1:
        wanted = (
            "JOB: expected the id of a job" if job_id is None else f"JOB: expected a job that is there, got {job_id!r}"
        )
        raise UsageError(f"{wanted}; the journal has {names}")
    return found[0]


def _opened(reader: Reader, job: RecordedJob) -> Job:
    return Job(RecordedBook(reader, job))


def _failed(job: Job) -> Iterator[JobItem]:
    items: Sequence[JobItem] = job.items
    return (item for item in items if item.status is ItemStatus.FAILED)
