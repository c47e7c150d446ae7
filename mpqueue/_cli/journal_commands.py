"""``mpqueue status``, ``failures``, ``retry``, ``export`` and ``prune``: show a journal's jobs, and shrink it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from itertools import takewhile
from typing import TYPE_CHECKING

from mpqueue._cli.early_end import EarlyEnd, add_early_end
from mpqueue._cli.flags import add_flags, add_resources, duration
from mpqueue._cli.outputs import (
    ROW,
    STDOUT,
    StdoutRows,
    add_json,
    job_line,
    open_output,
    told_on_stdout,
)
from mpqueue._cli.run_command import (
    NAMED,
    add_file,
    add_messages,
    add_tries,
    add_workers,
    describe_failure,
    follow,
    log_to_stderr,
    open_queue,
    policy_of,
    progress_of,
)
from mpqueue._cli.usage import Exit, OutputError, UsageError, coloured, say, usage_errors
from mpqueue._declared import At
from mpqueue._os.system import monotonic
from mpqueue._output.export import check_columns, record_of
from mpqueue._output.file_sinks import FileSink
from mpqueue._output.row_outlet import RowOutlet
from mpqueue._queue.job import Job
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.recorded.past_job import PastJob
from mpqueue._queue.run import JobRun
from mpqueue._text import counted, label, size, took, visible
from mpqueue.status import FAILED, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob

    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

#: The colours of states; all others are yellow.
_COLOURS = {"completed": "green", "completed_with_errors": "red", "processing": "bold"}


def add_command(commands: Parsers) -> None:
    """Add the commands to the command line."""
    parser = _add(
        commands, "status", status, "list the jobs of a journal", "status run.db\nstatus run.db --json", job=False
    )
    add_json(parser.add_argument, "a line of JSON for each job")
    examples = "failures run.db\nfailures run.db thumbnails:make --traceback\nfailures run.db --json | jq -r .payload"
    parser = _add(commands, "failures", failures, "list the failed items of a journal", examples)
    parser.add_argument("--traceback", action="store_true", help="with the worker's traceback of each")
    add_json(parser.add_argument, "a line of JSON for each item, with its traceback")
    _add_retry(commands)
    _add_export(commands)
    _add_prune(commands)


def _add_retry(commands: Parsers) -> None:
    text = "run failed items of a journal again, or what is left of a job"
    examples = "retry run.db\nretry run.db thumbnails:make --timeout 60 --retries 0"
    parser = _add(commands, "retry", retry, text, examples)
    add = parser.add_argument
    add_workers(add)
    add_resources(add)
    add_tries(add)
    add_flags(add, at=At.QUEUE)
    add_early_end(add)
    add_messages(add)
    add_json(add, "the job's counts as a line of JSON")
    parser.set_defaults(columns=None, backend=None)


def _add_export(commands: Parsers) -> None:
    examples = "export run.db -o thumbnails.parquet\nexport run.db --failed --columns payload,error_type > failed.jsonl"
    parser = _add(commands, "export", export, "write the items of a job in a journal as rows", examples)
    add_file(parser.add_argument)
    parser.add_argument("--failed", action="store_true", help="failed items only")
    add_json(parser.add_argument, "the job's counts (with -o FILE) as a line of JSON")


def _add_prune(commands: Parsers) -> None:
    examples = "prune run.db\nprune run.db --older-than 30d\nprune run.db --job thumbnails:make --no-gone"
    parser = _add(commands, "prune", prune, "make a journal smaller", examples, job=False)
    add = parser.add_argument
    add("--job", metavar="JOB", help="only this job (default: all)")
    add("--older-than", type=duration, metavar="T", help="remove jobs that ended longer ago: 12h, 30d")
    add("--gone", action=argparse.BooleanOptionalAction, default=True, help="drop results of items that are no "
        "longer in their job's list (default: yes)")  # fmt: skip
    add_json(add, "what was removed, as a line of JSON")


def _add(
    commands: Parsers,
    name: str,
    command: Callable[[argparse.Namespace], int],
    text: str,
    examples: str,
    *,
    job: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=text,
        usage=f"%(prog)s [options] run.db{' [JOB]' if job else ''}",
        description=f"{text[0].upper()}{text[1:]}.",
        epilog="\n  mpqueue ".join(["examples:", *examples.splitlines()]),
    )
    parser.add_argument("journal", metavar="run.db", help="the file that was given to run as --journal")
    if job:
        parser.add_argument("job", metavar="JOB", nargs="?", help="the job's id, if there are several")
    parser.set_defaults(command=command, takes_job=job)
    return parser


def status(args: argparse.Namespace) -> int:
    """Print a line for each job; returns the exit code."""
    reader = _reader(args.journal)
    in_use, jobs = reader.in_use, reader.jobs()
    if not jobs:
        say(f"no jobs in {args.journal}")
        return Exit.GOOD
    rows = [("COMPLETED", "FAILED", "TOTAL", "TOOK"), *map(_figures, jobs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    head, *figures = ["  ".join(map(str.rjust, row, widths)) for row in rows]
    states = [_status(job, in_use) for job in jobs]
    width = max(map(len, states))
    with told_on_stdout(as_json=args.json) as tell:
        tell(None, f"{'STATUS':<{width}}  {head}  JOB")
        for job, state, line in zip(jobs, states, figures, strict=True):
            shown = coloured(state, _COLOURS.get(state, "yellow"), sys.stdout) + " " * (width - len(state))
            tell(job_line(job, state), f"{shown}  {line}  {label(job.id)}")
    return Exit.GOOD


def _figures(job: RecordedJob) -> tuple[str, ...]:
    duration = "-" if job.duration is None else took(job.duration)
    return str(job.completed), str(job.failed), str(job.total), duration


def _status(job: RecordedJob, in_use: bool) -> str:
    over = job.status.final or job.status is JobStatus.PENDING or in_use
    return str(job.status) if over else "interrupted"


def failures(args: argparse.Namespace) -> int:
    """Print a line for each failed item; returns the exit code."""
    reader = _reader(args.journal)
    jobs = reader.jobs() if args.job is None else [_choose(reader, args.job)]
    any_failed = False
    with told_on_stdout(as_json=args.json) as tell:
        for job in jobs:
            for failure in Job(PastJob(reader, job)).failures:
                any_failed = True
                item = failure.item
                text = f"{label(job.id)}: {describe_failure(item)}" if len(jobs) > 1 else describe_failure(item)
                if args.traceback and item.traceback:
                    text = "\n    ".join([text, *visible(item.traceback).splitlines()])
                tell({"job": job.id, **record_of(item, [*ROW, "traceback"])}, text)
    if not any_failed:
        say(f"no failed items in {args.journal}")
    return Exit.GOOD


def export(args: argparse.Namespace) -> int:
    """Write the rows of one job; returns the exit code."""
    as_json = args.json and args.output != STDOUT
    with (
        told_on_stdout(as_json=as_json) as tell,
        open_output(args.output, args.columns, raw_csv=args.raw_csv, journal=args.journal) as output,
    ):
        log_to_stderr("WARNING")
        reader = _reader(args.journal)
        table = PastJob(reader, line := _choose(reader, args.job)).table
        with usage_errors("--", (ValueError,)):
            check_columns(table, args.columns or (), ended=True)
        outlet = RowOutlet(output, table, line.id, captured=bool(table.output))
        indices = range(len(table))
        try:
            outlet.open()
            outlet.put([at for at in indices if table.status[at] == FAILED] if args.failed else indices, 0)
            outlet.finish()
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            where = f"--output: {error}; kept: {outlet.leave()}"
            raise OutputError(f"stdout: {error.strerror}" if isinstance(output, StdoutRows) else where) from None
        except BaseException:
            outlet.leave()
            raise
        if isinstance(output, FileSink):
            say(f"{counted(output.rows, 'row')} in {args.output}")
        tell(job_line(line, _status(line, reader.in_use)), None)
    return Exit.GOOD


def retry(args: argparse.Namespace) -> int:
    """Run the failed or remaining items with the handler in the journal; returns the exit code."""
    began_at = monotonic()
    log_to_stderr("WARNING")
    with EarlyEnd(args, began_at) as early_end, told_on_stdout(as_json=args.json) as tell:
        reader = _reader(args.journal)
        job = _choose(reader, args.job)
        job_id = job.id
        _search_as_then(reader, job)
        with open_queue(args, policy_of(args)) as queue:
            with usage_errors("--resources: ", (ValueError,)):
                book = queue._host.jobs.reopen(job_id, "run it again", unfinished=True).book
            progress = progress_of(args, job_id)
            if book.status is not JobStatus.PENDING and not book.failed and not args.quiet:
                say(f"nothing to retry: no item of job {job_id!r} has failed")
            if book.status is JobStatus.PENDING:
                run: JobRun = queue.start(job_id, progress=progress)
            else:
                run = queue.retry_failed(job_id, progress=progress)
            early_end.drain_from_now(queue, run)
            code = follow(queue, run, None, args, early_end)
        tell(job_line(run.job), None)
        return code


def _search_as_then(reader: Reader, job: RecordedJob) -> None:
    """Search modules where the run found them, then in the current folder, which may have other files of the same name.

    Only the folders before Python's own modules count, which are those of this Python.
    """
    kept = reader.handler(job)
    then = takewhile(_is_no_part_of_python, [] if kept is None else kept[1])
    first = list(dict.fromkeys([*then, os.getcwd()]))
    sys.path[:] = [*first, *(entry for entry in sys.path if entry not in first)]


def _is_no_part_of_python(folder: str) -> bool:
    return not folder.endswith(".zip") and not os.path.exists(os.path.join(folder, "os.py"))


def prune(args: argparse.Namespace) -> int:
    """Drop items and jobs that are gone or old, and rewrite the rest; returns the exit code."""
    log_to_stderr("WARNING")
    reader = _reader(args.journal)
    if args.job is not None:
        _choose(reader, args.job)
    with JobQueue(1, journal=args.journal) as queue:
        pruned = queue.prune(args.job, gone=args.gone, older_than=args.older_than)
    jobs, items = counted(pruned.jobs, "job"), counted(pruned.items, "gone item")
    say(f"{args.journal}: {jobs} and {items} removed, {size(pruned.bytes)} smaller")
    with told_on_stdout(as_json=args.json) as tell:
        tell({"jobs": pruned.jobs, "items": pruned.items, "bytes": pruned.bytes}, None)
    return Exit.GOOD


# -- jobs of a journal -------------------------------------------------------------------------------------------------


def _reader(path: str) -> Reader:
    from mpqueue._parent.journal.checks import own_path
    from mpqueue._parent.journal.journal_reader import Reader  # needs SQLite, which `run` may not need

    if not os.path.exists(path):
        raise UsageError(f"{path}: expected a journal, got a name that is not there")
    return Reader(own_path(path))


def _choose(reader: Reader, job_id: str | None) -> RecordedJob:
    jobs = reader.jobs()
    found = jobs if job_id is None else [job for job in jobs if job.id == job_id]
    if len(found) != 1:
        got = "" if job_id is None else f" that is there, got {job_id!r}"
        names = ", ".join(repr(job.id) for job in jobs[:NAMED]) or "none"
        more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
        raise UsageError(f"JOB: expected the id of a job{got}; the journal has {names}{more}")
    return found[0]
