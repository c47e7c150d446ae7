"""Whatever happened to a recorded stream before, each item has the result that a dictionary would have kept.

Random histories: inputs that are edited and come in other orders, other versions, failures, loops that are left,
programs that are killed (the next goes on with a copy of the files as they were then), and journals that are pruned.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import ItemStatus, JobQueue
from mpqueue.testing import InlinePool
from tests.support.histories import play
from tests.support.length import IS_LONG

pytestmark = pytest.mark.slow

Item = Any
Key = tuple[Any, int]  # what an item is, and the how manieth of its like


class History:
    """One stream, and what a dictionary knows of it: by key, the states and results that may be recorded."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.has_ids = chance.random() < 0.5
        self.items: list[tuple[int, int]] = [(chance.randrange(6), 0) for _ in range(chance.randrange(1, 12))]
        self.known: dict[Key, set[tuple[int, str | None]]] = {}  #: a result of None: it has none
        self.version: str | None = None
        self.run = 0
        self.calls: Counter[str] = Counter()
        self.failing: set[tuple[int, int]] = set()

    @property
    def path(self) -> Path:
        return self.folder / str(self.run) / "run.db"

    def as_item(self, at: tuple[int, int]) -> Item:
        return {"id": at[0], "value": at[1]} if self.has_ids else at[0] * 10 + at[1]

    def call(self, item: Item) -> str:
        self.calls[repr(item)] += 1
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
        self.calls.clear()
        keys, came = [], Counter[Any]()
        for at in self.items:
            what = at[0] if self.has_ids else at
            keys.append(((what, came[what]), at[1]))
            came[what] += 1
        items = [self.as_item(at) for at in self.items]
        taken = chance.choice([None, chance.randrange(len(items) + 1)])
        with contextlib.closing(
            mpqueue.imap(self.call, iter(items), backend=InlinePool(), journal=self.path, job_id="job", max_retries=0,
                         rerun=mpqueue.Rerun(version=version, redo=redo), on_error="collect",
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
                self.keep(is_killed)
        if not is_killed:
            self.keep(is_killed)

    def check(self, key: tuple[Key, int], item: Item, result: Any) -> None:
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

    def keep(self, is_killed: bool) -> None:
        """The files as they are now are those of the next run, but for what says that they are in use."""
        following = self.folder / str(self.run + 1)
        shutil.rmtree(following, ignore_errors=True)
        following.mkdir()
        for file in self.path.parent.iterdir():
            if file.is_dir():
                shutil.copytree(file, following / file.name)
            elif file.name in ("run.db", "run.db-wal"):
                shutil.copy(file, following)
        if not is_killed and self.chance.random() < 0.2:
            with JobQueue(1, journal=following / "run.db") as queue:
                if self.chance.random() < 0.5:
                    queue.prune(gone=self.chance.random() < 0.5)
                self.look(queue)

    def look(self, queue: JobQueue) -> None:
        """What people see of it."""
        shown = Counter(item.result for item in queue.load_job("job").items if item.status is ItemStatus.COMPLETED)
        sure = [next(iter(worlds)) for worlds in self.known.values() if len(worlds) == 1]
        expected = Counter(result for _, result in sure if result is not None)
        assert expected <= shown


@pytest.mark.parametrize("part", range(4))
def test_any_history_of_a_stream(tmp_path: Path, part: int) -> None:
    for number in range(2500 if IS_LONG else 3):
        folder = tmp_path / str(number)
        (folder / "1").mkdir(parents=True)
        history = History(folder, random.Random(f"{part} {number}"))
        play(history, f"{part} {number}", 6)
        shutil.rmtree(folder)
