"""A chunk's outcomes in the worker: kept, pickled, and made into reports.

Pickling a result that is more than plain data runs users' code, which may kill the worker just like a handler. So plain
data, which runs no code, is pickled as one list when a report is due; everything else at once, each result under its
item's own mark, so that the blame is exact and a report only sends pickled results.
"""

from __future__ import annotations

import itertools
import mmap
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from mpqueue._os.process_signals import came_of_signal
from mpqueue._text import shown
from mpqueue._wire.frames import FailureFrame, Passed
from mpqueue._wire.memory.segments import SegmentStore
from mpqueue._wire.parcels import ResultWithItems, Yielded
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.classes import are_same
from mpqueue._wire.pickling.payload import Packed, dump, dump_by_value, dump_each, dump_plain, load_home
from mpqueue._worker.worker_links import BrokenWorkerError

if TYPE_CHECKING:
    from mpqueue._worker.handlers.current_item import Running
    from mpqueue._worker.handlers.loaded_jobs import LoadedJob


class NotReadyError(Exception):
    """Some results are not pickled yet, and the chunk timer must not pickle them."""


class ChunkResults:
    """The results of a chunk. ``running.out`` has one entry for each position that ended.

    The lock guards the making of a report.
    """

    def __init__(
        self,
        job: LoadedJob,
        running: Running,
        careful: bool,
        mark: Callable[[int], None],
        store: SegmentStore | None,
    ) -> None:
        self.lock = threading.Lock()
        self.sent = 0  #: positions below this have been reported
        self.failures: dict[int, FailureFrame] = {}
        self._packed: dict[int, Passed] = {}
        self._is_packing = False  #: results are being pickled one by one, and leave ``running.out``
        self._discarded = 0  #: results of positions below this are dropped, if they are not wanted
        self.with_items: set[int] = set()  #: positions whose results come with items
        self.yielded: set[int] = set()  #: positions whose results were yielded
        self._job = job
        self._running = running
        self._careful = careful
        self._mark = mark
        self._store = store

    def fail(self, error: BaseException, elapsed: float, *, charged: bool = True) -> None:
        """Fail the next item."""
        # The error first: a position counts as ended as soon as it is in the list.
        self.failures[len(self._running.out)] = pack_failure(error, elapsed, charged=charged)
        self._running.out.append(None)

    def add_at_once(self, result: Any) -> None:
        """Pickle the next item's result, which must not wait. On the main thread.

        It runs under the mark of its stretch, which must not change meanwhile: the pickling is a part of the item.
        """
        at = len(self._running.out)
        if self._job.discards:
            result = None
        if at in self._running.added:
            result = self._with_items(at, result)
        self._pack(at, result)
        if self._job.capture is not None:
            self._job.capture.keep(at)  # output of the pickling
        self._running.out.append(None)  # last: then the position counts as ended, and an early report may take it

    def stretch_ended(self, lo: int, hi: int) -> None:
        """Pickle the results of positions that ended, if they must not wait. On the main thread."""
        if self._job.discards:
            self._running.out[lo:hi] = [None] * (hi - lo)
            self._discarded = hi
        if self._running.added:
            with self.lock:
                self._join_items(lo, hi)
        was_looked_at = hi - lo > 1 or type(self._running.out[lo]) in FIXED
        if self._careful or self._packed or not self._job.plain or not was_looked_at:
            with self.lock:  # no report is being made that reads them
                self._is_packing = True
            self._pack_each(max(lo, self.sent), hi)
            self._is_packing = False

    def take(self, done: int, *, final: bool) -> tuple[int, Packed | list[Passed], dict[int, FailureFrame]]:
        """Take the outcomes since the last call: first position, results, and failures by position from there.

        Call with the lock held. Without ``final``, raises `NotReadyError` if pickling results would run users' code:
        then a later report has them.
        """
        first = self.sent
        if self._job.discards and not final and done > self._discarded:
            raise NotReadyError  # the main thread drops them at their stretch's end
        if self._running.added:
            self._join_items(first, done)
        packed = self._pack_all(first, done, final=final)
        self.sent = done
        failed = sorted(at for at in self.failures if first <= at < done)
        return first, packed, {at - first: self.failures.pop(at) for at in failed}

    def _join_items(self, lo: int, hi: int) -> None:
        """Put the items that these have added into their results: both are sent, or neither. With the lock held."""
        for at in [at for at in self._running.added if lo <= at < hi]:
            if at in self.failures:
                del self._running.added[at]
            else:
                self._running.out[at] = self._with_items(at, self._running.out[at])

    def _with_items(self, at: int, result: Any) -> ResultWithItems:
        self.with_items.add(at)
        return ResultWithItems(result, self._running.added.pop(at))

    def _pack_all(self, first: int, done: int, *, final: bool) -> Packed | list[Passed]:
        out, failures = self._running.out, self.failures
        may_look = self._job.plain and not self._careful and not self._is_packing
        if may_look and not self._packed:
            results = [out[at] for at in range(first, done) if at not in failures] if failures else out[first:done]
            whole = dump_plain(results, self._store)
            if whole is not None:
                return whole
            self._job.plain = may_look = False
        if final:
            self._pack_each(first, done)
        for at in range(first, done):
            if at not in failures and at not in self._packed:
                whole = dump_plain(out[at], self._store) if may_look else None
                if whole is None:
                    raise NotReadyError
                self._packed[at], out[at] = whole, None
        return [self._packed.pop(at) for at in range(first, done) if at not in failures]

    def _pack_each(self, lo: int, hi: int) -> None:
        out = self._running.out
        for at in range(lo, hi):
            if at in self.failures or at in self._packed:
                continue
            self._mark(at)
            self._pack(at, out[at])
            out[at] = None

    def _pack(self, at: int, result: Any) -> None:
        try:
            self._packed[at] = within(lambda: self._dump(at, result), (beside.leaving, True))
        except BaseException as error:
            if self._running.links.is_own_process and not can_pack():
                raise BrokenWorkerError("pickling has become impossible") from error
            self.failures[at] = (
                pack_failure(error)
                if came_of_signal(error)
                else FailureFrame(None, stand_in(error), 0.0, True, result=_short(_at_fault(result)))
            )

    def _dump(self, at: int, result: Any) -> Passed:
        if type(result) is Yielded:
            self.yielded.add(at)
            if self._job.passes_on:
                return [*map(_bare, dump_each(result.values, self._store))]
        packed = dump(result, self._store)
        return _bare(packed) if self._job.passes_on else packed


def positions_from(first: int, done: int, positions: set[int]) -> list[int]:
    """Return those of the positions that are below ``done``, counted from ``first`` on."""
    return [at - first for at in sorted(positions) if first <= at < done] if positions else []


def _bare(packed: Packed) -> Packed | bytes:
    """Return the pickle alone if nothing else is needed to unpickle it."""
    return packed.data if packed.segment is None else packed


def _at_fault(result: Any) -> Any:
    """Return the part of a result that can't be pickled, for people: among yielded values, that value."""
    if type(result) is ResultWithItems:  # its items are pickled already
        return result.result
    if type(result) is not Yielded:
        return result
    for value in result.values:
        try:
            dump(value)
        except BaseException:  # it was raised before, and is reported
            return value
    return result.values


def _short(obj: Any) -> str:
    text = plain_text(shown(obj))
    name = type.__dict__["__name__"].__get__(type(obj))  # its metaclass may return another name
    return f"{text if len(text) <= 80 else text[:77] + '...'} of type {name}"


# -- A handler's exception, made ready to be sent. ---------------------------------------------------------------------

_OWN_CODE = "mpqueue._worker."


def pack_failure(error: BaseException, elapsed: float = 0.0, *, charged: bool = True) -> FailureFrame:
    """Return the exception itself if it can be unpickled again (which is tried here), else its stand-in."""
    return FailureFrame(_pack_error(error), stand_in(error), elapsed, charged)


def _pack_error(error: BaseException) -> Packed | None:
    trace = error.__traceback__
    # It is sent as text. If tblib is loaded (distributed does so), it would be pickled frame by frame.
    BaseException.with_traceback(error, None)
    try:
        packed = within(lambda: dump(error), (beside.leaving, True))
        return packed if are_same(type(load_home(packed)), type(error)) else None
    except BaseException:
        return None
    finally:
        BaseException.with_traceback(error, trace)


def stand_in(error: BaseException) -> tuple[str, str, str, tuple[str, ...]]:
    """The arguments of the `RemoteError` that replaces the exception."""
    bases = tuple(_name(base) for base in type(error).__mro__[:-1])
    return bases[0], _text(error), _traceback(error), bases


def _name(kind: type) -> str:
    try:
        return plain_text(f"{kind.__module__}.{kind.__qualname__}")
    except BaseException:  # its metaclass is its own
        return plain_text(f"{type.__getattribute__(kind, '__module__')}.{type.__getattribute__(kind, '__qualname__')}")


def plain_text(text: str) -> str:
    """Return the text as a plain string, without running users' code, even if it is a subclass of str."""
    return str.__str__(text)


def _text(error: BaseException) -> str:
    try:
        return plain_text(str(error))
    except BaseException as broken:
        return f"<its str() raised {_name(type(broken)).removeprefix('builtins.')}>"


def _traceback(error: BaseException) -> str:
    """The traceback as text, from the handler's own frame on."""
    try:
        return "".join(traceback.format_exception(type(error), error, _without_ours(error.__traceback__)))
    except BaseException as broken:
        return f"{_name(type(error))} (its traceback could not be written: {type(broken).__name__})\n"


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    step = first = trace
    while step is not None:
        module = step.tb_frame.f_globals.get("__name__", "")
        if module.startswith(_OWN_CODE):
            first = step.tb_next
        elif not module.startswith("asyncio."):  # an event loop runs between two frames of ours
            break
        step = step.tb_next
    return first or trace


# -- A check that this process can still do a worker's work after the handlers. ----------------------------------------
#
# A handler may lower the recursion limit, use up the memory, or replace pickle. Then the results of other items can't
# be pickled either, and the worker has to be replaced instead of failing them.

#: The bytes that a worker must be able to allocate.
_ROOM = 16 << 20
#: The least nesting of data that must work.
_DEPTH = 100


class _Probe:
    """An object of a class that can be imported."""


def can_pack() -> bool:
    """True if ordinary results can be pickled. Costs 0.1 ms."""
    nested: list[object] = [_Probe()]
    for _ in range(_DEPTH):
        nested = [nested]
    try:
        mmap.mmap(-1, _ROOM).close()
        data, _ = dump_by_value(lambda: None)
        return type(dump(nested).data) is bytes and type(data) is bytes
    except BaseException:
        return False


# -- Results that may wait to be pickled together: those that can't change before. -------------------------------------
#
# Handlers may return the same buffer, list or object each time, or something that refers to it. So a result waits only
# if it is immutable, or is a small list, tuple or dict of immutable objects to which nothing refers by
# `sys.getrefcount`. Everything else is pickled before the next item runs. The check costs 15 ns per result among
# many, else 40 ns, 100 to 150 ns for a container.

#: Immutable types: it makes no difference who refers to their objects.
FIXED = frozenset({type(None), bool, int, float, complex, str, bytes})
_CONTAINERS = frozenset({list, tuple, dict})
#: Larger or deeper lists, tuples and dicts are pickled at once: checking them would take as long.
MAX_PARTS, MAX_DEPTH = 16, 3


def run_up_to_held(results: Iterator[Any], out: list[Any], added: dict[int, Any], *, many: bool = False) -> Any:
    """Run items, whose results go to ``out``, up to one whose result must not wait, and return that result.

    Results that come with items, which are in ``added``, must not wait either. Raises an item's error, at the end
    StopIteration. ``many``: no items can be added, and an item's own StopIteration may lose its text and traceback: in
    a loop in C, which takes a third of the time.
    """
    append, fixed = out.append, FIXED
    result = _run_up_to_unfixed(results, out) if many else next(results)
    while (type(result) in fixed or _is_own(result)) and not added:
        append(result)
        result = next(results)
    return result


def _run_up_to_unfixed(results: Iterator[Any], out: list[Any]) -> Any:
    """Run items up to one whose result is not of `FIXED` types, before the next one begins, and return that."""
    # With something behind them, since `groupby` would go on behind an item that raises StopIteration.
    for kind, group in itertools.groupby(itertools.chain(results, (_END,)), type):
        if kind in FIXED:
            out.extend(group)
        elif (result := next(group)) is not _END:
            return result
    raise StopIteration


_END = object()


def _is_own(result: Any, depth: int = 0) -> bool:
    """True for a small new list, tuple or dict whose containers are new too, and all else in it of `FIXED` types."""
    kind = type(result)
    if kind not in _CONTAINERS or len(result) > MAX_PARTS or depth > MAX_DEPTH:
        return False
    # The loop below and the container refer to a part.
    is_new = sys.getrefcount(result) <= (_fresh + 1 if depth else _fresh)
    if not is_new and kind is not tuple:
        return False
    if kind is dict:
        for key in result:
            if type(key) not in FIXED:
                return False
    # Two loops, since `items` would refer to a part as well. No `issuperset`, since one by one is faster for few parts.
    for part in result.values() if kind is dict else result:
        if type(part) not in FIXED and not (is_new and _is_own(part, depth + 1)):
            return False
    return True


def _count_fresh() -> int:
    """Return the `sys.getrefcount` of a new list in `_is_own`, which differs between Pythons.

    It is measured in the same code, after Python has specialized that.
    """
    global _fresh
    for _fresh in range(100):
        try:
            for _ in range(100):
                run_up_to_held(map(list, [()]), [], {})
        except StopIteration:  # it went to the list
            return _fresh
    raise AssertionError("expected new lists to be referred to less than 100 times")


#: A debugger may refer to it as well just now; no known Python has more than these.
_fresh = min(_count_fresh(), 3)
