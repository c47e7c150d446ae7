"""Whatever happened to a recorded job before, its plan says what runs, and each item has what a dictionary would have.

Random histories of lists, open jobs and streams: items that are edited and come in other orders, other versions and
code, failures, ``redo``, loops that are left, programs that are killed (the next goes on with a copy of the files as
they were then), and journals that are pruned.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue, Rerun
from mpqueue.testing import InlinePool
from tests.support.histories import play
from tests.support.length import IS_LONG

pytestmark = pytest.mark.slow

FAILED = "failed"

#: What the handlers below do with an item: that of the history which goes on, alone.
calls: list[Callable[[Any, int], str]] = []


def first(item: Any) -> str:
    """One of two handlers that are of different code."""
    return calls[-1](item, 1)


def second(item: Any) -> str:
    """The other one."""
    return calls[-1](item, 2)


class Record(NamedTuple):
    """What may be recorded of an item: in which state it was, how it ended (None: it has not), and by which code."""

    state: int
    outcome: str | None = None
    code: int = 0


class Recorded:
    """One job, its items, each of an identity and a state, and its journal."""

    def __init__(self, folder: Path, chance: random.Random, items: list[tuple[int, int]]) -> None:
        self.folder = folder
        self.chance = chance
        self.items = items
        self.has_ids = chance.random() < 0.6
        self.version: str | None = None
        self.run = 0
        self.copies = 0

    @property
    def path(self) -> Path:
        return self.folder / str(self.copies) / "run.db"

    def copy(self) -> None:
        """The files as they are now are those of the next run, but for what says that they are in use."""
        following = self.folder / str(self.copies + 1)
        following.mkdir()
        for name in ("run.db", "run.db-wal"):
            if (self.path.parent / name).exists():
                shutil.copy(self.path.parent / name, following)


class History(Recorded):
    """A list or an open job, and what a dictionary knows of it: by identity, what may be recorded."""

    def __init__(self, folder: Path, chance: random.Random, *, is_open: bool) -> None:
        super().__init__(folder, chance, [(number, 0) for number in range(chance.randrange(1, 8))])
        self.is_open = is_open
        self.known: dict[int, set[Record]] = {}
        self.code = 1
        self.called: list[int] = []
        self.failing: set[int] = set()
        self.dies_after: int | None = None
        self.died = False

    def as_item(self, at: tuple[int, int]) -> Any:
        return {"id": at[0], "value": at[1]} if self.has_ids else at[0]

    def note(self, item: Any, code: int) -> str:
        identity = item["id"] if self.has_ids else item
        if len(self.called) == self.dies_after:
            self.copy()
            self.died = True
        self.called.append(identity)
        if identity in self.failing:
            raise ValueError(f"not {item}")
        return f"{item} by {code} in run {self.run}"

    def edit(self) -> None:
        items, chance = self.items, self.chance
        for _ in range(chance.randrange(5)):
            place = chance.randrange(len(items) + 1)
            missing = sorted({*range(9)}.difference(identity for identity, _ in items))
            if missing and chance.random() < 0.4:
                items.insert(place, (chance.choice(missing), 0))
            elif place < len(items) > 1:
                what = chance.randrange(4)
                if what == 0:
                    del items[place]
                elif what == 1:
                    chance.shuffle(items)
                elif self.has_ids:
                    items[place] = items[place][0], chance.randrange(3)
        self.failing = {identity for identity, _ in items if chance.random() < 0.15}
        self.code = chance.choice([1, 1, 2])

    def options(self) -> dict[str, Any]:
        chance = self.chance
        options: dict[str, Any] = {}
        if chance.random() < 0.3:
            options["version"] = chance.choice(["a", "b"])
        ids = [chance.choice(self.items)[0]] if self.has_ids else None
        redo = chance.choice([None, None, None, "failed", "changed-code", "all", ids])
        if redo is not None and (redo != ids or not self.is_open or ids[0] in self.known):
            options["redo"] = redo
        return options

    # -- what is to run ----------------------------------------------------------------------------------------

    def begins_anew(self, options: dict[str, Any]) -> bool:
        version = options.get("version")
        if options.get("redo") == "all" or (version is not None and version != self.version):
            return True
        return self.is_open and options.get("redo") == "changed-code" and self.is_of_other_code

    @property
    def is_of_other_code(self) -> bool:
        """True where some result is known to be of other code."""
        return any(
            all(world.outcome is not None and world.code != self.code for world in worlds)
            for worlds in self.known.values()
        )

    def must_run(self, identity: int, state: int, world: Record, options: dict[str, Any]) -> bool:
        redo = options.get("redo")
        if world.outcome is None or (isinstance(redo, list) and identity in redo):
            return True
        if redo == "changed-code" and world.code != self.code:
            return True
        has_changed = not self.is_open and world.state != state
        return has_changed or (world.outcome == FAILED and redo == "failed")

    # -- a run -------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        self.run += 1
        self.edit()
        options = self.options()
        if self.is_open and options.get("redo") == "changed-code" and not self.settle():
            del options["redo"]
        anew = self.begins_anew(options)
        if anew and self.is_open:
            self.known.clear()
        if anew:
            self.known = {identity: {Record(-1)} for identity in self.known}
            self.version = options.get("version")
        if not self.known and "version" in options:
            self.version = options["version"]
        now = dict(self.items)
        if self.is_open:
            now |= {identity: next(iter(worlds)).state for identity, worlds in self.known.items()}  # as they came first
        self.called, self.died = [], False
        self.dies_after = self.chance.choice([None, self.chance.randrange(5)])
        found = self.run_job(options)
        for identity, state in now.items():
            self.check(identity, state, found.pop(identity), options)
        assert not found
        if self.died:
            self.copies += 1
        elif self.chance.random() < 0.2:
            with JobQueue(1, journal=self.path) as queue:
                gone = self.chance.random() < 0.5
                queue.prune(gone=gone)
            if gone and not self.is_open:
                self.known = {identity: worlds for identity, worlds in self.known.items() if identity in now}

    def settle(self) -> bool:
        """Have an open job that was killed run until it has ended; True where it is known then what is recorded."""
        self.dies_after, self.called, self.died = None, [], False
        for identity, found in self.run_job({}, []).items():
            self.check(identity, next(iter(self.known[identity])).state, found, {})
        return all(len(worlds) == 1 for worlds in self.known.values())

    def run_job(
        self, options: dict[str, Any], given: list[tuple[int, int]] | None = None
    ) -> dict[int, tuple[str | None, bool]]:
        """By identity: the result, or that the item has failed, and whether it was called."""
        calls[:] = [self.note]
        items = [self.as_item(at) for at in (self.items if given is None else given)]
        handler = first if self.code == 1 else second
        with JobQueue(1, backend=InlinePool(), journal=self.path, max_retries=0) as queue:
            plan = None
            if self.is_open:
                job = queue.open_job("job", items[::2], handler, rerun=Rerun(**options))
                queue.add_items(job, items[1::2])  # now all are on disk
                queue.seal(job)
            else:
                plan = queue.plan_job("job", items, handler, rerun=Rerun(update=True, **options))
                job = queue.create_job("job", items, handler, rerun=Rerun(update=True, **options))
            queue.start(job).result()
            found = {}
            for item in job.items:
                identity = item.payload["id"] if self.has_ids else item.payload
                outcome = item.result if item.status is ItemStatus.COMPLETED else FAILED
                assert identity not in found
                found[identity] = outcome, identity in self.called
        assert len({*self.called}) == len(self.called)
        if plan is not None:
            self.check_plan(plan, options)
        return found

    def check_plan(self, plan: Any, options: dict[str, Any]) -> None:
        """What it said is what was run."""
        assert plan.to_run == len(self.called)
        names = range(len(self.items)) if not self.has_ids else [identity for identity, _ in self.items]
        identities = dict(zip(names, [identity for identity, _ in self.items], strict=True))
        ran = {identities[name] for name in (*plan.changed, *plan.new)}
        again = {identities[name] for name in plan.failed} if options.get("redo") == "failed" else set()
        assert ran | again <= {*self.called}
        assert {*self.called} - ran - again <= {identities[name] for name in plan.same}
        assert {identities[name] for name in plan.new} == {*identities.values()} - {*self.known}
        assert {*plan.gone} <= {*self.known} - {*identities.values()}

    def check(self, identity: int, state: int, found: tuple[str | None, bool], options: dict[str, Any]) -> None:
        outcome, was_called = found
        worlds = self.known.get(identity, {Record(state)})
        ways = {world: self.must_run(identity, state, world, options) for world in worlds}
        assert was_called in ways.values(), (identity, worlds, outcome)
        if was_called:
            item = self.as_item((identity, state))
            expected = FAILED if identity in self.failing else f"{item} by {self.code} in run {self.run}"
            assert outcome == expected
            after = {Record(state, outcome, self.code)}
        else:
            after = {world for world, must_run in ways.items() if not must_run and world.outcome == outcome}
            assert after, (identity, worlds, outcome)
        if self.died and was_called:  # the journal may have it as it was when this run began
            is_tried_again = options.get("redo") == "failed"
            for world, must_run in ways.items():
                after.add(Record(state) if must_run else world)
                after.update({world} if is_tried_again and world.outcome == FAILED else ())
        self.known[identity] = after


Key = tuple[Any, int]  # what an item is, and the how manieth of its like


class StreamHistory(Recorded):
    """A stream, and what a dictionary knows of it: by key, the states and results that may be recorded."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        super().__init__(folder, chance, [(chance.randrange(6), 0) for _ in range(chance.randrange(1, 12))])
        self.known: dict[Key, set[tuple[int, str | None]]] = {}  #: a result of None: it has none
        self.failing: set[tuple[int, int]] = set()

    def as_item(self, at: tuple[int, int]) -> Any:
        return {"id": at[0], "value": at[1]} if self.has_ids else at[0] * 10 + at[1]

    def call(self, item: Any) -> str:
        at = (item["id"], item["value"]) if self.has_ids else divmod(item, 10)
        if at in self.failing:
            raise ValueError(f"not {item}")
        return f"{item} in run {self.run}"

    def edit(self) -> None:
        items, chance = self.items, self.chance
        for _ in range(chance.randrange(4)):
            what, place = chance.randrange(4), chance.randrange(len(items) + 1)
            if what == 0 or place == len(items):
                items.insert(place, (chance.randrange(6), 0))
            elif what == 1:
                del items[place]
            elif what == 2:
                items[place] = items[place][0], chance.randrange(3)
            else:
                chance.shuffle(items)
        self.failing = set(chance.sample(items, min(len(items), chance.randrange(3))))

    def go_on(self) -> None:
        chance = self.chance
        self.run += 1
        self.edit()
        version = chance.choice([None, None, None, "a", "b"])
        redo = chance.choice([None] * 7 + ["all"])
        if redo == "all" or (version is not None and version != self.version):
            self.known.clear()
            self.version = version
        keys, came = [], Counter[Any]()
        for at in self.items:
            what = at[0] if self.has_ids else at
            keys.append(((what, came[what]), at[1]))
            came[what] += 1
        items = [self.as_item(at) for at in self.items]
        taken = chance.choice([None, chance.randrange(len(items) + 1)])
        with contextlib.closing(
            mpqueue.imap(self.call, iter(items), backend=InlinePool(), journal=self.path, job_id="job", max_retries=0,
                         rerun=Rerun(version=version, redo=redo), on_error="collect",
                         buffersize=chance.choice([None, 3]))
        ) as results:  # fmt: skip
            for number, (key, item) in enumerate(zip(keys, items, strict=True)):
                if number == taken:
                    break
                self.check(key, item, next(results))
            else:
                assert next(results, None) is None
            if taken is not None:
                self.doubt(keys[taken:])
            is_killed = taken is not None and chance.random() < 0.5
            if is_killed:
                self.copy()
        if is_killed:
            self.copies += 1
        elif chance.random() < 0.2:
            with JobQueue(1, journal=self.path) as queue:
                if chance.random() < 0.5:
                    queue.prune(gone=chance.random() < 0.5)
                self.look(queue)

    def check(self, key: tuple[Key, int], item: Any, result: Any) -> None:
        place, state = key
        known = self.known.get(place, {(state, None)})
        recorded = {found for its_state, found in known if its_state == state}
        may_run = any(its_state != state or found is None for its_state, found in known)
        if isinstance(result, ValueError):
            assert may_run, f"{item} failed, though it had ended well"
            self.known[place] = {(state, None)}
            return
        assert result in recorded or (may_run and result == f"{item} in run {self.run}"), (item, result, recorded)
        self.known[place] = {(state, result)}

    def doubt(self, keys: list[tuple[Key, int]]) -> None:
        """These were not taken: what has run of them may be recorded."""
        for place, state in keys:
            what = place[0] if not self.has_ids else (place[0], state)
            self.known.setdefault(place, {(state, None)}).update(
                {(state, f"{self.as_item(what)} in run {self.run}"), (state, None)}
            )

    def look(self, queue: JobQueue) -> None:
        """What people see of it."""
        shown = Counter(item.result for item in queue.load_job("job").items if item.status is ItemStatus.COMPLETED)
        sure = [next(iter(worlds)) for worlds in self.known.values() if len(worlds) == 1]
        expected = Counter(result for _, result in sure if result is not None)
        assert expected <= shown


#: How a history begins of each kind, and how many parts of how many there are.
KINDS: dict[str, tuple[Callable[[Path, random.Random], Any], int, int]] = {
    "list": (partial(History, is_open=False), *((10, 30) if IS_LONG else (3, 2))),
    "open": (partial(History, is_open=True), *((10, 30) if IS_LONG else (3, 2))),
    "stream": (StreamHistory, *((4, 2500) if IS_LONG else (4, 3))),
}


@pytest.mark.parametrize(
    ("kind", "part"), [(kind, part) for kind, (_, parts, _) in KINDS.items() for part in range(parts)]
)
def test_any_history_of_a_job(tmp_path: Path, kind: str, part: int) -> None:
    begin, _, count = KINDS[kind]
    for number in range(count):
        folder = tmp_path / str(number)
        (folder / "0").mkdir(parents=True)
        play(begin(folder, random.Random(f"{part} {number}")), f"{part} {number}", 6)
        shutil.rmtree(folder)
