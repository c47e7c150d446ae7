"""The feed of the viewers: one look at the queue for all of them, at most ten times a second.

Server-sent events. First comes ``hello``, then the current state, then the changes:

- ``job:state``: a job's counts, times, rate, ETA; its ``version`` changes whenever one of its items does;
- ``job:gone``: a job was cleared;
- ``workers``: the workers whose task has changed (``lanes``), or that have ``gone``;
- ``closed``: the queue was closed, and no more events will come.

It has no items, and nothing of the past: a viewer asks for what it shows (`mpqueue._live_page.items.listing`,
`mpqueue._live_page.worker_history`). Everything runs on the page's event loop, and none of it is users' code.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from mpqueue._live_page.job_feed import JobFeed
from mpqueue._live_page.page_json import as_event, encode
from mpqueue._live_page.served import Served
from mpqueue._parent.running import LaneNow
from mpqueue._wire.item_names import plain_label
from mpqueue.events import milliseconds

#: Seconds between two looks, with viewers and without (then only for the rates of the jobs).
INTERVAL, UNSEEN_INTERVAL = 0.1, 0.5
#: The least pause after a look, as a multiple of its time: jobs with millions of items are looked at less often.
RESTS = 5
#: Seconds after which viewers get an event even if nothing happens.
HEARTBEAT = 2.0
#: Seconds that an item has run before viewers get to know that its worker is at it.
READABLE = 0.2
#: The most bytes that wait for a viewer who does not read; then it gets everything again, once it reads.
MOST_WAITING = 8 << 20


class Viewer:
    """One browser that listens."""

    def __init__(self, everything: Callable[[], bytes]) -> None:
        self._everything = everything
        self._waiting: list[bytes] = []
        self._size = 0
        self._behind = True  #: it needs everything
        self._ended = False
        self._wake = asyncio.Event()
        self._wake.set()

    def tell(self, data: bytes) -> None:
        """Send the viewer some data, with its next read."""
        if self._behind:
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_WAITING:
            self._behind = True
            self._waiting.clear()
        self._wake.set()

    def end(self) -> None:
        """End the viewer's stream: no more data will come."""
        self._ended = True
        self._wake.set()

    async def take(self) -> bytes | None:
        """Wait for the next data to be sent, and return them. None at the end."""
        await self._wake.wait()
        self._wake.clear()
        if self._behind:
            self._behind, self._size = False, 0
            self._waiting.clear()
            self._wake.set()
            return self._everything()
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            self._wake.set()
            return data
        return None if self._ended else b""


class PageFeed:
    """Looks at the queue, and sends changes to the viewers."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._jobs: dict[int, JobFeed] = {}
        self._gone: list[JobFeed] = []  #: jobs whose removal viewers have not been sent
        self.lanes: Sequence[LaneNow] = ()  #: as of the last look
        self._viewers: set[Viewer] = set()
        self._stop = asyncio.Event()
        self._told_size = 0  #: the wanted number of workers that viewers know
        self._told_lanes: dict[int, dict[str, Any]] = {}  #: by number: the lanes as viewers know them
        self._told_at = 0.0
        self.offset = served.wall() - served.now()  #: from the monotonic clock to seconds since the epoch

    # -- viewers ---------------------------------------------------------------------------------------------

    def join(self) -> Viewer:
        """Add a viewer."""
        if not self._viewers:
            self._told_lanes = self._lane_forms()
        viewer = Viewer(self._everything)
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """Forget a viewer that has gone."""
        self._viewers.discard(viewer)
        if not self._viewers:
            for job in self._jobs.values():
                job.listing.forget()

    def _everything(self) -> bytes:
        served = self._served
        now = milliseconds(served.wall())
        hello = {"canResize": served.can_resize, "canLook": served.can_look, "canAct": served.can_act, "now": now}
        parts = [as_event("hello", encode(hello))]
        parts += [job.state_event() for job in self._jobs.values()]
        parts.append(self._workers_event([*self._told_lanes.values()], []))
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
            if not self._look():
                break
            pause = INTERVAL if self._viewers else UNSEEN_INTERVAL
            await _wait(self._stop, max(pause, RESTS * (self._served.now() - begun)))
        self._look()
        for viewer in self._viewers:
            viewer.tell(as_event("closed", "{}"))
            viewer.end()

    def stop(self) -> None:
        """Send viewers the rest, since the queue has ended, and make `run` end."""
        self._stop.set()

    def forget(self) -> None:
        """Free all jobs: no viewer asks any more."""
        self._jobs.clear()
        self._gone.clear()

    def _look(self) -> bool:
        if not self._look_at_jobs():
            return False
        gone, self._gone = self._gone, []
        if self._viewers:
            parts = [as_event("job:gone", encode({"jobId": job.book.id, "number": job.book.number})) for job in gone]
            parts += [job.state_event() for job in self._jobs.values() if job.state_changed()]
            parts += self._workers_news()
            data = b"".join(parts)
            for viewer in self._viewers if data else ():
                viewer.tell(data)
        return True

    def _look_at_jobs(self) -> bool:
        """Look at the jobs and the lanes; False if there is no queue any more."""
        served = self._served
        books = served.books()
        if books is None:
            return False
        self.lanes = served.lanes()
        current = {book.number: book for book in books}
        self._gone += [self._jobs.pop(number) for number in list(self._jobs) if number not in current]
        now, standing = served.now(), served.standing()
        lanes: dict[int | None, list[LaneNow]] = {}
        for lane in self.lanes:
            lanes.setdefault(lane.job, []).append(lane)
        for number, book in current.items():
            job = self._jobs.get(number)
            if job is None or job.book is not book:
                job = self._jobs[number] = JobFeed(book, served)
            if not job.settled:
                job.look(now, lanes.get(number, ()), standing)
        return True

    def _workers_news(self) -> list[bytes]:
        """The event for workers, if there is news; now and then also without, as a sign of life."""
        now, size = self._served.now(), self._served.concurrency
        lanes = self._lane_forms()
        changed = [form for number, form in lanes.items() if form != self._told_lanes.get(number)]
        gone = [number for number in self._told_lanes if number not in lanes]
        if size == self._told_size and not changed and not gone and now < self._told_at + HEARTBEAT:
            return []
        self._told_size, self._told_lanes, self._told_at = size, lanes, now
        return [self._workers_event(changed, gone)]

    def _workers_event(self, lanes: Sequence[dict[str, Any]], gone: Sequence[int]) -> bytes:
        head = {"now": milliseconds(self._served.wall()), "concurrency": self._served.concurrency}
        return as_event("workers", encode({**head, "lanes": lanes, "gone": gone}))

    def _lane_forms(self) -> dict[int, dict[str, Any]]:
        return {lane.number: self._lane_form(lane) for lane in self.lanes}

    def _lane_form(self, lane: LaneNow) -> dict[str, Any]:
        state = lane.state.name.lower()
        form: dict[str, Any] = {"number": lane.number, "state": state, "doing": lane.doing, "pid": lane.pid}
        if lane.job is not None:
            form |= {"job": lane.job, "phase": lane.phase.name.lower()}
            # One that is over at the next look would not be read, and is news each time.
            if len(lane.items) == 1 and self._served.now() >= lane.since + READABLE:
                since = milliseconds(lane.since + self.offset)
                form |= {"item": lane.items[0], "since": since, "fraction": round(lane.fraction, 3)}
                if (label := self._plain_label(lane.job, lane.items[0])) is not None:
                    form["label"] = label
        return form

    def _plain_label(self, number: int, index: int) -> str | None:
        """The item's label; None if that runs users' code: then the viewers ask for it."""
        job = self._jobs.get(number)
        try:
            return None if job is None else plain_label(*job.book.table.item_labelled(index))
        except LookupError:
            return None


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
