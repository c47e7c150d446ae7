"""That a journal is its user's own. To read one is to unpickle it, so what others may have written is never read.

Checked each time before anything is opened: the file, and what stands beside it (log, lock, folder of big values).
Their owner must be this user or root, and no other user may write them. The rights of the *folder* are not checked:
what others put there belongs to them, and is refused for that.

One that is to be written has one name besides: its lock and its log are found by that.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterable

from mpqueue._os.files import others_may_write, this_user
from mpqueue._whole_file import is_trusted
from mpqueue.errors import JournalError

#: What stands beside a journal.
BESIDE = ("", "-wal", "-shm", "-journal", ".lock", ".running", ".files")
#: Those of them that a queue goes on to write.
_WRITTEN = ("", "-wal", "-journal", ".lock")


def own_path(path: str) -> str:
    """The path in full, with links resolved. Raises `JournalError` for a link of another user's."""
    try:
        link = os.lstat(path)
    except (OSError, ValueError):
        return os.path.realpath(path)
    if stat.S_ISLNK(link.st_mode):
        _check_owner(path, link)
    return os.path.realpath(path)


def check_own(path: str) -> None:
    """Raise `JournalError` where another user may have written the journal, or what is beside it."""
    for suffix in BESIDE:
        name = f"{path}{suffix}"
        try:
            found = os.lstat(name)
            if stat.S_ISLNK(found.st_mode):  # of this user's: a folder on another disk
                _check_owner(name, found)
                found = os.stat(name)
        except OSError:  # it is not there, or is met again when it is opened
            continue
        check_stat(name, found)


def check_one_name(path: str) -> None:
    """Raise `JournalError` where a file of the journal has another name as well: a hard link.

    The lock and the log have this name: a program that opens the journal by the other one does not find them.
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
    """The command that makes them files of their own."""
    pairs = [(shlex.quote(name), shlex.quote(f"{name}.own")) for name in names]
    return " && ".join(f"cp -p {name} {own} && mv {own} {name}" for name, own in pairs)


def _links(name: str) -> int:
    try:
        found = os.lstat(name)
    except OSError:
        return 0
    return found.st_nlink if stat.S_ISREG(found.st_mode) else 0


def check_stat(name: str, found: os.stat_result) -> None:
    """The same for one file that is there."""
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
