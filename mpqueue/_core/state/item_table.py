"""The items of a job as columns, one row per item: `ItemTable`, which all kinds of jobs have.

It owns each item and its state; it knows nothing of lanes, chunks or time. A finished chunk is a slice assignment, and
a million items cost about 33 bytes each beyond the user's own objects and their results. A list's table is complete
when it is made, which takes less memory; those of open jobs, streams and stages grow.

A table keeps its rows, or it is sparse: a stream's row is removed when its consumer takes the outcome, a stage's some
time after its value was passed on, if there are more of them than inputs. So a stream of ten million items holds only
those that were added and not yet taken.

Only the coordinator's thread writes it; but a stream's consumer adds rows and takes ended ones. For the scheduler a row
counts from its message on, and ended rows don't matter, so it does not depend on when rows come and go. Readers on
other threads see each field of a row complete, and a row's result, attempts and error before its final status.
"""

from __future__ import annotations

import math
from array import array
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from mpqueue._call_checks import iterator_of
from mpqueue._core.state.columns import Column, Sparse, SparseRows, dense, extend, fill, put, sparse_of, take
from mpqueue._text import label, visible_line
from mpqueue._wire.item_names import IdRule, Label, ids_of, label_of, named, plain_label, rule_of
from mpqueue._wire.parcels import AddedItems, Parcel
from mpqueue.errors import JobStateError, shown, text_of, type_name_of, typed
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import Origins

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a try.

    ``elapsed`` is seconds in the handler. A failure that is not ``charged`` never reached the handler and is not
    retried. Handlers may use queues themselves, and raise their errors: so the error's type does not show whose it is,
    see `own`.
    """

    error: BaseException
    traceback: str | None = None
    elapsed: float = 0.0
    charged: bool = True
    text: str | None = None  #: the error's text in the worker
    raised: bool = False  #: users' code raised ``error`` in the worker; not kept by journals

    @property
    def own(self) -> BaseException | None:
        """The error if this queue made it, to describe the item's end; None if users' code raised it."""
        return None if self.raised else self.error

    @property
    def message(self) -> str:
        """The error's text without its type; the type's name if the error has no text."""
        return (text_of(self.error) if self.text is None else self.text) or type_name_of(self.error)

    @property
    def shown(self) -> str:
        """The error's type and text, for people: ``KeyError: 'height'``."""
        return typed(type_name_of(self.error), self.message)


@dataclass(frozen=True, slots=True, repr=False)
class FailedTry:
    """One entry of an item's history: the error's text, seconds in the handler, the worker's process id, the error."""

    message: str
    duration: float
    pid: int | None
    exception: BaseException

    @property
    def error(self) -> str:
        """The error's type and text: ``KeyError: 'height'``."""
        return typed(type_name_of(self.exception), self.message)

    def __repr__(self) -> str:
        where = "" if self.pid is None else f" in worker {self.pid}"
        return f"<FailedTry {visible_line(self.error)} after {self.duration:.3g} s{where}>"


#: Stands for the sink of a job whose results are discarded.
DISCARD = "discard"
#: The same for a stage, whose results go to the next one, or to the job of all stages.
ONWARD = "onward"
#: The rows that a stage keeps beyond the number of inputs: the last ended and failed ones. The page looks at them a
#: moment later.
ROWS_KEPT = 10_000
#: By status: 1 if it is final.
_ENDED = bytes(code in (COMPLETED, FAILED) for code in range(256))
#: The shortest reported CPU time, in seconds.
LEAST_CPU = 1e-9


class Elsewhere:
    """Stands in the results for one that is not in memory, but in this row of a `ResultSource`."""

    __slots__ = ("row",)

    def __init__(self, row: int) -> None:
        self.row = row


#: Stands in the results for one that was discarded when its item ran, by a journal.
DISCARDED = Elsewhere(-1)


class ResultSource(Protocol):
    """The source of results that are not in memory. Any thread; raises if one can't be read."""

    def read(self, row: int, slot: int) -> Any:
        """Return the result of the item in that slot, which is in that row."""

    def fill(self, results: list[Any], slots: Sequence[int] | None) -> None:
        """Replace stand-ins by results. ``slots`` are those of the items; None: their indices."""

    def each(
        self,
        results: Sequence[Any],
        slots: Sequence[int],
        make: Callable[[int, Any], T],
        leave_out: Callable[[int, Exception], T],
    ) -> list[T]:
        """Return the value of ``make`` for each place and its result, in one look; one result at a time is read.

        For an unreadable result of a job that runs here, it is the value of ``leave_out``. It may call them for all
        places again: the last time counts.
        """


class GrowthHook(Protocol):
    """A journal's view of the items of a table that grows, beside the table."""

    def look_at(self, items: list[Any], ids: list[Hashable] | None) -> AddedItems:
        """Return the facts needed about items before they are offered. On the user's thread: users' code may run."""

    def choose(self, table: ItemTable, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """Choose the offered items to add, for `ItemTable.choose`."""

    def note(self, table: ItemTable, added: AddedItems, maker: int | None) -> None:
        """Note items that are being added, for `ItemTable.take_in`: they are not in the table yet."""


class Live:
    """State that is not in the books: a look at the workers, for users. The scheduler does not use it.

    ``running``, set by the coordinator: the indices that workers are running now, and the progress of each.
    ``free_elsewhere`` takes over the table's objects if it is freed by a thread that must run no users' code; if
    ``has_user_objects``, the items, results and errors may have objects of users' classes, which may run code when they
    are freed.
    """

    def __init__(self) -> None:
        self.running: Callable[[], Mapping[int, float]] = dict
        self.free_elsewhere: Callable[[object], object] | None = None
        self.has_user_objects = False


def refuse_pickling() -> NoReturn:
    """Raise TypeError: users' views of a job show this process's data."""
    raise TypeError(
        "a Job, and what has items of it (JobItem, FailureGroup, events), can't be pickled or deep-copied: it is a "
        "view of what this process knows; use to_dict() or job.to_records(), or an item's payload and result, instead"
    )


class ItemTable:
    """A table of items, by columns. ``payloads`` is the table's own list of the user's objects.

    If it ``grows``, the first item decides the source of ids: until there is one, the ``rule`` means nothing.
    """

    def __init__(self, payloads: list[Any], ids: list[Hashable] | None, rule: IdRule, *, grows: bool = False) -> None:
        count = len(payloads)
        self.rule = rule
        self.label: Label = None  #: the choice of the items' labels
        self.payloads: Any = payloads
        self.status: Any = dense("B", count)
        self.attempts: Column[int] = dense("I", count, grows=grows)
        self.elapsed: Column[float] = dense("f", count, grows=grows)
        self.cpu: Column[float] = dense("f", count, grows=grows)  #: CPU seconds; 0: not known
        self.peak: Column[int] = dense("I", count, grows=grows)  #: peak of memory, in KiB; 0: not known
        self.results: Any = dense("O", count)  #: `result_of` and `all_results` are for users
        self.failures: dict[int, Failure] = {}
        self.history: dict[int, list[FailedTry]] = {}
        self._ids = ids
        self.grows = grows  #: it may get more items, by `take_in`
        self._known = set(ids) if grows and ids is not None else None  #: the same ids, to recognize one
        self.growth: GrowthHook | None = None  #: where a journal records the items as they come
        self.origins: Origins | None = None  #: the origins of its items, if another stage makes them
        self.is_stream = False  #: its consumer takes the rows away
        self.added = 0  #: of a stream: how many rows were ever added, with those that the scheduler does not know yet
        self._rows: SparseRows | None = None  #: the existing rows, if the columns are sparse
        self.cpu_gone = 0.0  #: CPU seconds of rows that are gone
        self.tries_gone: tuple[int, float] = (0, 0.0)  #: their failed tries, and the seconds of these
        #: Completed rows of a stage, in the order of their ends: they are removed when others have ended.
        self._leaving: deque[int] = deque()
        self.announced = 0  #: ends of tries with an event for listeners; written by the coordinator's thread
        self.told = 0  #: those whose event was delivered; written by the listeners' thread
        self.output: dict[int, tuple[str, str]] = {}  #: the output of the last try to stdout and stderr, if it is kept
        #: Runs the item at an index once more, in this process. Set if the job's handler is at hand.
        self.replay: Callable[[ItemTable, int], Any] = _no_handler
        #: For a copy of one row: the table, and the place in it.
        self.copied_from: tuple[ItemTable, int] | None = None
        self.recorded_of: str | None = None  #: if it was read from a journal to look at: the job's id there
        #: A journal's number of each item, for ever; None if that is its index.
        self.slots: Any = None
        self.code = 0  #: a journal's number of the current code
        #: Reads the results for which an `Elsewhere` stands.
        self.source: ResultSource | None = None
        self.keeps_results = False  #: all results stay here (from now on)
        #: The place of its results if they are not kept: a user's object, `DISCARD` or `ONWARD`; None: kept.
        self.sink: Any = None
        self.live = Live()

    @classmethod
    def of_stream(cls) -> ItemTable:
        """Make a table whose rows come and go. Ids are positions, counted from 0 over the whole stream."""
        table = cls([], None, IdRule.POSITION)
        table._become_sparse(())
        table.is_stream = True
        return table

    def __del__(self) -> None:
        live: Live | None = getattr(self, "live", None)  # None: a Ctrl-C has interrupted its making
        if live is not None and live.free_elsewhere is not None and (live.has_user_objects or not self._is_through):
            live.free_elsewhere(vars(self))

    def __reduce__(self) -> NoReturn:
        refuse_pickling()

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def ids(self) -> list[Hashable] | None:
        """The ids of all items; None if they are positions."""
        return self._ids

    def id_of(self, index: int) -> Hashable:
        """The id of the item at ``index``; None if the row of a stage is gone."""
        if (origins := self.origins) is not None:
            place: int | None = origins.input_of[index]
            return None if place is None else origins.inputs.id_of(place)
        return index if self._ids is None else self._ids[index]

    def item_labelled(self, index: int) -> tuple[Any, Label]:
        """Return the item from which the label is made, and the choice of labels. Raises LookupError if it is gone."""
        if (origins := self.origins) is not None:  # it was labelled before it became something else
            place = origins.input_of[index]
            if place is None:
                raise LookupError(index)
            return origins.inputs.item_labelled(place)
        return self.payloads[index], self.label

    def label_at(self, index: int) -> str | None:
        """The label of the item at ``index``; None if only its id tells it. May run users' code."""
        try:
            return label_of(*self.item_labelled(index))
        except LookupError:
            return None

    def label_of(self, index: int) -> str:
        """The label of the item at ``index``, or its id as text. May run users' code."""
        return self.label_at(index) or label(self.id_of(index))

    def labels_of(self, indices: Sequence[int]) -> list[str]:
        """The labels of the items at these indices, as in `label_of`. May run users' code."""
        if self.origins is not None:
            return [*map(self.label_of, indices)]
        labels = [label_of(item, self.label) for item in take(self.payloads, indices)]
        return [found or label(self.id_of(index)) for found, index in zip(labels, indices, strict=True)]

    def named(self, index: int) -> str:
        """The item at ``index`` in an error message: ``3 (a.jpg)``. May run users' code."""
        return named(self.id_of(index), self.label_at(index))

    def named_plainly(self, index: int) -> str:
        """Name the item like `named`, without users' code: for threads that run none."""
        try:
            found = plain_label(*self.item_labelled(index))
        except LookupError:
            found = None
        return named(self.id_of(index), found)

    def ended(self, index: int) -> bool:
        """True if the item has its final status."""
        return self.status[index] in (COMPLETED, FAILED)

    @property
    def _is_through(self) -> bool:
        """True if every item has ended, so none has to be checked any more."""
        if self._rows is not None:
            return not self._rows.items.kept
        ended: int = self.status.count(COMPLETED) + self.status.count(FAILED)
        return ended == len(self.status)

    def payloads_of(self, indices: Sequence[int]) -> list[Any]:
        """The items at these indices."""
        return take(self.payloads, indices)

    def slots_of(self, indices: Sequence[int]) -> Sequence[int]:
        """The slots of the items at these indices; empty if they are the indices, or rows are gone."""
        if self.origins is not None:
            return self.origins.slots_of(indices)
        if self.slots is None:
            return ()
        try:
            return [self.slots[index] for index in indices]
        except KeyError:
            return ()

    def result_of(self, index: int) -> Any:
        """Return the result of the item at ``index`` from its place; raises the errors of `ResultSource.read`.

        Raises `JobStateError` if results are not kept.
        """
        if self.status[index] == COMPLETED and not self.has_result(index):
            where = f"are in {shown(self.sink)}"
            if self.sink is ONWARD:
                where = "go on to the next stage, or to the job of all stages"
            elif self.sink is None or self.sink is DISCARD or self.results[index] is DISCARDED:
                where = "are discarded"
            raise JobStateError(
                f"item {self.named(index)}: expected a job that keeps its results, got one whose results {where}"
            )
        result = self.results[index]
        if type(result) is not Elsewhere:
            return result
        assert self.source is not None
        return self.source.read(result.row, index if self.slots is None else self.slots[index])

    def has_result(self, index: int) -> bool:
        """False if its results are discarded, or go into a sink, and no journal has them."""
        if self.sink is not None and (self.sink is DISCARD or self.source is None):
            return False
        return self.results[index] is not DISCARDED

    def results_at_hand(self, indices: Sequence[int]) -> list[Any] | None:
        """The results of these items; None if one of them is not in memory."""
        if self.sink is not None:
            return None
        results = take(self.results, indices)
        return None if Elsewhere in set(map(type, results)) else results

    def discarded(self) -> list[int]:
        """The indices of completed items whose results were discarded, by a journal."""
        found = [index for index, result in enumerate(self.results) if result is DISCARDED]
        return [index for index in found if self.status[index] == COMPLETED]

    def held_results(self, indices: Sequence[int]) -> list[Any]:
        """The results of these items, or their stand-ins."""
        return take(self.results, indices)

    def all_results(self) -> list[Any]:
        """Return all results in a new list. Raises the errors of `ResultSource.fill`; `JobStateError` if discarded."""
        if self.source is not None and (discarded := self.discarded()):
            raise JobStateError(
                f"expected a job that keeps its results, got one of which {len(discarded)} are discarded; the first is "
                f"that of item {self.named(discarded[0])}; items[...].result has the others"
            )
        return self._filled()

    def _filled(self) -> list[Any]:
        results = list(self.results)
        if self.source is not None and Elsewhere in set(map(type, results)):
            self.source.fill(results, self.slots)
        return results

    def recall(self) -> None:
        """Load all results into memory, for good; raises the errors of `ResultSource.fill`."""
        self.results[:] = self._filled()
        self.keeps_results = True

    def evict(self, indices: Sequence[int], row: int) -> list[Any]:
        """Replace results that are in that row of the source; returns them, to be freed."""
        if self.source is None or self.keeps_results or self.sink is DISCARD:
            return []
        return self._replace(indices, Elsewhere(row))

    def release(self, indices: Sequence[int]) -> list[Any]:
        """Drop the results of these items, which are kept elsewhere now; returns them, to be freed."""
        return self._replace(indices, None)

    def _replace(self, indices: Sequence[int], mark: Elsewhere | None) -> list[Any]:
        results = take(self.results, indices)
        put(self.results, indices, [mark] * len(indices))
        return results

    # -- growing -----------------------------------------------------------------------------------------------

    def knows(self, item_id: Hashable) -> bool:
        """True if an item of the table, which grows, has this id."""
        return self._known is not None and item_id in self._known

    def look_at(self, items: list[Any], ids: list[Hashable] | None) -> AddedItems:
        """Return the facts needed about items before they are offered. On the user's thread: users' code may run."""
        return AddedItems(items, ids) if self.growth is None else self.growth.look_at(items, ids)

    def choose(self, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """Choose, from the first on, the offered items that there is room for; also returns how many were looked at."""
        if self.growth is not None:
            return self.growth.choose(self, offered, most)
        if most is None or len(offered.items) <= most:
            return offered, len(offered.items)
        return AddedItems(offered.items[:most], None if offered.ids is None else offered.ids[:most]), most

    def take_in(self, added: AddedItems, rule: IdRule, maker: int | None = None) -> None:
        """Add the items whose ids are new; ``added`` gets their places.

        ``maker`` is the index of the item whose handler adds them; None: the user does.
        """
        items, ids = added.items, added.ids
        if not len(self):
            self.rule = rule
            self._ids, self._known = (None, None) if ids is None else ([], set())
        if ids is not None:
            items, ids = self._unknown(items, ids)
        added.new = range(len(self), len(self) + len(items))
        if self._rows is None:
            for column in (self.status, self.attempts, self.elapsed, self.cpu, self.peak, self.results):
                extend(column, len(items))
        if self._ids is not None:
            self._ids.extend(ids or ())
        if self.growth is not None:
            self.growth.note(self, added, maker)
        if self._rows is None:  # last: this makes the table longer
            self.payloads.extend(items)
        else:
            put(self.payloads, added.new, items)
            self._rows.count = added.new.stop

    def _unknown(self, items: list[Any], ids: list[Hashable]) -> tuple[list[Any], list[Hashable]]:
        new_items, new_ids, known = [], [], self._known
        assert known is not None
        for item, item_id in zip(items, ids, strict=True):
            if item_id not in known:
                known.add(item_id)
                new_items.append(item)
                new_ids.append(item_id)
        return new_items, new_ids

    # -- rows that go ------------------------------------------------------------------------------------------

    def add(self, items: Sequence[Any]) -> range:
        """Add rows to a stream; returns their indices. On the consumer's thread, before the scheduler gets them."""
        indices = range(self.added, self.added + len(items))
        rows = zip(indices, items, strict=True)
        try:
            self.payloads.update(rows)
        finally:  # a Ctrl-C comes between two calls: it must not leave added rows uncounted
            self.added = indices.stop
        return indices

    def take_over(self, indices: Sequence[int], results: Sequence[Any]) -> None:
        """Set the results of rows that have ended already. On the consumer's thread, once added."""
        self.results.update(zip(indices, results, strict=True))

    def admit(self, indices: range) -> None:
        """Count these rows, which the scheduler has received, if they did not count from the start."""
        if self._rows is not None:
            self._rows.count = indices.stop

    def take(self, index: int) -> tuple[Any, Failure | None]:
        """Take the outcome of an ended item of a stream; its row is then removed. On the consumer's thread."""
        self.payloads.pop(index, None)
        failed = self.status.pop(index, None) == FAILED
        failure = self.failures.pop(index, None)
        columns: Any = (self.attempts, self.elapsed, self.history)
        for column in columns:
            column.pop(index, None)
        if self.slots is not None:
            del self.slots[index]
        return self.results.pop(index, None), failure if failed else None

    def take_all(self, indices: Sequence[int]) -> list[Any]:
        """Take the outcomes of ended items, each a result or its `Failure`; their rows are then removed."""
        if not self.failures:  # nor has any of these ever failed
            deque(map(self.payloads.pop, indices), maxlen=0)
            if self.slots is not None:
                deque(map(self.slots.pop, indices), maxlen=0)
            return [*map(self.results.pop, indices)]
        outcomes = map(self.take, indices)
        return [result if failure is None else failure for result, failure in outcomes]

    def pass_on(self, indices: Sequence[int], failed: Collection[int]) -> None:
        """Release ended items of a stage: their results are elsewhere.

        A failed item keeps its value for users, unless that is big. The row of a completed item is removed in time, if
        there are that many.
        """
        if self._rows is None:
            put(self.results, indices, [None] * len(indices))
        if self.origins is None:
            return
        for index in indices:
            payload = self.payloads[index]
            if index not in failed or (type(payload) is Parcel and payload.held is not None):
                self.payloads[index] = None
        self._forget_old_rows()
        completed = [index for index in indices if index not in failed]
        self._leaving.extend(completed)
        if self._rows is not None:
            for index in completed:
                del self.payloads[index], self.results[index]
        elif len(self) > len(self.origins.inputs) + ROWS_KEPT:
            self._become_sparse(self.origins.paths)

    def _forget_old_rows(self) -> None:
        """Forget rows, except for some, and for those whose events have not been emitted: these are announced later."""
        most = ROWS_KEPT + self.announced - self.told
        while len(self._leaving) > most:
            index = self._leaving.popleft()
            if self._rows is not None:
                self._forget_row(index)

    def _forget_row(self, index: int) -> None:
        assert self.origins is not None
        self.cpu_gone += self.cpu[index]
        columns: Any = (self.attempts, self.elapsed, self.cpu, self.peak, self.origins.input_of)
        for column in columns:
            column.pop(index, None)
        self._forget_tries(index)

    def _forget_tries(self, index: int) -> None:
        self.failures.pop(index, None)
        self.output.pop(index, None)
        for tried in self.history.pop(index, ()):
            count, seconds = self.tries_gone
            self.tries_gone = count + 1, seconds + tried.duration

    def _become_sparse(self, unfinished: Collection[int]) -> None:
        """Keep the rows of unfinished and failed items, and of those that are removed later."""
        count = len(self)
        rows = SparseRows(count)
        failed = [index for index in self.failures if self.status[index] == FAILED]
        stay = {*unfinished, *failed}
        gone = set(range(count)).difference(stay, self._leaving)
        self.cpu_gone = math.fsum(self.cpu[index] for index in gone)
        kept = [*stay, *self._leaving]
        rows.items.update((index, self.payloads[index]) for index in stay)
        self.attempts = sparse_of(self.attempts, rows, "I", 1, kept)
        self.elapsed = sparse_of(self.elapsed, rows, "f", 0.0, kept)
        self.cpu = sparse_of(self.cpu, rows, "f", 0.0, kept)
        self.peak = sparse_of(self.peak, rows, "I", 0, kept)
        if self.origins is not None:
            self.origins.input_of = sparse_of(self.origins.input_of, rows, "O", None, kept)
            for index in gone:
                self._forget_tries(index)
        self.results = rows.results
        self.status = sparse_of(self.status, rows, "B", COMPLETED, stay)
        self.payloads = rows.items
        self._rows = rows

    def _present(self) -> list[int]:
        """Return the existing rows of items that were not taken, or passed on, in order."""
        assert self._rows is not None
        return [index for index in sorted(self._rows.items.keys()) if index < self._rows.count]

    # -- how they stand ----------------------------------------------------------------------------------------

    def unfinished(self) -> list[int]:
        """The indices of the items that have not ended."""
        if self._rows is not None:
            return [index for index in self._present() if not self.ended(index)]
        return [index for index, status in enumerate(self.status) if status not in (COMPLETED, FAILED)]

    def unfinished_stretches(self) -> Iterator[range]:
        """Yield the items that have not ended, as ranges as long as possible.

        Costs a look at each byte, and almost nothing per item.
        """
        return self._stretches(0)

    def ended_stretches(self) -> Iterator[range]:
        """Yield the items that ended, as ranges as long as possible."""
        return self._stretches(1)

    def _stretches(self, wanted: int) -> Iterator[range]:
        ended = self.status.translate(_ENDED)
        at = ended.find(wanted)
        while at >= 0:
            end = ended.find(1 - wanted, at)
            end = len(ended) if end < 0 else end
            yield range(at, end)
            at = ended.find(wanted, end)

    def ended_indices(self) -> list[int]:
        """The indices of the items that ended and were not taken."""
        if self._rows is not None:
            return [index for index in self._present() if self.ended(index)]
        return [index for index, status in enumerate(self.status) if status in (COMPLETED, FAILED)]

    def times(self) -> list[float]:
        """Return the seconds of each ended item's last try, without those whose rows are gone or that never ran."""
        indices = range(len(self)) if self._rows is None else (*self._leaving, *self._present())
        return [self.elapsed[index] for index in filter(self.has_run, indices)]

    def has_run(self, index: int) -> bool:
        """True for an ended item, unless it failed without a try."""
        status = self.status[index]
        return status == COMPLETED or (status == FAILED and self.elapsed[index] > 0)

    def reset_waiting(self) -> None:
        """Make items that wait for a retry pending again."""
        if isinstance(self.status, Sparse):
            fill(self.status, [index for index, status in list(self.status.items()) if status == RETRY], PENDING)
            return
        at = self.status.find(RETRY)
        while at >= 0:
            self.status[at] = PENDING
            at = self.status.find(RETRY, at + 1)

    def complete(self, indices: Sequence[int], results: list[Any]) -> None:
        """Complete these items, with these results; none of them had ended before."""
        if self._rows is None and type(indices) is range and not self.history:  # as most: nothing failed so far
            lo, hi, count = indices.start, indices.stop, len(indices)
            columns: Any = self
            columns.attempts[lo:hi] = array("I", (1,)) * count
            columns.results[lo:hi] = results
            columns.status[lo:hi] = bytes((COMPLETED,)) * count
            return
        if self.history:
            self._count_tries(indices)
        elif self._rows is None:  # otherwise one try is as expected
            put(self.attempts, indices, [1] * len(indices))
        put(self.results, indices, results)
        fill(self.status, indices, COMPLETED)

    def _count_tries(self, indices: Iterable[int]) -> None:
        if self._rows is not None:  # the others are as expected
            indices = [index for index in indices if index in self.history]
        for index in indices:
            self.attempts[index] += 1

    def fail_try(self, index: int, failure: Failure, pid: int | None) -> int:
        """Add a failed try to the item's history; returns the tries charged to it so far."""
        if failure.charged:
            self.attempts[index] += 1
        self.elapsed[index] = failure.elapsed
        entry = FailedTry(failure.message, failure.elapsed, pid, failure.error)
        self.history.setdefault(index, []).append(entry)
        self.failures[index] = failure
        return self.attempts[index]

    def fail(self, index: int, failure: Failure) -> None:
        """Fail the item for good."""
        self.failures[index] = failure
        self.status[index] = FAILED

    def note_times(self, indices: Sequence[int], stretches: Sequence[tuple[int, float, float]]) -> None:
        """Note the times of these items, by stretches: (items, seconds each, CPU seconds each (NaN: not known)).

        A stream does not keep them.
        """
        if self.is_stream:
            return
        if len(stretches) == len(indices):  # each item has its own: an eighth of the time
            elapsed = array("f", [seconds for _, seconds, _ in stretches])
            used = array("f", [0.0 if math.isnan(cpu) else max(cpu, LEAST_CPU) for _, _, cpu in stretches])
        else:
            elapsed, used = array("f"), array("f")
            for count, seconds, cpu in stretches:
                elapsed += array("f", (seconds,)) * count
                used += array("f", (0.0 if math.isnan(cpu) else max(cpu, LEAST_CPU),)) * count
            # The last items that ran may have been given to other lanes meanwhile.
            told = min(len(elapsed), len(indices))
            indices, elapsed, used = indices[:told], elapsed[:told], used[:told]
        put(self.elapsed, indices, elapsed)
        put(self.cpu, indices, used)

    def note_peaks(self, peaks: Mapping[int, int]) -> None:
        """Note the most memory that these items' workers had meanwhile, in bytes, by index. Streams don't keep it."""
        if self.is_stream:
            return
        for index, peak in peaks.items():
            self.peak[index] = min(peak >> 10, 0xFFFFFFFF)

    def note_output(self, indices: Iterable[int], output: Mapping[int, tuple[str, str]]) -> None:
        """Note the output of these items' last tries, by index; items without an entry have none that is kept."""
        if self.output:  # the output of the tries before
            for index in indices:
                self.output.pop(index, None)
        self.output.update(output)

    def forget_costs(self, index: int) -> None:
        """Note that the costs of the item's last try are not known."""
        if self.is_stream:
            return
        self.cpu[index] = 0.0
        self.peak[index] = 0

    def forget_failures(self, which: Iterable[int] | None = None) -> list[int]:
        """Make failed items pending again, with no charged tries; their history stays. Returns their indices.

        ``which``: the indices of those; None: all that have failed.
        """
        among = self.failures if which is None else dict.fromkeys(which)
        indices = [index for index in among if self.status[index] == FAILED]
        for index in indices:
            del self.failures[index]
            self.attempts[index] = 0
            self.elapsed[index] = 0.0
            self.forget_costs(index)
            self.status[index] = PENDING
        return sorted(indices)

    def start_afresh(self, indices: Iterable[int]) -> None:
        """Make these items pending, as if for the first time."""
        for index in indices:
            self.failures.pop(index, None)
            self.history.pop(index, None)
            self.output.pop(index, None)
            self.results[index] = None
            self.attempts[index] = 0
            self.elapsed[index] = 0.0
            self.forget_costs(index)
            self.status[index] = PENDING

    def row(self, index: int) -> ItemTable:
        """Return a table of one row: the current state of the item, independent of later changes."""
        copy = self.picked([index], [self.id_of(index)])
        labelled = self.item_labelled(index)
        copy.item_labelled = lambda index: labelled  # type: ignore[method-assign]  # noqa: ARG005
        if self.source is not None:
            copy.source, copy.slots = self.source, array("Q", self.slots_of([index]) or [index])
        again = self.replay
        copy.replay = lambda *_: again(self, index)
        copy.copied_from = self, index
        return copy

    def picked(self, indices: Sequence[int], ids: list[Hashable] | None, *, grows: bool = False) -> ItemTable:
        """Return a table of these rows, which have these ids."""
        copy = ItemTable(take(self.payloads, indices), ids, self.rule, grows=grows)
        for at, index in enumerate(indices):
            copy.status[at] = self.status[index]
            copy.attempts[at] = self.attempts[index]
            copy.elapsed[at] = self.elapsed[index]
            copy.cpu[at] = self.cpu[index]
            copy.peak[at] = self.peak[index]
            copy.results[at] = self.results[index]
            if index in self.failures:
                copy.failures[at] = self.failures[index]
            if index in self.history:
                copy.history[at] = [*self.history[index]]
            if index in self.output:
                copy.output[at] = self.output[index]
        return copy


def _no_handler(table: ItemTable, index: int) -> Any:  # noqa: ARG001
    raise JobStateError(f"the item at {index}: expected a job whose handler is at hand to replay it, got one without")


def make_table(items: Iterable[Any]) -> ItemTable:
    """Copy the items (shallowly), find their ids and check them.

    Errors of the iterable itself are raised. Raises TypeError if it is not iterable, for an item without an id if the
    first had one, or for an unhashable id; ValueError for an id that occurs twice.
    """
    payloads = read_all(items)
    rule = rule_of(payloads[0]) if payloads else IdRule.POSITION
    ids = ids_of(rule, payloads)
    if ids is not None:
        check_unique(ids)
    return ItemTable(payloads, ids, rule)


def read_all(items: Iterable[Any], name: str = "items") -> list[Any]:
    """Return the items in a new list; they are counted one by one, since their own length may be wrong.

    Errors of the iterable itself are raised. Raises TypeError, in which the argument has this ``name``, if it is not
    iterable.
    """
    if type(items) in (list, tuple, range):
        return list(items)
    return [item for item in iterator_of(items, name)]  # noqa: C416 - `list` would ask for a length, and believe it


def check_unique(ids: list[Hashable]) -> None:
    """Raise TypeError for an id that can't be hashed, ValueError for one that occurs twice."""
    try:
        if len(set(ids)) == len(ids):
            return
    except TypeError:
        for position, item_id in enumerate(ids):
            try:
                hash(item_id)
            except TypeError:
                raise TypeError(f"items[{position}]: expected a hashable id, got {shown(item_id)}") from None
        raise
    seen: dict[Hashable, int] = {}
    for position, item_id in enumerate(ids):
        first = seen.setdefault(item_id, position)
        if first != position:
            raise ValueError(f"items: expected unique ids, got {shown(item_id)} at positions {first} and {position}")
    # An id that does not equal itself (nan) never counts as seen; a set and a dict agree on that.
    raise ValueError("items: expected unique ids")
