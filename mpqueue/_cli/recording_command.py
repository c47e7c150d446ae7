"""``mpqueue recording``: what a queue decided, step by step, from a file that ``MPQUEUE_RECORD`` made."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mpqueue._cli.run_command import count
from mpqueue._cli.usage import Exit, UsageError, tell
from mpqueue._text import visible

if TYPE_CHECKING:
    from mpqueue._core.state.books import Books
    from mpqueue._core.state.job_book import JobBook
    from mpqueue._core.state.lane_book import Chunk
    from mpqueue._parent.recording.replaying import Step

EXAMPLES = """\
examples:
  MPQUEUE_RECORD=bug.jsonl python program.py    # makes the recording
  mpqueue recording bug.jsonl                   # does this version decide the same? and how does it end?
  mpqueue recording bug.jsonl --step 120        # what happened then, and how everything stood after it
  mpqueue recording bug.jsonl --all --job 3     # each step in which job 3 is named

exit codes: 0 the same was decided, 1 something else was or the file can't be replayed, 2 wrong usage
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the command line."""
    text = "replay a recording that MPQUEUE_RECORD made"
    parser = commands.add_parser(
        "recording",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recording", metavar="FILE", help="the file that MPQUEUE_RECORD named")
    parser.add_argument("--step", type=count, metavar="N", help="stop after this step (default: the last one)")
    parser.add_argument("--job", type=count, metavar="N", help="this job only, by its number")
    parser.add_argument("--all", action="store_true", help="print each step on the way")
    parser.set_defaults(command=show)


def show(args: argparse.Namespace) -> int:
    """The steps, the first one that is decided differently, and the books."""
    from mpqueue._parent.recording.replaying import Replay  # no other command needs it

    try:
        replay = Replay(args.recording)
    except OSError as error:
        raise UsageError(f"{args.recording}: expected a recording, got {error.strerror}") from error
    _tell(" ".join(f"{key} {value}" for key, value in replay.header.items() if not isinstance(value, dict)))
    steps = _take(args, replay.steps())
    last = steps[-1]
    different = next((step for step in steps if not step.same), None)
    _tell_all(_details(last) if args.step is not None else ())
    _tell_all(_books(replay.scheduler.books, replay.scheduler.deadline, args.job))
    if different is None:
        _tell(f"{last.number} steps, {last.at - steps[0].at:.3f} s: everything was decided as recorded")
        return Exit.GOOD
    _tell(f"step {different.number} is the first one that is decided differently:")
    _tell_all(_details(different))
    return Exit.FAILED


def _take(args: argparse.Namespace, steps: Iterator[Step]) -> list[Step]:
    """Take the steps that are wanted; what is said of them needs the first, the last, and those that differ."""
    taken: list[Step] = []
    for step in steps:
        if len(taken) > 1 and taken[-1].same:
            taken.pop()
        taken.append(step)
        if args.all and (args.job is None or args.job in step.jobs):
            _tell(_line(step, taken[0]))
        if step.number == args.step:
            return taken
    if not taken:
        raise UsageError(f"{args.recording}: expected at least one step, got none")
    if args.step is not None:
        raise UsageError(f"--step {args.step}: expected a step up to {taken[-1].number}, the last one")
    return taken


def _tell_all(lines: Iterable[str]) -> None:
    for line in lines:
        _tell(line)


def _tell(line: str) -> None:
    tell(visible(line))


def _line(step: Step, first: Step) -> str:
    asked = [command["is"] for command in step.recorded] if isinstance(step.recorded, list) else [f"! {step.recorded}"]
    mark = "" if step.same else "  DIFFERENT NOW"
    about = " ".join(f"{key}={_short(value)}" for key, value in step.message.items() if key != "is")
    return (
        f"{step.number:6} {step.at - first.at:10.4f}  {step.message['is']} {about} -> {', '.join(asked) or '-'}{mark}"
    )


def _short(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return text if len(text) <= 40 else f"{text[:37]}..."


def _details(step: Step) -> Iterator[str]:
    yield f"step {step.number}: {json.dumps(step.message)}"
    yield from _commands("asked for", step.recorded)
    if not step.same:
        yield from _commands("asks now for", step.commands)


def _commands(title: str, commands: object) -> Iterator[str]:
    if not isinstance(commands, list):
        yield f"  {title}: nothing, it raised {commands}"
        return
    yield f"  {title}: {'nothing' if not commands else ''}".rstrip()
    for command in commands:
        yield f"    {json.dumps(command)}"


def _books(books: Books, deadline: float | None, job: int | None) -> Iterator[str]:
    for lane in books.lanes:
        if job is None or (lane.job is not None and lane.job.number == job):
            where = f"lane {lane.number}: {lane.state.name} generation {lane.generation} pid {lane.pid}"
            yield f"{where}; {', '.join(map(_chunk, lane.chunks)) or 'no chunk'}"
    for book in books.jobs.values():
        if job in (None, book.number):
            yield _job(book)
    due = "nothing is due" if deadline is None else f"the next is due in {deadline - books.now:.3f} s"
    yield f"{len(books.timers)} timers, {due}"


def _chunk(chunk: Chunk) -> str:
    sent = f"chunk {chunk.number} of job {chunk.job.number}: {len(chunk.indices)} items from {chunk.indices[0]}"
    return f"{sent}, {chunk.reported} reported, end {chunk.end}, {chunk.care.name}"


def _job(book: JobBook) -> str:
    state = f"{book.status}{' (being cancelled)' if book.cancelled else ''}"
    done = f"{book.completed} completed, {book.failed} failed, {book.total} in all"
    return f"job {book.number}: {state}, {done}; {len(book.pending)} wait, {book.chunks_out} chunks are out"
