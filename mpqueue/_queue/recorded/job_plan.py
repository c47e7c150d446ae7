"""`JobPlan`: what a job would do, given what a journal has of it; and the look at that, which a run begins with too."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue.errors import JournalMismatchError
from mpqueue.status import FAILED

if TYPE_CHECKING:
    from mpqueue._parent.journal.chunk_rows import Results
    from mpqueue._parent.journal.journal_reader import Reader, RecordedJob
    from mpqueue._parent.journal.matching import Match
    from mpqueue._queue.recorded.code_parts import CodeNow
    from mpqueue._queue.recorded.inventory import Inventory
    from mpqueue._queue.recorded.resume import MadeBy, Plan, Terms


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


class Brought(NamedTuple):
    """What a program brings for a job, beside its items: a seed where it gave one, and what its handler is made of."""

    code: CodeNow
    options: RecordOptions
    seed: int | None = None
    max_retries: int = 0
    wants_results: bool = True


class Compared(NamedTuple):
    """A job's items, compared with those that its journal has. ``gone`` are as in `JobPlan`."""

    recorded: RecordedJob
    match: Match
    made: MadeBy
    terms: Terms
    plan: Plan
    gone: tuple[Any, ...] = ()


def compare(
    reader: Reader,
    recorded: RecordedJob,
    inventory: Inventory,
    brought: Brought,
    suspects: Mapping[int, int],
    results: Results,
) -> Compared:
    """Have the inventory's table say how its items ended, and what is to be done with them. Changes nothing else.

    Raises what `create_job` raises of a journal and of items.
    """
    from mpqueue._parent.journal.chunk_rows import Results  # a part of what only journals need
    from mpqueue._queue.recorded.resume import Case, Found, Kind, MadeBy, agree, decide, refuse_form, refuse_kind

    table = inventory.table
    refused = refuse_kind(f"job {recorded.id!r} in {reader.path}", Kind.LIST, recorded)
    if refused:
        raise JournalMismatchError(refused)

    def find() -> Compared:
        now = reader.now(recorded)
        match = inventory.match(reader, now)
        table.start_afresh(range(len(table)) if any(table.status) else ())  # a look before this one was not whole
        made = MadeBy(reader.codes(now), brought.code, is_older=now.code_hash is not None)
        if refused := refuse_form(f"job {recorded.id!r} in {reader.path}", made):
            raise JournalMismatchError(refused)
        rows = reader.fill(table, now, results, codes=made.may_differ)
        if made.may_differ:
            made.look(table.status, rows.codes)
        case = Case(now, reader.path, made, brought.options, brought.seed, brought.max_retries)
        ids = range(len(table)) if table.ids is None else table.ids
        discarded = table.discarded() if brought.wants_results else ()
        terms = agree(case)
        found = Found(table.status, ids, sorted(rows.unreadable | rows.lost), discarded, suspects)
        plan = decide(case, terms, match, found)
        gone: tuple[Any, ...] = ()
        if match.gone and results is Results.LEFT_OUT:
            names = reader.names(now)
            gone = tuple(names[slot] for slot in match.gone)
        return Compared(now, match, made, terms, plan, gone)

    return reader.at_once(find)


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

    Changes nothing. Raises what `compare` raises.
    """
    if reader is None or recorded is None:
        return JobPlan(new=tuple(map(table.id_of, range(len(table)))), to_run=len(table))
    from mpqueue._parent.journal.chunk_rows import Results  # a part of what only journals need
    from mpqueue._queue.recorded.code_parts import code_of
    from mpqueue._queue.recorded.inventory import Inventory
    from mpqueue._queue.recorded.resume import AGAIN, CHANGED, NEW, RETRIED

    inventory = Inventory(table, options.key)
    brought = Brought(code_of(*functions), options._replace(update=True, strict=False), wants_results=wants_results)
    compared = compare(reader, recorded, inventory, brought, {}, Results.LEFT_OUT)
    found, gone, code_changed = compared.plan, compared.gone, bool(compared.made.changed)
    del compared, inventory  # the tuples of ids take as much as all of this
    table.results.clear()
    ids: Sequence[Hashable] = range(len(table)) if table.ids is None else table.ids
    others = set(range(256)).difference((CHANGED, AGAIN, NEW))
    return JobPlan(
        tuple(found.pick(ids, *others)),
        tuple(found.pick(ids, CHANGED, AGAIN)),
        tuple(found.pick(ids, NEW)),
        gone,
        tuple(found.pick(ids, FAILED, RETRIED)),
        found.to_run,
        code_changed,
    )
