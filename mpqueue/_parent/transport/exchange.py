"""What the parent lends to its workers and has from them: segments, counted for each generation of a lane.

Used on the coordinator's thread, but for `received`, which lanes call on their own threads. What pickles items on a
thread of its job's own takes segments from the same store.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from mpqueue._core.state.lane_book import Chunk
from mpqueue._parent.lane_protocol import BringingLane, Capabilities, CarryingLane, Lane, SharingLane
from mpqueue._parent.transport.decode import Unpickling
from mpqueue._parent.transport.packing import PackedItems, Packing, pack_at_once
from mpqueue._wire.memory import shared
from mpqueue._wire.memory.held_segment import HeldSegment
from mpqueue._wire.memory.segments import (
    KEEP_LENT,
    NOTHING_CARRIED,
    Carried,
    CommonSegment,
    SegmentStore,
    spare,
    view,
)
from mpqueue._wire.pickling.imports import ImportNews, ImportWatch
from mpqueue._wire.pickling.packed_handler import PackedHandler


@dataclass(slots=True)
class _Account:
    """One worker's: what it holds of ours, and what we hold no longer of its own."""

    lent: set[int] = field(default_factory=set)
    common: dict[int, list[CommonSegment]] = field(default_factory=dict)  #: likewise, one entry for each time
    held: dict[int, list[HeldSegment]] = field(default_factory=dict)  #: other workers' segments, likewise
    returned: deque[int] = field(default_factory=deque)
    stale: list[int] = field(default_factory=list)  #: jobs whose light handlers it may forget with the next chunk
    brought: weakref.WeakSet[shared.Shared[Any]] = field(default_factory=weakref.WeakSet)  #: shared objects that it has
    dropped: int = 0  #: how many of the dropped shared objects it has been notified of
    path: tuple[str, ...] | None = None  #: the ``sys.path`` that it has been sent
    reloaded: int = 0  #: how many of the reloaded modules it has been notified of

    def take_back(self, serial: int) -> None:
        """It has one view less of this one."""
        times = self.common.get(serial)
        if times is not None:
            times.pop()
            if not times:
                del self.common[serial]
        if (holds := self.held.get(serial)) is not None:
            holds.pop()
            if not holds:
                del self.held[serial]

    def give_up(self) -> None:
        """It will not say any more what it has done with."""
        for times in self.common.values():
            times[0].give_up()
        self.common.clear()
        self.held.clear()


class News(NamedTuple):
    """What goes to a worker beside its chunk; all of it is sent once."""

    returned: list[int]  #: segments of its own of which no view is left here
    forget: list[int]  #: jobs whose handlers it may drop
    unshared: list[shared.Token]  #: shared objects that are gone
    imports: ImportNews | None


class Exchange:
    """The coordinator's segments, and the accounts of all workers."""

    def __init__(self, engine: Capabilities) -> None:
        self._engine = engine
        self._store = SegmentStore() if engine.shares_memory or engine.carries_segments else None
        self._imports = ImportWatch()
        self._work_came = False
        self._accounts: dict[tuple[int, int], _Account] = {}

    def _account(self, lane: Lane) -> _Account:
        key = (lane.number, lane.generation)
        account = self._accounts.get(key)
        if account is None:
            # Two threads may come at once, see `received`. A forked worker may have modules from before a reload.
            account = self._accounts.setdefault(key, _Account(dropped=len(shared.dropped)))
        return account

    def pack_at_once(self, chunk: Chunk, items: list[Any], now: Callable[[], float]) -> PackedItems | None:
        """The chunk's items, if pickling them runs no user's code; else None."""
        began, packed = now(), pack_at_once(chunk, items, self._store)
        return None if packed is None else PackedItems(packed, {}, seconds=now() - began)

    def packing(self, chunk: Chunk, items: list[Any], now: Callable[[], float]) -> Packing:
        """The same to be done on another thread, whatever code it runs."""
        handler: PackedHandler = chunk.job.handler
        notes = self._engine.brings_shared
        return Packing(chunk, items, self._store, now, notes=notes, script=handler.script, classes=handler.classes)

    def hand_over(self, lane: Lane, packed: PackedItems) -> None:
        """These items are about to be sent to this lane."""
        if packed.shared:
            self.bring(lane, packed.shared)
        if segments := packed.segments:
            self._account(lane).lent.update(ref.serial for ref in segments)
        if packed.held:
            account_held = self._account(lane).held
            for segment in packed.held:
                account_held.setdefault(segment.ref.serial, []).append(segment)
            while len(account_held) > KEEP_LENT:  # what a handler keeps for ever; it has mapped it by then
                del account_held[next(iter(account_held))]
        if self._engine.carries_segments and not (carrying := cast("CarryingLane", lane)).shares_memory:
            carrying.carry(self._contents(packed))

    def _contents(self, packed: PackedItems) -> dict[int, memoryview]:
        """What is in the segments that these items are in."""
        assert self._store is not None
        contents = {ref.serial: self._store.contents(ref) for ref in packed.segments}
        contents.update((segment.ref.serial, view(segment.ref)) for segment in packed.held)
        return contents

    def give_back(self, packed: PackedItems) -> None:
        """These are not."""
        if self._store is not None:
            self._store.take_back(packed.serials)

    def bring(self, lane: Lane, objects: Iterable[shared.Shared[Any]]) -> None:
        """Have the worker know these shared objects, where it has to be brought them and has not been."""
        if not self._engine.brings_shared:
            return
        brought = self._account(lane).brought
        for one in objects:
            if one not in brought:
                brought.add(one)
                cast("BringingLane", lane).bring(one)

    def lend(self, lane: Lane, segments: Sequence[CommonSegment]) -> None:
        """The worker is about to map what is big of a handler."""
        if not segments:
            return
        spare.enter(self)
        common = self._account(lane).common
        for segment in segments:
            segment.lent()
            common.setdefault(segment.ref.serial, []).append(segment)
        while len(common) > KEEP_LENT:  # each costs a descriptor, and a handler may keep its arrays for ever
            common.pop(next(iter(common)))[0].give_up()

    def forget_later(self, lane: Lane, job: int) -> None:
        """Have this worker drop that job's handler when the next chunk comes."""
        account = self._accounts.get((lane.number, lane.generation))
        if account is not None:  # else it was sent nothing yet, or has just died
            account.stale.append(job)

    def work_came(self) -> None:
        """From the user, who may have edited modules before."""
        self._work_came = True

    def news(self, lane: Lane) -> News:
        """What this worker is to know with its next chunk, since the last one."""
        account = self._account(lane)
        returned = account.returned
        stale, account.stale = account.stale, []
        unshared = shared.dropped[account.dropped :]
        account.dropped += len(unshared)
        imports = self._import_news(account)
        return News([returned.popleft() for _ in range(len(returned))], stale, unshared, imports)

    def import_news(self, lane: Lane) -> ImportNews | None:
        """What has happened to the imports since the last news to it."""
        return self._import_news(self._account(lane))

    def _import_news(self, account: _Account) -> ImportNews | None:
        if not self._engine.same_files:
            return None
        watch = self._imports
        watch.look(closely=self._work_came)
        self._work_came = False
        if account.path == watch.path and account.reloaded == len(watch.reloaded):
            return None
        news = ImportNews(
            path=None if account.path == watch.path else watch.path,
            reloaded=tuple(watch.reloaded[account.reloaded :]),
        )
        account.path, account.reloaded = watch.path, len(watch.reloaded)
        return news

    def received(self, lane: Lane) -> Callable[[int], None]:
        """Whom to tell when the last view of one of this worker's segments is gone. On any thread."""
        return self._account(lane).returned.append

    def carried(self, lane: Lane) -> Carried:
        """What has come with answers of this worker, by its segments' serials. On any thread."""
        return cast("CarryingLane", lane).carried if self._engine.carries_segments else NOTHING_CARRIED

    def drop_carried(self, lane: Lane, read: Unpickling) -> None:
        """What this is in has been read. On any thread."""
        if self._engine.carries_segments:
            for serial in read.segments:
                cast("CarryingLane", lane).carried.pop(serial, None)

    def unreachable(self, lane: Lane) -> None:
        """A segment of this worker can't be opened. On any thread. Where it lives, it is to send results otherwise."""
        if self._engine.shares_memory or self._engine.carries_segments:
            cast("SharingLane", lane).take_results_by_pipe()

    def close(self) -> None:
        """The workers are gone: keep nothing for reuse, even if the queue is still referenced."""
        if self._store is not None:
            self._store = SegmentStore()
        for account in self._accounts.values():
            account.give_up()
        spare.leave(self)

    def take_back(self, lane: int, generation: int, serials: Sequence[int]) -> None:
        """This worker has no view of these any more."""
        account = self._accounts.get((lane, generation))
        if account is not None and self._store is not None:
            account.lent.difference_update(serials)
            self._store.take_back(serials)
            for serial in serials:
                account.take_back(serial)

    def lane_gone(self, lane: int, generation: int) -> None:
        """This worker is no more; what it held may still be mapped by a child of it, so it is not used again."""
        account = self._accounts.pop((lane, generation), None)
        if account is not None and self._store is not None:
            self._store.give_up(sorted(account.lent))
            account.give_up()
