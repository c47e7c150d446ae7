"""`JobPlan`: what a job would do, given its record in a journal; runs begin with the same comparison."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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
    from mpqueue._queue.recorded.inventory import Inventory
    from mpqueue._queue.recorded.resume import Brought, Case, Kind, Plan, Terms


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The plan of `JobQueue.create_job` with ``Rerun(update=True)``. Each field but the last two has items' ids.

    ``same`` are recorded and unchanged; ``failed`` are those among them that failed for good and do not run again by
    themselves. ``changed`` would run again, ``new`` for the first time. ``gone`` are recorded, but are no longer among
    the items; if ids are positions, these are the items themselves.
    """

    same: tuple[Hashable, ...] = ()
    changed: tuple[Hashable, ...] = ()
    new: tuple[Hashable, ...] = ()
    gone: tuple[Any, ...] = ()
    failed: tuple[Hashable, ...] = ()
    to_run: int = 0  #: how many items would run
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


class Compared(NamedTuple):
    """A job's items, compared with the journal's. ``gone`` are as in `JobPlan`."""

    case: Case
    match: Match
    terms: Terms
    plan: Plan
    gone: tuple[Any, ...] = ()


def case_of(reader: Reader, recorded: RecordedJob, kind: Kind, brought: Brought) -> Case:
    """Return a recorded job of the expected kind. Raises `JournalMismatchError` if it is of another kind."""
    from mpqueue._queue.recorded.resume import Case, MadeBy, refuse_kind  # only journals need it

    case = Case(recorded, reader.path, MadeBy(reader.codes(recorded), brought.code), brought)
    if refused := refuse_kind(case, kind):
        raise JournalMismatchError(refused)
    return case


def compare(
    reader: Reader,
    recorded: RecordedJob,
    inventory: Inventory,
    brought: Brought,
    results: Results,
) -> Compared:
    """Note in the inventory's table how its items ended, and what the run does with them. Changes nothing else.

    Raises the errors of `create_job` about journals and items.
    """
    from mpqueue._parent.journal.chunk_rows import Results  # only journals need it
    from mpqueue._queue.recorded.resume import Found, Kind, agree, decide

    table = inventory.table

    def find() -> Compared:
        kind = Kind.STAGES if brought.code.code.is_of_stages else Kind.LIST
        case = case_of(reader, reader.now(recorded), kind, brought)
        match, made = inventory.match(reader, case.recorded), case.made
        table.start_afresh(range(len(table)) if any(table.status) else ())  # a look before this one was incomplete
        rows = reader.fill(table, case.recorded, results)
        if made.may_differ:
            made.look(reader.outcomes(case.recorded).ended_by(match.slots))
        ids = range(len(table)) if table.ids is None else table.ids
        discarded = table.discarded() if brought.wants_results else ()
        suspects, missing = reader.suspects(case.recorded.number), sorted(rows.unreadable | rows.lost)
        terms, found = agree(case), Found(table.status, ids, missing, discarded, suspects)
        plan = decide(case, terms, match, found)
        names = reader.names(case.recorded) if match.gone and results is Results.LEFT_OUT else ()
        return Compared(case, match, terms, plan, tuple(names[slot] for slot in match.gone) if names else ())

    return reader.at_once(find)


def plan(
    reader: Reader | None,
    recorded: RecordedJob | None,
    table: ItemTable,
    functions: tuple[Any, Any],
    options: RecordOptions,
    *,
    max_retries: int,
    wants_results: bool,
) -> JobPlan:
    """Plan a job of these items, by its journal (None: there is none yet) and its ``recorded`` job (None: a new job).

    Changes nothing. Raises the errors of `compare`.
    """
    if reader is None or recorded is None:
        return JobPlan(new=tuple(map(table.id_of, range(len(table)))), to_run=len(table))
    from mpqueue._parent.journal.chunk_rows import Results  # only journals need it
    from mpqueue._queue.recorded.code_parts import code_of
    from mpqueue._queue.recorded.inventory import Inventory
    from mpqueue._queue.recorded.resume import AGAIN, CHANGED, NEW, RETRIED, Brought

    inventory = Inventory(table, options.key)
    options = options._replace(update=True, strict=False)
    brought = Brought(code_of(*functions), options, None, max_retries, wants_results)
    compared = compare(reader, recorded, inventory, brought, Results.LEFT_OUT)
    found, gone, code_changed = compared.plan, compared.gone, bool(compared.case.made.changed)
    del compared, inventory  # the tuples of ids take as much as all the rest
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
