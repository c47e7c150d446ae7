"""The feed of the viewers: one look at the queue for all of them, at most ten times a second.

Server-sent events. First comes ``hello``, then the current state, then the changes:

- ``job:state``: a job's counts, times, rate, ETA; its ``version`` changes whenever one of its items does;
- ``job:gone``: a job was cleared;
- ``workers``: the workers whose task has changed (``lanes``), or that have ``gone``;
- ``closed``: the queue was closed, and no more events will come.

It has no items, and nothing of the past: a viewer asks for what it shows (`mpqueue._live_page.listing`,
`mpqueue._live_page.job_feed`). Everything runs on the page's event loop, and none of it is users' code.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mpqueue._live_page.job_feed import JobFeed
from mpqueue._live_page.page_json import as_event, encode
from mpqueue._live_page.served import Served
from mpqueue._parent.running import LaneNow
from mpqueue.events import milliseconds

Form = TypeVar("Form")

#: Seconds between two looks, with viewers and without (then only for the rates of the jobs).
INTERVAL, UNSEEN_INTERVAL = 0.1, 0.5
#: The least pause after a look, as a multiple of its time: jobs with millions of items are looked at less often.
RESTS = 5
#: Seconds after which viewers get an event even if nothing happens.
HEARTBEAT = 2.0
#: Seconds that an item has run before viewers get to know that its worker is at it.
READABLE = 0.2


class Viewer:
    """One browser that listens. It reads what has changed since its last read: if it reads slowly, it misses steps."""

    def __init__(self) -> None:
        self.jobs: dict[int, str] = {}  #: the jobs' and the lanes' forms that it has read, by their numbers
        self.lanes: dict[int, dict[str, Any]] = {}
        self.beat = 0  #: of the last ``workers`` that it has read; 0: it has read nothing
        self.is_over = False  #: it has read all: the queue was closed
        self.wake = asyncio.Event()
        self.wake.set()


class PageFeed:
    """Looks at the queue, and tells the viewers what has changed."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._jobs: dict[int, JobFeed] = {}
        self.lanes: Sequence[LaneNow] = ()  #: as of the last look
        self._viewers: set[Viewer] = set()
        self._stop = asyncio.Event()
        self._ended = False
        self._job_forms: dict[int, str] = {}  #: as of the last look with viewers
        self._lane_forms: dict[int, dict[str, Any]] = {}
        self._beat = 0  #: counts the changes of the lanes, and signs of life
        self._size, self._told_at = 0, -math.inf
        self.offset = served.wall() - served.now()  #: from the monotonic clock to seconds since the epoch

    # -- viewers ---------------------------------------------------------------------------------------------

    def join(self) -> Viewer:
        """Add a viewer."""
        viewer = Viewer()
        self._viewers.add(viewer)
        self._tell_news()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer that has gone."""
        self._viewers.discard(viewer)
        if not self._viewers:
            for job in self._jobs.values():
                job.listing.forget()

    async def read(self, viewer: Viewer) -> bytes:
        """Wait until something has changed since the viewer's last read, and return that."""
        await viewer.wake.wait()
        viewer.wake.clear()
        viewer.is_over = self._ended
        return self._news_for(viewer) + (as_event("closed", "{}") if viewer.is_over else b"")

    def _news_for(self, viewer: Viewer) -> bytes:
        """Everything that has changed since the viewer's last read, which this is now; at first the whole state."""
        served, now = self._served, milliseconds(self._served.wall())
        parts = []
        if not viewer.beat:
            hello = {"canResize": served.can_resize, "canLook": served.can_look, "canAct": served.can_act, "now": now}
            parts.append(as_event("hello", encode(hello)))
        states, gone = _changes(viewer.jobs, self._job_forms)
        parts += [as_event("job:gone", encode({"number": number})) for number in gone]
        parts += [as_event("job:state", state) for state in states]
        if viewer.beat != self._beat:
            lanes, left = _changes(viewer.lanes, self._lane_forms)
            workers = {"now": now, "concurrency": served.concurrency, "lanes": lanes, "gone": left}
            parts.append(as_event("workers", encode(workers)))
        viewer.jobs, viewer.lanes, viewer.beat = self._job_forms, self._lane_forms, self._beat
        return b"".join(parts)

    def states(self) -> list[dict[str, Any]]:
        """All jobs, without their items."""
        return [job.state() for job in self.look()]

    def all(self) -> list[JobFeed]:
        """All jobs, as they were at the last look."""
        return list(self._jobs.values())

    def look(self) -> list[JobFeed]:
        """Look at the jobs and the lanes now; returns all jobs."""
        self._look_at_jobs()
        return self.all()

    def find(self, number: int) -> JobFeed | None:
        """The job of that number, in its current state; None if there is none (any more)."""
        self._look_at_jobs()
        return self._jobs.get(number)

    def lane_of(self, job: int, index: int) -> LaneNow | None:
        """The lane that runs that item of that job now; None if none does, or if the lane runs it among others."""
        return next((lane for lane in self.lanes if lane.job == job and list(lane.items) == [index]), None)

    # -- looking ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look repeatedly, until `stop`, or until the queue is no longer referenced."""
        while not self._stop.is_set():
            begun = self._served.now()
            if not self._look_at_jobs():
                break
            self._tell_news()
            pause = max(INTERVAL if self._viewers else UNSEEN_INTERVAL, RESTS * (self._served.now() - begun))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):  # Python 3.11's `wait_for` may swallow a cancellation
                    await self._stop.wait()
        self._look_at_jobs()
        self._tell_news()
        self._ended = True
        for viewer in self._viewers:
            viewer.wake.set()

    def stop(self) -> None:
        """Send viewers the rest, since the queue has ended, and make `run` end."""
        self._stop.set()

    def forget(self) -> None:
        """Free all jobs: no viewer asks any more."""
        self._jobs.clear()

    def _tell_news(self) -> None:
        """Take the forms of all jobs and lanes, and wake the viewers, if there are any, if a form has changed."""
        if not self._viewers:
            return
        now, size = self._served.now(), self._served.concurrency
        jobs = {number: job.form() for number, job in self._jobs.items()}
        lanes = {lane.number: self._lane_form(lane) for lane in self.lanes}
        is_news = jobs != self._job_forms
        # Now and then also without news, as a sign of life.
        if lanes != self._lane_forms or size != self._size or now >= self._told_at + HEARTBEAT:
            self._beat += 1
            self._size, self._told_at = size, now
            is_news = True
        self._job_forms, self._lane_forms = jobs, lanes  # new ones: viewers keep those that they have read
        if is_news:
            for viewer in self._viewers:
                viewer.wake.set()

    def _look_at_jobs(self) -> bool:
        """Look at the jobs and the lanes; False if there is no queue any more."""
        served = self._served
        books = served.books()
        if books is None:
            return False
        self.lanes = served.lanes()
        current = {book.number: book for book in books}
        for number in self._jobs.keys() - current.keys():
            del self._jobs[number]
        now, standing = served.now(), served.standing()
        lanes: dict[int | None, list[LaneNow]] = {}
        for lane in self.lanes:
            lanes.setdefault(lane.job, []).append(lane)
        for number, book in current.items():
            job = self._jobs.get(number)
            if job is None or job.book is not book:
                job = self._jobs[number] = JobFeed(book, served.now, 0 if job is None else job.version)
            if not job.settled:
                job.look(now, lanes.get(number, ()), standing)
        return True

    def _lane_form(self, lane: LaneNow) -> dict[str, Any]:
        state = lane.state.name.lower()
        form: dict[str, Any] = {"number": lane.number, "state": state, "doing": lane.doing, "pid": lane.pid}
        if lane.job is not None:
            form |= {"job": lane.job, "phase": lane.phase.name.lower()}
            # One that is over at the next look would not be read, and is news each time.
            if len(lane.items) == 1 and self._served.now() >= lane.since + READABLE:
                since = milliseconds(lane.since + self.offset)
                form |= {"item": lane.items[0], "since": since, "fraction": round(lane.fraction, 3)}
        return form


def _changes(known: Mapping[int, Form], forms: Mapping[int, Form]) -> tuple[list[Form], list[int]]:
    """Return the forms that a viewer does not know, and the numbers of those that are gone."""
    return [form for number, form in forms.items() if known.get(number) != form], [*(known.keys() - forms.keys())]
