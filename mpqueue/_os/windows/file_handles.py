"""Files: opened so that others may remove and rename them, read and written at an offset, and locked."""

from __future__ import annotations

import ctypes
import errno
import msvcrt
import os
import sys
import tempfile
from ctypes import wintypes

from mpqueue._os.windows import kernel32

assert sys.platform == "win32"

_READ, _WRITE, _DELETE = 0x80000000, 0x40000000, 0x00010000
_APPEND_ONLY = 0x00100114  # to write attributes, and data without FILE_WRITE_DATA: at the end only
_SHARE_ALL = 0x7
_NEW, _ANEW, _THERE, _THERE_OR_NEW, _EMPTIED = 1, 2, 3, 4, 5
_READ_ONLY, _NORMAL, _TEMPORARY, _DELETE_ON_CLOSE = 0x1, 0x80, 0x100, 0x04000000
_OPEN_LINK_ITSELF = 0x00200000
_SET_SPARSE = 0x900C4
_INVALID = ctypes.c_void_p(-1).value

#: Our own flag for `open_file`: don't follow a link. Its bit is no flag of Windows.
NO_LINKS = 1 << 40

#: The byte that `lock_file` locks: far behind every content, since only the locker can read locked bytes.
_LOCKED_BYTE = 1 << 62
_AT_ONCE, _ALONE = 1, 2

_NO_FILE, _NO_FOLDER, _IS_OPEN, _END_OF_FILE = 2, 3, 32, 38

#: The most bytes per call: each write copies its bytes, and no call of Windows takes 4 GB.
_AT_A_TIME = 16 << 20


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
    """Open a file as `os.open` does, binary and private to this process.

    Others may remove and rename it meanwhile, as on POSIX systems.
    """
    name = os.fspath(path)
    access = _READ if flags & 3 == os.O_RDONLY else _WRITE if flags & 3 == os.O_WRONLY else _READ | _WRITE
    attributes = _NORMAL if mode & 0o200 else _READ_ONLY
    if flags & NO_LINKS:
        if os.path.islink(name):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        attributes |= _OPEN_LINK_ITSELF
    handle = kernel32.create_file(name, access, _SHARE_ALL, None, _how(flags), attributes, None)
    if handle in (None, _INVALID):
        raise _error(name)
    return _number_of(handle, flags)


def _error(name: str) -> OSError:
    code = ctypes.get_last_error()
    return OSError(None, ctypes.FormatError(code), name, code)


def _how(flags: int) -> int:
    if flags & os.O_CREAT:
        if flags & os.O_EXCL:
            return _NEW
        return _ANEW if flags & os.O_TRUNC else _THERE_OR_NEW
    return _EMPTIED if flags & os.O_TRUNC else _THERE


def _number_of(handle: int, flags: int) -> int:
    try:
        return msvcrt.open_osfhandle(handle, flags & (os.O_APPEND | 3) | os.O_NOINHERIT)
    except BaseException:
        import _winapi

        _winapi.CloseHandle(handle)
        raise


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise PermissionError for a file that can't be replaced, since it is open or read-only."""
    name = os.fspath(path)
    handle = kernel32.create_file(name, _DELETE, _SHARE_ALL, None, _THERE, _OPEN_LINK_ITSELF, None)
    if handle in (None, _INVALID):
        code = ctypes.get_last_error()
        if code in (_NO_FILE, _NO_FOLDER):
            return
        why = "a program has open: close it there" if code == _IS_OPEN else f"can't be: {ctypes.FormatError(code)}"
        raise PermissionError(f"expected a file that can be replaced, got {name!r}, which {why}")
    import _winapi

    _winapi.CloseHandle(handle)
    if os.lstat(name).st_file_attributes & _READ_ONLY:
        raise PermissionError(f"expected a file that can be replaced, got {name!r}, which is read-only")


def make_temporary(label: str, *, appended: bool = False) -> int:
    """An empty file in the temporary folder that is deleted with its last handle, even if its process is killed.

    ``appended``: writes by this handle, or by a duplicate in any process, go to its end.
    """
    name = os.path.join(_temporary_folder(), f"mpqueue-{label}-{os.urandom(8).hex()}")
    attributes = _TEMPORARY | _DELETE_ON_CLOSE
    access = _READ | _DELETE | (_APPEND_ONLY if appended else _WRITE)
    handle = kernel32.create_file(name, access, _SHARE_ALL, None, _NEW, attributes, None)
    if handle in (None, _INVALID):
        raise _error(name)
    # Otherwise data written far behind the rest would need room for all between.
    kernel32.control_device(handle, _SET_SPARSE, None, 0, None, 0, wintypes.DWORD(), None)
    return _number_of(handle, os.O_RDWR)


def _temporary_folder() -> str:
    """Return the folder for temporary files; unlike `tempfile.gettempdir`, leave no file there to try it."""
    if tempfile.tempdir is not None:
        return tempfile.gettempdir()
    for name in ("TMPDIR", "TEMP", "TMP"):
        if (folder := os.environ.get(name)) and os.access(folder, os.W_OK):
            return os.path.abspath(folder)
    return tempfile.gettempdir()


def name_of(fd: int) -> str:
    """The full path under which others open it, even one too long for other calls. Raises OSError."""
    handle, size = msvcrt.get_osfhandle(fd), 512
    while True:
        name = ctypes.create_unicode_buffer(size)
        needed = kernel32.checked(kernel32.final_path(handle, name, size, 0))
        if needed < size:
            return name.value
        size = needed + 1


def read_at(fd: int, size: int, offset: int) -> bytes:
    """Read a file from an offset on, as `os.pread` does."""
    buffer = ctypes.create_string_buffer(size)
    count = _read_into(fd, buffer, size, offset)
    return buffer.raw[:count]


def read_into(fd: int, memory: memoryview, offset: int) -> int:
    """Read a file into memory, like `os.preadv` with one buffer; returns after at most `_AT_A_TIME` bytes."""
    memory = memory[:_AT_A_TIME]
    return _read_into(fd, (ctypes.c_char * memory.nbytes).from_buffer(memory), memory.nbytes, offset)


def _read_into(fd: int, buffer: object, size: int, offset: int) -> int:
    done = wintypes.DWORD()
    if (
        not kernel32.read_file(msvcrt.get_osfhandle(fd), buffer, size, done, kernel32.at(offset))
        and (error := ctypes.get_last_error()) != _END_OF_FILE
    ):
        raise ctypes.WinError(error)
    return done.value


def write_at(fd: int, data: bytes | memoryview, offset: int) -> int:
    """Write into a file from an offset on, as `os.pwrite` does."""
    handle, done, written = msvcrt.get_osfhandle(fd), wintypes.DWORD(), 0
    rest = memoryview(data)
    while True:
        part = bytes(rest[written : written + _AT_A_TIME])
        kernel32.checked(kernel32.write_file(handle, part, len(part), done, kernel32.at(offset + written)))
        written += done.value
        if not done.value or written >= rest.nbytes:
            return written


# -- locks -------------------------------------------------------------------------------------------------------------


def lock_file(fd: int) -> None:
    """Lock a file until its descriptor is closed. Raises OSError if another opening of it is locked."""
    handle = msvcrt.get_osfhandle(fd)
    if not kernel32.lock_file(handle, _AT_ONCE | _ALONE, 0, 1, 0, kernel32.at(_LOCKED_BYTE)):
        raise ctypes.WinError(ctypes.get_last_error())


def is_locked(fd: int) -> bool:
    """Tell whether another opening of the file is locked."""
    handle = msvcrt.get_osfhandle(fd)
    if not kernel32.lock_file(handle, _AT_ONCE, 0, 1, 0, kernel32.at(_LOCKED_BYTE)):
        return True
    kernel32.unlock_file(handle, 0, 1, 0, kernel32.at(_LOCKED_BYTE))
    return False


# -- their places ------------------------------------------------------------------------------------------------------

_REMOTE_DRIVE = 4


def is_on_network(path: str) -> bool:
    """True for a file or folder on a drive of another machine."""
    drive = drive_of(path)
    return drive.startswith("\\\\") or (drive != "" and kernel32.drive_type(f"{drive}\\") == _REMOTE_DRIVE)


def drive_of(path: str) -> str:
    r"""``C:`` or ``\\server\share``, also of a path that begins with ``\\?\`` or ``\\.\``; "" if it is neither."""
    path = os.path.abspath(path)
    if path[:4] in ("\\\\?\\", "\\\\.\\"):
        path = path[4:]
        if path[:4].upper() == "UNC\\":
            path = f"\\\\{path[4:]}"
    return os.path.splitdrive(path)[0]
