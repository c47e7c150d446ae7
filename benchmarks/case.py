"""A case: one work, measured on one contender at a time. What every question is made of."""

from __future__ import annotations

import gc
import math
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from benchmarks.busy import Loop
from benchmarks.contenders import BareLoop, Contender
from benchmarks.handlers import echo

T = TypeVar("T")

#: Seconds after which a contender is not waited for any longer.
LIMIT = 60.0
#: Chunks that each worker gets where chunks are made by hand: the rule of `multiprocessing.Pool` where all items are
#: alike, more where they are not, as a user who knows that would choose.
EVEN, UNEVEN = 4, 20

Measures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured, and on what."""

    size: str  #: full, quick or smoke
    workers: int
    loop: Loop

    @property
    def enough(self) -> float:
        """Seconds after which a case is not repeated once more."""
        return self.pick(math.inf, 0.25, 0.25)

    def pick(self, full: T, quick: T, smoke: T) -> T:
        """The one for this size."""
        return {"full": full, "quick": quick, "smoke": smoke}[self.size]


@dataclass(frozen=True, slots=True)
class Case:
    """One work. ``items`` makes it afresh for each repeat, from a number that is another one each time."""

    name: str
    title: str
    items: Callable[[int], Sequence[Any]] = range
    handler: Callable[[Any], Any] = echo
    #: What the results must be, from the items; None: the items themselves.
    expected: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    same: Callable[[Any, Any], bool] = operator.eq
    #: What the user does with the results, within the time measured.
    use: Callable[[list[Any]], object] | None = None
    chunks_per_worker: int = EVEN
    chunksize: int | None = None
    repeats: int = 3
    workers: int | None = None
    limit: float = LIMIT
    #: Whether the work is run on a few items before it is measured.
    warm: bool = True
    #: False: `measure` gets a contender that has not been started.
    started: bool = True
    #: True: measured in a process that has loaded nothing but the contender (and always the same way).
    cold: bool = False
    contenders: tuple[str, ...] = ()  #: only these; empty: all
    x: float | None = None  #: where it stands on a plot's axis
    measure: Callable[[Contender, Case, int], Measures] | None = None  #: None: `timed_map`

    def chunk(self, count: int, workers: int) -> int:
        """How many items a user would put into a chunk."""
        if self.chunksize is not None:
            return self.chunksize
        return max(1, -(-count // (workers * self.chunks_per_worker)))

    def run(self, contender: Contender, seed: int) -> Measures:
        """Measure it once."""
        return (self.measure or timed_map)(contender, self, seed)

    def check(self, items: Sequence[Any], results: list[Any]) -> None:
        """Raise AssertionError where the results are not what they must be."""
        expected = list(items) if self.expected is None else self.expected(items)
        if len(expected) != len(results) or not self.same(results, expected):
            raise AssertionError(f"{self.name}: the results are not the expected ones")


class Stopwatch:
    """Wall seconds, and CPU seconds of all threads of this process, of a ``with`` block."""

    def __enter__(self) -> Self:
        gc.collect()
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.parent_cpu = time.process_time() - self._cpu

    def measures(self, **more: Any) -> Measures:
        """What was measured."""
        return {"seconds": self.seconds, "parent_cpu": self.parent_cpu, **more}


def timed_map(contender: Contender, case: Case, seed: int) -> Measures:
    """The usual: one map over fresh items, its results checked afterwards."""
    items = case.items(seed)
    chunksize = case.chunk(len(items), contender.workers)
    with Stopwatch() as watch:
        results = contender.map(case.handler, items, chunksize)
        if case.use is not None:
            case.use(results)
    if isinstance(contender, BareLoop):
        return {"seconds": contender.ideal}
    case.check(items, results)
    return watch.measures(count=len(items))


def warm_up(contender: Contender, case: Case) -> None:
    """Run the work on a few items, so that whatever is done once has been done."""
    if not isinstance(contender, BareLoop):
        items = case.items(0)
        chunksize = min(2, case.chunk(len(items), contender.workers))
        contender.map(case.handler, items[: 8 * contender.workers], chunksize)
