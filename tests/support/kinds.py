"""Jobs of each kind that a journal has, made of the same items: a list, an open job, a stream."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import Job
from mpqueue.testing import InlinePool
from tests.support.journals import queue_of
from tests.support.results import outcomes

JOB = "job"


def _outcomes(job: Job[Any, Any], items: Sequence[Any]) -> list[Any]:
    """In the order of the items that were given, of which an open job has its own."""
    left = [*job.items]
    found = []
    for item in items:
        at = next(at for at, each in enumerate(left) if each.payload == item)
        ended = left.pop(at)
        found.append(ended.result if ended.error is None else ended.error)
    return found


def _run_list(handler: Callable[[Any], Any], items: Sequence[Any], path: Path, **options: Any) -> list[Any]:
    rerun = dataclasses.replace(options.pop("rerun", mpqueue.Rerun()), update=True)
    with queue_of(path) as queue:
        return _outcomes(queue.run(items, handler, id=JOB, rerun=rerun, **options), items)


def _run_open(handler: Callable[[Any], Any], items: Sequence[Any], path: Path, **options: Any) -> list[Any]:
    """Half of the items at first, the others one by one."""
    with queue_of(path) as queue:
        job = queue.open_job(JOB, items[: len(items) // 2], handler, **options)
        run = queue.start(JOB)
        for item in items[len(items) // 2 :]:
            queue.add_items(JOB, [item])
        queue.seal(JOB)
        run.result(300)
        return _outcomes(job, items)


def _run_stream(handler: Callable[[Any], Any], items: Iterable[Any], path: Path, **options: Any) -> list[Any]:
    call: Any = mpqueue.imap
    return outcomes(
        call(handler, items, journal=path, job_id=JOB, concurrency=1, max_retries=0, backend=InlinePool(), **options)
    )


@dataclass(frozen=True)
class Kind:
    """A kind of job. ``run`` runs the job of these items in a queue of its own: each item's result, or its error."""

    name: str
    run: Callable[..., list[Any]]
    runs_failed_again: bool = False  #: in each run, without being told

    def __str__(self) -> str:
        return self.name


KINDS = [Kind("list", _run_list), Kind("open", _run_open), Kind("stream", _run_stream, runs_failed_again=True)]
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=str)


class Calls:
    """A handler that notes which items it was called with, and fails with some of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.fail()

    def fail(self, *items: object) -> None:
        """With these it fails from now on."""
        (self._folder / "failing").write_text("\n".join(map(repr, items)))

    def __call__(self, item: Any) -> Any:
        with (self._folder / "calls").open("a") as calls:
            calls.write(f"{item!r}\n")
        if repr(item) in (self._folder / "failing").read_text().splitlines():
            raise ValueError(f"not {item!r}")
        return f"result of {item!r}"

    def take(self) -> list[str]:
        """With which items it was called since the last time."""
        calls = self._folder / "calls"
        found = calls.read_text().splitlines() if calls.exists() else []
        calls.unlink(missing_ok=True)
        return found
