"""Decides which items of a recorded job run again, and which outcomes count: for lists, open jobs and streams.

Pure: from a journal's record and the program's job, it makes a plan, which `JobPlan` shows and a run follows. It reads
no journal, runs no code of users' classes, and starts nothing. The items' standings are a column of bytes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._parent.journal.suspects import is_guilty
from mpqueue._queue.recorded.code_parts import Code, CodeNow
from mpqueue._queue.recorded.record_options import Rerun
from mpqueue._wire.item_names import IdRule
from mpqueue.errors import JournalMismatchError, shown
from mpqueue.status import COMPLETED, FAILED, OVER, PENDING, JobKind, JobStatus

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob
    from mpqueue._parent.journal.matching import Match

#: Advice about changed code.
WAYS = "Rerun(redo='changed-code') (--redo changed-code), or a new version=, runs them again"
#: What happens without that.
NOT_AGAIN = "what is done is not done again"

#: The standing of an item in a plan, other than its status in the journal: it is new; it runs as if for the first time,
#: also in the journal, since it has changed or its user wants that; its result is missing; it had failed, and is tried
#: again; it no longer counts.
NEW, AGAIN, LOST, RETRIED, GONE = range(251, 256)


#: What the jobs of each kind are, and the call that resumes them, for people.
_KINDS = {
    JobKind.LIST: ("a job with a list of items", "create_job"),
    JobKind.OPEN: ("an open job", "open_job"),
    JobKind.STREAM: ("a stream", "imap"),
    JobKind.STAGES: ("a job with stages", "run_stages"),
}


def check_kind(recorded: RecordedJob, kind: JobKind, path: str) -> None:
    """Raise `JournalMismatchError` if the recorded job is of another kind than the program's."""
    if recorded.kind is not kind:
        (expected, _), (what, call) = _KINDS[kind], _KINDS[recorded.kind]
        raise JournalMismatchError(
            f"job {recorded.id!r} in {path}: expected {expected}, got {what}, which {call}() resumes; nothing was "
            "changed; use another id, or call clear_job()"
        )


class MadeBy:
    """The codes that made the results of one job, compared with today's code.

    A job has a list of all ``codes`` that made its results, its handler's last; a row has the number of one of these,
    or of none, if it is not known. ``changed`` are the indices of items with results of other code.
    """

    def __init__(self, codes: Iterable[tuple[Any, ...]], now: CodeNow) -> None:
        self._now = now
        self._codes = {code.number: code for code in (Code(*each) for each in codes)}
        self._last = next(reversed(self._codes), None)
        self._number = now.code.number
        self.changed: array[int] = array("Q")
        self._numbers = Counter[int]()  #: the numbers of ended items, by code, after a look at them

    @property
    def is_new(self) -> bool:
        """True if the job's recorded handler has other code than today's."""
        return self._last != self._number

    @property
    def may_differ(self) -> bool:
        """False if all results are known to be made with today's code: then no row has to be read."""
        return [*self._codes] != [self._number]

    def all(self) -> list[Code]:
        """All codes, today's last."""
        return [*(code for one, code in self._codes.items() if one != self._number), self._now.code]

    def look(self, ended_by: Iterable[int]) -> None:
        """Count items, by the numbers of the codes that ended them; -1: it has not ended."""
        for index, number in enumerate(ended_by):
            if number >= 0:
                self._numbers[number] += 1
                if self.is_other(number):
                    self.changed.append(index)

    def is_other(self, number: int) -> bool:
        """True if that code is known, and differs from today's."""
        code = self._codes.get(number)
        return code is not None and code.python == self._now.code.python and number != self._number

    def is_unknown(self, number: int) -> bool:
        """True if that code can't be compared with today's."""
        return number != self._number and not self.is_other(number)

    def describe_change(self) -> str:
        """Describe the changes since other code made some of the results, for people; empty if there are none."""
        others = [self._codes[number] for number in self._numbers if self.is_other(number)]
        if not others:
            return ""
        return f"{self._now.describe(others)} since {_counted(len(self.changed))} made"

    def describe_unknown(self) -> str:
        """Describe how many results are of code that can't be compared; empty if there are none."""
        unknown = {number: count for number, count in self._numbers.items() if self.is_unknown(number)}
        if not unknown:
            return ""
        pythons = {self._codes[each].python.partition("/")[0] for each in unknown if each in self._codes}
        why = f"Python {', '.join(sorted(pythons))} made them" if pythons else "what made them is not recorded"
        return (
            f"whether the code has changed since {_counted(sum(unknown.values()))} made can't be known: {why}; "
            f"{NOT_AGAIN}; Rerun(redo='all') runs everything again"
        )


def _counted(count: int) -> str:
    return f"{count:,} of these results {'was' if count == 1 else 'were'}"


# -- the job as a whole ------------------------------------------------------------------------------------------------


class Brought(NamedTuple):
    """The program's side of a job, beside its items: its code, options, and a seed if it gave one.

    ``names_one``: the job's name stands for one handler.
    """

    code: CodeNow
    options: Rerun
    seed: int | None = None
    max_retries: int = 0
    wants_results: bool = True
    names_one: bool = True


class Case(NamedTuple):
    """A recorded job, in the journal of that path, and its program's side. ``made`` has looked at the results."""

    recorded: RecordedJob
    path: str
    made: MadeBy
    brought: Brought

    @property
    def options(self) -> Rerun:
        """The program's options."""
        return self.brought.options

    @property
    def anew(self) -> bool:
        """True if all of it runs again."""
        options, recorded = self.options, self.recorded
        if options.redo == "all" or (options.version is not None and options.version != recorded.version):
            return True
        return recorded.kind is JobKind.OPEN and options.redo == "changed-code" and bool(self.made.changed)

    @property
    def where(self) -> str:
        """The job's id and its journal, for people."""
        return f"job {self.recorded.id!r} in {self.path}"


def agree(case: Case) -> list[str]:
    """Return warnings, for people, about a run in this case: of kept results of changed code, and of another seed.

    With ``strict`` both are refused, by `JournalMismatchError`. Other code is also refused for a call that may be of
    another callable than the recorded one. Raises ValueError if ``redo`` does not suit an open job.
    """
    recorded, made, options, seed = case.recorded, case.made, case.options, case.brought.seed
    kind, redo = recorded.kind, options.redo
    if kind is JobKind.OPEN and redo and not isinstance(redo, str) and recorded.rule == IdRule.POSITION:
        raise ValueError(
            f"redo: expected 'failed', 'changed-code' or 'all' for an open job whose items have no ids, got "
            f"{shown(redo)}: items that it adds again could not be distinguished from those it had added before"
        )
    change = unknown = ""
    if not case.anew and options.version is None:
        if made.is_new or options.strict or redo == "changed-code":
            unknown = made.describe_unknown()
        if redo != "changed-code":
            change = made.describe_change()
    is_other_seed = seed not in (None, recorded.seed) and not (case.anew and kind in (JobKind.OPEN, JobKind.STREAM))
    if change and not case.brought.names_one:
        raise JournalMismatchError(
            f"{case.where}: {change}; so these may be results of another callable by that name, and nothing was "
            f"changed; expected a job_id= of its own for each callable; {WAYS}"
        )
    other_seed = "its seed has changed since it was recorded" if is_other_seed else ""
    changes, ways = "; ".join(filter(None, (change, other_seed))), f"; {WAYS}" if change else ""
    if changes and options.strict:
        raise JournalMismatchError(
            f"{case.where}: {changes}; with Rerun(strict=True) that is refused, and nothing was changed{ways}"
        )
    warnings = [f"{case.where}: {changes}; {NOT_AGAIN}{ways}"] if changes else []
    return [*warnings, f"{case.where}: {unknown}"] if unknown else warnings


# -- its items ---------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """The facts that a journal has of a job's items, by their indices.

    ``status`` is the recorded one. If results are wanted, ``unreadable`` are items whose results can't be read,
    ``discarded`` those that have none. ``suspects`` has, by slot, how far each is suspected of ending its program.
    """

    status: bytearray
    ids: Sequence[Hashable]
    unreadable: Collection[int] = ()
    discarded: Collection[int] = ()
    suspects: Mapping[int, int] = {}


@dataclass(slots=True)
class Plan:
    """The plan of a run: ``stands`` has each item's status in the journal, or one of the standings above.

    ``lost`` are items of an open job that are missing and can't run, the last one first. ``unreadable`` and
    ``discarded`` run again since their results can't be read, or were not kept; ``unknown`` since they may have
    changed. ``guilty`` have failed, since they end their program; ``suspects`` run with care, each with its degree. If
    ``code_is_new``, the handlers have other code than the recorded ones.
    """

    stands: bytearray
    warnings: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    unreadable: list[int] = field(default_factory=list)
    discarded: list[int] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)
    guilty: dict[int, int] = field(default_factory=dict)
    suspects: dict[int, int] = field(default_factory=dict)
    status: JobStatus = JobStatus.PENDING  #: of the job
    code_is_new: bool = False

    def any(self, *how: int) -> bool:
        """True if any item has this standing."""
        return any(self.stands.count(each) for each in how)

    def those(self, *how: int) -> Iterable[int]:
        """The indices of the items with this standing, in order."""
        return self.pick(range(len(self.stands)), *how) if self.any(*how) else ()

    def pick(self, column: Sequence[Any], *how: int) -> Iterator[Any]:
        """Return the column's values for items with this standing."""
        return compress(column, self.stands.translate(bytes(each in how for each in range(256))))

    def put(self, indices: Iterable[int], how: int) -> None:
        """Give these items this standing."""
        for index in indices:
            self.stands[index] = how

    def follow(self, table: ItemTable) -> None:
        """Write the standings into the job's table, except for items that had failed, or end their program."""
        table.start_afresh(self.those(AGAIN))
        for index in self.those(LOST):
            table.status[index], table.results[index] = PENDING, None

    @property
    def to_run(self) -> int:
        """The number of items that run."""
        return len(self.stands) - sum(map(self.stands.count, (COMPLETED, FAILED, GONE)))


def decide(case: Case, warnings: Iterable[str], match: Match, found: Found) -> Plan:
    """Plan a run of a list's items; ``match`` has the recorded ones.

    Raises `JournalMismatchError` for other items, unless ``update``; ValueError if ``redo`` has an id that none has.
    """
    recorded, made, options = case.recorded, case.made, case.options
    if not (options.update or match.is_same):
        raise JournalMismatchError(f"{case.where}: expected the items that it was recorded with, got others: {match}; "
                                   "Rerun(update=True) runs those; nothing was changed")  # fmt: skip
    plan = Plan(bytearray(found.status), [*warnings], code_is_new=made.is_new)
    plan.unknown += [index for index in match.unknown if found.status[index] in (COMPLETED, FAILED)]
    plan.put(match.changed, AGAIN)
    if case.anew:
        plan.stands[:] = bytes((AGAIN,)) * len(plan.stands)
    elif options.redo == "changed-code":
        plan.put(made.changed, AGAIN)
    elif options.redo is not None and not isinstance(options.redo, str):
        plan.put(_indices_of(options.redo, found), AGAIN)
    plan.put(match.new, NEW)
    _lose(plan, found)
    if options.redo == "failed":
        plan.stands = plan.stands.replace(bytes((FAILED,)), bytes((RETRIED,)))
    judge(plan, match.slots, found.suspects, case.brought.max_retries)
    counted = recorded.completed + recorded.failed - len(plan.unreadable) - len(plan.discarded)
    more = counted - plan.stands.count(COMPLETED) - plan.stands.count(FAILED)
    if match.is_same and more > 0 and not plan.any(AGAIN, RETRIED):
        plan.warnings.append(f"job {recorded.id!r}: {more} items more have ended by its counts in {case.path} than by "
                             "its rows, so these run again")  # fmt: skip
    plan.status = _status(recorded.status, plan)
    return plan


def _indices_of(ids: Collection[Hashable], found: Found) -> Iterable[int]:
    """Return the indices of the items with these ids, which run again. Raises ValueError for an id that none has."""
    index_of = {item_id: index for index, item_id in enumerate(found.ids)}
    unknown = [item_id for item_id in ids if item_id not in index_of]
    if unknown:
        raise ValueError(f"redo: expected ids of the job's items, got {shown(unknown[0])}")
    return [index_of[item_id] for item_id in ids]


def _lose(plan: Plan, found: Found) -> None:
    """Run items again whose results are missing, unless they run anyway."""
    ready = (NEW, AGAIN)
    plan.unreadable += [index for index in found.unreadable if plan.stands[index] not in ready]
    plan.put(plan.unreadable, LOST)
    plan.discarded += [index for index in found.discarded if plan.stands[index] == COMPLETED]
    plan.put(plan.discarded, LOST)


def judge(plan: Plan, slots: Sequence[int], counts: Mapping[int, int], max_retries: int) -> None:
    """Count items that may have ended their program too often as failed, unless they run afresh, or are tried again."""
    done = (COMPLETED, FAILED, NEW, AGAIN)
    for index, slot in enumerate(slots) if counts else ():
        if slot in counts and plan.stands[index] not in done:
            has_failed = is_guilty(counts[slot], max_retries) and plan.stands[index] != RETRIED
            (plan.guilty if has_failed else plan.suspects)[index] = counts[slot]
    plan.put(plan.guilty, FAILED)


def _status(recorded: JobStatus, plan: Plan) -> JobStatus:
    """Return the job's new status: a job that was over still is if nothing runs."""
    if recorded not in OVER:
        return recorded
    if plan.to_run:
        return JobStatus.PENDING
    return JobStatus.COMPLETED_WITH_ERRORS if plan.any(FAILED) else JobStatus.COMPLETED


def regrow(
    found: Found,
    redo: Collection[Hashable],
    *,
    present: Sequence[int],
    makers: Sequence[int],
    is_lost: Callable[[int], bool],
    have_no_ids: bool,
) -> Plan:
    """Plan a run of an open job's items, before any are added again; those with ids in ``redo`` run again.

    By slot, ``present`` has a 1 for each item that counts, ``makers`` the slot of the item whose handler has added it
    (negative: the user has); an item that ``is_lost`` is missing and can't run. ``have_no_ids``: the items have no ids.
    Raises ValueError for an id in ``redo`` that none has.

    Items that have not ended run, also those that handlers had added. So each item has to be in the journal, or to be
    added again: by the user, or by its maker, which runs again for that. If a maker runs again, say because its result
    is lost, it adds its items again. Items with ids are then left out, since the job has them. Items without ids are
    new, so the ones that the maker had added no longer count.
    """
    plan = Plan(bytearray(found.status))
    _lose(plan, found)
    stands = plan.stands
    plan.put([slot for slot, there in enumerate(present) if not there], GONE)

    def again(slots: Iterable[int]) -> None:
        plan.put([slot for slot in slots if stands[slot] not in (PENDING, GONE)], AGAIN)

    again(_indices_of(redo, found) if redo else ())
    for slot in range(len(stands) - 1, -1, -1):  # a maker comes before its items
        if stands[slot] not in (COMPLETED, FAILED, GONE) and is_lost(slot):
            stands[slot] = GONE
            plan.lost.append(slot)
            if makers[slot] >= 0:
                again([makers[slot]])
    if have_no_ids:
        for slot, maker in enumerate(makers):
            if maker >= 0 and stands[slot] != GONE and stands[maker] != COMPLETED:
                stands[slot] = GONE
                if stands[maker] == LOST:
                    stands[maker] = AGAIN
    return plan
