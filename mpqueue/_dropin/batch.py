"""A finite batch for the map-like drop-ins: an ordinary job on a given queue, whose ids are always positions."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mpqueue import _options as checks
from mpqueue._core.state.item_table import ItemTable
from mpqueue._declared import At, read
from mpqueue._options import GivenOptions, JobOptions, OnError, QueueOptions, named_seed
from mpqueue._output.progress import Showing, ShowProgress, label_of
from mpqueue._queue.choosing import check_job, choose_backend
from mpqueue._queue.run import Ended, JobRun
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.pickling.packed_functions import is_found
from mpqueue._worker.handlers.called import StarCall
from mpqueue.errors import QueueClosedError
from mpqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.recorded.record_options import RecordOptions

ON_ERROR = ("raise", "collect", "skip", "group")


class RecordAs(NamedTuple):
    """The way in which a journal records a call; if ``job_id`` is None, the job is named after the function."""

    job_id: str | None
    options: RecordOptions

    def of(self, kind: str, fn: Callable[..., Any]) -> tuple[str, RecordOptions]:
        """Return the id and the options of such a call of ``fn``."""
        if self.job_id is not None:
            return self.job_id, self.options
        # Lambdas, closures, partials and methods of objects have no such name.
        names_one = is_found(fn.function if isinstance(fn, StarCall) else fn)
        return f"{kind} {name_of(fn)}", self.options._replace(names_one=names_one)


def start_batch(
    queue: JobQueue,
    fn: Callable[..., Any],
    items: list[Any],
    options: JobOptions,
    *,
    on_ended: Callable[[Ended], None] | None = None,
    progress: ShowProgress = False,
    record: RecordAs | None = None,
    seed_given: bool = False,
) -> JobRun:
    """Start ``fn`` over the items, a list that it takes over; the run has the `outcomes` by position.

    ``on_ended`` gets positions as their items end, then None, on the coordinator's thread: it must return at once. With
    ``record`` it is a job of the queue's journal, under its id or the function's name; by default it keeps its recorded
    seed. Raises `HandlerPicklingError`, `JournalError`.
    """
    table = ItemTable(items, None, IdRule.POSITION)
    showing = Showing(progress, label_of(fn))
    if record is not None:
        name, record_options = record.of("map", fn)
        return queue._host.start_recorded(
            name, table, options, fn, on_ended, seed_given=seed_given, record=record_options, showing=showing
        )
    _, run = queue._host.start_table(table, options, fn, on_ended, showing=showing)
    return run


def name_of(fn: Callable[..., Any]) -> str:
    """Return a function's name in a journal."""
    while isinstance(fn, functools.partial | StarCall):
        fn = fn.func if isinstance(fn, functools.partial) else fn.function
    named = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{named.__module__}.{named.__qualname__}"


class Batch:
    """One call: its run, which ends early if more than ``max_failures`` items fail, and the handling of its failures.

    As a context it covers the wait, and gives the run.

    The job's own option stops new items after too many failures; running items are ended here.
    """

    def __init__(self, start: Callable[..., JobRun], max_failures: int | None) -> None:
        """Start the call by ``start``, which is given the ``on_ended`` of `start_batch`."""
        self._max_failures = max_failures
        self.run = start(on_ended=None if max_failures is None else self._on_ended)
        self._on_ended(())  # items may have failed before

    @property
    def _too_many(self) -> bool:
        return self._max_failures is not None and self.run.job.failed > self._max_failures

    def _on_ended(self, _: Ended) -> None:
        """Note that items have ended. On the coordinator's thread."""
        if hasattr(self, "run") and self._too_many:  # otherwise there is none to end yet
            self.run._kill()

    def __enter__(self) -> JobRun:
        return self.run

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End the call if an interruption ends the wait for it."""
        if kind is not None:
            self.run._kill()
            self.run._end_bar()

    def outcomes(self, on_error: OnError) -> list[Any]:
        """Return the call's value, or raise its error."""
        results, failures = self.run._outcomes()
        if self._too_many:
            assert self._max_failures is not None
            raise self.run._too_many(failures, self._max_failures)
        if self.run.job.cancelled:
            raise QueueClosedError("the pool was closed while results were still to come")
        if not failures or on_error == "collect":
            for index, failure in failures.items():
                results[index] = failure.error
            return results
        if on_error == "skip":
            return [result for index, result in enumerate(results) if index not in failures]
        raise self.run._error_of(failures, on_error)


# -- The options of `map` and the like, and their other checks. --------------------------------------------------------

#: Three tries after the first, 0.1, 0.2 and 0.4 s apart: short enough for a script that a person waits for.
DROPIN_RETRY = RetryPolicy(max_retries=3, base_delay=0.1)

R = TypeVar("R")
#: The result of an ``async def`` function; workers run it to its end.
Later = Coroutine[Any, Any, R]

#: Arguments of `map` and the like beside the options.
OWN_NAMES = ("fn", "items", "on_error")


def job_options(name: str, asked: GivenOptions) -> JobOptions:
    """The options of one call of the function ``name``, or of all calls of the pool of that name.

    Raises TypeError or ValueError for options that the engine does not support, or that exclude each other.
    """
    engine = choose_backend(asked.backend)
    defaults = QueueOptions(concurrency=1, retry=DROPIN_RETRY)
    options = checks.job_options(defaults, asked, where=name, count_cores=getattr(engine, "count_cores", None))
    check_job(engine, options)
    return options


def pool_options(name: str, **given: Any) -> JobOptions:
    """The options of all calls of the pool ``name``. Raises TypeError or ValueError."""
    return job_options(name, read(GivenOptions, At.POOL, name, given))


class Seeds:
    """One seed for each of a pool's calls: the first is the pool's own, all later ones differ.

    A call's seed depends on the call's number only. Any thread may ask.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._numbers = itertools.count()

    def next(self) -> int:
        """The seed of the next call."""
        number = next(self._numbers)
        return self.named(str(number)) if number else self._seed

    def named(self, name: str) -> int:
        """Return a seed for something other than a numbered call."""
        return named_seed(self._seed, name)


def enough_workers(concurrency: int | None, items: int | None) -> int | None:
    """Return how many workers a call with ``concurrency`` needs: no more than its items, if those are known."""
    return concurrency if concurrency is None or items is None else max(1, min(concurrency, items))
