"""What a run does again of a recorded job: whatever happened before, it is what a dictionary says.

A history is a number of runs of one job. The dictionary has a record of each slot. Each run comes with items, options
and code; the plan is compared with the records one by one, and followed: some of what is to run does, the rest is
killed, and an item that was running then is suspected.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from mpqueue._parent.journal.identity import SIZE, UNKNOWN, What
from mpqueue._parent.journal.journal_reader import RecordedJob
from mpqueue._parent.journal.matching import NO_SLOT, Match, match
from mpqueue._parent.journal.suspects import RunningMark, suspect
from mpqueue._queue.recorded.code_parts import PYTHON, Code, CodeNow
from mpqueue._queue.recorded.record_options import Rerun
from mpqueue._queue.recorded.resume import (
    AGAIN,
    GONE,
    LOST,
    NEW,
    RETRIED,
    Brought,
    Case,
    Found,
    MadeBy,
    Plan,
    agree,
    decide,
    regrow,
)
from mpqueue.errors import JournalMismatchError
from mpqueue.status import COMPLETED, FAILED, PENDING, JobKind, JobStatus
from tests.support.histories import play
from tests.support.length import IS_LONG

#: A tenth of all.
HISTORIES = 1_000 if IS_LONG else 4
DONE = (COMPLETED, FAILED)
OLD_PYTHON = "3.9/1"


def code_of(number: int) -> Code:
    """The code of which each number stands for another one; 3 was compiled by another Python."""
    return Code(OLD_PYTHON if number == 3 else PYTHON, {"f": str(number)}, {})


def recorded_job(**columns: Any) -> RecordedJob:
    """A line of a job; with what is not named as it is in a job that has just been written."""
    line: dict[str, Any] = {
        "number": 1, "id": "job", "total": 0, "rule": "key", "seed": 1,
        "created_at": 0.0, "status": JobStatus.PENDING, "started_at": None, "finished_at": None, "duration": None,
        "completed": 0, "failed": 0, "retries": 0, "version": None, "python": None, "count": 0, "handler_name": None,
    }  # fmt: skip
    return RecordedJob(**{**line, **columns})


@dataclass
class Record:
    """What a journal says of the item in one slot."""

    identity: int
    state: int  #: 0: unknown
    status: int = PENDING
    code: int = 0
    is_unreadable: bool = False
    is_discarded: bool = False

    def forget(self) -> None:
        self.status, self.is_unreadable, self.is_discarded = PENDING, False, False


@dataclass
class Journal:
    """By slots, and in which order the items were last."""

    records: dict[int, Record] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    version: str | None = None
    codes: list[int] = field(default_factory=list)
    suspects: dict[int, int] = field(default_factory=dict)
    status: JobStatus = JobStatus.PENDING

    @property
    def gone(self) -> list[int]:
        return [slot for slot in self.records if slot not in self.order]


def block(items: list[tuple[int, int]]) -> Iterator[What]:
    """These identities and states, as they are compared."""
    identities = b"".join(identity.to_bytes(SIZE, "big") for identity, _ in items)
    states = b"".join(UNKNOWN if not state else state.to_bytes(SIZE, "little") for _, state in items)
    yield identities, states


class History:
    """Runs of one list."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.items = [(chance.randrange(1, 9), 1) for _ in range(chance.randrange(12))]
        self.journal = Journal()
        self.code = 1
        self.names_one = True  #: the job's name stands for one handler
        self.uncounted = 0  #: items that have ended by the job's line, and by no row

    def edit(self) -> None:
        items, chance = self.items, self.chance
        for _ in range(chance.randrange(4)):
            what, place = chance.randrange(5), chance.randrange(len(items) + 1)
            if what == 0 or place == len(items):
                items.insert(place, (chance.randrange(1, 9), 1))
            elif what == 1:
                del items[place]
            elif what == 2:
                items[place] = items[place][0], chance.choice([0, 1, 2, 3])
            elif what == 3:
                chance.shuffle(items)
        self.code = chance.choice([self.code] * 4 + [1, 2, 3])

    def options(self) -> Rerun:
        chance = self.chance
        ids = chance.sample(range(len(self.items)), chance.randrange(len(self.items) + 1))
        return Rerun(
            strict=chance.random() < 0.1,
            update=chance.random() < 0.9,
            version=chance.choice([None, None, None, "a", "b"]),
            redo=chance.choice([None, None, None, "failed", "changed-code", "all", ids]),
        )

    def go_on(self) -> None:
        self.edit()
        self.damage()
        options, seed = self.options(), self.chance.choice([None, None, 1, 2])
        self.names_one = self.chance.random() < 0.9
        found_match = self.match()
        if self.is_refused(found_match, options, seed):
            with pytest.raises(JournalMismatchError):
                self.plan(found_match, options, seed)
            return
        plan, is_anew = self.plan(found_match, options, seed)
        expected = self.expected(found_match, options)
        assert [*plan.stands] == expected
        is_as_it_was = found_match.is_same and not {AGAIN, RETRIED} & {*expected}
        says_more = any("items more have ended by its counts" in text for text in plan.warnings)
        assert says_more == (is_as_it_was and self.uncounted > len(plan.guilty))
        assert plan.status == self.status_of(expected)
        anew = self.is_anew(options)
        assert is_anew == anew
        self.follow(found_match, plan, options, anew=anew)

    def damage(self) -> None:
        for record in self.journal.records.values():
            if record.status in DONE and self.chance.random() < 0.05:
                record.is_unreadable = True
        pending = [slot for slot, record in self.journal.records.items() if record.status == PENDING]
        self.journal.suspects.update({slot: self.chance.randrange(1, 7) for slot in pending[:1]})
        self.uncounted = self.chance.choice([0] * 5 + [3])

    def match(self) -> Match:
        """Which items are recorded: each has its like, unless there is none left."""
        journal = self.journal
        order = [*journal.order, *journal.gone]
        were = [(journal.records[slot].identity, journal.records[slot].state) for slot in order]
        found = match(block(self.items), block(were), order)
        present = bytearray(slot in journal.order for slot in range(len(journal.records)))
        found.note_absent(present)
        slots = [slot for slot in found.slots if slot != NO_SLOT]
        assert len({*slots}) == len(slots)
        left = Counter(record.identity for record in journal.records.values())
        for (identity, _), slot in zip(self.items, found.slots, strict=True):
            if slot != NO_SLOT:
                assert journal.records[slot].identity == identity
                left[identity] -= 1
        assert all(slot != NO_SLOT or not left[item[0]] for item, slot in zip(self.items, found.slots, strict=True))
        found.number_new(len(journal.records))
        return found

    def plan(self, found_match: Match, options: Rerun, seed: int | None) -> tuple[Plan, bool]:
        journal, records = self.journal, [self.journal.records.get(slot) for slot in found_match.slots]
        status = bytearray(PENDING if each is None else each.status for each in records)
        now = CodeNow(code_of(self.code), {})
        made = MadeBy([code_of(number) for number in journal.codes], now)
        made.look(-1 if each is None or each.status not in DONE else code_of(each.code).number for each in records)
        counts = Counter(record.status for slot, record in journal.records.items() if slot in journal.order)
        line = recorded_job(
            version=journal.version,
            status=journal.status,
            completed=counts[COMPLETED] + self.uncounted,
            failed=counts[FAILED],
        )
        case = Case(line, "run.db", made, Brought(now, options, seed, names_one=self.names_one))
        found = Found(
            status,
            range(len(records)),
            [index for index, each in enumerate(records) if each is not None and each.is_unreadable],
            [index for index, each in enumerate(records) if each is not None and each.is_discarded],
            journal.suspects,
        )
        return decide(case, agree(case), found_match, found), case.anew

    def is_anew(self, options: Rerun) -> bool:
        return options.redo == "all" or options.version not in (None, self.journal.version)

    def is_refused(self, found_match: Match, options: Rerun, seed: int | None) -> bool:
        journal = self.journal
        known = [(now[1], journal.records.get(slot)) for now, slot in zip(self.items, found_match.slots, strict=True)]
        has_changed = any(was is not None and was.state != now and was.state and now for now, was in known)
        is_same = {*found_match.slots} == {*journal.order} and not has_changed
        if not (options.update or is_same):
            return True
        says = not self.is_anew(options) and options.version is None and options.redo != "changed-code"
        is_other = says and any(self.is_other(journal.records.get(slot)) for slot in found_match.slots)
        return (is_other and not self.names_one) or (options.strict and (is_other or seed == 2))

    def is_other(self, record: Record | None) -> bool:
        """True where other code of this Python has ended it."""
        return record is not None and record.status in DONE and record.code not in (3, self.code) and self.code != 3

    def expected(self, found_match: Match, options: Rerun) -> list[int]:
        """How each item stands, by the dictionary."""
        stands = []
        for index, ((_, state), slot) in enumerate(zip(self.items, found_match.slots, strict=True)):
            record = self.journal.records.get(slot)
            stands.append(NEW if record is None else self.stands(index, state, slot, record, options))
        return stands

    def stands(self, index: int, state: int, slot: int, record: Record, options: Rerun) -> int:
        is_wanted = isinstance(options.redo, list) and index in options.redo
        is_other = options.redo == "changed-code" and self.is_other(record)
        if self.is_anew(options) or is_wanted or is_other:
            return AGAIN
        if state != record.state or state == 0:
            return AGAIN
        stands = record.status
        if record.is_unreadable or (record.is_discarded and record.status == COMPLETED):
            stands = LOST
        elif record.status == FAILED and options.redo == "failed":
            stands = RETRIED
        return FAILED if stands not in (*DONE, RETRIED) and self.journal.suspects.get(slot, 0) >= 5 else stands

    def status_of(self, stands: list[int]) -> JobStatus:
        """That of the job: whatever it was, or, where it was over, whether it is so still."""
        if self.journal.status is JobStatus.PENDING or {*stands} - {*DONE}:
            return JobStatus.PENDING
        return JobStatus.COMPLETED_WITH_ERRORS if FAILED in stands else JobStatus.COMPLETED

    def follow(self, found_match: Match, plan: Plan, options: Rerun, *, anew: bool) -> None:
        """The items are those of the record from now on, and run until the program is killed, or they have ended."""
        journal, chance = self.journal, self.chance
        for slot in [*journal.records] if anew else ():
            journal.records[slot].forget()
        if anew or not journal.codes:
            journal.version = options.version
        codes = [] if anew else [code for code in journal.codes if code != self.code]
        journal.codes = [*codes, self.code]
        journal.order = [*found_match.slots]
        may_run = []
        for (identity, state), slot, how in zip(self.items, found_match.slots, plan.stands, strict=True):
            record = journal.records.setdefault(slot, Record(identity, state))
            record.state = state
            if how in (AGAIN, LOST, RETRIED):
                record.forget()
            if how == FAILED and record.status != FAILED:  # it ends its program
                record.status, record.code = FAILED, self.code
            if record.status == PENDING:
                may_run.append(slot)
        ends = chance.choice([len(may_run), chance.randrange(len(may_run) + 1)])
        for slot in may_run[:ends]:
            record = journal.records[slot]
            record.status, record.code = chance.choice([COMPLETED, COMPLETED, FAILED]), self.code
            record.is_discarded = record.status == COMPLETED and chance.random() < 0.1
        if ends < len(may_run):
            with_workers = may_run[ends : ends + chance.choice([1, 1, 2])]
            suspect(journal.suspects, RunningMark(1, with_workers, alone=len(with_workers) == 1))
        journal.status = JobStatus.PENDING
        if ends == len(may_run):
            journal.suspects = {}
            failed = any(journal.records[slot].status == FAILED for slot in journal.order)
            journal.status = JobStatus.COMPLETED_WITH_ERRORS if failed else JobStatus.COMPLETED


@pytest.mark.parametrize("part", range(10))
def test_any_history_of_a_list_is_what_a_dictionary_says(part: int) -> None:
    for number in range(part, 10 * HISTORIES, 10):
        history = History(random.Random(number))
        play(history, f"{number}", 8)


def expected_of_open_job(
    found: Found, redo: list[int], present: bytearray, makers: list[int], lost: set[int], *, have_no_ids: bool
) -> list[int]:
    """The same of an open job, by what follows from what until nothing does any more."""
    slots = range(len(found.status))
    gone = {slot for slot in slots if not present[slot]}
    runs = {slot for slot in slots if found.status[slot] == PENDING} | {*found.unreadable, *found.discarded}
    again = {slot for slot in slots if slot in redo and (found.status[slot] != PENDING or slot in runs)}
    again -= {slot for slot in again if found.status[slot] == PENDING and slot not in found.unreadable}
    for rule in ("lost", "orphans"):
        before = (-1, -1)
        while before != (len(gone), len(again)):
            before = len(gone), len(again)
            for slot in slots:
                maker = makers[slot]
                if slot in gone or (rule == "orphans" and (maker < 0 or not have_no_ids)):
                    continue
                if rule == "lost" and slot in runs | again and slot in lost:
                    gone.add(slot)
                    again.update({maker} if maker >= 0 and found.status[maker] != PENDING else ())
                if rule == "orphans" and (maker in gone | runs | again or found.status[maker] != COMPLETED):
                    gone.add(slot)
                    again.update({maker} if maker in runs and found.status[maker] != PENDING else ())
    how = {slot: LOST for slot in runs if found.status[slot] != PENDING}
    return [GONE if at in gone else AGAIN if at in again else how.get(at, found.status[at]) for at in slots]


def test_any_open_job_has_each_item_or_its_maker_runs_again() -> None:
    for number in range(10_000 if IS_LONG else 200):
        chance = random.Random(number)
        count = chance.randrange(12)
        makers = [chance.choice([-1, chance.randrange(slot)]) if slot else -1 for slot in range(count)]
        status = bytearray(chance.choice([PENDING, COMPLETED, COMPLETED, FAILED]) for _ in range(count))
        done = [slot for slot in range(count) if status[slot] in DONE]
        unreadable = [slot for slot in done if chance.random() < 0.1]
        discarded = [slot for slot in done if status[slot] == COMPLETED and chance.random() < 0.1]
        lost = {slot for slot in range(count) if chance.random() < 0.2}
        have_no_ids = chance.random() < 0.5
        present = bytearray(chance.random() < 0.9 for _ in range(count))
        found = Found(status, range(count), unreadable, discarded)
        redo = [] if have_no_ids else chance.sample(range(count), chance.randrange(count + 1))
        plan = regrow(found, redo, present=present, makers=makers, is_lost=lost.__contains__, have_no_ids=have_no_ids)
        expected = expected_of_open_job(found, redo, present, makers, lost, have_no_ids=have_no_ids)
        assert [*plan.stands] == expected, f"job {number}"


@pytest.mark.parametrize(("kind", "columns"), [("open", {"kind": JobKind.OPEN}), ("stream", {"kind": JobKind.STREAM})])
@pytest.mark.parametrize("redo", [None, "all"])
def test_another_seed_is_refused_unless_all_begins_anew(kind: str, columns: dict[str, int], redo: str | None) -> None:
    options = Rerun(strict=True, redo=redo)
    now = CodeNow(code_of(1), {})
    brought = Brought(now, options, seed=2)
    case = Case(recorded_job(**columns), "run.db", MadeBy([code_of(1)], now), brought)
    if redo == "all":
        assert not agree(case), kind
        assert case.anew
        return
    with pytest.raises(JournalMismatchError, match="its seed has changed"):
        agree(case)
