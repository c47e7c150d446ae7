"""The content of a journal: bodies with a checksum, and results, errors and items that may be read again elsewhere.

A body begins with its checksum, which covers the content and its `Place`: the table, the job and the row. So rows or
jobs that were exchanged are noticed like a flipped bit.

Values are pickled by reference where that works, so that a class of a script is that script's own class when it runs
again; and, where the bytes name ``__main__``, by value as well, for readers whose ``__main__`` is another. Big values
go into files of their own. A value that can't be read any more has a stand-in, never an exception.

Functions, and classes of a script, are pickled with the code that Python compiled. Another version of Python has other
instructions, and running those of this one ends the interpreter. So such a pickle says which Python it needs, and is
refused by any other before anything of it is loaded. Values that are pickled by reference need no particular version.

A journal is as trusted as code: reading it unpickles.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from mpqueue._parent.transport.kept_errors import text_of
from mpqueue._wire.pickling.main_names import MARK
from mpqueue._wire.pickling.payload import dump_by_reference, dump_by_value, load_kept, whole
from mpqueue.errors import JournalError, RemoteError, RemoteTraceback

# -- sealed ------------------------------------------------------------------------------------------------------------

#: One statement of a transaction, and its arguments.
Statement = tuple[str, Sequence[Any]]

#: Bytes of the checksum.
CHECK = 4


class Place(NamedTuple):
    """The place of a body: the table (and column), the job's number there, and the row."""

    table: str
    job: int
    row: int = 0


class Unsealed(NamedTuple):
    """Pickled content whose checksum is known, but for its place."""

    data: bytes
    check: int

    def seal(self, place: Place | bytes) -> bytes:
        """Return the body. Costs one copy."""
        return bind(self.check, place).to_bytes(CHECK, "little") + self.data


def prepare(content: Any) -> Unsealed:
    """Pickle anything plain, ready to be sealed once its place is known."""
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return Unsealed(data, zlib.crc32(data))


def seal(content: Any, place: Place) -> bytes:
    """Pickle anything plain, with a checksum."""
    return prepare(content).seal(place)


def unseal(body: Any, place: Place | bytes, what: str) -> Any:
    """Return the content of a sealed body. Raises `JournalError` if it is damaged, or belongs elsewhere."""
    data = body[CHECK:] if isinstance(body, bytes) else b""
    check = bind(zlib.crc32(data), place)
    if not data or check.to_bytes(CHECK, "little") != body[:CHECK]:
        raise JournalError(f"{what}: expected it as it was written, got something damaged; it is left as it is")
    return pickle.loads(data)


def bind(check: int, place: Place | bytes) -> int:
    """The checksum of a content and its place, from that of the content. A place may be bytes that say which it is."""
    return zlib.crc32(place if isinstance(place, bytes) else repr(tuple(place)).encode(), check)


# -- kept code ---------------------------------------------------------------------------------------------------------

#: The Python whose code this one can run.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: What the pickle of a code object names.
_CODE = b"CodeType"
#: How a stamped pickle begins; no other does.
_STAMP = b"code of Python "


class ForeignCodeError(Exception):
    """A pickle has code that another Python compiled."""


def has_code(data: bytes) -> bool:
    """True where code may be in the pickle."""
    return _CODE in data


def stamped(data: bytes) -> bytes:
    """Return the pickle, which says which Python it needs if it has code."""
    return b"%b%b\n%b" % (_STAMP, VERSION.encode(), data) if has_code(data) else data


def unstamped(data: bytes) -> bytes:
    """Return the pickle without its stamp. Raises `ForeignCodeError`."""
    if not data.startswith(_STAMP):
        return data
    version, _, data = data[len(_STAMP) :].partition(b"\n")
    check_version(version.decode())
    return data


def check_version(version: str) -> None:
    """Raise `ForeignCodeError` unless code of that Python can be run by this one."""
    if version != VERSION:
        raise ForeignCodeError(f"it has code that Python {version} compiled, and this is Python {VERSION}")


# -- kept values -------------------------------------------------------------------------------------------------------

#: Bytes from which a value is kept in a file of its own, beside the journal.
BIG = 256 << 10
#: How the names of such files end.
VALUE = ".value"
#: In place of a result's pickle: it was discarded. No pickle, so that who does not know it can't read it either.
NO_RESULT = b"\0discarded"
#: How many causes of an error are kept, each the cause of the one before.
MOST_CAUSES = 4


class Kept(NamedTuple):
    """One value. ``by_reference`` may be None; ``by_value`` is there where it may be needed.

    With ``file``, both are in that file, as far as there are any (``bodies``), after the big buffers; ``sizes`` are
    those of all its parts, and ``digest`` is that of all of it.
    """

    by_reference: bytes | None
    by_value: bytes | None = None
    file: str | None = None
    sizes: tuple[int, ...] = ()
    bodies: tuple[bool, bool] = (False, False)
    digest: bytes | None = None  #: version 1 wrote none


@dataclass(frozen=True, slots=True)
class BigFile:
    """A file to be written beside the journal, whole or not at all."""

    name: str
    parts: tuple[bytes | memoryview, ...]
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(memoryview(part).nbytes for part in self.parts)


def big_file(parts: tuple[bytes | memoryview, ...]) -> BigFile:
    """A file of these parts, under a name of its own. Costs a digest of it: a second for each gigabyte."""
    return BigFile(f"{uuid.uuid4().hex}{VALUE}", parts, digest_of(*parts))


def digest_of(*parts: bytes | memoryview) -> bytes:
    """BLAKE2b-128 of these parts together."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


class ChangedError(Exception):
    """Raised when the journal has changed since a look at it began: that look is to be taken again.

    No `JournalError`: it says nothing of what was read.
    """


#: The content of a file beside the journal. May raise `ChangedError`.
ReadFile = Callable[[str], bytes]


class _PlainUnpickler(pickle.Unpickler):
    """Loads what is made of built-in types without a name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain")


def plain_list(kept: Kept) -> list[Any] | None:
    """The list that is kept, if reading it runs no user's code; else None."""
    if kept.file is not None or kept.by_value is not None or kept.by_reference is None:
        return None
    try:
        found = _PlainUnpickler(io.BytesIO(kept.by_reference)).load()
    except Exception:
        return None
    return found if type(found) is list else None


class Unreadable:
    """Stands for a value that can't be read here: its class can't be imported, or its file is gone."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"<unreadable here: {self.reason}>"


class NotKept:
    """Stands for an item that was too big for the journal, or could not be pickled."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<not in the journal>"


def keep(value: Any, files: list[BigFile]) -> Kept:
    """The value, ready to be written; what is big of it goes to ``files``. Raises what pickling raises.

    What is shared is kept with each value that names it.
    """
    with whole:
        return _keep(value, files)


def keep_small(value: Any) -> Kept | None:
    """The value, where it is small and can be pickled; else None."""
    files: list[BigFile] = []
    try:
        kept = keep(value, files)
    except Exception:
        return None
    return None if files else kept


def _keep(value: Any, files: list[BigFile]) -> Kept:
    try:
        data, buffers = dump_by_reference(value)
    except Exception:
        by_value, buffers = dump_by_value(value)
        return _kept(None, stamped(by_value), buffers, files)
    if MARK not in data:
        return _kept(data, None, buffers, files)
    by_value, same_buffers = dump_by_value(value)
    are_same = [buffer.nbytes for buffer in buffers] == [buffer.nbytes for buffer in same_buffers]
    return _kept(data, stamped(by_value) if are_same else None, buffers, files)


def _kept(data: bytes | None, by_value: bytes | None, buffers: list[memoryview], files: list[BigFile]) -> Kept:
    if not buffers and len(data or by_value or b"") < BIG:
        return Kept(data, by_value)
    bodies = tuple(body for body in (data, by_value) if body is not None)
    parts: tuple[bytes | memoryview, ...] = (*buffers, *bodies)
    file = big_file(parts)
    files.append(file)
    has = (data is not None, by_value is not None)
    return Kept(None, None, file.name, tuple(memoryview(part).nbytes for part in parts), has, file.digest)


def no_file(name: str) -> bytes:
    """Raise FileNotFoundError: a `ReadFile` for content that has no files."""
    raise FileNotFoundError(name)


def restore(kept: Kept, read_file: ReadFile = no_file) -> Any:
    """The value again, or an `Unreadable`. Ctrl-C and `ChangedError` come through: they say nothing of the value."""
    try:
        if kept.by_reference == NO_RESULT:
            return Unreadable("it was discarded")
        if kept.file is None:
            return _load(kept.by_reference, kept.by_value, ())
        content, parts, at = memoryview(read_file(kept.file)), list[memoryview](), 0
        if kept.digest is not None and digest_of(content) != kept.digest:
            return Unreadable(f"{kept.file} is damaged, or that of another result")
        for size in kept.sizes:
            parts.append(content[at : at + size])
            at += size
        if at != len(content):
            return Unreadable(f"expected {at} bytes in {kept.file}, got {len(content)}")
        by_value = bytes(parts.pop()) if kept.bodies[1] else None
        by_reference = parts.pop() if kept.bodies[0] else None
        return _load(by_reference, by_value, [*map(bytearray, parts)])
    except (KeyboardInterrupt, ChangedError):
        raise
    except BaseException as error:
        return Unreadable(text_of(error))


def _load(by_reference: bytes | memoryview | None, by_value: bytes | None, buffers: Sequence[bytearray]) -> Any:
    if by_reference is not None:
        try:
            return load_kept(by_reference, buffers)
        except Exception:
            if by_value is None:
                raise
    return load_kept(unstamped(by_value or b""), buffers)


#: One exception, in plain tuples: itself (a `Kept`) where it can be pickled, the arguments of the `RemoteError` that
#: stands in for it where it can't be read, the worker's traceback where that is its cause, and any other cause.
KeptError = tuple[Any, tuple[str, str, str, tuple[str, ...]], str | None, Any]


def keep_error(error: BaseException, files: list[BigFile], depth: int = MOST_CAUSES) -> KeptError:
    """The exception, ready to be written. Never raises."""
    try:
        itself = tuple(keep(error, files))
    except Exception:
        itself = None
    cause = error.__cause__
    trace = cause.text if isinstance(cause, RemoteTraceback) else None
    kept_cause = None if cause is None or trace is not None or not depth else keep_error(cause, files, depth - 1)
    return itself, _stand_in(error, trace or ""), trace, kept_cause


def named_error(error: BaseException, text: str) -> KeptError:
    """Return an exception by its type's name and its text, as far as they are known; runs none of its code."""
    bases = _names_of(error)
    return None, (bases[0], text, "", bases), None, None


def _names_of(error: BaseException) -> tuple[str, ...]:
    return tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__[:-1])


def _stand_in(error: BaseException, trace: str) -> tuple[str, str, str, tuple[str, ...]]:
    if isinstance(error, RemoteError):
        return error.type_name, error.message, error.traceback, error.bases
    bases = _names_of(error)
    try:
        text = str(error)
    except BaseException as broken:
        text = f"<its str() raised {type(broken).__name__}>"
    return bases[0], text, trace, bases


def restore_error(kept: KeptError, read_file: ReadFile) -> BaseException:
    """The exception again, with its cause; a `RemoteError` where it can't be read."""
    itself, stand_in, trace, cause = kept
    found = None if itself is None else restore(Kept(*itself), read_file)
    error = found if isinstance(found, BaseException) else RemoteError(*stand_in)
    if trace is not None:
        error.__cause__ = RemoteTraceback(trace)
    elif cause is not None:
        error.__cause__ = restore_error(cause, read_file)
    return error
