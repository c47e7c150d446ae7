"""Workers over time: how many were busy, and how long items took meanwhile, at first, and on each of them."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from mpqueue._core.state.timings import Event, Span

#: Points of the curve of busy workers.
POINTS = 240
#: Busy workers up to which a span counts as one of few, and from which (of the most that there were) as one of many.
FEW, MANY = 1.5, 0.75
#: Chunks that say what is usual, at least.
LATER = 5


class PaceFigures(NamedTuple):
    """Seconds an item took in the handler, while so many workers were busy on average."""

    busy: float
    items: int
    seconds: float


class FirstItems(NamedTuple):
    """The time of the workers' first items beyond that of later ones: seconds of all workers together."""

    workers: int
    extra: float
    usual: float  #: seconds of a later item, the median


class LanePace(NamedTuple):
    """The worker that took longest for an item, and what the others took: medians in seconds, over chunks."""

    lane: int
    items: int
    seconds: float
    others: float


def a_second(amounts: Iterable[tuple[float, float, float]], length: float, parts: int) -> list[float]:
    """Return the amount a second, in so many equal parts of the time: each is spread from its start to its end.

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
    """Return how many workers were busy, on average, in so many equal parts of the time."""
    busy = ((span.begun, span.ended, min(span.ended - span.begun, span.busy)) for span in spans)
    return a_second(busy, wall, POINTS) if wall else [0.0] * POINTS


#: What a worker does for a chunk, in this order: fields of a span.
PHASES = ("loading", "setup", "unpacking", "handling", "packing")


def phases(span: Span) -> Iterator[tuple[str, float, float]]:
    """Yield each phase of the span with its start and end, as durations and order tell."""
    at = span.begun
    for phase in PHASES:
        until = min(at + getattr(span, phase), span.ended)
        if until > at:
            yield phase, at, until
            at = until


def few_and_many(
    spans: Sequence[Span], curve: Sequence[float], wall: float
) -> tuple[PaceFigures | None, PaceFigures | None]:
    """Return how long items took while few workers were busy, and while many were. ``curve`` is their number over time.

    Without the first of each worker, whose items are slow for reasons of their own.
    """
    sums = [*accumulate(curve, initial=0.0)]

    def until(moment: float) -> float:
        at = moment / wall * len(curve)
        whole = min(int(at), len(curve) - 1)
        return sums[whole] + (at - whole) * curve[whole]

    seen: set[float] = set()
    known: list[tuple[float, Span]] = []
    for span in spans:
        if span.lane in seen and span.items and span.handling and 0 <= span.begun < span.ended <= wall:
            part = (span.ended - span.begun) / wall * len(curve)
            known.append(((until(span.ended) - until(span.begun)) / part, span))
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
    """Return the time of the workers' first items; None if there are too few later ones to tell what is usual."""
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
    """Seconds in which no worker had anything in hand, after the first item had failed that was to be tried again."""
    first = next((event.at for event in events if event.name == "retry"), None)
    if first is None:
        return 0.0
    waited = ended = 0.0
    for begun, end in (*sorted((span.begun, span.ended) for span in spans), (wall, wall)):
        if begun >= first:
            waited += max(0.0, begun - ended)
        ended = max(ended, end)
    return waited
