"""The line between the coordinator and a worker, and the form of its messages. Used at both ends.

It is a stream socket between the two processes: a frame through loky's queues wakes three threads on its way there and
back, which is most of the cost of one item on an idle queue (docs/adr/0002).

| direction | written by | read by |
|---|---|---|
| frames | the coordinator's thread | the worker's main thread |
| answers, the first of them empty | the worker's main thread, one message at a time | the coordinator's thread |
| early reports, in the middle of a chunk | any thread of the worker, likewise | the coordinator's thread |

A message is a header and its bytes. The header begins with a magic number and has a checksum of the message, since a
handler may write into every descriptor that it finds, or read from it.

If a writer dies in the middle of a message, the stream ends, and the reader drops the incomplete message.

A worker's start message is pickled once, while the process is being spawned: only then can descriptors and Events be
handed over. It is a few plain facts, and things that worker and parent share.

Pause and cancel are two `multiprocessing` Events per lane, which the parent sets, and which count only for the job in
the ledger's FLAG_JOB. An Event has a lock inside. A worker that is killed while it holds that lock leaves it taken for
ever, so: a worker never waits on one and reads them at most once in 5 ms; the parent sets and clears them on a thread
that may be abandoned; and they are thrown away with their lane (docs/adr/0004).
"""

from __future__ import annotations

import multiprocessing
import struct
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from mpqueue._os import descriptors, parent_death

if TYPE_CHECKING:
    from mpqueue._wire.pickling.payload import Packed
    from mpqueue._wire.pickling.script import Script


#: The beginning of every message.
MAGIC = b"\xb5mq1"
#: Magic, bytes after the header, whether they are plain, and early; then the checksum of all that and of the bytes.
_FACTS = struct.Struct("=4sQ??")
_CHECK = struct.Struct("=I")
HEADER_SIZE = _FACTS.size + _CHECK.size

#: Bytes per read. The allocator would map and unmap more each time.
_PORTION = 1 << 16
#: Bytes per read if a message is known to be that long.
_BIG_PORTION = 1 << 20


class DamagedError(Exception):
    """Bytes at the place of a message are none: others were written there, or some were taken away."""


class Answer(NamedTuple):
    """One message. ``plain``: unpickling its contents runs no users' code, so any thread may do it.

    ``early``: it is a report in the middle of a chunk, and answers no frame.
    """

    data: bytes
    plain: bool = False
    early: bool = False


def encode(data: bytes, *, plain: bool = False, early: bool = False) -> bytes:
    """Return the message as it is written. Costs 0.7 us, and 1 ms per megabyte."""
    facts = _FACTS.pack(MAGIC, len(data), plain, early)
    return facts + _CHECK.pack(crc32(data, crc32(facts))) + data


def _header(data: bytes | bytearray, at: int) -> tuple[int, bool, bool]:
    """Read the header that begins there; returns how many bytes follow it, and whether they are plain, and early.

    Raises `DamagedError` if no header begins there.
    """
    magic, length, plain, early = _FACTS.unpack_from(data, at)
    if magic != MAGIC:
        raise DamagedError("found bytes where a message should begin")
    return length, plain, early


def _opened(message: bytes | bytearray, at: int, end: int, plain: bool, early: bool) -> Answer:
    """Return the message that begins there. Raises `DamagedError` if it differs from the one that was sent."""
    begin = at + HEADER_SIZE
    data = bytes(message[begin:end])
    (check,) = _CHECK.unpack_from(message, begin - _CHECK.size)
    if crc32(data, crc32(message[at : begin - _CHECK.size])) != check:
        raise DamagedError(f"{len(data)} bytes are not what was sent")
    return Answer(data, plain, early)


def _cut(data: bytes | bytearray) -> tuple[list[Answer], int, int, DamagedError | None]:
    """Cut messages out of these bytes, up to a damaged or incomplete one.

    Returns the messages, how many bytes they are, how many more an incomplete one needs, and the damage.
    """
    messages: list[Answer] = []
    at = 0
    try:
        while len(data) - at >= HEADER_SIZE:
            length, plain, early = _header(data, at)
            end = at + HEADER_SIZE + length
            if end > len(data):
                return messages, at, end - len(data), None
            messages.append(_opened(data, at, end, plain, early))
            at = end
    except DamagedError as error:
        return messages, at, 0, error
    return messages, at, 0, None


def decode(data: bytes) -> list[Answer]:
    """Return the messages in these bytes, up to a damaged or incomplete one."""
    return _cut(data)[0]


class Incoming:
    """Messages from a descriptor, cut out of its bytes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()
        self._portion = _PORTION
        self.damage: DamagedError | None = None  #: set once it has met no message: it returns no more

    def read(self) -> list[Answer] | None:
        """Read once; returns the complete messages, None at the end of the stream.

        Raises BlockingIOError if the descriptor does not block and has no data.
        """
        data: bytes | bytearray = descriptors.read(self._fd, self._portion)
        if not data:
            return None
        if self.damage is not None:
            return []
        if self._buffer:
            self._buffer += data
            data = self._buffer
        messages, at, missing, self.damage = _cut(data)
        if self.damage is not None:
            self._buffer.clear()
            return messages
        self._portion = _BIG_PORTION if missing > _BIG_PORTION else _PORTION
        if data is self._buffer:
            del self._buffer[:at]
        else:
            self._buffer += data[at:]
        return messages


def write_whole(fd: int, data: bytes) -> None:
    """Write all the bytes, even if that blocks several times."""
    written = descriptors.write(fd, data)
    if written < len(data):
        rest = memoryview(data)[written:]
        while rest:
            rest = rest[descriptors.write(fd, rest) :]


#: Carries the cookie that identifies processes left behind by a worker; see `mpqueue._engines.loky.worker_process`.
COOKIE_VARIABLE = "MPQUEUE_LANE"


class Handle:
    """A number of the parent, by default a file's; in the worker it becomes the worker's own, for the same thing.

    ``hand`` hands it over, see `mpqueue._os.parent_death`. It is inherited like the pipes of loky, so it needs neither
    a name in a file system nor rights in /proc, which a parent that has dropped its privileges does not give to its own
    children.
    """

    __slots__ = ("_hand", "fd")

    def __init__(self, fd: int, hand: Callable[[int], Any] = parent_death.hand_file) -> None:
        self.fd = fd
        self._hand = hand

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._hand(self.fd),)


def _arrive(passed: Any) -> Handle:
    """Take over the number, in the worker, for this process only."""
    return Handle(parent_death.arrive(passed))


class LaneSeed(NamedTuple):
    """The argument of `mpqueue._worker.serving.initialize`."""

    lane: int
    generation: int
    ledger: Handle  #: the shared page
    line: Handle  #: the socket for frames and answers
    asking: Handle | None  #: the socket for questions about segments that can't be opened by name, if there is one
    outbox: Handle  #: the file for log records that are not sent yet
    stack: Handle  #: write end of the pipe for the stacks that `STACK_SIGNAL` asks for
    leash: Handle  #: its end of its leash, -1 if it holds nothing; see `mpqueue._os.parent_death`
    flags: Flags
    start_method: str | None  #: the user's choice for `multiprocessing`; None: Python's default
    carries_segments: bool  #: segments that one side can't open are carried, see `mpqueue._worker.exchange`
    #: Done before the worker is ready, unless the process that it was forked from has done it.
    preload: tuple[str, ...] | Packed | Script | None


#: The least seconds between two reads of the flags by a worker.
READ_INTERVAL = 0.005


class Flags(NamedTuple):
    """The two Events of one generation of a lane. Picklable only while a process is being spawned."""

    pause: Event
    cancel: Event


def make_flags(context: Any = None) -> Flags:
    """Make new Events of that context, or of "spawn": those of the default one can't be handed to a loky worker."""
    if context is None:
        context = multiprocessing.get_context("spawn")
    return Flags(pause=context.Event(), cancel=context.Event())
