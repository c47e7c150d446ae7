"""The content of a journal: bodies with a checksum, and results, errors and items that may be read again elsewhere.

A body begins with its checksum, which covers the content and its `Place`: the table, the job and the row. So exchanged
rows or jobs are noticed like a flipped bit.

Values are pickled by reference if possible, so that a class of a script is that script's own class when it runs again;
and, if the bytes name ``__main__``, by value as well, for readers with another ``__main__``. Big values have files of
their own. A value that can't be read any more becomes a stand-in, never an exception.

Functions, and classes of a script, are pickled with the code that Python compiled. Another version of Python has other
instructions, and running this one's would end the interpreter. So such a pickle names the Python that it needs, and any
other refuses it before loading. Values that are pickled by reference need no particular version.

A journal must be as trusted as code: reading it unpickles.
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

from mpqueue._parent.inbox import text_of
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.main_names import MARK
from mpqueue._wire.pickling.payload import dump_by_reference, dump_by_value, load_parts
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
    """Pickled content with a checksum that does not cover its place yet."""

    data: bytes
    check: int

    def seal(self, place: Place | bytes) -> bytes:
        """Return the body. Costs one copy."""
        return bind(self.check, place).to_bytes(CHECK, "little") + self.data


def prepare(content: Any) -> Unsealed:
    """Pickle plain data, ready to be sealed once its place is known."""
    data = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return Unsealed(data, zlib.crc32(data))


def seal(content: Any, place: Place) -> bytes:
    """Pickle plain data, with a checksum."""
    return prepare(content).seal(place)


def unseal(body: Any, place: Place | bytes, what: str) -> Any:
    """Return the content of a sealed body. Raises `JournalError` if it is damaged, or belongs elsewhere."""
    data = body[CHECK:] if isinstance(body, bytes) else b""
    check = bind(zlib.crc32(data), place)
    if not data or check.to_bytes(CHECK, "little") != body[:CHECK]:
        raise JournalError(f"{what}: expected it as it was written, got something damaged; it is left as it is")
    return pickle.loads(data)


def bind(check: int, place: Place | bytes) -> int:
    """Return the checksum of a content and its place, from that of the content. A place may be given as bytes."""
    return zlib.crc32(place if isinstance(place, bytes) else repr(tuple(place)).encode(), check)


# -- kept code ---------------------------------------------------------------------------------------------------------

#: The Python whose code this one can run.
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
#: The name in the pickle of a code object.
_CODE = b"CodeType"
#: The beginning of a stamped pickle; no other begins so.
_STAMP = b"code of Python "


class ForeignCodeError(Exception):
    """A pickle has code that another Python compiled."""


def has_code(data: bytes) -> bool:
    """True if the pickle may have code."""
    return _CODE in data


def stamped(data: bytes) -> bytes:
    """Return the pickle, stamped with the Python that it needs if it has code."""
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
#: The suffix of such files.
VALUE = ".value"
#: In place of a result's pickle: it was discarded. It is no pickle, so that older versions can't read it either.
NO_RESULT = b"\0discarded"
#: The most causes of an error that are kept, each the cause of the one before.
MOST_CAUSES = 4


class Kept(NamedTuple):
    """One value. ``by_reference`` may be None; ``by_value`` exists if it may be needed.

    With ``file``, both are in that file, as far as they exist (``bodies``), after the big buffers; ``sizes`` are those
    of all its parts, and ``digest`` is that of the whole file.
    """

    by_reference: bytes | None
    by_value: bytes | None = None
    file: str | None = None
    sizes: tuple[int, ...] = ()
    bodies: tuple[bool, bool] = (False, False)
    digest: bytes | None = None  #: version 1 wrote none


@dataclass(frozen=True, slots=True)
class BigFile:
    """A file to be written beside the journal, completely or not at all."""

    name: str
    parts: tuple[bytes | memoryview, ...]
    digest: bytes

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(memoryview(part).nbytes for part in self.parts)


def big_file(parts: tuple[bytes | memoryview, ...]) -> BigFile:
    """Make a file of these parts, with its own name. Costs a digest of it: 1 s per GB."""
    return BigFile(f"{uuid.uuid4().hex}{VALUE}", parts, digest_of(*parts))


def digest_of(*parts: bytes | memoryview) -> bytes:
    """Return the BLAKE2b-128 digest of these parts together."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part)
    return digest.digest()


class ChangedError(Exception):
    """The journal has changed since a look at it began, so the look has to be repeated.

    It is no `JournalError`: the journal is fine.
    """


#: Returns the content of a file beside the journal. May raise `ChangedError`.
ReadFile = Callable[[str], bytes]


class _PlainUnpickler(pickle.Unpickler):
    """Loads objects of built-in types that need no name."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain")


def plain_list(kept: Kept) -> list[Any] | None:
    """Return the kept list if reading it runs no users' code; else None."""
    if kept.file is not None or kept.by_value is not None or kept.by_reference is None:
        return None
    try:
        found = _PlainUnpickler(io.BytesIO(kept.by_reference)).load()
    except Exception:
        return None
    return found if type(found) is list else None


class Unreadable:
    """Stands for a value that can't be read here: its class can't be imported, or its file is missing."""

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
    """Return the value, ready to be written; its big parts go to ``files``. Raises errors of pickling.

    Shared objects are kept with each value that names them.
    """
    return within(lambda: _keep(value, files), (beside.whole, True))


def keep_small(value: Any) -> Kept | None:
    """Return the value if it is small and can be pickled; else None."""
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
    """Return the value again, or an `Unreadable`. Raises Ctrl-C and `ChangedError`: they don't concern the value."""
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
            return load_parts(by_reference, buffers)
        except Exception:
            if by_value is None:
                raise
    return load_parts(unstamped(by_value or b""), buffers)


#: One exception, in plain tuples: itself (a `Kept`) if it can be pickled, the arguments of the `RemoteError` that
#: replaces it if it can't be read, the worker's traceback if that is its cause, and any other cause.
KeptError = tuple[Any, tuple[str, str, str, tuple[str, ...]], str | None, Any]


def keep_error(error: BaseException, files: list[BigFile], depth: int = MOST_CAUSES) -> KeptError:
    """Return the exception, ready to be written. Never raises."""
    try:
        itself = tuple(keep(error, files))
    except Exception:
        itself = None
    cause = error.__cause__
    trace = cause.text if isinstance(cause, RemoteTraceback) else None
    kept_cause = None if cause is None or trace is not None or not depth else keep_error(cause, files, depth - 1)
    return itself, _stand_in(error, trace or ""), trace, kept_cause


def named_error(error: BaseException, text: str) -> KeptError:
    """Return an exception by its type's name and its text, as far as known; runs none of its code."""
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
    """Return the exception again, with its cause; a `RemoteError` if it can't be read."""
    itself, stand_in, trace, cause = kept
    found = None if itself is None else restore(Kept(*itself), read_file)
    error = found if isinstance(found, BaseException) else RemoteError(*stand_in)
    if trace is not None:
        error.__cause__ = RemoteTraceback(trace)
    elif cause is not None:
        error.__cause__ = restore_error(cause, read_file)
    return error
