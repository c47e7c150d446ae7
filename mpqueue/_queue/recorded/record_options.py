"""`Rerun`: the user's options for a job that a journal has already; and keys that show the state of a file."""

from __future__ import annotations

import os
from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpqueue._options import check_bool, check_text
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.identity import Key

#: The values of ``redo``, beside a collection of ids.
REDO = ("failed", "changed-code", "all")

Redo = str | Collection[Hashable] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """Options for a job that the journal has when it is run again: ``create_job(rerun=Rerun(update=True))``.

    With ``update`` the job's items may differ from the recorded ones: new items run, changed items run again, and
    missing items do not count until they come back. Without it, different items are refused. ``key(item)`` is the state
    of an item, as bytes or a str: if the key differs, the item has changed (`file_key`, `content_key`); without
    ``key``, an item with an id has changed if its value differs. If the handler's ``version`` differs from the recorded
    one, everything runs again. Without a version there is a warning if the handler's code has changed since results
    were made, with ``strict`` a `JournalMismatchError`. ``redo`` runs ended items again: ``"failed"`` items, those with
    results of other code (``"changed-code"``), ``"all"``, or the items of these ids.

    Raises TypeError or ValueError. Without a journal, so does the call that gets it.
    """

    update: bool = False
    key: Key | None = None
    version: str | None = None
    redo: Redo = None
    strict: bool = False

    def __post_init__(self) -> None:
        check_bool("update", self.update)
        key: object = self.key
        if key is not None and not callable(key):
            raise TypeError(f"key: expected a function of an item, got {shown(key)} of type {type(key).__name__}")
        if self.version is not None:
            object.__setattr__(self, "version", check_text("version", self.version))
        redo: object = self.redo
        if isinstance(redo, str) and redo not in REDO:
            raise ValueError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
        if redo is not None and not isinstance(redo, Collection):
            raise TypeError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
        check_bool("strict", self.strict)


def check_rerun(rerun: object, *, has_journal: bool) -> Rerun:
    """Return the `Rerun`, or its defaults. Raises TypeError for anything else, ValueError without a journal."""
    if rerun is None:
        return Rerun()
    if not isinstance(rerun, Rerun):
        raise TypeError(
            f"rerun: expected a Rerun, such as mpqueue.Rerun(update=True), got {shown(rerun)} of type "
            f"{type(rerun).__name__}"
        )
    if not has_journal:
        raise ValueError(
            f"rerun: expected a journal as well, which records earlier runs, got {rerun} without one; pass journal= to "
            "the queue, or to map and imap"
        )
    return rerun


def check_of_stream(rerun: Rerun) -> None:
    """Raise ValueError for options that streams don't have: their items come later, and may be any."""
    if rerun.update:
        raise ValueError("update: expected False for a stream, which takes whatever items come, got True")
    if rerun.redo not in (None, *REDO):
        raise ValueError(
            f"redo: expected {', '.join(map(repr, REDO[:-1]))} or {REDO[-1]!r} for a stream, got {shown(rerun.redo)}"
        )


def check_of_open_job(rerun: Rerun) -> None:
    """Raise ValueError for options that open jobs don't have: their items can't be compared with the recorded ones."""
    for name, given in (("update", rerun.update), ("key", rerun.key)):
        if given:
            raise ValueError(
                f"{name}: expected none for an open job, got {shown(given)}: it takes whatever items come, and an item "
                "that is there already is left out, whatever has changed in it"
            )


# -- `file_key` and `content_key`: the state of a file, for ``Rerun(key=)``. -------------------------------------------

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def file_key(path: Path) -> str:
    """The size of a file and the time of its last change (in ns): for ``Rerun(key=mpqueue.file_key)``.

    Costs one file system call, about 2 us on a local disk; the file is not read. It misses changes by tools that
    restore a file's size and time; `content_key` finds them. Raises OSError if there is no such file, TypeError if the
    item is no path.
    """
    found = os.stat(_check_path("file_key", path))
    return f"{found.st_size} {found.st_mtime_ns}"


def content_key(path: Path) -> bytes:
    """The BLAKE2b digest of a file's content: for ``Rerun(key=mpqueue.content_key)``.

    Reads the whole file, about 1 s per GB. Raises OSError if the file can't be read, TypeError if the item is no path.
    """
    import hashlib  # takes 5 MB

    with open(_check_path("content_key", path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()


def _check_path(name: str, path: Path) -> Path:
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(
            f"{name}: expected the path of a file, got {shown(path)} of type {type(path).__name__}; for items that "
            f"hold one pass key=lambda item: mpqueue.{name}(item[...])"
        )
    return path
