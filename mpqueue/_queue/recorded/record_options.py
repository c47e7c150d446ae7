"""`RecordOptions`: how a job and what a journal has of it go together, by its user's word."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import TYPE_CHECKING, NamedTuple

from mpqueue._options import GivenOptions
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.identity import Key

#: What ``redo`` may be, beside a collection of ids.
REDO = ("failed", "changed-code", "all")

Redo = str | Collection[Hashable] | None


class RecordOptions(NamedTuple):
    """See `create_job`."""

    strict: bool = False
    update: bool = False
    key: Key | None = None
    version: str | None = None
    redo: Redo = None
    #: False for a job that is called after its handler, where other handlers may have that name: other code is refused.
    names_one: bool = True


def record_options(asked: GivenOptions) -> RecordOptions:
    """What was asked for. Raises TypeError or ValueError."""
    return RecordOptions(asked.strict, asked.update, asked.key, asked.version, check_redo(asked.redo))


def check_redo(redo: object) -> Redo:
    """The same. Raises TypeError or ValueError for what it can't be."""
    if redo is None or (isinstance(redo, str) and redo in REDO):
        return redo
    if isinstance(redo, str):
        raise ValueError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
    if not isinstance(redo, Collection):
        raise TypeError(f"redo: expected one of {', '.join(map(repr, REDO))}, or a list of ids, got {shown(redo)}")
    return redo


def check_open_record(options: RecordOptions) -> None:
    """Raise ValueError for what an open job has not: its items can't be compared with those that it had before."""
    for name, given in (("update", options.update), ("key", options.key)):
        if given:
            raise ValueError(
                f"{name}: expected none for an open job, got {shown(given)}: it takes whatever items come, and an item "
                "that is there already is left out, whatever has changed in it"
            )
