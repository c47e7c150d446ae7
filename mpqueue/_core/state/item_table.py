"""The items of a job as columns: one list or array a field, one row an item.

Owns what each item is and how it stands; knows nothing of lanes, chunks or time. A finished chunk is a slice
assignment, and a million items cost about 33 bytes each beyond the user's own objects and their results. A table may
grow: an open job's, and a stage's. A list is one that was whole when it was made, which costs less memory.

Written by the coordinator's thread only. Readers on other threads see each field of a row whole, and a row's result,
attempts and error before its final status.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeVar

from mpqueue._call_checks import iterator_of
from mpqueue._os.memory.mappings import zeros
from mpqueue._text import label, visible_line
from mpqueue._wire.added_items import AddedItems
from mpqueue._wire.ids import IdRule, ids_of, rule_of
from mpqueue._wire.item_labels import Label, label_of, named, plain_label
from mpqueue.errors import JobStateError, shown, text_of, type_name_of, typed
from mpqueue.status import COMPLETED, FAILED, PENDING, RETRY

if TYPE_CHECKING:
    from mpqueue._core.state.pipeline import Origins

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a try failed.

    ``elapsed`` is seconds in the handler. A failure that is not ``charged`` never reached the handler and is not
    retried. Handlers may use queues of their own, and raise what these raise: so the error's type does not tell whose
    it is, see `own`.
    """

    error: BaseException
    traceback: str | None = None
    elapsed: float = 0.0
    charged: bool = True
    text: str | None = None  #: the error's text as the worker saw it
    raised: bool = False  #: users' code raised ``error`` in the worker, as it is here; not kept by journals

    @property
    def own(self) -> BaseException | None:
        """The error where this queue made it, to say what happened to the item; None where users' code raised it."""
        return None if self.raised else self.error

    @property
    def message(self) -> str:
        """The error's text without its type; the type's name where the error has no text."""
        return (text_of(self.error) if self.text is None else self.text) or type_name_of(self.error)

    @property
    def shown(self) -> str:
        """The error's type and text, as people see it: ``KeyError: 'height'``."""
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
#: The same of a stage, whose results go to the next one, or to the job of all stages.
ONWARD = "onward"
#: Bytes from which on a column has memory of its own, which the system fills with zeros as it is used: at once, that
#: would take 1 ms for each 100,000 items, while the workers wait for the first of them.
LARGE = 1 << 16
#: By status: 1 where that is final.
_ENDED = bytes(code in (COMPLETED, FAILED) for code in range(256))
#: The shortest reported CPU time, in seconds.
LEAST_CPU = 1e-9


class Elsewhere:
    """Stands in the results for one that is not in memory, but in this row of a `ResultSource`."""

    __slots__ = ("row",)

    def __init__(self, row: int) -> None:
        self.row = row


#: Stands in the results for one that was discarded when its item ran, as a journal tells.
DISCARDED = Elsewhere(-1)


class ResultSource(Protocol):
    """Where the results are that are not in memory. Any thread; raises where one can't be read."""

    def read(self, row: int, slot: int) -> Any:
        """The result of the item in that slot, which is in that row."""
        ...

    def fill(self, results: list[Any], slots: Sequence[int] | None) -> None:
        """Replace what stands for results by these. ``slots`` are those of the items; None: their indices."""
        ...

    def take_kept(self, results: Sequence[Any], indices: Sequence[int]) -> list[Any] | None:
        """These results, where all are in memory since they were checked; they are not there any more then."""
        ...

    def each(
        self,
        results: Sequence[Any],
        slots: Sequence[int],
        make: Callable[[int, Any], T],
        leave_out: Callable[[int, Exception], T],
    ) -> list[T]:
        """What ``make`` returns for each place and its result, in one look; one result at a time is read.

        Where a result of a job that runs here can't be read, what ``leave_out`` returns. May call them for all places
        again: the last time counts.
        """
        ...


class GrowthHook(Protocol):
    """What a journal knows of the items of a table that grows, beside the table."""

    def look_at(self, items: list[Any], ids: list[Hashable] | None) -> AddedItems:
        """What has to be known of items before they are offered. On their user's thread, whose code it may run."""
        ...

    def choose(self, table: ItemTable, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """See `ItemTable.choose`."""
        ...

    def note(self, table: ItemTable, added: AddedItems, maker: int | None) -> None:
        """These are being added, see `ItemTable.take_in`: the table is not longer yet."""
        ...


class Live:
    """What is not in the books: a look at the workers, for users who ask. Neither read nor written by the scheduler.

    ``running``, set by the coordinator: the indices that workers are running now, and how far each is.
    ``heir`` takes over what the table held where it is freed by a thread that must run no code of users' classes; where
    ``foreign``, objects of such classes are among the items, results and errors, and to free them may run any code.
    """

    def __init__(self) -> None:
        self.running: Callable[[], Mapping[int, float]] = dict
        self.heir: Callable[[object], object] | None = None
        self.foreign = False


def refuse_pickling() -> NoReturn:
    """Raise TypeError, since what users hold of a job are views of what is here."""
    raise TypeError(
        "a Job, and what has items of it (JobItem, FailureGroup, events), can't be pickled or deep-copied: it is a "
        "view of what this process knows; use to_dict() or job.to_records(), or an item's payload and result, instead"
    )


class ItemTable:
    """The columns. ``payloads`` is the table's own list of the user's objects.

    Of one that ``grows``, the first item decides where ids come from: until there is one, the ``rule`` means nothing.
    """

    def __init__(self, payloads: list[Any], ids: list[Hashable] | None, rule: IdRule, *, grows: bool = False) -> None:
        count = len(payloads)
        self.payloads = payloads
        self.rule = rule
        self.label: Label = None  #: how the items' labels are chosen
        self.status = bytearray(count)
        self.attempts: memoryview[int] = _zeros("I", count, grows)
        self.elapsed: memoryview[float] = _zeros("f", count, grows)
        self.cpu: memoryview[float] = _zeros("f", count, grows)  #: CPU seconds; 0: not known
        self.peak: memoryview[int] = _zeros("I", count, grows)  #: peak of memory, in KiB; 0: not known
        self.results: list[Any] = [None] * count  #: `result_of` and `all_results` are for users
        self.failures: dict[int, Failure] = {}
        self.history: dict[int, list[FailedTry]] = {}
        self._ids = ids
        self.grows = grows  #: it may get more items, by `take_in`
        self._known = set(ids) if grows and ids is not None else None  #: the same ids, to know one again
        self.growth: GrowthHook | None = None  #: where a journal records the items as they come
        self.origins: Origins | None = None  #: where its items come from, if another stage makes them
        self.output: dict[
            int, tuple[str, str]
        ] = {}  #: what the last try wrote to stdout and stderr, where that is kept
        #: Runs the item at an index once more, in this process. Set where the job's handler is at hand.
        self.replay: Callable[[ItemTable, int], Any] = _no_handler
        #: Of a copy of one row: the table, and where in it.
        self.copied_from: tuple[ItemTable, int] | None = None
        self.recorded_of: str | None = None  #: if it was read from a journal to look at: the job's id there
        #: The number by which a journal knows each item, for ever; None where that is its index.
        self.slots: Any = None
        self.code = 0  #: the number by which a journal knows the code that runs now
        #: Reads the results for which an `Elsewhere` stands.
        self.source: ResultSource | None = None
        self.keeps_results = False  #: none of them goes elsewhere (any more)
        #: Where its results go instead of being kept: an object of users', `DISCARD` or `ONWARD`; None: kept.
        self.sink: Any = None
        self.live = Live()

    def __del__(self) -> None:
        live: Live | None = getattr(self, "live", None)  # None: a Ctrl-C has interrupted its making
        if live is not None and live.heir is not None and (live.foreign or not self._is_through):
            live.heir(vars(self))

    def __reduce__(self) -> NoReturn:
        refuse_pickling()

    def __len__(self) -> int:
        return len(self.payloads)

    @property
    def ids(self) -> list[Hashable] | None:
        """The ids of all items; None where they are positions."""
        return self._ids

    def id_of(self, index: int) -> Hashable:
        """The id of the item at ``index``."""
        if (origins := self.origins) is not None:
            return origins.inputs.id_of(origins.input_of[index])
        return index if self._ids is None else self._ids[index]

    def item_labelled(self, index: int) -> tuple[Any, Label]:
        """The item of which the label is made, and how. Raises LookupError where it is not there any more."""
        if (origins := self.origins) is not None:  # which was labelled before it became something else
            return origins.inputs.item_labelled(origins.input_of[index])
        return self.payloads[index], self.label

    def label_at(self, index: int) -> str | None:
        """The label of the item at ``index``; None where only its id tells it. May run code of users."""
        try:
            return label_of(*self.item_labelled(index))
        except LookupError:
            return None

    def label_of(self, index: int) -> str:
        """The label of the item at ``index``, or its id as text. May run code of users."""
        return self.label_at(index) or label(self.id_of(index))

    def named(self, index: int) -> str:
        """The item at ``index`` in an error message: ``3 (a.jpg)``. May run code of users."""
        return named(self.id_of(index), self.label_at(index))

    def named_plainly(self, index: int) -> str:
        """The same for threads that run no code of users, which leave out what would need it."""
        try:
            found = plain_label(*self.item_labelled(index))
        except LookupError:
            found = None
        return named(self.id_of(index), found)

    def ended(self, index: int) -> bool:
        """True where the item has its final status."""
        return self.status[index] in (COMPLETED, FAILED)

    @property
    def _is_through(self) -> bool:
        """True if every item has ended, so none has to be checked any more."""
        return self.status.count(COMPLETED) + self.status.count(FAILED) == len(self.status)

    def payloads_of(self, indices: Sequence[int]) -> list[Any]:
        """The items at these indices."""
        if isinstance(indices, range):
            return self.payloads[indices.start : indices.stop]
        return [self.payloads[index] for index in indices]

    def slots_of(self, indices: Sequence[int]) -> Sequence[int]:
        """The slots of the items at these indices; empty where those are the indices."""
        if self.origins is not None:
            return self.origins.slots_of(indices)
        return () if self.slots is None else [self.slots[index] for index in indices]

    def result_of(self, index: int) -> Any:
        """The result of the item at ``index``, wherever it is; raises what `ResultSource.read` raises.

        `JobStateError` where results are not kept.
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
        """False where results of it are discarded, or leave it for a sink, and no journal has them."""
        if self.sink is not None and (self.sink is DISCARD or self.source is None):
            return False
        return self.results[index] is not DISCARDED

    def discarded(self) -> list[int]:
        """The indices of the items that completed, and whose results were discarded, as a journal tells."""
        found = [index for index, result in enumerate(self.results) if result is DISCARDED]
        return [index for index in found if self.status[index] == COMPLETED]

    def held_results(self, indices: Sequence[int]) -> list[Any]:
        """The results of these items, or what stands for them."""
        if isinstance(indices, range):
            return self.results[indices.start : indices.stop]
        return [self.results[index] for index in indices]

    def all_results(self) -> list[Any]:
        """All results, in a new list. Raises what `ResultSource.fill` raises, `JobStateError` for discarded ones."""
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
        """Have all results in memory, for good; raises what `ResultSource.fill` raises."""
        self.results[:] = self._filled()
        self.keeps_results = True

    def let_go(self, indices: Sequence[int], row: int) -> list[Any]:
        """These results are in that row of the source from now on; returns them, to be freed."""
        if self.source is None or self.keeps_results or self.sink is DISCARD:
            return []
        return self._replace(indices, Elsewhere(row))

    def release(self, indices: Sequence[int]) -> list[Any]:
        """The results of these items have been taken to where they are kept; returns them, to be freed."""
        return self._replace(indices, None)

    def _replace(self, indices: Sequence[int], mark: Elsewhere | None) -> list[Any]:
        results = self.held_results(indices)
        if isinstance(indices, range):
            self.results[indices.start : indices.stop] = [mark] * len(indices)
        else:
            for index in indices:
                self.results[index] = mark
        return results

    # -- growing -----------------------------------------------------------------------------------------------

    def knows(self, item_id: Hashable) -> bool:
        """True where an item of the table, which grows, has this id."""
        return self._known is not None and item_id in self._known

    def look_at(self, items: list[Any], ids: list[Hashable] | None) -> AddedItems:
        """What has to be known of items before they are offered. On their user's thread, whose code it may run."""
        return AddedItems(items, ids) if self.growth is None else self.growth.look_at(items, ids)

    def choose(self, offered: AddedItems, most: int | None) -> tuple[AddedItems, int]:
        """Of these, from the first on, what is to be added where there is room for so many; how many that looks at."""
        if self.growth is not None:
            return self.growth.choose(self, offered, most)
        if most is None or len(offered.items) <= most:
            return offered, len(offered.items)
        return AddedItems(offered.items[:most], None if offered.ids is None else offered.ids[:most]), most

    def take_in(self, added: AddedItems, rule: IdRule, maker: int | None = None) -> None:
        """Add those whose ids are not there already; says in ``added`` where they are.

        ``maker`` is the index of the item whose handler adds them; None: their user does.
        """
        items, ids = added.items, added.ids
        if not self.payloads:
            self.rule = rule
            self._ids, self._known = (None, None) if ids is None else ([], set())
        if ids is not None:
            items, ids = self._unknown(items, ids)
        first, count = len(self.payloads), len(items)
        added.new = range(first, first + count)
        columns: Any = self
        for column in (columns.attempts, columns.elapsed, columns.cpu, columns.peak):
            column.frombytes(bytes(count * column.itemsize))
        self.status.extend(bytes(count))
        self.results.extend([None] * count)
        if self._ids is not None:
            self._ids.extend(ids or ())
        if self.growth is not None:
            self.growth.note(self, added, maker)
        self.payloads.extend(items)  # last: they make it longer

    def admit(self, indices: range) -> None:
        """The scheduler has got these rows: from now on they count, where they did not from the start."""

    def _unknown(self, items: list[Any], ids: list[Hashable]) -> tuple[list[Any], list[Hashable]]:
        new_items, new_ids, known = [], [], self._known
        assert known is not None
        for item, item_id in zip(items, ids, strict=True):
            if item_id not in known:
                known.add(item_id)
                new_items.append(item)
                new_ids.append(item_id)
        return new_items, new_ids

    # -- how they stand ----------------------------------------------------------------------------------------

    def unfinished(self) -> list[int]:
        """The indices of the items that have not ended."""
        return [index for index, status in enumerate(self.status) if status not in (COMPLETED, FAILED)]

    def unfinished_stretches(self) -> Iterator[range]:
        """The same as ranges, each as long as can be. Costs a look at each byte, and next to nothing an item."""
        return self._stretches(0)

    def ended_stretches(self) -> Iterator[range]:
        """The indices of the items that ended, likewise."""
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
        """The indices of the items that ended."""
        return [index for index, status in enumerate(self.status) if status in (COMPLETED, FAILED)]

    def reset_waiting(self) -> None:
        """Items that wait for a retry are pending again."""
        at = self.status.find(RETRY)
        while at >= 0:
            self.status[at] = PENDING
            at = self.status.find(RETRY, at + 1)

    def complete(self, indices: Sequence[int], results: list[Any]) -> None:
        """These items completed, with these results; none of them had ended before."""
        if isinstance(indices, range):
            lo, hi, count = indices.start, indices.stop, len(indices)
            self.results[lo:hi] = results
            if self.history:
                self._count_tries(indices)
            else:  # nothing failed so far
                self.attempts[lo:hi] = array("I", [1]) * count
            self.status[lo:hi] = bytes((COMPLETED,)) * count
            return
        self._count_tries(indices)
        for index, result in zip(indices, results, strict=True):
            self.results[index] = result
            self.status[index] = COMPLETED

    def _count_tries(self, indices: Iterable[int]) -> None:
        for index in indices:
            self.attempts[index] += 1

    def fail_try(self, index: int, failure: Failure, pid: int | None) -> int:
        """Write a failed try into the item's history; returns the tries charged to it so far."""
        if failure.charged:
            self.attempts[index] += 1
        self.elapsed[index] = failure.elapsed
        entry = FailedTry(failure.message, failure.elapsed, pid, failure.error)
        self.history.setdefault(index, []).append(entry)
        self.failures[index] = failure
        return self.attempts[index]

    def fail(self, index: int, failure: Failure) -> None:
        """The item has failed for good."""
        self.failures[index] = failure
        self.status[index] = FAILED

    def note_times(self, indices: Sequence[int], stretches: Sequence[tuple[int, float, float]]) -> None:
        """What these items took: so many, seconds each, CPU seconds each (not a number: not known); and so on."""
        elapsed, used = array("f"), array("f")
        if len(stretches) == len(indices):  # each item has one of its own: an eighth of the time
            elapsed.extend([seconds for _, seconds, _ in stretches])
            used.extend([0.0 if math.isnan(cpu) else max(cpu, LEAST_CPU) for _, _, cpu in stretches])
        else:
            for count, seconds, cpu in stretches:
                elapsed += array("f", (seconds,)) * count
                used += array("f", (0.0 if math.isnan(cpu) else max(cpu, LEAST_CPU),)) * count
        # Of what ran, the last items may have been given to others meanwhile.
        told = min(len(elapsed), len(indices))
        if isinstance(indices, range):
            self.elapsed[indices.start : indices.start + told] = elapsed[:told]
            self.cpu[indices.start : indices.start + told] = used[:told]
        else:
            for at in range(told):
                self.elapsed[indices[at]] = elapsed[at]
                self.cpu[indices[at]] = used[at]

    def note_peaks(self, peaks: Mapping[int, int]) -> None:
        """The most memory that the workers of these items had meanwhile, in bytes, by index."""
        for index, peak in peaks.items():
            self.peak[index] = min(peak >> 10, 0xFFFFFFFF)

    def note_output(self, indices: Iterable[int], output: Mapping[int, tuple[str, str]]) -> None:
        """What the last tries of these items wrote, by index; of an item that is not in it, that was not kept."""
        if self.output:  # what the tries before wrote
            for index in indices:
                self.output.pop(index, None)
        self.output.update(output)

    def forget_costs(self, index: int) -> None:
        """What the item's last try cost is not known."""
        self.cpu[index] = 0.0
        self.peak[index] = 0

    def forget_failures(self, which: Iterable[int] | None = None) -> list[int]:
        """Make failed items pending again, without charged tries; their history stays. Returns their indices.

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
        """These items are pending, as if they had never run."""
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
        """A table of one row: the current state of the item, whatever happens to it later."""
        copy = ItemTable([self.payloads[index]], [self.id_of(index)], self.rule)
        labelled = self.item_labelled(index)
        copy.item_labelled = lambda index: labelled  # type: ignore[method-assign]  # noqa: ARG005
        copy.status[0] = self.status[index]
        copy.attempts[0] = self.attempts[index]
        copy.elapsed[0] = self.elapsed[index]
        copy.cpu[0] = self.cpu[index]
        copy.peak[0] = self.peak[index]
        copy.results[0] = self.results[index]
        if self.source is not None:
            copy.source, copy.slots = self.source, array("Q", self.slots_of([index]) or [index])
        again = self.replay
        copy.replay = lambda *_: again(self, index)
        copy.copied_from = self, index
        if index in self.failures:
            copy.failures[0] = self.failures[index]
        if index in self.history:
            copy.history[0] = list(self.history[index])
        if index in self.output:
            copy.output[0] = self.output[index]
        return copy


def _zeros(format: Literal["f", "I"], count: int, grows: bool) -> Any:
    size = 4 * count
    if grows:
        return array(format, bytes(size))
    memory = bytearray(size) if size < LARGE else zeros(size)
    return memoryview(memory).cast(format)


def _no_handler(table: ItemTable, index: int) -> Any:  # noqa: ARG001
    raise JobStateError(f"the item at {index}: expected a job whose handler is at hand to replay it, got one without")


def make_table(items: Iterable[Any]) -> ItemTable:
    """Copy the items (shallowly), find their ids and check them.

    Whatever the iterable itself raises comes through. Raises TypeError for something that is not iterable, an item
    without an id where the first had one, or an unhashable id; ValueError for an id that occurs twice.
    """
    payloads = read_all(items)
    rule = rule_of(payloads[0]) if payloads else IdRule.POSITION
    ids = ids_of(rule, payloads)
    if ids is not None:
        check_unique(ids)
    return ItemTable(payloads, ids, rule)


def read_all(items: Iterable[Any], name: str = "items") -> list[Any]:
    """The items, in a list of our own; whatever length they claim to have, they are counted as they come.

    Whatever the iterable itself raises comes through. Raises TypeError, in which the argument has this ``name``, for
    something that is not iterable.
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
    # An id that is not equal to itself (nan) never counts as seen; a set and a dict agree on that.
    raise ValueError("items: expected unique ids")
