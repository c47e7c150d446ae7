"""The objects that users hold of a job's items: `JobItem` and `Items`, views of the rows of a table.

A view holds no data of its own, so that a million items cost columns, not objects. Views stay readable when the
queue is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, overload

from mpqueue._call_checks import no_such_attribute
from mpqueue._core.state.item_table import FailedTry, Failure, ItemTable
from mpqueue._plain import field_of, is_path
from mpqueue._text import SHOWN, repr_of, visible_line
from mpqueue._wire.parcels import Parcel
from mpqueue.errors import ItemError, shown, type_name_of
from mpqueue.status import COMPLETED, FAILED, ITEM_CODES, ItemStatus

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # every type checker has it; its defaults come with Python 3.13

    from mpqueue._core.state.job_book import JobView

    T_co = TypeVar("T_co", covariant=True, default=Any)
    R_co = TypeVar("R_co", covariant=True, default=Any)
    T = TypeVar("T", default=Any)
    R = TypeVar("R", default=Any)
    #: What a function returns for results of type ``R``: workers run a coroutine to its end. It refers to itself since
    #: mypy then looks into the coroutine before it takes ``R`` for the coroutine itself.
    MaybeCoroutine: TypeAlias = "Coroutine[Any, Any, MaybeCoroutine[R]] | R"
    Handler: TypeAlias = Callable[[T], MaybeCoroutine[R]]
    HandlerWith: TypeAlias = Callable[[T, Any], MaybeCoroutine[R]]  #: with the value of the job's `setup`
else:
    from typing import TypeVar

    T_co = TypeVar("T_co", covariant=True)  #: the items' type
    R_co = TypeVar("R_co", covariant=True)  #: the type of the handler's results
    T = TypeVar("T")  #: both for functions, where a type that nothing tells is Any
    R = TypeVar("R")


class WithDefaults:
    """Makes ``Job[int]`` mean ``Job[int, Any]`` at run time, as it does for a type checker."""

    __slots__ = ()

    if not TYPE_CHECKING:

        def __class_getitem__(cls, arguments: Any) -> Any:
            given = arguments if isinstance(arguments, tuple) else (arguments,)
            missing = len(cls.__parameters__) - len(given)
            return super().__class_getitem__((*given, *[Any] * missing) if given else given)


class JobItem(WithDefaults, Generic[T_co, R_co]):
    """One item of a job: a view of its row. Two views of the same row are equal."""

    __slots__ = ("_index", "_table")

    def __init__(self, table: ItemTable, index: int) -> None:
        self._table = table
        self._index = index

    @property
    def id(self) -> Hashable:
        """The item's ``"id"`` or ``.id``, else its position in the list."""
        return self._table.id_of(self._index)

    @property
    def label(self) -> str:
        """The item's name for people, in lists, logs, errors and exports. One line; its middle is cut if it is long.

        It is the choice of ``label=`` of `create_job`; by default the name of a path, a mapping's ``name``, ``path``,
        ``url`` or ``id``, or the item's text. If there is none of these, it is the id.
        """
        return self._table.label_of(self._index)

    @property
    def _named(self) -> str:
        """The item's id, with its label if that differs."""
        return self._table.named(self._index)

    @property
    def status(self) -> ItemStatus:
        """The item's current state; ``processing`` only while a worker really runs it. Costs up to 1 us per worker."""
        status: ItemStatus = ITEM_CODES[self._table.status[self._index]]
        if status in (ItemStatus.COMPLETED, ItemStatus.FAILED) or self._index not in self._table.live.running():
            return status
        return ItemStatus.PROCESSING

    @property
    def attempts(self) -> int:
        """The tries charged to the item so far; 0 when its handler was never called."""
        return self._table.attempts[self._index]

    @property
    def error(self) -> str | None:
        """The error of the last failed try, with its type (``KeyError: 'height'``); None once the item completed."""
        failure = self._failure
        return None if failure is None else failure.shown

    @property
    def error_type(self) -> str | None:
        """The name of the error's type in the last failed try (``KeyError``); None once the item completed."""
        failure = self._failure
        return None if failure is None else type_name_of(failure.error)

    @property
    def exception(self) -> BaseException | None:
        """The exception of the last failed try, with the worker's traceback as its cause; None once it completed."""
        failure = self._failure
        return None if failure is None else failure.error

    @property
    def traceback(self) -> str | None:
        """The worker's traceback of the last failed try, as text, if there is one."""
        failure = self._failure
        return None if failure is None else failure.traceback

    @property
    def _failure(self) -> Failure | None:
        if self._table.status[self._index] == COMPLETED:
            return None
        return self._table.failures.get(self._index)

    @property
    def result(self) -> R_co | None:
        """The value that the handler returned; None if the item has not completed.

        With a journal, only the newest 32 MB of results are in memory. Older ones are read from it at each access, as a
        new object. Raises `JournalError` if one can't be read, `JobStateError` if the job does not keep results.
        """
        result: R_co | None = self._table.result_of(self._index)
        return result

    @property
    def _has_result(self) -> bool:
        """False if the job does not keep the item's result."""
        return self._table.has_result(self._index)

    @property
    def proposed_alt(self) -> Any:
        """The result's ``alt_text`` or ``altText`` (key or attribute), None if it has none."""
        result: Any = self.result
        for name in ("alt_text", "altText"):
            if isinstance(result, dict):
                if name in result:
                    return result[name]
            elif (value := field_of(result, name)) is not None:
                return value
        return None

    @property
    def elapsed(self) -> float:
        """Seconds that the last try took in the handler; the average for very short items that ran together."""
        return self._table.elapsed[self._index]

    @property
    def cpu_seconds(self) -> float | None:
        """Seconds of CPU time of its worker's process in the last try, all threads together; averaged like ``elapsed``.

        None if the item did not run, or its worker died.
        """
        return self._table.cpu[self._index] or None

    @property
    def peak_memory(self) -> int | None:
        """The most bytes of memory that its worker had during the last try: Python, modules and mapped files included.

        None if it is not known: for items that took less than 5 ms, were measured together with others, or crashed, and
        on other systems than Linux.
        """
        return self._table.peak[self._index] << 10 or None

    @property
    def fraction(self) -> float:
        """The item's progress, from 0 to 1, as its handler reported it; 1 once it completed."""
        if self._table.status[self._index] == COMPLETED:
            return 1.0
        return self._table.live.running().get(self._index, 0.0)

    @property
    def stdout(self) -> str | None:
        """The stdout of the item's last try; None if it was not kept (``capture_output``), or the try crashed."""
        return self._table.output.get(self._index, (None, None))[0]

    @property
    def stderr(self) -> str | None:
        """The stderr of the item's last try; None as for ``stdout``."""
        return self._table.output.get(self._index, (None, None))[1]

    @property
    def payload(self) -> T_co:
        """The item itself, as it was passed to `create_job`.

        In a stage after the first, None if the item has completed, or if its value is an array or otherwise big.
        """
        payload: Any = self._table.payloads[self._index]
        value: T_co = payload.load() if type(payload) is Parcel else payload
        return value

    @property
    def history(self) -> list[FailedTry]:
        """Each failed try: its error, its duration in seconds, the worker's process id. Survives `retry_failed`."""
        return list(self._table.history.get(self._index, ()))

    def replay(self) -> R_co:
        """Run the item, and its setup, once more in this process, for a debugger; returns the handler's value.

        Changes nothing in the job. Raises the handler's errors, `JobStateError` if the handler is not at hand, and
        `JournalError` if it can't be read from a journal.
        """
        result: R_co = self._table.replay(self._table, self._index)
        return result

    def to_dict(self) -> dict[str, Any]:
        """The wire form; unset keys are absent."""
        wire: dict[str, Any] = {"id": as_json(self.id), "status": str(self.status)}
        if self._table.status[self._index] == COMPLETED:
            if not self._has_result:
                wire["attempts"] = self.attempts
                return wire
            wire["result"] = as_json(self.result)
            if (proposed := self.proposed_alt) is not None:
                wire["proposedAlt"] = as_json(proposed)
        elif (failure := self._failure) is not None:
            wire["error"], wire["errorType"] = failure.message, type_name_of(failure.error)
        wire["attempts"] = self.attempts
        return wire

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            raise no_such_attribute("JobItem", name, _ELSEWHERE_OF_ITEMS, self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobItem):
            return NotImplemented
        return self._table is other._table and self._index == other._index

    def __hash__(self) -> int:
        return hash((id(self._table), self._index))

    def __repr__(self) -> str:
        error = self.error
        why = "" if error is None else f": {visible_line(error if len(error) <= SHOWN else error[:SHOWN] + '...')}"
        return f"<JobItem {self._named} {self.status}{why}>"


def as_json(value: Any) -> Any:
    """The value itself if it can be written as JSON, else its ``repr``."""
    import json  # takes 1 ms, which programs without exports save

    try:
        json.dumps(value, allow_nan=False)
    except Exception:  # noqa: BLE001 - json asks what may raise anything
        return repr_of(value)
    return value


class Items(Sequence[JobItem[T_co, R_co]]):
    """The items of a job, in the order they were given: a live, read-only view.

    ``items[3]`` is by position, as in a list. ``items["a.jpg"]`` is by id; if the ids are positions, it is the item
    that equals this text or path, else the one with this label. That looks through all items, and raises KeyError if
    none fits, or several.
    """

    __slots__ = ("_table",)

    def __init__(self, table: ItemTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int | str) -> JobItem[T_co, R_co]: ...
    @overload
    def __getitem__(self, index: slice) -> list[JobItem[T_co, R_co]]: ...
    def __getitem__(self, index: int | str | slice) -> JobItem[T_co, R_co] | list[JobItem[T_co, R_co]]:
        if isinstance(index, str):
            return JobItem(self._table, self._find(index))
        try:
            positions = range(len(self._table))[index]
        except IndexError:
            raise IndexError(f"items: expected a position below {len(self._table)}, got {index}") from None
        if isinstance(positions, range):
            return [JobItem(self._table, position) for position in positions]
        return JobItem(self._table, positions)

    def _find(self, name: str) -> int:
        table = self._table
        for index in range(len(table)):
            item_id = table.id_of(index)
            if item_id == name if isinstance(item_id, str) else _is_named(table.payloads[index], name):
                return index
        labelled = [index for index in range(len(table)) if table.label_at(index) == name]
        if len(labelled) == 1:
            return labelled[0]
        found = f", which is the label of {len(labelled)} items" if labelled else ""
        raise KeyError(
            f"expected the id of an item, an item that is this text or path, or its label, got {shown(name)}{found}"
        )

    def __iter__(self) -> Iterator[JobItem[T_co, R_co]]:
        table = self._table
        return (JobItem(table, position) for position in range(len(table)))

    def __repr__(self) -> str:
        status = self._table.status
        if self._table.is_stream:  # it holds only items under way
            return f"<{len(self):,} items>"
        return f"<{len(status):,} items: {status.count(COMPLETED):,} completed, {status.count(FAILED):,} failed>"


def positions_of(job: JobView, chosen: Iterable[Any]) -> list[int]:
    """The positions of these items, each once, in order: each is a `JobItem`, an id, or a position.

    A number is a position unless the ids are numbers, a text is as in `Items`. Raises TypeError unless there are
    several; ValueError for an item of another job; IndexError or KeyError for an item that the job does not have.
    """
    table = job.table
    if isinstance(chosen, (str, bytes, JobItem)) or not isinstance(chosen, Iterable):
        raise TypeError(f"items: expected several items, such as job.items[:2], got {shown(chosen)}; put it in a list")
    ids: dict[Hashable, int] | None = None
    found = set()
    for one in chosen:
        item = one.item if isinstance(one, ItemError) else one
        if isinstance(item, JobItem):
            of, index = item._table.copied_from or (item._table, item._index)
            if of is table:
                found.add(index)
                continue
            if of.recorded_of != job.id:  # otherwise it is from an earlier look at the same job
                raise ValueError(f"items: expected items of this job, got {item!r}, which is of another one")
            item = item.id
        if ids is None:
            ids = {} if table.ids is None else {item_id: index for index, item_id in enumerate(table.ids)}
        found.add(_position_of(table, item, ids))
    return sorted(found)


def _position_of(table: ItemTable, item: Any, ids: dict[Hashable, int]) -> int:
    if isinstance(item, str):
        return Items(table)[item]._index
    try:
        if item in ids:
            return ids[item]
    except TypeError:  # an item that can't be hashed, instead of its id
        pass
    if not isinstance(item, int) or any(isinstance(item_id, int) for item_id in ids):
        raise KeyError(
            f"items: expected items of the job, their ids or their positions, got {shown(item)}, which is none"
        )
    try:
        return range(len(table))[item]
    except IndexError:
        raise IndexError(f"items: expected positions below {len(table)}, got {item}") from None


def _is_named(payload: Any, name: str) -> bool:
    if is_path(payload):
        return name in (str(payload), payload.as_posix())
    return isinstance(payload, str) and payload == name


#: Names that users look for in an item, with the right ones.
_ELSEWHERE_OF_ITEMS = {
    "cancel": "queue.cancel_items(job, [item])",
    "retry": "queue.retry_failed(job, items=[item])",
    "retry_failed": "queue.retry_failed(job, items=[item])",
}
