"""``mpqueue run``: a function over files, lines or rows."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mpqueue._cli.dry_run import at_a_time, say_estimate, some_of
from mpqueue._cli.early_end import EarlyEnd, add_early_end
from mpqueue._cli.flags import (
    Add,
    add_flags,
    add_needs,
    duration,
    given_flags,
    merged,
    open_backend,
    profile_file,
    word_of,
    write_profile,
)
from mpqueue._cli.inputs import KINDS, check_one_folder, kind_of, load_function, read_items
from mpqueue._cli.outputs import STDOUT, StdoutRows, Tell, add_json, job_line, open_output, told_on_stdout
from mpqueue._cli.usage import Exit, UsageError, VisibleFormatter, coloured, first_given, say, say_error, usage_errors
from mpqueue._core.state.item_table import ItemTable, make_table
from mpqueue._declared import At
from mpqueue._options import Concurrency
from mpqueue._os.shell_words import quoted
from mpqueue._os.system import monotonic
from mpqueue._output.failure_groups import shown_groups
from mpqueue._output.file_sinks import FileSink
from mpqueue._output.job_facts import Progress, ended_before, left_of
from mpqueue._output.progress import LogLines, ShowProgress, can_draw, is_silenced
from mpqueue._queue.job import Job
from mpqueue._queue.job_items import JobItem
from mpqueue._queue.job_queue import JobQueue
from mpqueue._queue.recorded.job_record import plan
from mpqueue._queue.recorded.record_options import REDO, Redo, Rerun, content_key, file_key
from mpqueue._queue.run import JobRun
from mpqueue._text import counted, label, number, took, visible
from mpqueue.errors import HandlerPicklingError, MPQueueError, QueueClosedError, SinkError, WorkerStartError, shown
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus

EXAMPLES = """\
examples:
  mpqueue run thumbnails:make 'photos/*.jpg' -j 8 -o thumbnails.csv
  find . -name '*.txt' | mpqueue run words.py:count - > counts.jsonl
  mpqueue run geo:locate --from csv a.csv -o b.parquet --columns name,result.lat
  mpqueue run model:label --setup model:load --from jsonl items.jsonl --dry-run
  mpqueue run thumbnails:make 'photos/*.jpg' --journal run.db -o thumbnails.csv
  mpqueue run disk:load model:label disk:write 'photos/*.jpg' --timeout 60
"""
#: The groups of options, in order.
GROUPS = ("input", "workers", "retries and limits", "journal", "output")
#: Errors of a queue about a job that it can't run.
REFUSED = (HandlerPicklingError, TypeError, ValueError)

#: The retry policy of a dry run.
ONE_TRY = RetryPolicy(max_retries=0)
#: The most failed items, or jobs, that are named.
NAMED = 10
#: A word that is no input: module:function or file.py:function.
_FUNCTION = re.compile(r"([^:]+\.py|[^\W\d][\w.]*):[^\W\d][\w.]*")
#: The seconds in which rows of an interrupted run may still get into the output.
ROWS_WAIT_S = 10.0


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "run",
        help="run a function over files, lines or rows",
        usage="%(prog)s [options] module:handler [module:handler ...] [INPUT ...]",
        description="Run a function over many items in worker processes. Each item ends as one row of the output.",
        epilog=EXAMPLES,
        add_help=False,
    )
    parser.add_argument(
        "handler", metavar="module:handler", help="the function, or file.py:handler; called with one item"
    )
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="*",
        help="files and patterns; - for the lines of stdin. Before them, more functions as module:handler: each gets "
        "the value that the one before returned, or each value that it yielded",
    )
    add_options(*(parser.add_argument_group(title).add_argument for title in GROUPS))
    parser.set_defaults(command=run)


def add_options(input_: Add, workers_: Add, limits: Add, journal: Add, output: Add) -> None:
    """Add the options to their groups."""
    _add_input(input_)
    add_workers(workers_)
    workers_("--backend", metavar="WHERE", help="run on a cluster: dask://HOST:PORT (its scheduler), ray (this "
        "machine's, or that of RAY_ADDRESS), or module:function, which returns one of mpqueue.backends")  # fmt: skip
    workers_("--setup", metavar="module:function", help="called once in each worker; the handler also gets its return "
        "value")  # fmt: skip
    add_needs(workers_)
    add_tries(limits)
    add_file(output)
    add_flags(limits, capture_output=output, gpu_env=workers_)
    limits("--on-error", choices=("continue", "stop", "skip"), default="continue", help="if items fail for good: "
        "continue (default), stop at the first as --max-failures 0 does, or continue and leave them out of the "
        "output")  # fmt: skip
    add_early_end(limits)
    _add_journal(journal)
    _add_output(output)
    output("-h", "--help", action="help", help="show this help message and exit")


def _add_input(add: Add) -> None:
    add("--from", dest="kind", choices=KINDS, help="what the items are: the INPUT files themselves (default), or their "
        "content (without INPUT, that of stdin): lines, one JSON value per line, or rows of CSV as dicts")  # fmt: skip
    add("--label", metavar="KEY", help="the key of items that names them in messages, logs and on the page (default: "
        "name, path, url or id; for other items, their text)")  # fmt: skip
    add("--cost", choices=("size", "recorded"), help="which items run first: the largest files, or those that "
        "took longest in the last run by the journal (default: in their order)")  # fmt: skip
    add("--dry-run", action="store_true", help="run the first, the middle and the last item only, each "
        "once, and print what all would take; no output and no journal is written")  # fmt: skip


def add_workers(add: Add) -> None:
    """Add ``--jobs``."""
    add("-j", "--jobs", "--concurrency", type=workers, metavar="N", help="how many workers: a number, auto (default: "
        "one per CPU that it may use), or physical (one for each core, whose hyperthreads count once)")  # fmt: skip


def add_tries(add: Add) -> None:
    """Add ``--retries`` and ``--retry-delay``."""
    add("--retries", "--max-retries", type=word_of("max_retries"), default=3, metavar="N", help="tries after the first "
        "(default: 3)")  # fmt: skip
    add("--retry-delay", "--base-delay", type=duration, default=2.0, metavar="T", help="time before the first retry; "
        "the pause doubles each time (default: 2s)")  # fmt: skip


def _add_journal(add: Add) -> None:
    add("--journal", metavar="run.db", help="record how each item ends in this file: after an interruption, the same "
        "command runs only what is missing or new")  # fmt: skip
    add("--plan", action="store_true", help="print which items would run, by the journal, and run nothing")
    add("--redo", action="append", metavar="WHAT", help="run ended items again: failed, changed-code (those whose "
        "results other code has made), all, or an item by its name or id; may be given several times")  # fmt: skip
    add("--key", choices=("file", "content", "value"), help="how a journal knows that an item has changed: by its "
        "file's size and time (default for files), its file's content, or its value (default for others)")  # fmt: skip
    add("--handler-version", metavar="TEXT", help="the handler's version, any text: if it differs from the journal's, "
        "everything runs again; with a version, there is no warning about changed code")  # fmt: skip


def _add_output(add: Add) -> None:
    add("--unordered", action="store_true", help="write rows in the order in which items end, not in the input's")
    add_messages(add)
    add_json(add, "the counts (with -o FILE), the plan or the dry run as JSON Lines")
    add("--profile", type=profile_file, metavar="FILE", help="sample where handlers are, to the line: .html "
        "for a report with a flame graph, .json for speedscope.app, .folded or .txt for flamegraph.pl")  # fmt: skip
    add("--dashboard", action="store_true", help="serve a live page of the run on this machine; its address is printed")
    add("--log-level", default="WARNING", metavar="LEVEL", type=_level, help="level of handlers' log records (default: "
        "WARNING)")  # fmt: skip


def add_file(add: Add) -> None:
    """Add the options for the file of the rows."""
    add("-o", "--output", "--results", metavar="FILE", default=STDOUT, help=".jsonl, .csv, .tsv, .json or .parquet "
        "(default: JSON Lines on stdout)")  # fmt: skip
    add("--columns", metavar="A,B,...", type=_names, help="columns of the rows: id, item, payload, status, attempts, "
        "elapsed, error, error_type, result, traceback, stdout, stderr, or keys of the result or the item")  # fmt: skip
    add("--raw-csv", action="store_true", help="texts that a spreadsheet takes for formulas stay as they are in .csv "
        "and .tsv (default: with an apostrophe)")  # fmt: skip


def add_messages(add: Add) -> None:
    """Add the options for the messages of a command that runs items, while it runs and at its end."""
    add("--progress", action=argparse.BooleanOptionalAction, help="show a bar (default: if stderr is a terminal)")
    add("-q", "--quiet", action="store_true", help="print errors only, on stderr: no bar, and no counts at the end")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    began_at = monotonic()
    log_to_stderr(args.log_level)
    args.more = _take_functions(args)
    check_one_folder([args.handler, *args.more, args.setup, args.backend])
    with told_on_stdout(as_json=args.json and (args.plan or args.dry_run or args.output != STDOUT)) as tell:
        if args.dry_run:
            return _dry_run(args, tell)
        if args.plan:
            return _plan(args, tell)
        output = open_output(
            args.output,
            args.columns,
            in_order=not args.unordered,
            failures=args.on_error != "skip",
            raw_csv=args.raw_csv,
            journal=args.journal,
        )
        with EarlyEnd(args, began_at) as early_end, output as sink:
            return _run(args, sink, early_end, tell)


def _take_functions(args: argparse.Namespace) -> list[str]:
    """Take the names of functions from the front of the inputs.

    An existing file of such a name stays an input, and so does each word after ``--``. Raises UsageError for options
    that apply to one function only.
    """
    names: list[str] = []
    while (
        len(args.inputs) > args.after_dashes
        and _FUNCTION.fullmatch(args.inputs[0])
        and not os.path.exists(args.inputs[0])
    ):
        names.append(args.inputs.pop(0))
    if names:
        option = first_given(args, "setup", "plan", "cost", "uses", "capture_output")
        if option is not None:
            raise UsageError(f"{option}: expected one function, got {len(names) + 1}: it can't be had with several")
    return names


def _read(args: argparse.Namespace) -> tuple[list[Any], tuple[Any, Any], Rerun]:
    """Read the items, the handler and the setup, and compare them with a journal."""
    handler = load_function(args.handler, "module:handler")
    setup = None if args.setup is None else load_function(args.setup, "--setup")
    items = read_items(args.inputs, args.kind)
    return items, (handler, setup), _rerun_of(args, items)


def _run(args: argparse.Namespace, sink: StdoutRows | FileSink, early_end: EarlyEnd, tell: Tell) -> int:
    items, functions, record = _read(args)
    more = [load_function(name, "module:handler") for name in args.more]
    with open_queue(args, policy_of(args)) as queue:
        job = None if more else _job(queue, args, items, functions, record, sink)
        if args.dashboard:
            with usage_errors("--dashboard: ", (ImportError,)):
                page = queue.serve()
            say(coloured("live page, as long as this runs:", "bold"), f" {page.url}")
        job_id = "run" if more and args.journal is None else " ".join([args.handler, *args.more])
        progress = progress_of(args, job_id)
        try:
            if job is not None:
                started = queue.start(job.id, progress=progress)
            else:
                options = _options(args, At.STAGES, record, sink)
                with usage_errors(kinds=REFUSED):
                    started = queue.start_stages(items, [functions[0], *more], id=job_id, progress=progress, **options)
        except OSError as error:
            if isinstance(sink, FileSink) and not sink.was_opened:
                raise UsageError(f"--output: {error}") from None
            raise
        early_end.drain_from_now(queue, started)
        code = follow(queue, started, sink, args, early_end)
        if isinstance(sink, FileSink):
            tell(job_line(started.job), None)
        return code if args.profile is None else write_profile(started.job, args.profile, code)


def _job(
    queue: JobQueue,
    args: argparse.Namespace,
    items: list[Any],
    functions: tuple[Any, Any],
    record: Rerun,
    sink: StdoutRows | FileSink,
) -> Job:
    """Make the job of one function."""
    handler, setup = functions
    with usage_errors(kinds=(*REFUSED, OSError)):
        return queue.create_job(
            args.handler,
            items,
            handler,
            setup=setup,
            cost=_size_of if args.cost == "size" else args.cost,
            uses=merged(args.uses),
            **_options(args, At.JOB, record, sink),
        )


def _options(args: argparse.Namespace, at: At, record: Rerun, sink: StdoutRows | FileSink) -> dict[str, Any]:
    """Return the options of a job of one function, or of several."""
    rerun = None if args.journal is None else record
    options = {"results": sink, "label": args.label, "profile": args.profile is not None, "rerun": rerun}
    options |= given_flags(args, at)
    return options | {"max_failures": 0} if args.on_error == "stop" else options


def _size_of(item: Any) -> int:
    try:
        return os.path.getsize(item)
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"--cost size: expected names of files, got {shown(item)}: {error}") from None


def open_queue(args: argparse.Namespace, policy: RetryPolicy) -> JobQueue:
    """Open the queue of a command that runs items. Raises UsageError."""
    backend = open_backend(args.backend)
    with usage_errors():
        queue = JobQueue(
            args.jobs,
            retry=policy,
            journal=args.journal,
            backend=backend,
            resources=merged(args.resources),
            **given_flags(args, At.QUEUE),
        )
    queue._host.tell_failures = False  # `follow` says so
    return queue


def policy_of(args: argparse.Namespace) -> RetryPolicy:
    """Return the policy for failed tries, by the options."""
    return RetryPolicy(args.retries, base_delay=args.retry_delay)


def _rerun_of(args: argparse.Namespace, items: list[Any]) -> Rerun:
    """Return the rules for items and their record in a journal. Raises `UsageError`."""
    name = first_given(args, "plan", "redo", "key", "handler_version")
    if args.journal is None and name is not None:
        raise UsageError(f"{name}: expected a --journal as well, which records earlier runs")
    redo: Redo = None
    names = list(dict.fromkeys(args.redo or ()))
    if len(names) == 1 and names[0] in REDO:
        redo = names[0]
    elif names:
        with usage_errors():
            table = make_table(items)
        table.label = args.label
        redo = [table.id_of(at) for name in names for at in _named(name, table)]
    keys: dict[str, Callable[[Any], bytes | str] | None] = {"file": file_key, "content": content_key, "value": None}
    kind = args.key or ("file" if kind_of(args.inputs, args.kind) == "files" else "value")
    return Rerun(update=True, key=keys[kind], version=args.handler_version, redo=redo)


def _named(name: str, table: ItemTable) -> list[int]:
    """The indices of the items with that id, text or label; of several equal texts, all of them.

    Raises UsageError for a name that no item has, or several.
    """
    found = [at for at, item in enumerate(table.payloads) if _is_named(name, table, at, item)]
    if len(found) > 1 and not all(isinstance(table.payloads[at], str) for at in found):
        both = " and ".join(f"items[{at}]" for at in found[:2])
        raise UsageError(f"--redo: expected the name or id of one item, got {name!r}, which is that of {both}")
    if found:
        return found
    if name in REDO:
        raise UsageError(
            f"--redo: expected {name} alone, or only names and ids of items, got {name} with another --redo"
        )
    raise UsageError(f"--redo: expected {', '.join(REDO)}, or the name or id of an item, got {name!r}")


def _is_named(name: str, table: ItemTable, at: int, item: Any) -> bool:
    if isinstance(item, str):
        return item == name  # its position is no name of it: among numbers, it could be another one's
    return name in (str(table.id_of(at)), table.label_at(at))


def _plan(args: argparse.Namespace, tell: Tell) -> int:
    """Print what would run: one line per item on stdout, the counts on stderr."""
    from mpqueue._parent.journal.checks import own_path
    from mpqueue._parent.journal.journal_reader import Reader  # only journals need it

    items, functions, record = _read(args)
    reader = Reader(own_path(args.journal)) if os.path.exists(args.journal) else None
    with usage_errors(kinds=(TypeError, ValueError, OSError)):
        table = make_table(items)
        recorded = None if reader is None else reader.find(args.handler)
        found = plan(
            reader,
            recorded,
            table,
            functions,
            record,
            max_retries=policy_of(args).max_retries,
            wants_results=True,
        )
    for what in ("new", "changed", "gone", "failed"):
        for item_id in getattr(found, what):
            is_position = table.ids is None and what != "gone"
            item = label(table.payloads[item_id] if is_position else item_id)
            tell({"change": what, "id": item_id, "item": item}, f"{what}\t{item}")
    say(f"{found}{'; the code has changed' if found.code_changed else ''}")
    return Exit.GOOD


def _dry_run(args: argparse.Namespace, tell: Tell) -> int:
    """Run three items, and print an estimate for all of them. It refuses the same options as a whole run.

    The journal is not read.
    """
    other = first_given(args, "plan", "profile", "dashboard")
    if other is not None:
        raise UsageError(f"--dry-run: expected no {other} as well, which is for a whole run")
    with open_output(
        args.output, args.columns, raw_csv=args.raw_csv, journal=args.journal
    ) as sink:  # checked, but not opened
        items, functions, record = _read(args)
        chosen = some_of(items)
        more = [load_function(name, "module:handler") for name in args.more]
        if args.journal is not None and args.cost == "recorded":
            args.cost = None
        args.journal = None
        with open_queue(args, policy_of(args)) as whole:  # it starts no worker
            workers = fitting = whole.concurrency
            if not args.more:
                not_run = _job(whole, args, items, functions, record, sink)
                fitting = at_a_time(not_run, workers, whole._options.resources)
                whole.clear_job(not_run.id)
        options: dict[str, Any] = {"label": args.label}
        if not args.more:
            options |= {"setup": functions[1], "uses": merged(args.uses)}
        if args.backend is None:
            args.jobs = min(workers, max(1, len(chosen)) * (merged(args.uses) or {}).get("cpu", 1))
        with open_queue(args, ONE_TRY) as queue:
            with usage_errors(kinds=REFUSED):
                if more:
                    job = queue.run_stages(chosen, [functions[0], *more], id="dry run", **options)
                else:
                    job = queue.run(chosen, functions[0], id="dry run", chunksize=1, **options)
            return say_estimate(job, args.columns, len(items), workers, fitting, functions[1] is not None, tell)


def log_to_stderr(level: str) -> None:
    """Show log records from that level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s %(name)s: %(where)s%(message)s", defaults={"where": ""}))
    logging.basicConfig(level=level, handlers=[handler])


def follow(
    queue: JobQueue,
    started: JobRun,
    sink: StdoutRows | FileSink | None,
    args: argparse.Namespace,
    early_end: EarlyEnd,
) -> int:
    """Wait until the job has ended or is interrupted, and say how; its rows are written meanwhile, if it has a sink."""
    job = started.job
    try:
        started.result()
        early_end.wait()
    except BaseException as error:
        end_running(queue, job.id)
        started._end_display()  # it calls only our own code, and its last line comes before ours
        if isinstance(error, SinkError):
            return _say_unwritten(error, recorded=args.journal is not None)
        if isinstance(error, WorkerStartError) and job.status.final:
            _say_stopped(job, sink, quiet=args.quiet)
            return say_drained(recorded=args.journal is not None)
        if not isinstance(error, KeyboardInterrupt):
            raise
        with suppress(MPQueueError, TimeoutError):
            started.result(ROWS_WAIT_S)
        _say_interrupted(job, sink, recorded=args.journal is not None)
        return Exit.INTERRUPTED
    if job.stopped_why is not None:
        _say_stopped(job, sink, quiet=args.quiet)
        return Exit.FAILED if job.failed else say_drained(recorded=args.journal is not None)
    say_end(job, quiet=args.quiet)
    if sink is not None and job.total and ended_before(job._book) == job.total and not args.quiet:
        how = "--redo failed runs the failed items again" if job.failed else "--redo all runs all of them again"
        say(coloured("nothing left to do:", "green"), f" all items had ended in earlier runs; {how}")
    _say_kept(sink)
    if early_end.left_some:
        return say_drained(recorded=args.journal is not None)
    if sink is not None and args.columns is not None and sink.columns is None:  # its line was printed
        return Exit.FAILED
    return Exit.GOOD if job.status is JobStatus.COMPLETED else Exit.FAILED


def _say_stopped(job: Job, sink: StdoutRows | FileSink | None, *, quiet: bool) -> None:
    """Say how a job ended that was stopped before it was over, and why."""
    say_end(job, quiet=quiet)
    _say_kept(sink)
    say(coloured("stopped:", "yellow"), f" {job.stopped_why}")


def end_running(queue: JobQueue, job_id: str) -> None:
    """End all running items of the job, also while the queue is being drained."""
    try:
        queue.cancel(job_id, kill=True)
    except QueueClosedError:
        queue.close(kill=True)


# -- messages for people -----------------------------------------------------------------------------------------------


def progress_of(args: argparse.Namespace, job_id: str) -> ShowProgress:
    """A bar on a terminal; lines elsewhere, if wanted, which name the stages of that job."""

    def stage(progress: Progress) -> str:  # the name of its function; "" for the job itself
        return progress.job_id.removeprefix(job_id).removeprefix("/")

    wanted = False if args.quiet else args.progress
    if wanted is False or (wanted is None and not can_draw()):
        return False
    return True if can_draw() or is_silenced() else LogLines(stage, say, least=0.0)


def say_end(job: Job, *, quiet: bool = False) -> None:
    """Say how the job ended, and how much of that in earlier runs; with ``quiet`` only the failures."""
    failures = job.failures
    for failure in failures[:NAMED]:
        say(coloured("failed:", "red"), f" {describe_failure(failure.item)}")
    if len(failures) > NAMED:
        say(f"... and {number(len(failures) - NAMED)} more; together:")
        for group in shown_groups(job.failure_groups(), NAMED):
            say(f"    {group}")
    if not quiet:
        say(*_summary(job))


def describe_failure(item: JobItem) -> str:
    """Describe a failed item in one line, or more if its error has more."""
    error = visible(item.error or "").replace("\n", "\n    ")
    return f"{item.label}: {error} (after {counted(item.attempts, 'try')})"


def _summary(job: Job) -> Iterator[str]:
    book = job._book
    yield f"{counted(job.total, 'item')}: "
    yield coloured(f"{number(job.completed)} completed", "green")
    if book.completed_before:
        yield f" ({number(book.completed_before)} in earlier runs)"
    if job.failed:
        yield ", "
        yield coloured(f"{number(job.failed)} failed", "red")
        if book.failed_before:
            yield f" ({number(book.failed_before)} in earlier runs)"
    if left := left_of(book):
        yield ", "
        yield coloured(f"{number(left)} not run", "yellow")
    if job.retries:
        yield f", {counted(job.retries, 'retry')}"
    if job.duration is not None and ended_before(book) < job.total:
        yield f", in {took(job.duration)}"


def _say_unwritten(error: SinkError, *, recorded: bool) -> int:
    """Print why rows could not be written, and which were kept; returns the exit code."""
    if isinstance(error.__cause__, BrokenPipeError):
        raise error.__cause__
    say_error(f"{error}{'; the same command goes on' if recorded else ''}")
    return Exit.FAILED


def _say_kept(sink: StdoutRows | FileSink | None) -> None:
    """Print where the rows are, if not all of them were written."""
    if isinstance(sink, FileSink) and sink.left is not None:
        say(f"kept: {counted(sink.rows, 'row')} in {sink.left}")


def _say_interrupted(job: Job, sink: StdoutRows | FileSink | None, *, recorded: bool) -> None:
    """Print the state of the interrupted job, and how to continue."""
    say(
        "\n",
        coloured("interrupted:", "yellow"),
        f" {number(job.completed + job.failed)} of {counted(job.total, 'item')} had ended",
    )
    _say_kept(sink)
    say(f"{'to go on' if recorded else 'to run it again'}: {again()}")


def say_drained(*, recorded: bool) -> int:
    """Print how to continue after a drain; returns the exit code."""
    say("run the same command to go on" if recorded else "to run it again", f": {again()}")
    return Exit.DRAINED


def again() -> str:
    """The given command line, to be repeated."""
    with suppress(ValueError):
        return " ".join(["mpqueue", *map(quoted, sys.argv[1:])])
    return "mpqueue"


# -- values ------------------------------------------------------------------------------------------------------------


def workers(text: str) -> Concurrency:
    """Return a number of workers: a number, ``auto``, or ``physical``. Raises ArgumentTypeError."""
    if text == "auto":
        return None
    if text == "physical":
        return "physical"
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, auto or physical, got {text!r}")
    return int(text)


def _level(text: str) -> str:
    name = text.upper()
    if name not in logging.getLevelNamesMapping():
        raise argparse.ArgumentTypeError(f"expected a level of logging, got {text!r}")
    return name
