"""Workers over time: how many were busy, and how long items took, overall, at first, and on each worker."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from mpqueue._core.state.timings import Event, Span

#: The number of points of the curve of busy workers.
POINTS = 240
#: A span with at most this many busy workers counts as one of few; with at least this part of the most, as one of many.
FEW, MANY = 1.5, 0.75
#: The least number of chunks that show the usual time.
LATER = 5


class PaceFigures(NamedTuple):
    """Seconds per item in the handler, while that many workers were busy on average."""

    busy: float
    items: int
    seconds: float


class FirstItems(NamedTuple):
    """The time of the workers' first items beyond that of later ones: seconds of all workers together."""

    workers: int
    extra: float
    usual: float  #: seconds of a later item, the median


class LanePace(NamedTuple):
    """The slowest worker per item, and the others: medians in seconds, over chunks."""

    lane: int
    items: int
    seconds: float
    others: float


class _Level:
    """The number of busy workers as a function of time, and its integral."""

    def __init__(self, spans: Sequence[Span]) -> None:
        steps: list[tuple[float, float]] = []
        for span in spans:
            length = span.ended - span.begun
            if length > 0:
                weight = min(1.0, span.busy / length)
                steps += [(span.begun, weight), (span.ended, -weight)]
        steps.sort()
        self._moments = [moment for moment, _ in steps]
        self._levels, self._integrals = [], []
        level = integral = 0.0
        before = steps[0][0] if steps else 0.0
        for moment, step in steps:
            integral += level * (moment - before)
            level += step
            before = moment
            self._levels.append(level)
            self._integrals.append(integral)

    def until(self, moment: float) -> float:
        """Return the worker seconds up to a moment."""
        at = bisect_right(self._moments, moment) - 1
        if at < 0:
            return 0.0
        return self._integrals[at] + self._levels[at] * (moment - self._moments[at])

    def between(self, start: float, end: float) -> float:
        """Return the average number of busy workers between two moments."""
        return (self.until(end) - self.until(start)) / (end - start) if end > start else 0.0


def a_second(amounts: Iterable[tuple[float, float, float]], length: float, parts: int) -> list[float]:
    """Return the amount per second, in that many equal parts of the time; amounts are spread evenly over their time.

    ``amounts`` are (start, end, amount).
    """
    width = length / parts
    found = [0.0] * parts
    for start, end, amount in amounts:
        first, last = (min(parts - 1, max(0, int(moment / width))) for moment in (start, end))
        for at in range(first, last + 1):
            overlap = min(end, (at + 1) * width) - max(start, at * width)
            found[at] += amount / width * (1.0 if first == last else max(0.0, overlap) / (end - start))
    return found


def busy_over_time(spans: Sequence[Span], wall: float) -> list[float]:
    """Return the average number of busy workers, in that many equal parts of the time."""
    busy = ((span.begun, span.ended, min(span.ended - span.begun, span.busy)) for span in spans)
    return a_second(busy, wall, POINTS) if wall else [0.0] * POINTS


#: The phases of a worker's chunk, in this order: fields of a span.
PHASES = ("loading", "setup", "unpacking", "handling", "packing")


def phases(span: Span) -> Iterator[tuple[str, float, float]]:
    """Yield each phase of the span with its start and end, computed from the durations and the order."""
    at = span.begun
    for phase in PHASES:
        until = min(at + getattr(span, phase), span.ended)
        if until > at:
            yield phase, at, until
            at = until


def few_and_many(spans: Sequence[Span]) -> tuple[PaceFigures | None, PaceFigures | None]:
    """Return how long items took while few workers were busy, and while many were.

    Without the first chunk of each worker, whose items are slow for other reasons.
    """
    level = _Level(spans)
    seen: set[float] = set()
    known: list[tuple[float, Span]] = []
    for span in spans:
        if span.lane in seen and span.items and span.handling:
            known.append((level.between(span.begun, span.ended), span))
        seen.add(span.lane)
    most = max((busy for busy, _ in known), default=0.0)
    if most < 2 * FEW * MANY:
        return None, None
    few = [(busy, span) for busy, span in known if busy <= FEW]
    many = [(busy, span) for busy, span in known if busy >= max(MANY * most, FEW)]
    return _pace(few), _pace(many)


def _pace(spans: Sequence[tuple[float, Span]]) -> PaceFigures | None:
    items = sum(int(span.items) for _, span in spans)
    seconds = math.fsum(span.handling for _, span in spans)
    if not items or not seconds:
        return None
    return PaceFigures(math.fsum(busy * span.handling for busy, span in spans) / seconds, items, seconds / items)


def _pace_of(span: Span) -> float:
    return span.handling / span.items


def first_items(spans: Sequence[Span]) -> FirstItems | None:
    """Return the time of the workers' first items; None if too few later ones show the usual time."""
    firsts: dict[float, Span] = {}
    later: list[float] = []
    for span in spans:
        if span.items and span.handling:
            if span.lane in firsts:
                later.append(_pace_of(span))
            else:
                firsts[span.lane] = span
    if len(later) < LATER:
        return None
    usual = statistics.median(later)
    extra = math.fsum(max(0.0, span.handling - span.items * usual) for span in firsts.values())
    return FirstItems(len(firsts), extra, usual)


def find_slow_lane(spans: Sequence[Span]) -> LanePace | None:
    """Return the slowest lane, if nearly all of its chunks were slower than nearly all of the others'; else None."""
    paces: dict[float, list[float]] = defaultdict(list)
    items: Counter[float] = Counter()
    for span in spans:
        if span.items and span.handling:
            paces[span.lane].append(_pace_of(span))
            items[span.lane] += int(span.items)
    later = {lane: found[1:] for lane, found in paces.items() if len(found) > LATER}
    if len(later) < 2:
        return None
    slowest = max(later, key=lambda lane: statistics.median(later[lane]))
    others = [pace for lane, found in later.items() if lane != slowest for pace in found]
    own = sorted(later[slowest])
    if own[len(own) // 4] <= sorted(others)[len(others) * 3 // 4]:
        return None
    return LanePace(int(slowest), items[slowest], statistics.median(own), statistics.median(others))


def retry_waits(spans: Sequence[Span], events: Sequence[Event], wall: float) -> float:
    """Seconds in which no worker had a chunk, after the first item had failed that was to be tried again."""
    first = next((event.at for event in events if event.name == "retry"), None)
    if first is None:
        return 0.0
    waited = ended = 0.0
    for begun, end in (*sorted((span.begun, span.ended) for span in spans), (wall, wall)):
        if begun >= first:
            waited += max(0.0, begun - ended)
        ended = max(ended, end)
    return waited
