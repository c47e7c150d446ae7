"""One queue of a chaos run: the jobs that were given to it, and what was found wrong with them."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from mpqueue import JobFullError, JobQueue, RetryPolicy
from mpqueue.events import JOB_FINISHED, JOB_PROGRESS
from tests.chaos.audit import Audit, Case, Struck
from tests.chaos.deeds import (
    ALWAYS,
    BAD_SETUPS,
    BREAKS,
    CRASHES,
    FORKS,
    GOOD_SETUPS,
    HANGS,
    HOGS,
    HOPELESS,
    LITTER,
    RAISES,
    Deed,
    Doer,
    Unpicklable,
    Unreadable,
    array_of,
)
from tests.chaos.witness import RaisingListener, SlowListener, Witness

#: Seconds. Long enough for all that is quick, on a busy machine too; each item that hangs takes it.
TIMEOUT = 1.0

#: What a worker may have, where that is limited: several times what anything but a hog takes.
MEMORY_LIMIT = "250MB"

#: Of a resource that a few jobs count.
GPUS = 2

#: Items in a job.
MOST_ITEMS = 1000

_numbers = itertools.count(1)


class Pulse:
    """Beats with everything that somebody gets who takes things one by one."""

    def __init__(self) -> None:
        self.beats = 0

    def beat(self) -> None:
        """Something came."""
        self.beats += 1  # two at once may count as one


class Arena:
    """A queue with a random make, and its books as we keep them."""

    def __init__(
        self, rng: random.Random, folder: Path, struck: Struck, objection: Callable[[str], None], pulse: Pulse
    ) -> None:
        self.number = next(_numbers)
        self.log = folder / f"calls-{self.number}"
        self.make = _random_make(rng)
        self.queue = JobQueue(**self.make)
        self.closing = False
        self.pulse = pulse
        self.lock = threading.Lock()
        self._object = objection
        self._cases: dict[str, Case] = {}
        self._audit = Audit(struck)
        self._job_numbers = itertools.count(1)
        merges = self.make["progress_interval"] > 0
        self.witness = Witness(self.queue, self.complain, merges=merges)
        if rng.random() < 0.3:
            self.queue.on(JOB_PROGRESS, SlowListener(random.Random(rng.random())))
        if rng.random() < 0.3:
            self.queue.on(JOB_PROGRESS, RaisingListener(random.Random(rng.random())))
        if rng.random() < 0.5:
            self.queue.on(JOB_FINISHED, RaisingListener(random.Random(rng.random())))

    def complain(self, text: str) -> None:
        """Something is wrong here."""
        self._object(f"queue {self.number} ({self.make}): {text}")

    def cases(self) -> list[Case]:
        """All jobs so far."""
        with self.lock:
            return list(self._cases.values())

    def case(self, job_id: str) -> Case | None:
        """The job of that id."""
        return self._cases.get(job_id)

    def create(self, rng: random.Random) -> Case:
        """Create a random job."""
        job_id = f"job-{self.number}.{next(self._job_numbers)}"
        timeout = TIMEOUT if rng.random() < 0.25 else self.make["timeout"]
        items_of_a_worker = self.make["per_worker"]["items"]
        most = MOST_ITEMS if items_of_a_worker is None else 15 * items_of_a_worker
        may_hog = self.make["per_worker"]["memory"] is not None
        deeds = random_deeds(rng, most, may_hang=timeout is not None, may_hog=may_hog)
        retry = random_policy(rng)
        good_setup = rng.random() < 0.9
        setup = rng.choice(GOOD_SETUPS if good_setup else BAD_SETUPS)
        max_failures = rng.choice((None, None, None, None, 5))
        options: dict[str, Any] = {"uses": {"gpu": 1}} if rng.random() < 0.1 else {}
        if is_open := rng.random() < 0.2:
            options |= {"max_waiting": rng.choice((None, None, 100))}
        create: Any = self.queue.open_job if is_open else self.queue.create_job
        job = create(
            job_id,
            deeds,
            Doer(str(self.log)),
            setup=setup,
            retry=retry,
            timeout=timeout,
            priority=rng.choice((0, 0, 0, 0, 1, -1)),
            chunksize=rng.choice((None, None, None, 1, 3, 50)),
            max_failures=max_failures,
            **options,
        )
        case = Case(job, deeds, retry.max_retries, timeout, good_setup, max_failures, is_open)
        with self.lock:
            self._cases[job_id] = case
        return case

    def add(self, rng: random.Random, case: Case) -> int:
        """Offer an open job some more items; returns how many it took. With ``case.starting`` held."""
        first = len(case.deeds)
        more = random_deeds(rng, 20, first, may_hang=False, may_hog=False)  # they would add up to minutes
        case.deeds.extend(more)  # it may take some of them, and then say that it has ended
        try:
            taken = self.queue.add_items(case.job.id, more, wait=False)
        except JobFullError:
            del case.deeds[first:]
            return 0
        if taken != len(more):
            self.complain(f"{case.job.id} took {taken} of {len(more)} new items")
        return taken

    def audit(self, case: Case) -> None:
        """Check a job that is over, once."""
        with self.lock:
            if case.audited:
                return
            case.audited = True
        for objection in self._audit.of(case, self.witness.of(case.job.id)):
            self.complain(objection)

    def audit_all(self) -> None:
        """Check everything, once the queue is closed and all runs have resolved."""
        for case in self.cases():
            self.audit(case)
        for objection in self._audit.of_executions(self.log, self.cases()):
            self.complain(objection)
        for objection in (*self._audit.of_forks(self.log), *self._audit.of_uses(self.log)):
            self.complain(objection)
        for log in self.log.parent.glob(f"{self.log.name}*"):
            if log.name[len(self.log.name) :] in ("", "-forks", "-uses", *(f"-gpu-{number}" for number in range(GPUS))):
                log.unlink(missing_ok=True)


def _random_make(rng: random.Random) -> dict[str, Any]:
    return {
        "concurrency": rng.choice((1, 2, 2, 3)),
        "per_worker": {
            "items": rng.choice((None, None, None, 1, 4, 40)),
            "memory": rng.choice((None, None, None, MEMORY_LIMIT)),
            "setup_timeout": 10.0,
        },
        "progress_interval": rng.choice((0.0, 0.0, 0.0, 0.02)),
        "timeout": rng.choice((None, None, TIMEOUT)),
        "resources": {"gpu": GPUS},
    }


def random_policy(rng: random.Random) -> RetryPolicy:
    """A policy with short delays."""
    return RetryPolicy(
        max_retries=rng.choice((0, 1, 1, 2, 3)),
        base_delay=rng.choice((0.0, 0.01, 0.05)),
        factor=rng.choice((1.0, 2.0)),
        jitter=rng.choice((0.0, 0.5)),
    )


def random_deeds(rng: random.Random, most: int, first: int = 0, *, may_hang: bool, may_hog: bool) -> list[Deed]:
    """Items of a job, numbered from ``first``: of one kind for the most part, so pace and chunks vary between jobs."""
    size = min(most, rng.choice((0, 1, 2, 5, 20, 20, 60, 200, MOST_ITEMS)))
    main = rng.choice(("quick", "quick", "nap", "mixed"))
    spice = rng.choice((0.0, 0.02, 0.1, 0.5)) * min(1.0, 40 / max(1, size))
    largest = min(1.0, 50 / max(1, size))
    families = [RAISES, RAISES, CRASHES, BREAKS, HOPELESS, LITTER, ("ask",), *[HANGS] * may_hang, *[HOGS] * may_hog]
    return [_random_deed(rng, first + number, main, spice, largest, families) for number in range(size)]


def _random_deed(
    rng: random.Random, number: int, main: str, spice: float, largest: float, families: Sequence[Collection[str]]
) -> Deed:
    """``largest`` is what part of the most that an item may take it may take here: a job is done in seconds."""
    if rng.random() < spice:
        return _bad_deed(rng, number, families)
    kind = main
    if main == "mixed":
        kind = rng.choice(("quick", "nap", "nap", "array", "bytes", "carry", "keep", "watch", *FORKS))
    match kind:
        case "nap" | "watch":
            return Deed(number, kind, amount=int(largest * 10 ** rng.uniform(2, 5)))
        case "array" | "bytes":
            return Deed(number, kind, amount=int(largest * 10 ** rng.uniform(3, 6.5)))
        case "carry" | "keep" | "fork" | "fork in C":
            size = int(largest * 10 ** rng.uniform(3, 6.5))
            return Deed(number, kind, amount=size, cargo=array_of(number, size))
    return Deed(number, kind)


def _bad_deed(rng: random.Random, number: int, families: Sequence[Collection[str]]) -> Deed:
    kind = rng.choice(list(rng.choice(families)))
    until = 0 if kind in HOPELESS or kind in LITTER else rng.choice((1, 1, 2, ALWAYS))
    make = {"unpicklable": Unpicklable, "unreadable": Unreadable}.get(kind, Deed)
    return make(number, kind, until)
