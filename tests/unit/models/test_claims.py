"""Claim, limit, chunk timer and death: nothing runs twice, nobody else is blamed, whatever comes when.

The worker runs the real `ChunkRun._run_stretches` on two or three items in one stretch, and its chunk timer the real
`cut_off`; they have one store buffer, as whoever takes the interpreter over sees what was stored before. The parent
takes items back with the real `Ledger`, as `mpqueue._core.rules.stealing` does (`_lower`, `judge`, `_collect`): it
lowers a limit, waits until what was stored before that must have become visible, reads the claim, and hands on what
lies beyond both. The worker may die in any state: then `blame._settle_claimed` goes by what its ledger says once all
stores are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import greenlet
import pytest

from mpqueue._wire.frames import ChunkFrame
from mpqueue._wire.memory.ledger import CLAIM, LIMIT, Phase
from mpqueue._wire.pickling.payload import Packed
from mpqueue._worker import chunk_run, chunk_timer
from mpqueue._worker.chunk_run import ChunkRun
from mpqueue._worker.timing import ChunkTimes
from tests.unit.models.explorer import Lock, Model, ModelLedger, Process, World, explore, reverted

CHUNK = 4
SHARED = {CLAIM, LIMIT}


class Shared(list[Any]):
    """A list of the worker's that its two threads touch, one step at a time."""

    world: ClassVar[World]
    writer: greenlet.greenlet | None = None  #: who alone changes it, and so knows it

    def __len__(self) -> int:
        if greenlet.getcurrent() is not self.writer:
            self.world.pause()
            self.world.saw(super().__len__())
        return super().__len__()

    def __getitem__(self, at: Any) -> Any:
        if not isinstance(at, slice):
            return super().__getitem__(at)
        part = Shared(super().__getitem__(at))
        part.writer = self.writer
        return part

    def __delitem__(self, at: Any) -> None:
        self.world.pause()
        super().__delitem__(at)


class ModelRun(ChunkRun):
    """A chunk in a model's worker."""

    def __init__(self, world: World, process: Process, count: int) -> None:
        Shared.world = world
        ledger = ModelLedger(world, process, SHARED)
        links = SimpleNamespace(ledger=ledger, flags_of=lambda _: (False, False), has_run=False, is_own_process=False)
        job = SimpleNamespace(
            number=1,
            id="job",
            is_open=False,
            discards=False,
            id_rule=None,
            seed=0,
            plain=True,
            pace=1e-6,
            capture=None,
            sampling=None,
            map=self._map,
        )
        context = SimpleNamespace(links=links, exchange=SimpleNamespace(store=None))
        frame = ChunkFrame(job=1, chunk=CHUNK, items=Packed(b""), indices=range(count), limit=1e9)
        super().__init__(context, job, frame, ChunkTimes(0.0, own_process=False))  # type: ignore[arg-type]
        self.world = world
        self.running.items = self.items = Shared(range(count))
        self.running.out = self.out = Shared()
        self.stretch_lock = Lock(world)  # type: ignore[assignment]
        self.results.fail = self._over  # type: ignore[method-assign]
        self.begun: list[int] = []
        self.ended: list[int] = []

    def _map(self, items: Any, _: object) -> Any:
        return map(self._handle, items)

    def _over(self, error: BaseException, *_: object, **__: object) -> None:
        raise error

    def _handle(self, item: int) -> int:
        self.begun.append(item)
        self.world.pause()
        self.ended.append(item)
        return item

    def state(self) -> Hashable:
        """What its two threads share beside the ledger."""
        seen = [list.__len__(self.stretch), self.stretch_lo, self.stretch_lock.is_taken, self.cut_at]  # type: ignore[attr-defined]
        return tuple(seen), tuple(self.begun), tuple(self.ended)


def model(
    *,
    count: int = 2,
    limit: int | None = 1,
    waits: bool = True,
    run_class: type[ModelRun] = ModelRun,
    cut_off: Callable[[Any], None] | None = chunk_timer.cut_off,
) -> Model:
    """A worker with a chunk timer; a parent that takes back what lies beyond ``limit`` (None: nothing)."""

    def make(world: World) -> Callable[[], None]:
        parent, worker = world.process("parent"), world.process("worker")
        run, ledger = run_class(world, worker, count), ModelLedger(world, parent, SHARED)
        taken: list[int] = []

        def take_back(limit: int) -> None:
            ledger.set_limit(CHUNK, limit)
            if waits:
                world.pause(lambda: not parent.stores)
                stored = worker.stored
                world.pause(lambda: worker.seen >= stored)
            claim = ledger.read()
            kept = max(limit, claim.hi if claim.is_of(CHUNK) else 0)
            taken.extend(range(kept, count))

        def check() -> None:
            assert not {*taken} & {*run.begun}, f"{taken} were taken back, and {run.begun} run"
            # What is neither goes home with the report, and out again.
            assert run.begun == [*range(len(run.begun))], "in order, and once"
            running = run.begun[len(run.ended) :]
            claim = run.links.ledger.read()  # as it is seen once all stores are
            claimed = range(claim.lo, claim.hi) if claim.is_of(CHUNK) and claim.phase is Phase.RUNNING else range(0)
            assert {*running} <= {*claimed}, f"{running} runs, and {claimed} would be blamed"

        run.out.writer = world.thread(worker, run._run_stretches)
        if cut_off is not None:
            run.items.writer = world.thread(worker, partial(cut_off, run))
        if limit is not None:
            world.thread(parent, partial(take_back, limit))
        world.shared = lambda: (run.state(), tuple(taken))
        world.always = check
        return check

    return make


@pytest.fixture(autouse=True)
def no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are not what these models are about."""
    monkeypatch.setattr(chunk_run, "clock", SimpleNamespace(monotonic=lambda: 0.0, monotonic_ns=lambda: 1))


@pytest.mark.parametrize(("count", "limit"), [(3, None), pytest.param(2, 1, marks=pytest.mark.slow)])
def test_nothing_runs_twice_and_nobody_else_is_blamed(count: int, limit: int | None) -> None:
    assert explore(model(count=count, limit=limit)).states > 500


def swapped() -> Callable[..., Any]:
    """The worker's loop, which reads the limit and stores its claim then."""
    store, read = "self.claim(Phase.UNPACKING if self.careful else Phase.RUNNING, lo, hi)", "ledger.limit(self.number)"
    both = f"""{store}
        # Read after the claim was stored: either this worker sees the limit, or the parent sees the claim.
        limit = {read}"""
    return reverted(ChunkRun._run_stretches, both, f"limit = {read}; {store}")


def test_the_model_finds_a_parent_that_does_not_wait() -> None:
    with pytest.raises(AssertionError, match="taken back"):
        explore(model(waits=False, cut_off=None))


def test_the_model_finds_a_claim_that_is_stored_after_the_limit_is_read() -> None:
    run_class = type("Late", (ModelRun,), {"_run_stretches": swapped()})
    with pytest.raises(AssertionError, match="taken back"):
        explore(model(run_class=run_class, cut_off=None))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("if run.stretch is not stretch or", "if", id="marks another stretch"),
        pytest.param("with run.stretch_lock:", "if True:", id="takes no lock"),
        pytest.param("max(position + 1, lo + len(stretch))", "position", id="names nobody"),
    ],
)
def test_the_model_finds_a_watchdog_that(old: str, new: str) -> None:
    with pytest.raises(AssertionError, match="would be blamed"):
        explore(model(count=3, limit=None, cut_off=reverted(chunk_timer.cut_off, old, new)))
