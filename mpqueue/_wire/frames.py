"""The messages between the parent and a worker, both ways: frozen data, made into bytes here.

A frame holds users' objects only as pickled bytes, so that reading a frame can't fail because of them.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._wire.line import decode, encode
from mpqueue._wire.memory.segments import SegmentRef
from mpqueue._wire.memory.shared import Lent
from mpqueue._wire.pickling.payload import Packed
from mpqueue._wire.pickling.reducers import PROTOCOL

if TYPE_CHECKING:
    from mpqueue._wire.pickling.sources import Sources


# Durations of chunks, which the parent plans and a worker ends, and of stretches within them, in seconds.

#: The target time of a chunk in seconds: long against its cost of 0.6 ms, short enough for smooth progress. It is
#: longer with many workers: see `mpqueue._core.rules.chunking.aim`.
CHUNK_SECONDS = 0.045
#: As a multiple of the target time: when a worker ends its chunk between two items, or sends finished results.
LIMIT = 10 / 9
#: Seconds after which a stretch of several items that still runs is cut off behind the current item.
STRETCH_LIMIT = LIMIT * CHUNK_SECONDS
#: The target time of a stretch of items under one mark, in seconds: a third of a chunk, since each costs up to 60 us if
#: the handler has used the caches. Flags and limits are checked between stretches.
STRETCH_SECONDS = 0.015


class Ended(IntEnum):
    """The reason why a worker ended a chunk."""

    DONE = 0  #: every position ran
    LIMIT = 1  #: the parent took the rest back
    TIME = 2  #: it had run long enough; the rest is sent back
    PAUSED = 3  #: the job's pause flag is set
    CANCELLED = 4  #: the job's cancel flag is set
    UNREADABLE = 5  #: the items, or the results, could not be unpickled together: each must be sent alone
    SETUP_FAILED = 6  #: the handler could not be loaded, or its ``setup`` failed
    MEMORY = 7  #: the worker has more private memory than allowed; the rest is sent back


class Speech(NamedTuple):
    """Settings for the output of a job's handler: log levels, and the capture of stdout and stderr."""

    levels: Mapping[str, int]  #: the parent's loggers' levels; the root's name is empty
    disabled: int = 0  #: the argument of `logging.disable`
    capture: bool = False  #: stdout and stderr are kept with each item
    beside_bar: bool = False  #: the parent shows a bar on the terminal


class HandlerFrame(NamedTuple):
    """A job's handler, sent once to each worker."""

    job_id: str
    handler: Packed
    setup: Packed | None
    id_rule: str
    seed: int  #: of its items' random numbers
    speech: Speech | None = None
    is_open: bool = False  #: handlers may add items
    discards: bool = False  #: results stay in the worker
    is_stage: bool = False  #: each value that a handler yields is a result
    passes_on: bool = False  #: results are for the next stage's handler, not for the parent
    sources: Sources | None = None  #: digests of its modules, for a worker that has its own files
    profile: bool = False  #: the handler's lines are sampled


class Several(NamedTuple):
    """Values that were pickled one by one, for a chunk that is not careful. Plain bytes mean all of a value, in band.

    For values that workers have pickled for each other, and for calls that share an argument.
    """

    each: Sequence[bytes | Packed]


class ItemGrant(NamedTuple):
    """The resources of a worker for the items of a chunk, see `mpqueue._core.state.resources`."""

    uses: Mapping[str, Sequence[int]]  #: by the resource's name: its units
    cpus: int
    variables: Mapping[str, str]  #: environment variables, set before any import


class ChunkFrame(NamedTuple):
    """Parent to worker: run these items.

    ``items`` is one pickle of the list of them; in a careful chunk a list of one pickle each; or values that other
    workers have pickled. ``indices`` are their places in the job, ``attempts`` the numbers of their coming tries
    (empty: 1 for all).
    """

    job: int
    chunk: int
    items: Packed | list[Packed] | Several
    indices: Sequence[int]
    attempts: Sequence[int] = ()
    handler: HandlerFrame | None = None
    returned: Sequence[int] = ()  #: segments of the worker of which the parent has no view any more
    forget: Sequence[int] = ()  #: jobs that have ended, whose handlers are to be dropped
    unshared: Sequence[tuple[str, int]] = ()  #: shared objects that the parent has dropped
    path: tuple[str, ...] | None = None  #: the program's ``sys.path``, if it has changed
    slots: Sequence[int] = ()  #: keys of the items' random numbers; empty: their places
    grant: ItemGrant | None = None  #: None: the job names no needs
    limit: float = LIMIT * CHUNK_SECONDS  #: seconds after its start at which it is ended, between two items


class InitializeFrame(NamedTuple):
    """Parent to worker: call this function, before any chunk."""

    initializer: Packed
    path: tuple[str, ...] | None = None


class NodeFrame(NamedTuple):
    """The parent on a node to its worker there: things that it needs before the next frame, which is a program's."""

    path: tuple[str, ...] | None
    lent: Sequence[Lent]  #: shared objects of which the node has a copy


class RelayedFrame(NamedTuple):
    """The parent on a node to its worker there: a program's frame, with the contents of the program's segments.

    If it is big, all of that is in one segment, and ``contents`` is empty.
    """

    frame: Packed
    serials: Sequence[int]  #: of the program's segments
    contents: Sequence[bytes] = ()


#: The beginning of an answer that comes with segments; frames are pickles, which begin otherwise.
_LEAVING = b"segments"


def dump_with_segments(frame: bytes, segments: Sequence[SegmentRef]) -> bytes:
    """Pack a worker's answer for the parent on its node, which has to send the contents of these segments along."""
    return _LEAVING + pickle.dumps((frame, [*segments]), PROTOCOL) if segments else frame


def load_with_segments(answer: bytes) -> tuple[bytes, Sequence[SegmentRef]]:
    """Return the answer that `dump_with_segments` packed, and the segments to be sent along."""
    if not answer.startswith(_LEAVING):
        return answer, ()
    left: tuple[bytes, list[SegmentRef]] = pickle.loads(memoryview(answer)[len(_LEAVING) :])
    return left


class ForgetFrame(NamedTuple):
    """Parent to worker: drop this job's handler, finish its setup."""

    job: int


class ForgottenFrame(NamedTuple):
    """Worker to parent: the job is dropped. ``complaint`` is the traceback of an error at the end of its setup."""

    complaint: str | None
    records: Sequence[bytes] = ()  #: log records meanwhile
    returned: Sequence[int] = ()  #: the parent's segments that the worker no longer uses


class FailureFrame(NamedTuple):
    """The failure of one try. ``error`` is the pickled exception, None if only ``stand_in`` can be sent."""

    error: Packed | None
    stand_in: tuple[str, str, str, tuple[str, ...]]  #: the arguments of `RemoteError`
    elapsed: float
    charged: bool
    result: str | None = None  #: the result's repr, if the result could not be pickled


class RecordFrame(NamedTuple):
    """One log record: plain data, with message and traceback as text. ``fields`` are those of the LogRecord.

    ``place`` is the item's place in the job, None if it was logged outside of an item; ``attempt`` counts from 1.
    """

    fields: Mapping[str, Any]
    place: int | None
    attempt: int


class WorkTimes(NamedTuple):
    """The times that a worker spent since it received the chunk or since its last report on it, in seconds.

    ``begun`` and ``ended`` are moments of the monotonic clock, which the parent shares.
    """

    begun: float
    ended: float
    loading: float  #: unpickling the handler, and its imports
    setup: float
    unpacking: float  #: unpickling items
    handling: float  #: in the handler
    packing: float  #: pickling results
    cpu: float  #: CPU time of the whole process, all threads
    delayed: float  #: ready to run, while no CPU was free


#: A result in a report: a pickle; if it is passed on, plain bytes if nothing is beside them; if it was yielded, a list
#: of these.
Passed = Packed | bytes | list[Packed | bytes]


class ReportFrame(NamedTuple):
    """Worker to parent: positions ``first`` to ``done`` of a chunk ended.

    ``results`` is one pickle of the list of results of completed items, in order; or, if unpickling them runs code that
    may fail, a list of one pickle each.
    """

    chunk: int
    first: int
    done: int
    results: Packed | Sequence[Passed]
    failures: dict[int, FailureFrame]
    stretches: Sequence[tuple[int, float, float]]
    busy: float
    ended: Ended
    final: bool = True
    setup_failure: FailureFrame | None = None
    returned: Sequence[int] = ()  #: segments of the parent of which the worker has no view any more
    records: Sequence[bytes] = ()  #: log records since the last report, each a pickled `RecordFrame`
    output: Mapping[int, tuple[str, str]] | None = None  #: by position from ``first``: the output, if it is kept
    peaks: Mapping[int, int] | None = None  #: by position from ``first``: bytes, for items that ran alone
    times: WorkTimes | None = None
    added: Sequence[int] = ()  #: positions from ``first`` whose results are `ResultWithItems`
    passed: bool = False  #: the results are for the next stage, and are not unpickled in between
    yielded: Sequence[int] = ()  #: positions from ``first`` whose results were yielded
    profile: bytes | None = None  #: `dump_stacks`: the handler's stacks, by position from ``first``


def all_of(results: Packed | Sequence[Passed]) -> Iterator[Packed]:
    """Yield each pickle in a report's results, except plain bytes."""
    if isinstance(results, Packed):
        yield results
        return
    for one in results:
        if isinstance(one, Packed):
            yield one
        elif isinstance(one, list):
            yield from (each for each in one if isinstance(each, Packed))


def is_plain(report: ReportFrame) -> bool:
    """True if unpickling the report's contents runs no users' code."""
    untouched = isinstance(report.results, Packed) or report.passed
    return untouched and not report.failures and report.setup_failure is None


class _Bare(NamedTuple):
    """The form in which a value of a class is sent: a plain value of a type that no other value of its field has."""

    kind: type
    made_of: type
    take_apart: Callable[[Any], Any]
    restore: Callable[[Any], Any]


_Places = tuple[tuple[int, _Bare], ...]  #: of a row, by their positions


def _row(kind: Any, **fields: _Bare) -> _Bare:
    make = partial(tuple.__new__, kind)
    if not fields:
        return _Bare(kind, tuple, tuple, make)
    places = _places(kind, fields)
    return _Bare(
        kind,
        tuple,
        lambda row: tuple(_taken_apart([*row], places)),
        lambda values: make(_restored([*values], places)),
    )


def _places(kind: Any, fields: dict[str, _Bare], behind: int = 0) -> _Places:
    return tuple((kind._fields.index(name) + behind, bare) for name, bare in fields.items())


def _taken_apart(values: list[Any], places: _Places) -> list[Any]:
    for at, bare in places:
        if type(values[at]) is bare.kind:
            values[at] = bare.take_apart(values[at])
    return values


def _restored(values: list[Any], places: _Places) -> list[Any]:
    for at, bare in places:
        if type(values[at]) is bare.made_of:
            values[at] = bare.restore(values[at])
    return values


_PACKED = _row(Packed)
_HANDLER = _row(HandlerFrame, handler=_PACKED, setup=_PACKED, speech=_row(Speech))
_ENDED = _Bare(Ended, int, int, {int(ended): ended for ended in Ended}.__getitem__)
_RANGE = _Bare(range, tuple, lambda r: (r.start, r.stop, r.step), lambda ends: range(*ends))


class _Layout(NamedTuple):
    kind: Any
    places: _Places  #: behind the layout's own number


def _layout(kind: Any, **fields: _Bare) -> _Layout:
    return _Layout(kind, _places(kind, fields, behind=1))


#: The frames of every chunk. Naming a class costs more than all the rest of a frame, on both sides.
_LAYOUTS = (
    _layout(ChunkFrame, items=_PACKED, indices=_RANGE, handler=_HANDLER),
    _layout(ReportFrame, results=_PACKED, ended=_ENDED, times=_row(WorkTimes)),
)
_NUMBERS = {layout.kind: number for number, layout in enumerate(_LAYOUTS)}


def dump_frame(frame: Any) -> bytes:
    """Return a frame as bytes: 2 us for those of every chunk, 5 us for others."""
    number = _NUMBERS.get(type(frame))
    if number is None:
        return pickle.dumps(frame, PROTOCOL)
    return pickle.dumps(_taken_apart([number, *frame], _LAYOUTS[number].places), PROTOCOL)


def load_frame(data: bytes | memoryview) -> Any:
    """Unpickle a frame."""
    values = pickle.loads(data)
    if type(values) is not list:
        return values
    layout = _LAYOUTS[values[0]]
    return tuple.__new__(layout.kind, _restored(values, layout.places)[1:])


#: Variables that set how many threads the numerical libraries start; they are read during import.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


_CHUNK = struct.Struct("<Q")


def begin_unsent(chunk: int) -> bytes:
    """Return the bytes that precede the unsent log records of this chunk."""
    return encode(_CHUNK.pack(chunk))


def unsent(record: bytes) -> bytes:
    """Pack a record that no report has sent, to be appended to others."""
    return encode(record)


def load_unsent(data: bytes) -> tuple[int, list[RecordFrame]] | None:
    """Return the chunk's number, and the complete unsent records; None if even the number is missing."""
    messages = decode(data)
    if not messages or len(messages[0].data) != _CHUNK.size:
        return None
    (chunk,) = _CHUNK.unpack(messages[0].data)
    return chunk, [load_frame(message.data) for message in messages[1:]]


# -- Samples of a handler's stack, with seconds: in a worker, and in a message. ----------------------------------------
#
# A place is (function, file, line); a stack is a tuple of them, the handler's own place first. These are plain tuples,
# since a worker makes thousands of them; `mpqueue._report.profile` gives them names.

#: For C code the file is empty; if the line is not known it is 0.
Place = tuple[str, str, int]
Stack = tuple[Place, ...]

#: Stands for places that were left out because there were too many.
OTHERS: Place = ("(others)", "", 0)


class Stacks:
    """Seconds by stack; about ``most`` stacks are kept separate. No second is lost: the rest counts for `OTHERS`."""

    __slots__ = ("_most", "seconds")

    def __init__(self, most: int) -> None:
        self.seconds: dict[Stack, float] = {}
        self._most = most

    def add(self, stack: Stack, seconds: float) -> None:
        """Add seconds to a stack. If there is no room, only its outermost place is kept, or none."""
        known = self.seconds
        if stack in known:
            known[stack] += seconds
            return
        if len(known) >= self._most:
            stack = (*stack[:1], OTHERS)
            if stack not in known and len(known) >= self._most + self._most // 8:
                stack = (OTHERS,)
        known[stack] = known.get(stack, 0.0) + seconds

    @property
    def total(self) -> float:
        """The sum of all seconds."""
        return sum(self.seconds.values())


def dump_stacks(by_position: Mapping[int, Stacks]) -> bytes:
    """Pack the samples of some items of a chunk as bytes: each place and each stack once. About 20 us."""
    places: dict[Place, int] = {}
    stacks: dict[Stack, int] = {}
    rows = []
    for position, sampled in by_position.items():
        for stack, seconds in sampled.seconds.items():
            for place in stack:
                places.setdefault(place, len(places))
            rows.append((position, stacks.setdefault(stack, len(stacks)), seconds))
    numbered = [tuple(places[place] for place in stack) for stack in stacks]
    return pickle.dumps((list(places), numbered, rows), PROTOCOL)


def load_stacks(data: bytes) -> Iterator[tuple[int, Stack, float]]:
    """Unpack samples, each (position, stack, seconds)."""
    places, numbered, rows = pickle.loads(data)
    stacks = [tuple(places[number] for number in stack) for stack in numbered]
    return ((position, stacks[number], seconds) for position, number, seconds in rows)
