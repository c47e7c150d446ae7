"""Workers over time: how many were busy, and how long items took, overall, at first, and on each worker."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
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


def by_worker(spans: Sequence[Span]) -> list[list[Span]]:
    """Return the chunks of each worker that ran items, in their order."""
    found: dict[float, list[Span]] = defaultdict(list)
    for span in spans:
        if span.items and span.handling:
            found[span.lane].append(span)
    return [*found.values()]


def few_and_many(
    workers: Sequence[Sequence[Span]], curve: Sequence[float], wall: float
) -> tuple[PaceFigures | None, PaceFigures | None]:
    """Return how long items took while few workers were busy, and while many were. ``curve`` is their number over time.

    Without the first chunk of each worker, whose items are slow for reasons of their own.
    """
    sums = [*accumulate(curve, initial=0.0)]

    def until(moment: float) -> float:
        at = moment / wall * len(curve)
        whole = min(int(at), len(curve) - 1)
        return sums[whole] + (at - whole) * curve[whole]

    known: list[tuple[float, Span]] = []
    for span in _later(workers):
        if 0 <= span.begun < span.ended <= wall:
            part = (span.ended - span.begun) / wall * len(curve)
            known.append(((until(span.ended) - until(span.begun)) / part, span))
    most = max((busy for busy, _ in known), default=0.0)
    if most < 2 * FEW * MANY:
        return None, None
    few = [(busy, span) for busy, span in known if busy <= FEW]
    many = [(busy, span) for busy, span in known if busy >= max(MANY * most, FEW)]
    return _pace(few), _pace(many)


def _later(workers: Sequence[Sequence[Span]]) -> list[Span]:
    return [span for spans in workers for span in spans[1:]]


def _pace(spans: Sequence[tuple[float, Span]]) -> PaceFigures | None:
    if not spans:
        return None
    items = sum(int(span.items) for _, span in spans)
    seconds = math.fsum(span.handling for _, span in spans)
    return PaceFigures(math.fsum(busy * span.handling for busy, span in spans) / seconds, items, seconds / items)


def _median_pace(spans: Sequence[Span]) -> float:
    return statistics.median(span.handling / span.items for span in spans)


def first_items(workers: Sequence[Sequence[Span]]) -> FirstItems | None:
    """Return the time of the workers' first items; None if there are too few later ones to tell what is usual."""
    later = _later(workers)
    if len(later) < LATER:
        return None
    usual = _median_pace(later)
    extra = math.fsum(max(0.0, first.handling - first.items * usual) for first, *_ in workers)
    return FirstItems(len(workers), extra, usual)


def find_slow_lane(workers: Sequence[Sequence[Span]]) -> LanePace | None:
    """Return the slowest lane, if nearly all of its chunks were slower than nearly all of the others'; else None."""
    later = [spans for spans in workers if len(spans) > LATER]
    if len(later) < 2:
        return None
    slowest = max(later, key=lambda spans: _median_pace(spans[1:]))
    own = sorted(span.handling / span.items for span in slowest[1:])
    others = sorted(span.handling / span.items for spans in later if spans is not slowest for span in spans[1:])
    if own[len(own) // 4] <= others[len(others) * 3 // 4]:
        return None
    items = sum(int(span.items) for span in slowest)
    return LanePace(int(slowest[0].lane), items, statistics.median(own), statistics.median(others))


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
