"""A timekeeper beside a scheduler: where a job's time went, by what could be seen of its lanes from step to step.

It looks at the lanes only: which have a worker, and whose items each has. The sums of `Timings` must be the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mpqueue._core.commands import AnnounceStarted, AnnounceState, Command
from mpqueue._core.messages import ChunkReported, LaneDied, LaneInitialized, LaneReady, Message
from mpqueue._core.state.books import Books
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneState
from tests.support.invariants import EPSILON
from tests.support.runs import WAITING, WORKING


@dataclass
class _Seen:
    """A lane after a step."""

    generation: int
    is_ready: bool
    job: JobBook | None
    got_at: float | None  #: when the worker had got its first chunk
    chunks: set[int]


@dataclass
class _LaneTime:
    """A lane during one run of a job."""

    since: float  #: since when its worker is there and has reported nothing, or is not there
    is_there: bool
    has_ended: bool = False  #: a worker that was there
    lost_to_others: bool = False


@dataclass
class _Run:
    started: float
    lanes: dict[int, _LaneTime]
    spent: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("starting", "replacing", "others", "lost"), 0.0)
    )
    has_company: bool = False  #: another job was active, too
    served: float = 0.0  #: seconds of lanes at work for other jobs
    paused: float = 0.0
    deaths: list[tuple[float, int, float | None]] = field(default_factory=list)
    replaced: int = 0
    items: int = 0
    handling: float = 0.0

    def lane(self, number: int) -> _LaneTime:
        """The lane of that number; one that has joined is missed since the beginning."""
        return self.lanes.setdefault(number, _LaneTime(self.started, is_there=False))

    def miss(self, lane: _LaneTime, now: float) -> None:
        """It has had no worker until now."""
        why = "others" if lane.lost_to_others else "replacing" if lane.has_ended else "starting"
        self.spent[why] += now - lane.since


class Timekeeper:
    """Told of each step (`step`); compares at the end of a run (`check`)."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._runs: dict[int, tuple[JobBook, _Run]] = {}
        self._paused: set[int] = set()  #: also those cancelled since: they are over soon
        self._remember()

    def step(self, message: Message, commands: list[Command]) -> None:
        """The scheduler has handled that."""
        now = self._books.now
        passed = now - self._looked_at
        for number, (job, run) in self._runs.items():
            run.paused += passed * (number in self._paused)
            run.served += passed * run.has_company * sum(one.job not in (None, job) for one in self._seen)
        for command in commands:
            if isinstance(command, AnnounceState):
                (self._paused.add if command.event == "job:paused" else self._paused.discard)(command.job.number)
            if isinstance(command, AnnounceStarted):
                there = {number: _LaneTime(now, one.is_ready) for number, one in enumerate(self._seen)}
                self._runs[command.job.number] = command.job, _Run(now, there)
                for _, run in self._runs.values():
                    run.has_company |= len(self._runs) > 1
        for job, run in self._runs.values():
            if isinstance(message, ChunkReported):
                self._reported(job, run, message)
            for number in range(len(self._seen)):
                self._look(job, run, number, message)
        self._remember()

    def _remember(self) -> None:
        self._looked_at = self._books.now
        self._seen = [
            _Seen(
                lane.generation,
                lane.state is LaneState.READY,
                lane.job,
                (lane.chunks[0].left_at or lane.chunks[0].sent_at) if lane.chunks else None,
                {chunk.number for chunk in lane.chunks},
            )
            for lane in self._books.lanes
        ]

    def _reported(self, job: JobBook, run: _Run, report: ChunkReported) -> None:
        before = self._seen[report.lane]
        if before.job is not job or report.generation != before.generation or report.chunk not in before.chunks:
            return
        if report.times is not None:
            lane = run.lanes[report.lane]
            lane.since = max(lane.since, report.times.ended)
            run.items += report.done - report.first
            run.handling += report.times.handling

    def _look(self, job: JobBook, run: _Run, number: int, message: Message) -> None:
        """See whether a lane's worker has come or gone; both, if it is replaced as soon as it has come."""
        now, lane, before = self._books.now, self._books.lanes[number], self._seen[number]
        if self._has_come(message, number, before):
            time = run.lane(number)
            run.miss(time, now)
            run.replaced += time.has_ended
            time.is_there, time.since = True, now
        if lane.generation == before.generation:
            return
        if isinstance(message, LaneDied) and message.lane == number:
            time = run.lane(number)
            time.lost_to_others = before.job not in (None, job)
            if not time.lost_to_others and (before.job is job or not message.innocent):
                run.deaths.append((now, number, before.got_at))
            if time.is_there and before.job is job:
                got_at = now if before.got_at is None else before.got_at
                run.spent["lost"] += now - max(time.since, got_at)
        elif number in run.lanes:
            time = run.lanes[number]
            time.lost_to_others = time.lost_to_others and not time.is_there
        else:
            return
        if time.is_there:
            time.is_there, time.has_ended, time.since = False, True, now

    def _has_come(self, message: Message, number: int, before: _Seen) -> bool:
        if not isinstance(message, LaneReady | LaneInitialized) or message.lane != number:
            return False
        is_last = isinstance(message, LaneInitialized) or not self._books.has_initializer
        failed = isinstance(message, LaneInitialized) and message.failure is not None
        return message.generation == before.generation and not before.is_ready and is_last and not failed

    def check(self, job: JobBook) -> None:
        """The job's run has ended in the step that was looked at last."""
        _, run = self._runs.pop(job.number)
        self._paused.discard(job.number)
        timings, sums, now = job.timings, job.timings.sums, self._books.now
        if timings.finished is None:
            return  # all of its items had ended in an earlier life of the program
        assert (timings.started, timings.finished) == (run.started, now)
        assert timings.lanes == max(run.lanes) + 1
        for number in range(timings.lanes):
            lane = run.lane(number)
            if not lane.is_there:
                run.miss(lane, now)
        spent = {name: getattr(sums, name) for name in (*WAITING, *WORKING)}
        assert min(spent.values()) >= -EPSILON
        assert _is_close(sum(spent.values()), timings.lanes * (now - run.started)), "each second is counted once"
        served = spent["others"] - run.spent["others"]
        for_others = max(0.0, run.served - spent["held"])  # a pause comes first: it kept the workers from this job
        assert _is_close(served, min(spent["idle"] + served, for_others)), f"{served} of {for_others} s for others"
        for name in ("starting", "replacing", "lost"):
            assert _is_close(spent[name], run.spent[name]), f"{name} for {run.spent[name]} s, and not {spent[name]}"
        assert spent["under_way"] == 0
        assert _is_close(sums.paused, run.paused), f"paused for {run.paused} s, and not {sums.paused}"
        assert (sums.deaths, sums.replaced, sums.items) == (len(run.deaths), run.replaced, run.items)
        assert _is_close(sums.handling, run.handling)
        deaths = [(event.at, event.lane, event.since) for event in timings.events if event.name == "worker died"]
        assert deaths == run.deaths


def _is_close(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=EPSILON)
