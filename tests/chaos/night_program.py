"""The program of the nights' game: the same job, or stream, each night, on a list that has changed meanwhile.

``python -m tests.chaos.night_program FOLDER WAY [MOST]``. The items are in FOLDER/list.json, and what came of each item
goes to FOLDER/results.json, whole, once all have ended; a stream is broken off after MOST results. Each call of the
handler is a line of FOLDER/calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import mpqueue
from mpqueue import JobQueue, JournalError
from tests.support.waiting import spend

#: The exit codes where the journal was refused, and where the stream was broken off.
REFUSED, BROKEN_OFF = 70, 71


class Work:
    """The handler: writes down that it was called."""

    def __init__(self, folder: str) -> None:
        self._calls = os.path.join(folder, "calls")

    def __call__(self, item: Any) -> dict[str, Any]:
        """What has to come of an item, after as long as that takes."""
        fd = os.open(self._calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        os.write(fd, f"{name_of(item)}\n".encode())
        os.close(fd)
        spend(random.Random(name_of(item)).choice((0.0, 0.0, 0.001, 0.02, 0.3)))
        if fails(item):
            raise ValueError(worth(item))
        return outcome(item)


def name_of(item: Any) -> str:
    """An item, told apart from all others and from what it was before, on one line."""
    return json.dumps(item, sort_keys=True)


def worth(item: Any) -> str:
    """A word that is the item's own."""
    return hashlib.sha256(name_of(item).encode()).hexdigest()


def fails(item: Any) -> bool:
    """True of one item in twenty."""
    return random.Random(worth(item)).random() < 0.05


def outcome(item: Any) -> dict[str, Any]:
    """What the handler returns; one in five is big enough for a file of its own."""
    dice = random.Random(name_of(item))
    return {"worth": worth(item), "ballast": dice.randbytes(dice.choice((0, 0, 0, 1000, 400_000)))}


def digest(result: Any) -> str | None:
    """What tells one result from another."""
    return None if result is None else hashlib.sha256(repr(result).encode()).hexdigest()


class BrokenOffError(Exception):
    """The stream was left before its end."""


#: What is known of an item once it has ended, and the digest of what its job or stream gave for it.
Told = tuple[str, str | None]


def main(folder: Path, way: str, most: int | None) -> int:
    """Bring the batch up to date."""
    items = json.loads((folder / "list.json").read_text())
    try:
        told = WAYS[way](folder / "run.db", items, Work(str(folder)), most)
    except JournalError as error:
        print(error, file=sys.stderr)
        return REFUSED
    except BrokenOffError:
        return BROKEN_OFF
    names = [name_of(item) for item in items]
    rows = [(name, said) for name, (said, _) in zip(names, told, strict=True)]
    whole = [(name, result) for name, (_, result) in zip(names, told, strict=True)]
    written = folder / "results.new"
    written.write_text(json.dumps({"items": rows, "results": whole}))
    os.replace(written, folder / "results.json")
    return 0


def as_job(journal: Path, items: list[Any], work: Work, _: int | None) -> list[Told]:
    """A job of a queue."""
    with JobQueue(2, journal=journal, max_retries=0) as queue:
        job = queue.create_job("batch", items, work, rerun=mpqueue.Rerun(update=True))
        queue.start("batch").result()
        return [(told(view), digest(result)) for view, result in zip(job.items, job.results, strict=True)]


def told(view: Any) -> str:
    """What is known of an item."""
    if view.exception is not None:
        return f"failed {view.exception.args[0]}"
    return f"{view.status} {digest(view.result)}"


def as_map(journal: Path, items: list[Any], work: Work, _: int | None) -> list[Told]:
    """`amap`."""
    call = mpqueue.amap(
        work,
        items,
        concurrency=2,
        max_retries=0,
        on_error="collect",
        journal=journal,
        job_id="batch",
        rerun=mpqueue.Rerun(update=True),
    )
    return [told_of(outcome) for outcome in asyncio.run(call)]


def told_of(outcome: Any) -> Told:
    """The same of what stands in its result's place."""
    if isinstance(outcome, ValueError):
        return f"failed {outcome.args[0]}", None
    return f"completed {digest(outcome)}", digest(outcome)


def as_stream(imap: Callable[..., Any], journal: Path, items: list[Any], work: Work, most: int | None) -> list[Told]:
    """`imap`, or `imap_unordered`, of whose outcomes each says which item it is of."""
    stream = imap(work, iter(items), concurrency=2, max_retries=0, on_error="collect", journal=journal, job_id="batch")
    with contextlib.closing(stream) as results:
        outcomes = list(islice(results, most))
        if most is not None and len(outcomes) == most:
            raise BrokenOffError
    if imap is mpqueue.imap:
        return [told_of(outcome) for outcome in outcomes]
    found = defaultdict(list)
    for outcome in outcomes:
        found[outcome.args[0] if isinstance(outcome, ValueError) else outcome["worth"]].append(told_of(outcome))
    told = [found[worth(item)].pop() for item in items]
    assert not any(found.values()), "more outcomes than items"
    return told


#: The ways in which the items are run.
LISTS = {"job": as_job, "amap": as_map}
STREAMS = {
    "imap": partial(as_stream, mpqueue.imap),
    "imap_unordered": partial(as_stream, mpqueue.imap_unordered),
}
WAYS = LISTS | STREAMS


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None))
