"""The messages between the parent and a worker, both ways: frozen data, made into bytes here.

A frame holds the user's objects only as bytes already pickled, so that reading a frame can't fail because of them.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._wire.line import decode, encode
from mpqueue._wire.memory.segments import SegmentRef
from mpqueue._wire.memory.shared import Lent
from mpqueue._wire.pace import CHUNK_SECONDS, LIMIT
from mpqueue._wire.pickling.payload import Packed
from mpqueue._wire.pickling.reducers import PROTOCOL

if TYPE_CHECKING:
    from mpqueue._wire.pickling.sources import Sources


class Ended(IntEnum):
    """The reason for which a worker ended a chunk."""

    DONE = 0  #: every position ran
    LIMIT = 1  #: the parent took the rest back
    TIME = 2  #: it had run long enough; the rest comes back
    PAUSED = 3  #: the job's pause flag is set
    CANCELLED = 4  #: the job's cancel flag is set
    UNREADABLE = 5  #: the items, or the results, could not be unpickled together: each must go alone
    SETUP_FAILED = 6  #: the handler could not be loaded, or its ``setup`` failed
    MEMORY = 7  #: the worker has more private memory than it may; the rest comes back


class Speech(NamedTuple):
    """Settings for the output of a job's handler: log levels, and the capture of stdout and stderr."""

    levels: Mapping[str, int]  #: of the parent's loggers; the root's name is empty
    disabled: int = 0  #: what `logging.disable` was given
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
    is_stage: bool = False  #: what a handler yields are so many results
    passes_on: bool = False  #: results are for the next stage's handler, not for the parent
    sources: Sources | None = None  #: what its modules look like, for a worker that has files of its own
    profile: bool = False  #: where the handler is, is sampled


class Several(NamedTuple):
    """Values that were pickled one by one, for a chunk that is not careful. Plain bytes: all of it, in band.

    What workers have pickled for each other, and calls that have an argument in common.
    """

    each: Sequence[bytes | Packed]


class Means(NamedTuple):
    """The resources that a worker has for the items of a chunk, see `mpqueue._core.state.resources`."""

    uses: Mapping[str, Sequence[int]]  #: by the resource's name, which units of it
    cpus: int
    variables: Mapping[str, str]  #: of the environment, from before anything is imported


class ChunkFrame(NamedTuple):
    """Parent to worker: run these items.

    ``items`` is one pickle of the list of them; in a careful chunk a list of one pickle each; or what other workers
    have pickled. ``indices`` are their places in the job, ``attempts`` the numbers of their coming tries (empty: 1 for
    all).
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
    path: tuple[str, ...] | None = None  #: the program's ``sys.path``, where that is another one by now
    slots: Sequence[int] = ()  #: by which the items' random numbers differ; empty: their places
    means: Means | None = None  #: None: of a job that names no needs
    limit: float = LIMIT * CHUNK_SECONDS  #: seconds after its start at which it is ended, between two items


class InitializeFrame(NamedTuple):
    """Parent to worker: call this function, before any chunk."""

    initializer: Packed
    path: tuple[str, ...] | None = None


class NodeFrame(NamedTuple):
    """The parent on a node to its worker there: what it is to have before the next frame, which is of a program's."""

    path: tuple[str, ...] | None
    lent: Sequence[Lent]  #: shared objects that the node has a copy of


class ApartFrame(NamedTuple):
    """The parent on a node to its worker there: a frame of a program's, whose bytes are in a segment.

    Beside them is what is carried with it: the contents of the program's segments of these serials.
    """

    frame: Packed
    serials: Sequence[int] = ()


class LadenFrame(NamedTuple):
    """An `ApartFrame` without a segment: the program's frame itself, and the contents carried with it, by serial."""

    frame: bytes
    carried: Mapping[int, bytes]


#: How an answer begins beside which segments are to be carried; frames are pickles, which begin otherwise.
_LEAVING = b"segments"


def dump_leaving(frame: bytes, segments: Sequence[SegmentRef]) -> bytes:
    """A worker's answer for the parent on its node, which is to send the contents of these segments along."""
    return _LEAVING + pickle.dumps((frame, [*segments]), PROTOCOL) if segments else frame


def load_leaving(answer: bytes) -> tuple[bytes, Sequence[SegmentRef]]:
    """Return the answer that `dump_leaving` packed, and the segments to be sent along."""
    if not answer.startswith(_LEAVING):
        return answer, ()
    left: tuple[bytes, list[SegmentRef]] = pickle.loads(memoryview(answer)[len(_LEAVING) :])
    return left


#: The answer of a worker that could not open that segment, and has done nothing: no other answer is like this.
NOT_OPENED = b"not opened"


class ForgetFrame(NamedTuple):
    """Parent to worker: drop this job's handler, finish its setup."""

    job: int


class ForgottenFrame(NamedTuple):
    """Worker to parent: it is dropped. ``complaint`` is the traceback of what the end of its setup raised."""

    complaint: str | None
    records: Sequence[bytes] = ()  #: what was logged meanwhile
    returned: Sequence[int] = ()  #: the parent's segments that the worker has done with


class FailureFrame(NamedTuple):
    """The failure of one try. ``error`` is the pickled exception, None if only ``stand_in`` can be sent."""

    error: Packed | None
    stand_in: tuple[str, str, str, tuple[str, ...]]  #: the arguments of `RemoteError`
    elapsed: float
    charged: bool
    result: str | None = None  #: the result's repr, where it was that which could not be pickled


class RecordFrame(NamedTuple):
    """One log record: plain data, its message and traceback written out. ``fields`` are those of the LogRecord.

    ``place`` is that of the item in the job, None where it was logged outside of one; ``attempt`` counts from 1.
    """

    fields: Mapping[str, Any]
    place: int | None
    attempt: int


class WorkTimes(NamedTuple):
    """The times that a worker spent since it had the chunk in hand or since its last report on it, in seconds.

    ``begun`` and ``ended`` are moments of the monotonic clock, which the parent shares.
    """

    begun: float
    ended: float
    loading: float  #: unpickling the handler, and importing what it needs
    setup: float
    unpacking: float  #: unpickling items
    handling: float  #: in the handler
    packing: float  #: pickling results
    cpu: float  #: CPU time of the whole process, all threads
    delayed: float  #: ready to run, while no CPU was free


#: A result in a report: a pickle; of one that is passed on, plain bytes where nothing is beside them; or, where it was
#: yielded, a list of such.
Passed = Packed | bytes | list[Packed | bytes]


class ReportFrame(NamedTuple):
    """Worker to parent: positions ``first`` to ``done`` of a chunk ended.

    ``results`` is one pickle of the list of results of those that completed, in order; or, where unpickling them runs
    code that may fail, a list of one pickle each.
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
    records: Sequence[bytes] = ()  #: what was logged since the last report, each a `RecordFrame` pickled
    output: Mapping[int, tuple[str, str]] | None = None  #: by position from ``first``: what was written, where kept
    peaks: Mapping[int, int] | None = None  #: by position from ``first``: bytes, of items that ran alone
    times: WorkTimes | None = None
    added: Sequence[int] = ()  #: positions from ``first`` whose results are `ResultWithItems`
    passed: bool = False  #: the results are for the next stage, and are not unpickled in between
    yielded: Sequence[int] = ()  #: positions from ``first`` whose results were yielded
    profile: bytes | None = None  #: `dump_stacks`: where the handler was, by position from ``first``


def all_of(results: Packed | Sequence[Passed]) -> Iterator[Packed]:
    """Each pickle that is in a report's results, but plain bytes."""
    if isinstance(results, Packed):
        yield results
        return
    for one in results:
        if isinstance(one, Packed):
            yield one
        elif isinstance(one, list):
            yield from (each for each in one if isinstance(each, Packed))


def is_plain(report: ReportFrame) -> bool:
    """True if unpickling the report's contents runs no user's code."""
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
    if not fields:
        return _Bare(kind, tuple, tuple, kind._make)
    places = _places(kind, fields)
    return _Bare(
        kind,
        tuple,
        lambda row: tuple(_taken_apart([*row], places)),
        lambda values: kind._make(_restored([*values], places)),
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


#: The frames that go with every chunk. To name a class costs more than all the rest of a frame, at both ends.
_LAYOUTS = (
    _layout(ChunkFrame, items=_PACKED, indices=_RANGE, handler=_HANDLER),
    _layout(ReportFrame, results=_PACKED, ended=_ENDED, times=_row(WorkTimes)),
)
_NUMBERS = {layout.kind: number for number, layout in enumerate(_LAYOUTS)}


def dump_frame(frame: Any) -> bytes:
    """A frame as bytes: 2 us for those that go with every chunk, 5 us for others."""
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
    return layout.kind._make(_restored(values, layout.places)[1:])


#: What the numerical libraries read, while they are being imported, to know how many threads to start.
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


def dump_record(frame: RecordFrame) -> bytes:
    """Pickle a record, to be sent in a report."""
    return dump_frame(frame)


def load_record(data: bytes) -> RecordFrame:
    """Unpickle a record."""
    frame: RecordFrame = load_frame(data)
    return frame


def begin_unsent(chunk: int) -> bytes:
    """Return the bytes that stand before the unsent log records of this chunk."""
    return encode(_CHUNK.pack(chunk))


def unsent(record: bytes) -> bytes:
    """Pack a record that no report has sent, to follow others."""
    return encode(record)


def load_unsent(data: bytes) -> tuple[int, list[RecordFrame]] | None:
    """Return the chunk's number, and the unsent records that are whole; None where there is not even the number."""
    messages = decode(data)
    if not messages or len(messages[0].data) != _CHUNK.size:
        return None
    (chunk,) = _CHUNK.unpack(messages[0].data)
    return chunk, [load_record(message.data) for message in messages[1:]]
