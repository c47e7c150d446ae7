"""`JobPlan`: what a job would do, given what a journal has of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import ItemTable
from mpqueue.status import COMPLETED, FAILED, PENDING

if TYPE_CHECKING:
    from mpqueue._parent.journal.items.matching import Match
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._queue.new_job import RecordOptions


#: What stands in the column of statuses for items that are not recorded as they are now.
_CHANGED, _NEW = 254, 255


@dataclass(frozen=True, slots=True)
class JobPlan:
    """What `JobQueue.create_job` with ``update=True`` would find. Each field but the last two has items' ids.

    ``same`` are recorded, and as they were; ``failed`` are those of them that failed for good, which do not run again
    by themselves. ``changed`` would run again, ``new`` for the first time. ``gone`` are recorded, and are not among the
    items any more; of items whose ids are their positions, these are the items themselves.
    """

    same: tuple[Hashable, ...] = ()
    changed: tuple[Hashable, ...] = ()
    new: tuple[Hashable, ...] = ()
    gone: tuple[Any, ...] = ()
    failed: tuple[Hashable, ...] = ()
    to_run: int = 0  #: how many would run
    code_changed: bool = False  #: the handler's code has changed since some of the results were made

    def __str__(self) -> str:
        counts = (
            f"{len(ids)} {what}"
            for what, ids in (
                ("same", self.same), ("changed", self.changed), ("new", self.new), ("gone", self.gone),
                ("failed", self.failed),
            )
        )  # fmt: skip
        return f"{', '.join(counts)}; {self.to_run} to run"


def plan(
    reader: Reader | None,
    recorded: RecordedJob | None,
    table: ItemTable,
    functions: tuple[Any, Any],
    options: RecordOptions,
    *,
    wants_results: bool,
) -> JobPlan:
    """What the journal (None: there is none yet) says of these items, as those of that job (None: a new one).

    Changes nothing.

    Raises what `create_job` raises of a journal and of items.
    """
    from mpqueue._parent.journal.code.code_parts import code_of  # a part of what only journals need
    from mpqueue._parent.journal.code.made_by import MadeBy
    from mpqueue._parent.journal.items.inventory import Inventory
    from mpqueue._queue.new_job import check_is_list
    from mpqueue._queue.recorded.again import choose_again

    if reader is None or recorded is None:
        return JobPlan(new=tuple(map(table.id_of, range(len(table)))), to_run=len(table))
    check_is_list(recorded, reader)
    known, code = recorded, code_of(*functions)

    def find() -> tuple[RecordedJob, Match, list[Any], MadeBy]:
        now = reader.now(known)
        match = Inventory(table, options.key).match(reader, now)
        table.start_afresh(range(len(table)) if any(table.status) else ())  # a look before this one was not whole
        made = MadeBy(reader, now, code)
        codes = reader.fill_statuses(table, now)
        if made.may_differ:
            made.look(table.status, codes)
        return now, match, reader.names(now) if match.gone else [], made

    recorded, match, named, made = reader.at_once(find)
    again = choose_again(table, match, recorded, options, changed=made.changed)
    status = table.status
    for index in table.discarded() if wants_results else ():
        status[index] = PENDING
    for indices, what in ((match.changed, _CHANGED), (again.afresh, _CHANGED), (match.new, _NEW)):
        for index in indices:
            status[index] = what
    to_run = len(status) - status.count(COMPLETED) - (0 if again.failed else status.count(FAILED))
    gone = tuple(named[slot] for slot in match.gone)
    code_changed = bool(made.changed)
    del match, again, named, made  # the tuples of ids take as much as all of this
    table.results.clear()
    ids: Sequence[Hashable] = range(len(table)) if table.ids is None else table.ids

    def those(*codes: int) -> tuple[Hashable, ...]:
        return tuple(compress(ids, status.translate(bytes(code in codes for code in range(256)))))

    same = set(range(256)).difference((_CHANGED, _NEW))
    return JobPlan(
        those(*same),
        those(_CHANGED),
        those(_NEW),
        gone,
        those(FAILED),
        to_run,
        code_changed,
    )
