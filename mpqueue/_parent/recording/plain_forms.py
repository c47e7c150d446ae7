"""Messages, commands and jobs in plain words, for a recording; and messages and jobs made of them again.

Nothing of users' goes into a recording: of an item its position, of a result that there was one, of an error its
type's name, of a job its number and its options. Texts are left out, also those of warnings and of stacks.

Names of fields and of enums' members are what later versions read a recording by: one that is renamed gets its old
name here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from enum import Enum
from typing import Any

import mpqueue.errors as errors_of_ours
from mpqueue._core import messages
from mpqueue._core.messages import JobForgotten, Message, WorkerMemory
from mpqueue._core.state.item_table import FailedTry, Failure, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import Chunk
from mpqueue._core.state.needs.resources import JobNeeds, Needs
from mpqueue._core.state.pending import Care, stretches
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._options import JobOptions
from mpqueue._wire.added_items import AddedItems
from mpqueue._wire.frames import Ended, WorkTimes
from mpqueue._wire.ids import IdRule
from mpqueue._wire.memory.ledger import Claim, Phase
from mpqueue._wire.parcels import Yielded
from mpqueue.retry import RetryPolicy
from mpqueue.status import COMPLETED, FAILED, JobStatus

Plain = dict[str, Any]

#: Fields that are not recorded: texts, users' data, and what only the coordinator needs.
_LEFT_OUT = frozenset({"handler", "output", "profile", "returned", "rows", "stack", "text", "why"})
#: Fields of which only the count is recorded.
_COUNTED = frozenset({"records", "results"})
#: Messages that had another name in earlier versions.
_RENAMED = {
    "StreamSealed": "JobSealed",
    "ItemDropped": "ItemsDropped",
    "ItemsOffered": "ItemsAdded",
    "ItemsRecalled": "ItemsAdded",
}
#: Options of a job that mean nothing to the scheduler, or are users' own.
_NOT_OPTIONS = frozenset({"retry", "seed"})


class PlainWriter:
    """Plain forms of one queue's history. What dies together has a number here instead of its name."""

    def __init__(self) -> None:
        self._fates: dict[Hashable, int] = {}

    def plain(self, thing: Any) -> Plain:
        """A message or a command; its type's name first."""
        return {"is": type(thing).__name__} | self._fields(thing)

    def grown(self, message: Message) -> Plain | None:
        """What the form of a message says otherwise once it has been handled: how many items an open job has got."""
        if isinstance(message, messages.ChunkReported) and message.added:
            return {"added": self._value(message.added)}
        return None

    def _fields(self, thing: Any) -> Plain:
        names = [name for name in _fields_of(type(thing)) if name not in _LEFT_OUT]
        return {name: self._field(name, getattr(thing, name)) for name in names}

    def _field(self, field: str, value: Any) -> Any:
        if value is None:
            return None
        if field == "fate":
            return self._fates.setdefault(value, len(self._fates))
        if field in _COUNTED:
            return len(value)
        if field == "indices":
            return [[part[0], part[-1] + 1] for part in _in_order(value)]
        return self._value(value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, Enum) and not isinstance(value, JobStatus):
            return value.name
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, AddedItems):
            return len(value.new)
        if isinstance(value, (JobBook, Chunk, Failure, BaseException)):
            return self._of_the_books(value)
        return self._of_several(value)

    def _of_the_books(self, value: JobBook | Chunk | Failure | BaseException) -> Any:
        match value:
            case JobBook():
                return value.number
            case Chunk():
                where = {"number": value.number, "job": value.job.number, "care": value.care.name}
                indices = self._field("indices", value.indices)
                return {**where, "indices": indices, "attempts": [*value.attempts]}
            case Failure():
                form = {**_name(value.error), "charged": value.charged, "elapsed": value.elapsed}
                return {**form, "raised": True} if value.raised else form
            case _:
                return _name(value)

    def _of_several(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return [[key, self._value(entry)] for key, entry in value.items()]
        if isinstance(value, frozenset):
            return sorted(value)
        if hasattr(value, "_fields"):
            return self._fields(value)
        return [self._value(entry) for entry in value]

    @staticmethod
    def job(book: JobBook) -> Plain:
        """A job in its state when the scheduler gets it for the first time."""
        table, options = book.table, book.options
        retry = options.retry
        form: Plain = {
            "job": book.number,
            "items": len(table),
            "stream": table.is_stream,
            "open": table.grows,
            "costs": None if book.costs is None else [*book.costs],
            "needs": None if book.needs is None else _plain_needs(book.needs),
            "sealed": book.sealed,
            "listed": book.listed,
            "options": {
                **{name: getattr(options, name) for name in options.__slots__ if name not in _NOT_OPTIONS},
                "max_retries": retry.max_retries,
                "base_delay": retry.base_delay,
                "factor": retry.factor,
                "max_delay": retry.max_delay,
                "jitter": retry.jitter,
            },
        }
        if (stage := book.stage) is not None:
            head, of = stage.pipeline.head.number, len(stage.pipeline.jobs)
            place = {"head": head, "place": stage.place, "of": of}
            form["stage"] = {**place, "most": stage.most, "ordered": stage.ordered}
        if not form["stream"] and (book.restored or any(table.status) or table.history):
            form["before"] = {
                "status": str(book.status),
                "restored": book.restored,
                "retries": book.retries,
                "completed": _stretches_of(table, COMPLETED),
                "failed": _stretches_of(table, FAILED),
                "tries": [[index, tried] for index, tried in enumerate(table.attempts) if tried],
                "history": [[index, [_name(one.exception) for one in tries]] for index, tries in table.history.items()],
            }
        return form


class PlainReader:
    """Makes them again, as far as the scheduler can tell."""

    def __init__(self) -> None:
        self.jobs: dict[int, JobBook] = {}
        self._stages: dict[int, list[tuple[JobBook, Plain]]] = {}  #: by the head's number

    def message(self, form: Plain) -> Message:
        """The message. Raises LookupError, TypeError or ValueError for one that this version does not know."""
        kind = getattr(messages, _RENAMED.get(str(form["is"]), str(form["is"])))
        read = {"job": lambda number: number} if kind is JobForgotten else {"job": self.jobs.__getitem__}
        if form["is"] == "ItemDropped":
            form = {**form, "indices": [[form["index"], form["index"] + 1]]}
        if form["is"] == "ItemsOffered":
            self.jobs[form["job"]].take_in(_added(form["offered"]), IdRule.POSITION)
            form = {**form, "indices": []}
        if form["is"] == "ItemsRecalled":
            form = {**form, "failed": form["failures"]}
        fields = _fields_of(kind)
        values = {name: _read(name, value, read) for name, value in form.items() if name in fields}
        for name, empty in (("handler", None), ("why", ""), ("records", ())):
            if name in fields:
                values.setdefault(name, empty)
        message: Message = kind(**values)
        if isinstance(message, messages.ChunkReported):
            for at, count in (message.yielded or {}).items():
                message.results[at] = Yielded([None] * count)
        if isinstance(message, messages.ItemsAdded):
            _add_rows(message)
        return message

    def job(self, form: Plain) -> JobBook:
        """A job, known by its number from now on."""
        given = form["options"]
        policy = RetryPolicy(**{name: given[name] for name in RetryPolicy.__slots__ if name in given})
        named = {name: given[name] for name in JobOptions.__slots__ if name in given}
        stream, count = form["stream"], form["items"]
        grows = form.get("open", False)
        table = ItemTable.of_stream() if stream else ItemTable([None] * count, None, IdRule.POSITION, grows=grows)
        book = JobBook(
            form["job"],
            f"job {form['job']}",
            table,
            JobOptions(policy, seed=0, **named),
            None,
            sealed=form["sealed"],
            listed=form["listed"],
            costs=form.get("costs"),
        )
        if (needs := form.get("needs")) is not None:
            book.need(_needs(needs))
        if (before := form.get("before")) is not None:
            _restore(book, before)
        self.jobs[book.number] = book
        if (stage := form.get("stage")) is not None:
            self._join(book, stage)
        return book

    def _join(self, book: JobBook, stage: Plain) -> None:
        """With its last stage a pipeline is whole."""
        stages = self._stages.setdefault(stage["head"], [])
        stages.append((book, stage))
        if len(stages) == stage["of"]:
            settings = [("", each["most"], each["ordered"]) for _, each in stages]
            Pipeline(self.jobs[stage["head"]], [job for job, _ in stages], settings)


def _add_rows(message: messages.ItemsAdded) -> None:
    table, count = message.job.table, len(message.indices)
    if not table.is_stream:
        table.take_in(_added(count), IdRule.POSITION)
        return
    table.add([None] * count)
    if message.failed is not None:
        table.take_over(message.indices, [None] * count)


def _plain_needs(needs: JobNeeds) -> Plain:
    kinds = [[kind.cpus, [[*amount] for amount in kind.amounts]] for kind in needs.kinds]
    return {"kinds": kinds, "of": None if needs.of is None else [*needs.of], "memory": needs.memory}


def _needs(form: Plain) -> JobNeeds:
    kinds = [Needs(cpus, tuple((name, amount) for name, amount in amounts)) for cpus, amounts in form["kinds"]]
    return JobNeeds(kinds, form["of"], form["memory"])


def _restore(book: JobBook, before: Plain) -> None:
    table = book.table
    for code, parts in ((COMPLETED, before["completed"]), (FAILED, before["failed"])):
        for lo, hi in parts:
            table.status[lo:hi] = bytes((code,)) * (hi - lo)
    for index, tried in before["tries"]:
        table.attempts[index] = tried
    for index, names in before["history"]:
        table.history[index] = [FailedTry("", 0.0, None, error_of(name)) for name in names]
        table.failures[index] = Failure(error_of(names[-1]), text="")
    for lo, hi in before["failed"]:
        for index in range(lo, hi):
            table.failures.setdefault(index, Failure(Exception(), text=""))
    book.go_on()
    book.retries, book.restored, book.status = before["retries"], before["restored"], JobStatus(before["status"])


def _stretches_of(table: ItemTable, code: int) -> list[list[int]]:
    indices = [index for index, status in enumerate(table.status) if status == code]
    return [[part.start, part.stop] for part in stretches(indices)]


def _in_order(indices: Sequence[int]) -> list[Sequence[int]]:
    """The indices, which come in any order, as stretches."""
    if not indices:
        return []
    return [indices] if isinstance(indices, range) else [*stretches(indices)]


def _fields_of(kind: Any) -> tuple[str, ...]:
    """Of a named tuple, or of a dataclass: messages are either."""
    return kind._fields if issubclass(kind, tuple) else tuple(kind.__dataclass_fields__)


# -- errors --------------------------------------------------------------------------------------------------------


def _name(error: BaseException) -> Plain:
    """The type's name; and which of mpqueue's own it is, if any."""
    own = next((kind for kind in type(error).__mro__ if kind.__module__ == errors_of_ours.__name__), None)
    return {"error": type(error).__name__} if own is None else {"error": type(error).__name__, "of": own.__name__}


def error_of(form: Plain) -> BaseException:
    """An error of the same type, where that is mpqueue's own; else one whose type has the same name."""
    own = getattr(errors_of_ours, form.get("of", ""), Exception)
    made: BaseException = own.__new__(own if own.__name__ == form["error"] else type(form["error"], (own,), {}))
    return made


# -- fields by their names -----------------------------------------------------------------------------------------


def _failure(form: Plain) -> Failure:
    return Failure(error_of(form), None, form["elapsed"], form["charged"], form["error"], form.get("raised", False))


def _added(count: int) -> AddedItems:
    """So many items that are new."""
    return AddedItems([None] * count, None)


def _from_stretches(parts: Sequence[Sequence[int]]) -> Sequence[int]:
    if len(parts) == 1:
        return range(*parts[0])
    return [index for part in parts for index in range(*part)] if parts else range(0)


def _claim(form: Plain) -> Claim:
    return Claim(**{**form, "phase": Phase[form["phase"]]})


def _worker(form: Plain) -> WorkerMemory:
    return WorkerMemory(**{**form, "claim": _claim(form["claim"])})


def _numbers(entries: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if entry is None else entry for entry in entries)


_READ: dict[str, Any] = {
    "added": lambda pairs: {position: _added(count) for position, count in pairs},
    "care": Care.__getitem__,
    "claim": _claim,
    "ended": Ended.__getitem__,
    "error": error_of,
    "failure": _failure,
    "failures": lambda pairs: {position: _failure(form) for position, form in pairs},
    "indices": _from_stretches,
    "peaks": dict,
    "records": lambda count: (None,) * count,
    "results": lambda count: [None] * count,
    "setup_failure": _failure,
    "stretches": lambda entries: [_numbers(entry) for entry in entries],
    "times": lambda form: WorkTimes(**form),
    "unreadable": _failure,
    "yielded": dict,
    "workers": lambda entries: [_worker(entry) for entry in entries],
}


def _read(name: str, value: Any, more: Mapping[str, Any]) -> Any:
    read = more.get(name) or _READ.get(name)
    return value if read is None or value is None else read(value)
