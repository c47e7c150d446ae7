"""`PartFile`: a file with the suffix ``.part`` while a job writes it; it gets its own name once it is complete.

An incomplete file keeps the suffix, so that hours of work are not lost, and it is not taken for complete. The next job
that writes the file renames it to ``.part.1`` and so on.
"""

from __future__ import annotations

import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import IO

from mpqueue._os.file_system import lock_file, reserve_room, unlock_file
from mpqueue._os.files import NO_LINKS, REPLACES_OPEN_FILES, check_replaceable, open_file, set_rights, this_user
from mpqueue._whole_file import check_target, rights_of

log = logging.getLogger("mpqueue")

_FLAGS = os.O_RDWR | os.O_CREAT | NO_LINKS
_NEW = _FLAGS | os.O_EXCL


def part_of(target: Path) -> Path:
    """Return the path of that file while it is incomplete."""
    return target.parent / f"{target.name}.part"


class PartFile:
    """A file that is a part until it is complete. Used by one thread at a time; each method raises OSError."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.part = part_of(target)
        self._file: IO[bytes] | None = None
        self.size = 0  #: its bytes, all of whole rows

    def check(self) -> None:
        """Raise OSError if the file could not be opened; nothing is made."""
        folder = self.target.absolute().parent
        if not folder.is_dir():
            raise FileNotFoundError(f"expected a file in a folder that is there, got {str(self.target)!r}")
        check_target(self.target)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"expected a folder that this user may write into, got that of {str(self.target)!r}")
        check_replaceable(self.target)

    def open(self, *, keep: bool = True) -> None:
        """Make the empty part; one being written is refused. With ``keep``, an earlier job's part gets another name."""
        self.check()
        while self._file is None:
            file = FileIO(open_file(self.part, _FLAGS, 0o666), "r+")
            try:
                found = os.fstat(file.fileno())
                _check_own(found, self.part)
                _lock(file, self.part)
                if _is_at(found, self.part) and not (keep and self._put_aside(file)):
                    file.truncate(0)
                    if (rights := rights_of(self.target)) is not None:
                        set_rights(file.fileno(), rights)
                    self._file = file
            except BaseException:
                file.close()
                raise
            if self._file is None:  # it has another name now
                file.close()

    def _put_aside(self, file: FileIO) -> bool:
        """Rename the part that an earlier job has left; False if it is empty."""
        size = os.fstat(file.fileno()).st_size
        if size:
            aside = _new_beside(self.part)
            os.replace(self.part, aside)
            log.warning("%s: an earlier job has left %s bytes in it, which are kept as %s",
                        self.part, f"{size:,}", aside)  # fmt: skip
        return size > 0

    @property
    def file(self) -> IO[bytes]:
        """The file object, unbuffered."""
        assert self._file is not None
        return self._file

    def append(self, data: bytes) -> None:
        """Write all of the data; if that fails, none of it is left."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except BaseException:
            self.cut()
            raise
        self.size += len(data)

    def cut(self) -> None:
        """Drop data written beyond its `size`, if possible."""
        self.file.truncate(self.size)
        self.file.seek(self.size)

    def grown(self) -> None:
        """Count all data written to `file` so far as whole: nothing is reserved any more."""
        self.size = self.file.tell()
        self.file.truncate()

    def reserve(self, size: int) -> None:
        """Reserve that many more bytes, or raise OSError; if the system can't do that, nothing happens."""
        try:
            reserve_room(self.file.fileno(), self.size, size)
        except OSError:
            self.cut()
            raise

    def rewrite(self, change: Callable[[IO[bytes]], Iterable[bytes]]) -> None:
        """Replace the content of the part by the result of ``change``."""
        self.file.seek(0)
        with (
            open(self.file.fileno(), "rb", closefd=False) as old,
            self.anew() as new,
            open(new.fileno(), "wb", closefd=False) as file,
        ):
            file.writelines(change(old))

    @contextmanager
    def anew(self) -> Iterator[IO[bytes]]:
        """An empty file that replaces the part when the block is left."""
        old = self.file
        name = self.part.with_name(f".{os.urandom(8).hex()}.part")
        new = FileIO(open_file(name, _NEW, stat.S_IMODE(os.fstat(old.fileno()).st_mode)), "r+")
        try:
            yield new
            _lock(new, self.part)
            self._put_in_place(name)
        except BaseException:
            new.close()
            with suppress(OSError):
                os.unlink(name)
            raise
        self._file, self.size = new, new.seek(0, os.SEEK_END)
        old.close()

    def _put_in_place(self, name: Path) -> None:
        """Make the file of that name the part; at every moment, the old content is under a name that users know.

        On Windows the old one, which is open, and so locked, first gets the name that the next job would give it.
        """
        if REPLACES_OPEN_FILES:
            os.replace(name, self.part)
            return
        part, aside = self.part, _new_beside(self.part)
        try:
            os.replace(part, aside)
        except BaseException:
            os.unlink(aside)
            raise
        self.part = aside
        os.rename(name, part)  # refused if another job has just made one of that name
        self.part = part
        with suppress(OSError):
            os.unlink(aside)

    def finish(self) -> None:
        """Give the complete file its own name, once it is on disk."""
        file = self.file
        file.truncate()  # the reserved rest
        os.fsync(file.fileno())
        os.replace(self.part, self.target)
        self._file = None
        file.close()

    def drop(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self.size = 0
            self.cut()
            self.leave()

    def leave(self) -> Path | None:
        """Leave the file a part; returns its path, None if there is nothing."""
        file, self._file = self._file, None
        if file is None:
            return None
        with file:
            try:
                file.truncate()
                if os.fstat(file.fileno()).st_size:
                    return self.part
                if _is_at(os.fstat(file.fileno()), self.part):
                    os.unlink(self.part)
                return None
            finally:
                unlock_file(file.fileno())


def _new_beside(path: Path) -> Path:
    """An empty file with the first free number behind its name."""
    for number in itertools.count(1):
        name = path.with_name(f"{path.name}.{number}")
        with suppress(FileExistsError):
            os.close(open_file(name, _NEW, 0o600))
            return name
    raise AssertionError


def _check_own(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_uid != this_user() or found.st_nlink > 1:
        raise PermissionError(f"{path}: expected a file of this user's own, got another one; it is left as it is")


def _lock(file: FileIO, path: Path) -> None:
    try:
        lock_file(file)
    except OSError:
        raise BlockingIOError(
            f"{path}: expected a file that no other job writes, got one that is being written"
        ) from None


def _is_at(found: os.stat_result, path: Path) -> bool:
    """True if that file has this name."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)
