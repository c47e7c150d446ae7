"""The workers' last minutes, by the reports and deaths that the jobs' `Timings` have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import Any, NamedTuple

from mpqueue._core.state.timings import Span
from mpqueue._live_page.served import ShownJob
from mpqueue._os.process.process_facts import use_of
from mpqueue._parent.running import LaneNow
from mpqueue.events import milliseconds

#: Seconds that are shown at most.
WINDOW = 300.0
#: Seconds of loading and setup from which on they are shown apart from the items behind them.
LONG = 0.1
#: The name in a job's `Timings` for the end of a worker.
DIED = "worker died"


class Stretch(NamedTuple):
    """A time in which a worker did one thing: ``running`` or ``loading``. ``item``: the index of the only one."""

    lane: int
    start: float
    end: float
    kind: str
    job: int
    item: int | None


def history(jobs: Iterable[ShownJob], since: float, offset: float) -> dict[str, Any]:
    """Return for JSON what workers did since that moment, and their unexpected ends. Costs 2 us per report.

    ``offset`` turns moments of the monotonic clock into seconds since the epoch.
    """
    here = [job for job in jobs if job.here and (job.timings.finished or inf) >= since]
    work = [stretch for job in here for span in job.timings.spans(since) for stretch in _work(span, job.number)]
    deaths = [
        (event, job.number)
        for job in here
        for event in list(job.timings.events)
        if event.name == DIED and event.at >= since
    ]
    # Each active job has a death; the job whose items were lost has them too.
    deaths.sort(key=lambda death: death[0].since is not None)
    ends = {(event.lane, event.at): (event, job) for event, job in deaths}
    for event, job in ends.values():
        if event.since is not None:
            work.append(Stretch(event.lane or 0, event.since, event.at, "running", job, event.item))
    work.sort(key=lambda stretch: stretch.start)

    def ms(moment: float) -> int:
        return milliseconds(moment + offset)

    return {
        "stretches": [one._replace(start=ms(one.start), end=ms(one.end)) for one in work],
        "marks": [[event.lane, ms(event.at), event.why, job, event.item] for event, job in ends.values()],
    }


def _work(span: Span, job: int) -> Iterator[Stretch]:
    lane, item = int(span.lane), int(span.first) if span.items == 1 else None
    start = span.begun + span.loading + span.setup
    if start - span.begun < LONG:
        start = span.begun
    else:
        yield Stretch(lane, span.begun, start, "loading", job, None)
    yield Stretch(lane, start, span.ended, "running", job, item)


def use_now(lanes: Sequence[LaneNow]) -> list[list[Any]]:
    """Return the CPU seconds of each worker's process, its memory in MB, and its start, as far as known.

    Costs 20 us per worker. A start distinguishes a process from the one before it.
    """
    used = [(lane.number, None if lane.pid is None else use_of(lane.pid)) for lane in lanes]
    return [[number, use.cpu, use.memory >> 20, use.started] for number, use in used if use is not None]
