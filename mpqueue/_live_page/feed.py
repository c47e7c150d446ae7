"""What viewers get, and when: one look at the queue for all of them, at most ten times a second.

Server-sent events. First comes ``hello``, then what is known so far, then what changes:

- ``job:progress``: the event's wire form; ``items`` are those that changed since the last one, at first all;
- ``job:state``: what the wire form does not have: times, rate, ETA, retries, how many items are in which state;
- ``job:gone``: a job was cleared;
- ``workers``: what each worker is at, and the stretches of its timeline that are new or longer;
- ``closed``: the queue was closed, and nothing more will come.

Items are encoded once for all viewers, and only for so long in each look that the job does not notice: what is left
comes with the next ones. Everything runs on the page's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mpqueue._live_page.job_feed import JobFeed
from mpqueue._live_page.page_json import as_event, encode
from mpqueue._live_page.served import Served
from mpqueue._live_page.timeline import Stretch, Timeline
from mpqueue._parent.running import LaneNow
from mpqueue.events import milliseconds

#: Seconds between two looks, with viewers and without: then only for the timeline.
INTERVAL, UNSEEN_INTERVAL = 0.1, 0.5
#: Seconds of each look in which items are encoded, and how many of them between two chances for other threads.
BUDGET, BATCH = 0.015, 200
#: Seconds that the end of the queue waits until all is sent.
LAST_WORDS = 0.5
#: Seconds after which viewers get something even if nothing happens.
HEARTBEAT = 2.0
#: Bytes that wait for a viewer who does not read; then it gets everything anew, once it reads again.
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
        """Have it sent something."""
        if self._behind:
            return
        self._waiting.append(data)
        self._size += len(data)
        if self._size > MOST_WAITING:
            self._behind = True
            self._waiting.clear()
        self._wake.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake.set()

    async def take(self) -> bytes | None:
        """What is to be sent next; waits for it. None at the end."""
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
    """Looks at the queue, and tells the viewers."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._jobs: dict[int, JobFeed] = {}
        self._timeline = Timeline()
        self._lanes: Sequence[LaneNow] = ()
        self._viewers: set[Viewer] = set()
        self._stop = asyncio.Event()
        self._told_lanes: list[dict[str, Any]] = []
        self._told_count = 0  #: of workers that there are to be
        self._told_at = 0.0
        self._offset = served.wall() - served.now()

    # -- viewers ---------------------------------------------------------------------------------------------

    def join(self) -> Viewer:
        """One more viewer."""
        viewer = Viewer(self._everything)
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """It has gone."""
        self._viewers.discard(viewer)
        if not self._viewers:
            for job in self._jobs.values():
                job.forget_items()

    def _everything(self) -> bytes:
        served = self._served
        hello = {"canResize": served.can_resize, "now": milliseconds(served.wall())}
        parts = [as_event("hello", encode(hello))]
        for job in self._jobs.values():
            parts += [job.state_event(), job.progress_event(None)]
        stretches = [(lane, stretch) for lane, all_ in self._timeline.lanes.items() for stretch in all_]
        parts.append(self._workers_event(stretches))
        return b"".join(parts)

    def states(self) -> list[dict[str, Any]]:
        """All jobs, without their items."""
        self._look_at_jobs()
        return [job.state() for job in self._jobs.values()]

    # -- looking ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look again and again, until `stop`, or until the queue is no longer referenced."""
        while not self._stop.is_set() and await self._look(BUDGET):
            pause = INTERVAL if self._viewers else UNSEEN_INTERVAL
            await _wait(self._stop, pause)
        await self._look(LAST_WORDS)
        for viewer in self._viewers:
            viewer.tell(as_event("closed", "{}"))
            viewer.end()

    def stop(self) -> None:
        """The queue has ended: tell the rest, and end."""
        self._stop.set()

    async def _look(self, budget: float) -> bool:
        served = self._served
        gone = self._look_at_jobs()
        if gone is None:
            return False
        current = self._timeline.look(self._lanes, served.now())
        if self._viewers:
            fresh = await self._encode(served.now() + budget)
            parts = [as_event("job:gone", encode({"jobId": job.book.id, "number": job.book.number})) for job in gone]
            for job, indices in fresh:
                parts += [job.state_event(), job.progress_event(indices)]
            parts += self._workers_news(current)
            data = b"".join(parts)
            for viewer in self._viewers if data else ():
                viewer.tell(data)
        return True

    def _look_at_jobs(self) -> list[JobFeed] | None:
        """Look at the jobs and the lanes; returns the jobs that are gone, None where there is no queue any more."""
        books = self._served.books()
        if books is None:
            return None
        self._lanes = self._served.lanes()
        numbers = {book.number for book in books}
        gone = [self._jobs.pop(number) for number in list(self._jobs) if number not in numbers]
        now = self._served.now()
        lanes: dict[int | None, list[LaneNow]] = {}
        for lane in self._lanes:
            lanes.setdefault(lane.job, []).append(lane)
        for book in books:
            job = self._jobs.get(book.number)
            if job is None:
                job = self._jobs[book.number] = JobFeed(book)
            if not job.settled:
                job.look(now, lanes.get(book.number, ()))
        return gone

    async def _encode(self, until: float) -> list[tuple[JobFeed, list[int]]]:
        """Encode what changed, as far as the time allows; returns the jobs that have something to tell."""
        fresh = []
        for job in list(self._jobs.values()):
            indices: list[int] = []
            while self._served.now() < until and (more := job.encode_changed(BATCH)):
                indices += more
                await asyncio.sleep(0)  # others may want to run
            if indices or job.state_changed():
                fresh.append((job, indices))
        return fresh

    def _workers_news(self, current: list[tuple[int, Stretch]]) -> list[bytes]:
        """The event, where there is something to say; and now and then, so that viewers know that we live."""
        lanes, now = [self._lane_form(lane) for lane in self._lanes], self._served.now()
        count = self._served.concurrency
        is_same = lanes == self._told_lanes and count == self._told_count
        if is_same and not current and now < self._told_at + HEARTBEAT:
            return []
        self._told_lanes, self._told_count, self._told_at = lanes, count, now
        return [self._workers_event(current)]

    def _workers_event(self, stretches: Iterable[tuple[int, Stretch]]) -> bytes:
        lanes = [self._lane_form(lane) for lane in self._lanes]
        told = [
            [lane, self._ms(stretch.start), self._ms(stretch.end), stretch.kind, stretch.job, stretch.item]
            for lane, stretch in stretches
        ]
        count, now = self._served.concurrency, milliseconds(self._served.wall())
        return as_event("workers", encode({"now": now, "concurrency": count, "lanes": lanes, "stretches": told}))

    def _lane_form(self, lane: LaneNow) -> dict[str, Any]:
        form: dict[str, Any] = {"number": lane.number, "state": lane.state.name.lower(), "pid": lane.pid}
        if lane.job is not None:
            form |= {"job": lane.job, "phase": lane.phase.name.lower(), "items": len(lane.items)}
            if len(lane.items) == 1:
                form |= {"item": lane.items[0], "since": self._ms(lane.since), "fraction": round(lane.fraction, 3)}
        return form

    def _ms(self, moment: float) -> int:
        return milliseconds(moment + self._offset)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
