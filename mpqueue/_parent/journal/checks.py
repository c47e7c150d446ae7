"""Guards of a journal: its owner, its disk, the lock that keeps other queues out, and the identity of its files.

A journal belongs to one user: reading it unpickles, so files that others may have written are never read. Each time
before anything is opened, the file and those beside it (log, lock, folder of big values) are checked. Their owner must
be this user or root, and no other user may write them. The rights of the *folder* are not checked: files that others
put there belong to them, and are refused for that.

A journal that is written has only one name, by which its lock and its log are found.

It is on a disk of this machine: SQLite's write-ahead log needs memory shared by its readers and its writer, locks, and
the order in which writes reach the disk. A file system that other machines write too guarantees none of the three, and
the damage shows only when the journal is needed. So these file systems are refused, by their names. Unknown ones are
accepted: most are local.

One queue at a time writes it: that holds a lock on a file beside it, which ends with its process in any case. The file
names the process that holds it, and how many of its commits are on disk. It is removed when the journal is closed. So
if it is still there, it shows what must be in the journal: otherwise a file of it was removed, damaged or exchanged. It
is never synced: after a power cut it may show less than there is.

A crash needs no cleanup.

While it is open, its files stay the opened ones, and no other program ends its log. SQLite's own locks are record
locks: a process loses all of its locks on a file once it closes any descriptor of it, as copying the journal inside the
program does. Another program would then treat the log as left behind, move its content into the file and remove it. So
the same bytes are held a second time, in a way that no copy ends.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
import threading
from collections.abc import Iterable
from io import FileIO
from typing import NamedTuple

from mpqueue._os.file_system import (
    FileSystem,
    file_system_of,
    hold_bytes,
    is_locked,
    lock_file,
    release_bytes,
    unlock_file,
)
from mpqueue._os.files import NO_LINKS, open_file, others_may_write, read_at, this_user, write_at
from mpqueue._os.process_handle import close_in_each_fork, in_each_fork
from mpqueue._os.system import IS_WINDOWS
from mpqueue.errors import JournalError

# -- ownership ---------------------------------------------------------------------------------------------------------

#: Files beside a journal, by the ends of their names.
BESIDE = ("", "-wal", "-shm", "-journal", ".lock", ".running", ".files")
#: Those that a queue writes.
_WRITTEN = ("", "-wal", "-journal", ".lock")


def own_path(path: str) -> str:
    """Return the full path, with links resolved. Raises `JournalError` for a link of another user."""
    try:
        link = os.lstat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    if stat.S_ISLNK(link.st_mode):
        _check_owner(path, link)
    return os.path.realpath(path)


def check_own(path: str) -> None:
    """Raise `JournalError` if another user may have written the journal, or a file beside it."""
    for suffix in BESIDE:
        name = f"{path}{suffix}"
        try:
            found = os.lstat(name)
            if stat.S_ISLNK(found.st_mode):  # of this user: a folder on another disk
                _check_owner(name, found)
                found = os.stat(name)
        except OSError:  # it does not exist, or fails again when it is opened
            continue
        check_stat(name, found)


def check_one_name(path: str) -> None:
    """Raise `JournalError` if a file of the journal has another name as well: a hard link.

    The lock and the log have this name: a program that opens the journal by the other name does not find them.
    """
    linked = {name: links for suffix in _WRITTEN if (links := _links(name := f"{path}{suffix}")) > 1}
    if linked:
        first, links = next(iter(linked.items()))
        raise JournalError(
            f"{first}: expected a file with one name, got one with {links} (hard links, as `cp -al` makes them); it is "
            "left as it is, since a queue that has it open under another name would not be noticed, and a backup would "
            f"change with it; once no program has it open, make it a file of its own: `{_copying(linked)}`"
        )


def _copying(names: Iterable[str]) -> str:
    """Return the command that replaces these links by copies."""
    pairs = [(shlex.quote(name), shlex.quote(f"{name}.own")) for name in names]
    return " && ".join(f"cp -p {name} {own} && mv {own} {name}" for name, own in pairs)


def _links(name: str) -> int:
    try:
        found = os.lstat(name)
    except OSError:
        return 0
    return found.st_nlink if stat.S_ISREG(found.st_mode) else 0


def check_stat(name: str, found: os.stat_result) -> None:
    """Raise `JournalError` for a file that another user owns, or may write."""
    _check_owner(name, found)
    if others_may_write(found) and not stat.S_ISCHR(found.st_mode):
        raise JournalError(
            f"{name}: expected a file that only its owner can write, got mode {stat.S_IMODE(found.st_mode):04o}; it is "
            "left as it is, since reading it runs its contents; if no other user has written it, run `chmod go-w` on it"
        )


def _check_owner(name: str, found: os.stat_result) -> None:
    if not is_trusted(found.st_uid):
        raise JournalError(
            f"{name}: expected a file of this user ({this_user()}), got one of user {found.st_uid}; it is left as it "
            "is, since reading it runs its contents; if you trust that user, copy it, or make it yours with chown"
        )


def is_trusted(user: int) -> bool:
    """True for this user, and for root, against which there is no defence."""
    return user in (this_user(), 0)


# -- local disk --------------------------------------------------------------------------------------------------------

# fmt: off
#: Kinds that are shared with other machines, or with the host of this one.
SHARED = frozenset({
    "nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "auristorfs", "coda", "9p",
    "lustre", "gpfs", "ceph", "glusterfs", "beegfs", "beegfs_nodev", "fhgfs", "pvfs2", "orangefs", "panfs",
    "wekafs", "gfs", "gfs2", "ocfs2", "vboxsf", "prl_fs", "vmhgfs", "davfs",
    "network drive",  # of Windows
})
#: Those served by a user's program (FUSE): ``fuse.sshfs`` and the like.
SHARED_BY_PROGRAM = frozenset({
    "sshfs", "s3fs", "s3ql", "goofys", "geesefs", "mount-s3", "mountpoint-s3", "gcsfuse", "blobfuse",
    "blobfuse2", "rclone", "juicefs", "glusterfs", "ceph", "ceph-fuse", "seaweedfs", "weed", "mfs", "mfsmount",
    "lizardfs", "saunafs", "hdfs", "fuse_dfs", "alluxio", "alluxio-fuse", "davfs", "davfs2", "curlftpfs",
    "smbnetfs", "gvfsd-fuse", "afp", "afpfs", "vmhgfs-fuse", "grpcfuse", "osxfs", "google-drive-ocamlfuse",
    "onedriver",
})
# fmt: on
#: Names of mounts from another machine: ``server:/home``, ``//server/share``, ``https://...``.
_REMOTE = re.compile(r"[^/:]+:/|//")


def check_local(path: str) -> None:
    """Raise `JournalError`, without a change, if the journal is on a file system that others share."""
    found = file_system_of(path if os.path.exists(path) else os.path.dirname(path))
    if found is not None and is_shared(found):
        raise JournalError(
            f"{path}: expected a disk of this machine's own, got {found.kind} ({found.source} at {found.root}): "
            "a journal is a write-ahead log of SQLite, which needs a disk that no other machine writes; nothing was "
            "changed. Put the journal on a local disk, and share the output of `mpqueue export`, or a copy of it"
        )


def is_shared(found: FileSystem) -> bool:
    """True for a file system that other machines may write too."""
    if found.kind in SHARED:
        # The root of a sandbox (gVisor) is served through 9p as well, but only to this one.
        return (found.kind, found.root) != ("9p", "/")
    kind, _, program = found.kind.partition(".")
    if kind != "fuse":
        return False
    return program in SHARED_BY_PROGRAM or found.source in SHARED_BY_PROGRAM or _REMOTE.match(found.source) is not None


# -- journal lock ------------------------------------------------------------------------------------------------------

#: The paths of the journals that queues of this process have open, or are opening.
_held: set[str] = set()
_guard = threading.Lock()
#: Bytes of a lock file.
SIZE = 96


class Mark(NamedTuple):
    """The part that is on disk: how many commits, by which opening (its line in the journal, and its start)."""

    pid: int
    number: int = 0
    at: float = 0.0
    commits: int = 0

    def to_bytes(self) -> bytes:
        """Return the mark as bytes, always of the same size, so that writing it needs no room."""
        return f"{self.pid} {self.number} {self.at!r} {self.commits}".ljust(SIZE - 1).encode() + b"\n"


def _parse(content: bytes) -> Mark | None:
    """Return the written mark; None if the content is none."""
    try:
        pid, number, at, commits = content.split()
        return Mark(int(pid), int(number), float(at), int(commits))
    except ValueError:
        return None


class JournalLock:
    """A journal's lock, held from its making until `release`. Raises `JournalError` if another queue holds it."""

    def __init__(self, journal: str) -> None:
        self._path = f"{journal}.lock"
        self._key = os.path.realpath(journal)
        with _guard:
            if self._key in _held:
                raise JournalError(f"{journal}: expected a journal that is not open, got one that another queue of "
                                   "this process has open; close that first")  # fmt: skip
            _held.add(self._key)
        try:
            self._file = self._acquire(journal)
        except BaseException:
            self._give_back()
            raise
        #: The mark of the last process, if it did not close the journal.
        self.left = _parse(read_at(self._file.fileno(), SIZE, 0))
        self.mark((self.left or Mark(0))._replace(pid=os.getpid()))

    def _acquire(self, journal: str) -> FileIO:
        while True:
            try:
                file = FileIO(open_file(self._path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o600), "r+")
            except OSError as error:
                raise JournalError(
                    f"{journal}: expected a folder in which a journal and its lock file {self._path} can be made, got "
                    f"{error.strerror!r}; nothing was changed"
                ) from error
            try:
                _check_empty_lock(self._path, file)
                lock_file(file)
                if _is_at(file, self._path):  # otherwise its holder has just removed it
                    return file
                file.close()
            except JournalError:
                file.close()
                raise
            except OSError as error:
                words = read_at(file.fileno(), SIZE, 0).decode(errors="replace").split()
                file.close()
                raise JournalError(f"{journal}: expected a journal that is not open, got one that process "
                                   f"{words[0] if words else 'unknown'} has open; two writers are never allowed"
                                   ) from error  # fmt: skip

    def mark(self, mark: Mark) -> None:
        """Write how much is on disk. Costs a system call."""
        with contextlib.suppress(OSError):  # the disk may be full, the first time
            write_at(self._file.fileno(), mark.to_bytes(), 0)

    @property
    def is_in_place(self) -> bool:
        """False if the lock file was removed or exchanged."""
        return _is_at(self._file, self._path)

    def release(self, *, keep: bool = False) -> None:
        """Free the lock; the file is removed. With ``keep`` it stays with its mark, if it has one."""
        if keep and self.left is not None:
            self.mark(self.left)
        elif self.is_in_place:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        unlock_file(self._file.fileno())
        self._file.close()
        self._give_back()

    def _give_back(self) -> None:
        with _guard:
            _held.discard(self._key)


def _check_empty_lock(path: str, file: FileIO) -> None:
    """Raise `JournalError` unless it is a lock file of this user, which is about to be written."""
    found = os.fstat(file.fileno())
    check_stat(path, found)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > SIZE:
        raise JournalError(f"{path}: expected a lock file, got something else; it is left as it is")


def _is_at(file: FileIO, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:
        return False


def marked(journal: str) -> Mark | None:
    """Return the mark of a process that has not closed the journal; None if the last one did close it."""
    try:
        with open(open_file(f"{journal}.lock", os.O_RDONLY | NO_LINKS), "rb") as file:
            return _parse(file.read(SIZE))
    except OSError:
        return None


def is_held(journal: str) -> bool:
    """True while a queue, of any process, has the journal open. Never blocks one that opens it."""
    with _guard:
        if os.path.realpath(journal) in _held:
            return True
    try:
        fd = open_file(f"{journal}.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return is_locked(fd)
    except OSError:
        return False
    finally:
        os.close(fd)


in_each_fork(_held.clear)


# -- held files --------------------------------------------------------------------------------------------------------

#: The bytes that SQLite locks (https://www.sqlite.org/walformat.html): of the database while it is open, so that no
#: program ends the log; of the shared memory, so that none takes it for a dead process's. On Windows none is held:
#: while SQLite has a file open there, it can't be removed or renamed, and no copy ends a lock.
LOCKED = {} if IS_WINDOWS else {"": (0x40000002, 510), "-wal": None, "-shm": (128, 1)}


class MovedError(OSError):
    """A file of an open journal is not under its name any more."""


class HeldFiles:
    """The files of an open journal, held from its making, when the journal has a log, until `close`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._files: dict[str, FileIO] = {}
        self._is_held = True
        for suffix, held in LOCKED.items():
            try:
                file = FileIO(open_file(f"{path}{suffix}", os.O_RDWR | NO_LINKS), "r+")
            except FileNotFoundError:  # a connection that shares no memory
                continue
            self._files[suffix] = file
            close_in_each_fork(file)  # including the log, whose bytes are not held
            if held is not None:
                self._is_held = hold_bytes(file, *held) and self._is_held

    def check(self) -> None:
        """Raise `MovedError` if a file was removed, moved or exchanged. Costs three looks at names."""
        for suffix in self._files:
            if not self._is_in_place(suffix):
                name = f"{self._path}{suffix}"
                found = "another file" if os.path.exists(name) else "nothing"
                raise MovedError(f"expected the {name} that was opened, got {found} there; put it back")

    @property
    def only_log_is_gone(self) -> bool:
        """True if the log was removed while the file is in place, and no other program can have written it."""
        log = [suffix for suffix in self._files if suffix]
        changed = [suffix for suffix in log if not self._is_in_place(suffix)]
        others = any(os.path.exists(f"{self._path}{suffix}") for suffix in changed)
        return self._is_held and bool(changed) and not others and self._is_in_place("")

    def _is_in_place(self, suffix: str) -> bool:
        return _is_at(self._files[suffix], f"{self._path}{suffix}")

    def let_go(self) -> None:
        """Let SQLite end the log from now on, if no other program reads it."""
        for suffix, file in self._files.items():
            held = LOCKED[suffix]
            if held is not None:
                with contextlib.suppress(OSError):
                    release_bytes(file, *held)

    def close(self) -> None:
        """Close the files. Call it once SQLite has closed them: its own locks end with any descriptor of them."""
        for file in self._files.values():
            file.close()
        self._files.clear()
