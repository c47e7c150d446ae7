"""Jobs whose items come while they run: streams, open jobs, and stages.

A `Stream` is one whose outcomes are taken one by one; the drop-ins use it. It holds only the items that were added and
not yet taken, so an endless input takes constant memory as long as the consumer keeps its window bounded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from mpqueue import _options as checks
from mpqueue._call_checks import check_calls, check_items
from mpqueue._core.messages import ItemsAdded, ItemsDropped, JobCancelled, JobSealed
from mpqueue._core.state.item_table import DISCARD, ONWARD, Failure, ItemTable, make_table, read_all
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._declared import At, read, takes
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._output.progress import Showing
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.replies import Reply
from mpqueue._plain import plain
from mpqueue._queue.arguments import check_job, choose_needs, sample, send_results_to, take_rule
from mpqueue._wire.item_names import IdRule, rule_of
from mpqueue._wire.parcels import AddedItems, plain_ids
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue.errors import JobFullError, JobStateError, JournalError, QueueClosedError, shown
from mpqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from mpqueue._keywords import StageKeywords
    from mpqueue._queue.host import QueueHost
    from mpqueue._queue.job_queue import JobQueue
    from mpqueue._queue.run import JobRun
    from mpqueue.errors import InternalError

OnEnded = Callable[[Sequence[int] | None], None]


def open_stream(
    queue: JobQueue,
    handler: Callable[..., Any],
    on_ended: OnEnded,
    options: JobOptions,
    *,
    showing: Showing,
) -> Stream:
    """Start a job whose items are added while it runs. It is not among the queue's `jobs`.

    ``on_ended`` gets the indices of items that have ended, and None at the end, on the coordinator's thread: it must
    return at once and must not call the queue. Raises the errors of `create_job`. The display ``showing`` ends with the
    run.
    """
    table = ItemTable.of_stream()
    book, run = queue._host.start_table(table, options, handler, on_ended, sealed=False, showing=showing)
    return Stream(queue, book, table, run)


class Stream:
    """A stream, made by `open_stream`.

    One thread at a time adds and takes; the other methods may be called on any thread.
    """

    def __init__(self, owner: JobQueue, book: JobBook, table: ItemTable, run: JobRun) -> None:
        self._owner = owner  #: held until the stream is dropped
        self._engine = owner._host.engine
        self._book = book
        self._table = table
        self._told = 0  #: how many items the coordinator has
        self._telling = False  #: a message is posted to pass it the rest
        self.run = run  #: resolves when the stream has ended

    def add(self, items: Any) -> range:
        """Add items, as `look_at` returns them; returns their indices. Does not wait.

        If interrupted (Ctrl-C), it has added all or none; they reach the coordinator with the next items or at the end.
        """
        try:
            return self._table.add(items)
        finally:
            self._tell_soon()

    def look_at(self, items: list[Any]) -> tuple[Any, int, Exception | None]:
        """Return what `add` needs of these items, up to the first at fault; how many these are; and its error.

        It may run users' code.
        """
        return items, len(items), None

    def _tell_soon(self) -> None:
        """Ask the coordinator to take the items that were added."""
        if self._telling:
            return
        try:
            self._telling = True
            self._engine.coordinator().do_later(self._tell)
        except BaseException:  # interrupted, perhaps before the message was posted; a second one does no harm
            self._telling = False
            raise

    def _tell(self) -> None:
        """Pass on all items added since the last call. On the coordinator's thread."""
        self._telling = False  # first: items added from now on are passed on by another call
        told, self._told = self._told, self._table.added
        if told < self._told:
            self._engine.handle(ItemsAdded(self._book, range(told, self._told)))

    @property
    def next_index(self) -> int:
        """The index of the next item to be added."""
        return self._table.added

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """Return the outcome of an item that has ended: its result, or its failure. It can be taken once."""
        return self._table.take(index)

    def take_all(self, indices: Sequence[int]) -> list[Any]:
        """Return the outcomes of items that have ended, each a result or its `Failure`. Costs 0.1 us per result."""
        return self._table.take_all(indices)

    def expect(self) -> None:
        """Prepare to wait for the next outcome; call it before each wait."""

    @property
    def fault(self) -> InternalError | None:
        """The internal error of mpqueue that ended the stream."""
        return self._book.fault

    @property
    def has_user_objects(self) -> bool:
        """True if its items and outcomes may hold objects of users' classes, which may run code when they are freed."""
        return self._table.live.has_user_objects

    def window(self, workers: int) -> int:
        """Return how many items should be running or untaken at most, to keep that many workers busy."""
        return self._book.sizer.window(workers)

    def is_running(self, index: int) -> bool:
        """True while a worker runs the item."""
        return index in self._table.live.running()

    def drop(self, index: int, *, kill: bool = False) -> bool:
        """Cancel this item; True if it will not run, or (``kill``) if its worker is being ended.

        It fails with an `ItemCancelledError`. An item that a worker has, or is about to get, runs on unless ``kill`` is
        given; then the worker's other items run again elsewhere without losing a try.
        """

        def dropped() -> bool:
            self._engine.handle(ItemsDropped(self._book, [index], kill))
            return index in self._book.dropped

        return self._engine.coordinator().ask(dropped)

    def drop_later(self, indices: Sequence[int]) -> None:
        """`drop` of several items, without an answer. Does not wait: callable in a garbage collection on any thread."""
        self._engine.coordinator().post(ItemsDropped(self._book, indices))

    def check(self) -> None:
        """Raise `JournalError` while ended items can't be written into the journal; their results wait for that."""
        self.run._check_trouble()

    def seal(self) -> None:
        """Seal the stream: it ends when all items that were added have ended."""
        self._engine.coordinator().do_later(self._tell)  # those of an interrupted `add`
        self._engine.coordinator().post(JobSealed(self._book))

    def cancel(self) -> None:
        """End the stream and its running items; waiting items do not run. Does not wait."""
        self._engine.coordinator().post(JobCancelled(self._book, 0.0, kill=True))


# -- Open jobs: created with or without items, they get more while they run, until they are sealed. --------------------


def add_items(host: QueueHost, book: JobBook, items: Iterable[Any], *, wait: bool) -> int:
    """Give the job more items; returns how many of them are new. See `JobQueue.add_items`."""
    table = book.table
    if not table.grows or book.stage is not None:
        raise JobStateError(f"job {book.id!r}: expected a job made by open_job() to add items to, got another")
    host.jobs.check_journal()
    check_items(items)
    given, most = read_all(items), book.options.max_waiting
    rule, ids = _ids_of(table, given)
    at = added = 0
    while True:
        # All of them at once or none, unless the call may wait in between.
        end = len(given) if most is None or not wait or book.started_at is None else at + most
        offered = table.look_at(given[at:end], None if ids is None else ids[at:end])
        room, posted = Reply[None](), Reply[None]()
        taken = host.engine.coordinator().ask(partial(_offer, host, book, offered, rule, room, posted, wait=wait))
        if taken is None:  # another thread has added the first item meanwhile
            rule, ids = _ids_of(table, given)
            continue
        looked_at, new = taken
        at, added = at + looked_at, added + new
        if wait and (outlet := host.engine.journal_outlet) is not None:
            try:
                posted.result()
                outlet.journal.flush()
            except (JournalError, QueueClosedError) as error:
                raise JournalError(f"{error}. The items are added, and not on disk yet") from None
        if at >= len(given):
            return added
        if looked_at < len(offered.items):
            room.result()


def _ids_of(table: ItemTable, items: list[Any]) -> tuple[IdRule, list[Any] | None]:
    rule = table.rule if len(table) or not items else rule_of(items[0])
    return rule, plain_ids(rule, items)


def _offer(
    host: QueueHost,
    book: JobBook,
    offered: AddedItems,
    rule: IdRule,
    room: Reply[None],
    posted: Reply[None],
    *,
    wait: bool,
) -> tuple[int, int] | None:
    """Give the job as many items as it has room for, on the coordinator's thread.

    Returns how many were looked at, from the first on, and how many of these are new. ``room`` resolves when there is
    more room, ``posted`` when the journal gets the items taken, if the caller waits. None if the ``rule`` is not
    that of the job's first item.
    """
    host.closer.check_open("add items")  # checked once more: closing the queue has sealed the job
    if not _takes_items(book):
        state = "sealed" if book.sealed and not book.status.final else "cancelled" if book.cancelled else book.status
        raise JobStateError(f"job {book.id!r}: expected an open job to add items to, got one that is {state}")
    table, most = book.table, book.options.max_waiting
    if len(table) and table.rule is not rule:
        return None
    free = None if most is None else max(0, most - book.waiting)
    count = len(offered.items)
    chosen, looked_at = table.choose(offered, free)
    if looked_at < count:
        assert free is not None
        assert most is not None
        if not wait or book.started_at is None:
            how = "start it first" if book.started_at is None else "wait=True waits for room"
            raise JobFullError(
                f"job {book.id!r}: expected at most {free} items, since {book.waiting} wait already and "
                f"max_waiting={most}, got {count}; none was added; {how}"
            )
        host.engine.coordinator().when(lambda: book.waiting < most or not _takes_items(book), room)
    if not len(table) and rule is not IdRule.POSITION and chosen.items:
        take_rule(book, rule)
    if book.active:
        table.take_in(chosen, rule)
        host.engine.handle(ItemsAdded(book, chosen.new))
    else:  # the scheduler gets the job with these
        book.take_in(chosen, rule)
    if (outlet := host.engine.journal_outlet) is not None:
        outlet.items_added(book, posted if wait else None)
    return looked_at, len(chosen.new)


def _takes_items(book: JobBook) -> bool:
    return not (book.sealed or book.cancelled or book.status.final)


# -- Pipelines: items go through several handlers, each a stage with workers, retries and limits of its own. -----------


class Stage:
    """One stage of a pipeline: its handler and its own options, which are those of `create_job`.

    The handler gets the value that the stage before returned; if that stage yields, each value is an item of its own.
    ``name`` is shown in errors and on the live page (None: the handler's). At most ``concurrency`` workers run it at a
    time. If ``max_waiting`` items of the stage have not ended, the stage before waits (None: as many as keep the
    workers busy). An ``ordered`` stage gets its items in the order of the inputs. ``uses`` are the needs of each of its
    items while it runs; functions of the item are refused, since the items are not known in advance.
    """

    @takes(GivenOptions, At.STAGE)
    def __init__(self, handler: Callable[..., Any], name: str | None = None, **options: Unpack[StageKeywords]) -> None:
        self.handler = handler
        self.name = name
        self.options = read(GivenOptions, At.STAGE, "Stage", options, ("handler", "name"))

    def __repr__(self) -> str:
        given = {"handler": self.handler, "name": self.name, **vars(self.options)}
        return f"Stage({', '.join(f'{name}={shown(value)}' for name, value in given.items() if value is not None)})"


def make_pipeline(
    job_id: str,
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    asked: GivenOptions,
    queue: QueueOptions,
    backend: Backend,
    concurrency: int,
    *,
    sink: Any = None,
    listed: bool = True,
) -> tuple[JobBook, list[tuple[str, Stage]]]:
    """Return the head of a new pipeline, whose jobs have no numbers yet, and its stages, each with its name.

    Raises the errors of `JobQueue.run_stages`.
    """
    named = name_stages(stages)
    cores = getattr(backend, "count_cores", None)
    # An input has one try; its stages retry their own items.
    overall = dataclasses.replace(checks.job_options(queue, asked, count_cores=cores), retry=RetryPolicy(max_retries=0))
    job_options, needs = [], []
    shared = {one: getattr(overall, one) for one in ("priority", "profile")}
    for place, (name, stage) in enumerate(named):
        with _in_stage(name):
            each = checks.job_options(queue, stage.options, count_cores=cores)
            needs.append(choose_needs(stage.options, None, queue, backend, concurrency))
        seed = seed_of(place, overall.seed)
        job_options.append(dataclasses.replace(each, seed=seed, max_waiting=None, **shared))
        check_job(backend, job_options[-1])
    transport = backend.capabilities.handler_transport
    check_items(items)
    table = make_table(items)
    table.label = asked.label
    head = JobBook(0, job_id, table, overall, None, listed=listed)
    jobs = []
    for place, ((name, stage), each, need) in enumerate(zip(named, job_options, needs, strict=True)):
        stage_id, is_last = f"{job_id}/{name}", place == len(named) - 1
        stage_table = ItemTable([], None, IdRule.POSITION, grows=True)
        if not place:
            stage_table = ItemTable(table.payloads, table.ids, table.rule)
            stage_table.label = table.label
        stage_table.sink = ONWARD
        rule, first = stage_table.rule, stage_table.payloads
        packed = pack_handler(
            stage_id, stage.handler, stage.options.setup, rule, each.seed, transport=transport, items=first
        )
        discards = is_last and sink is DISCARD
        frame = packed.frame._replace(is_stage=True, passes_on=not is_last, discards=discards, profile=each.profile)
        packed = packed._replace(frame=frame)
        jobs.append(JobBook(0, stage_id, stage_table, each, packed, listed=listed))
        sample(jobs[-1])
        if need is not None:
            jobs[-1].need(need)
    Pipeline(head, jobs, [(name, stage.options.max_waiting, stage.options.ordered) for name, stage in named])
    if sink is not None:
        send_results_to(sink, head)
    return head, named


def name_stages(stages: Iterable[Stage | Callable[..., Any]]) -> list[tuple[str, Stage]]:
    """Return each stage with its name. Raises TypeError or ValueError if something is no stage."""
    if isinstance(stages, (str, bytes, Stage)) or callable(stages) or not isinstance(stages, Iterable):
        raise TypeError(f"stages: expected a list of functions and Stages, got {shown(stages)}")
    given = [one if isinstance(one, Stage) else Stage(one) for one in stages]
    if not given:
        raise ValueError("stages: expected at least one function or Stage, got none")
    taken = _given_names(given)
    named = []
    for place, stage in enumerate(given):
        if not callable(stage.handler):
            raise TypeError(
                f"stages[{place}]: expected a function or a Stage of one, got {shown(stage.handler)} of type "
                f"{type(stage.handler).__name__}"
            )
        name = plain(stage.name) if stage.name is not None else _free_name(_own_name(stage.handler, place), taken)
        taken.add(name)
        setup = stage.options.setup
        if setup is None or callable(setup):
            with _in_stage(name):
                check_calls(stage.handler, with_state=setup is not None)  # otherwise all of its items would fail
        named.append((name, stage))
    return named


@contextlib.contextmanager
def _in_stage(name: str) -> Iterator[None]:
    """Name the stage in errors of the block."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"stage {name!r}: {error}") from None


def _given_names(stages: Sequence[Stage]) -> set[str]:
    names: set[str] = set()
    for place, stage in enumerate(stages):
        if stage.name is None:
            continue
        if not isinstance(stage.name, str) or not stage.name:  # type: ignore[redundant-expr]
            raise TypeError(f"stages[{place}].name: expected a text that is not empty, got {shown(stage.name)}")
        name = plain(stage.name)
        if name in names:
            raise ValueError(f"stages[{place}].name: expected a name of its own, got {name!r} once more")
        names.add(name)
    return names


def _own_name(handler: Callable[..., Any], place: int) -> str:
    name = getattr(inspect.unwrap(handler), "__name__", None)
    if name is None and isinstance(function := getattr(handler, "func", None), Callable):  # type: ignore[arg-type]
        name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else f"stage-{place + 1}"


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def seed_of(place: int, overall: int) -> int:
    """Return the stage's own seed: with one seed for all, an item would get the same numbers in each stage."""
    return checks.named_seed(overall, f"stage {place}") if place else overall
