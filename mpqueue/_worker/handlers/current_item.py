"""`current_item`: a handler's access to its item, and its reports about it."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpqueue._call_checks import check_items
from mpqueue._os import system as clock
from mpqueue._wire.item_names import IdRule, find_id
from mpqueue._wire.line import READ_INTERVAL
from mpqueue._wire.memory.ledger import FRACTION
from mpqueue._wire.parcels import plain_ids
from mpqueue._wire.pickling import beside
from mpqueue._wire.pickling.beside import within
from mpqueue._wire.pickling.payload import dump, load_parts
from mpqueue._worker import worker_links
from mpqueue._worker.worker_links import WorkerLinks
from mpqueue.errors import ItemPicklingError, JobStateError, shown, text_of

if TYPE_CHECKING:
    import numpy as np


@dataclass(slots=True, eq=False)
class Running:
    """The current work of this worker: a chunk of a job, or (``items`` empty) the job's ``setup``.

    The position of the current item is ``first`` plus the number of results so far, so that it needs no update.
    """

    links: WorkerLinks
    job: int
    job_id: str
    id_rule: IdRule
    seed: int
    items: list[Any] = field(default_factory=list)
    indices: Sequence[int] = ()
    attempts: Sequence[int] = ()
    slots: Sequence[int] = ()  #: keys of random numbers, if they are not ``indices``
    out: list[Any] = field(default_factory=list)
    reported: bool = False  #: a handler has reported its progress
    is_open: bool = False  #: handlers may add items to the job
    added: dict[int, list[tuple[Any, list[Hashable] | None]]] = field(default_factory=dict)  #: by position
    _flags: tuple[bool, bool] = (False, False)
    _flags_read: float = 0.0
    _rng: tuple[int, Any] | None = None  #: the random numbers of the last position asked for

    def flags(self) -> tuple[bool, bool]:
        """(paused, cancelled), at most 5 ms old: the Events must not be read in a tight loop."""
        now = clock.monotonic()
        if now - self._flags_read >= READ_INTERVAL:
            self._flags_read = now
            self._flags = self.links.flags_of(self.job)
        return self._flags

    def rng(self, position: int) -> Any:
        """The random numbers of the item at that position, or (beyond the last one) of the setup."""
        if self._rng is None or self._rng[0] != position:
            numbers = self.slots or self.indices
            slot = numbers[position] if position < len(numbers) else None
            self._rng = position, random_numbers(self.seed, slot)
        return self._rng[1]


class PickledItems:
    """A snapshot of items, safe from later changes. Unpickling the object that holds it restores their list."""

    def __init__(self, items: list[Any]) -> None:
        self._pickle = within(lambda: dump(items), (beside.leaving, True)).data

    def __reduce__(self) -> tuple[Any, ...]:
        return load_parts, (self._pickle, ())


class CurrentItem:
    """The item that this worker is running."""

    __slots__ = ("_position", "_running")

    def __init__(self, running: Running) -> None:
        self._running = running
        self._position = len(running.out)

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self._running.job_id

    @property
    def id(self) -> Hashable:
        """The item's id; None in ``setup``."""
        running, position = self._running, self._position
        if position >= len(running.items):
            return None
        return find_id(running.id_rule, running.items[position], running.indices[position])

    @property
    def attempt(self) -> int:
        """The number of this try, from 1; 0 in ``setup``."""
        running = self._running
        if self._position >= len(running.items):
            return 0
        return running.attempts[self._position] if running.attempts else 1

    @property
    def paused(self) -> bool:
        """True if the job was paused; at most 5 ms old. Running items may go on."""
        return self._running.flags()[0]

    @property
    def cancelled(self) -> bool:
        """True if the job was cancelled; at most 5 ms old. Running items may stop early, by any exception."""
        return self._running.flags()[1]

    @property
    def worker(self) -> int:
        """The worker's number, from 0 to concurrency - 1, the same after restarts; say, for one GPU per worker."""
        return self._running.links.lane

    @property
    def uses(self) -> dict[str, list[int]]:
        """The units of the queue's ``resources`` that the item holds, by name, counted from 0 up; see `create_job`.

        For ``uses={"gpu": 1}`` that is ``{"gpu": [1]}``, for example. In ``setup``, the units of the first item there.
        """
        return {name: [*units] for name, units in self._running.links.uses.items()}

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers of this item: each try of it gets the same ones, on any worker and at any time.

        They depend only on the job's seed (see `create_job`) and the item's place in the job; if a journal has the job,
        on the item's first place. In a pipeline they depend on the pipeline's seed, the stage's place, the input's, and
        those of yielded values. In ``setup`` every worker of the job gets the same ones. The type is
        `numpy.random.Generator`; without NumPy, `random.Random`. The first use in an item costs 20 us.
        """
        rng: np.random.Generator = self._running.rng(self._position)
        return rng

    def report(self, fraction: float) -> None:
        """Report the progress of this item, from 0 to 1. Costs about 0.3 us.

        Raises TypeError or ValueError for anything else.
        """
        value = float(fraction)
        if math.isnan(value) or not 0.0 <= value <= 1.0:
            raise ValueError(f"fraction: expected a number from 0 to 1, got {shown(fraction)}")
        self._running.reported = True
        self._running.links.ledger.reals[FRACTION] = value

    def add(self, items: Iterable[Any]) -> None:
        """Add items to the job, if it is open: they are sent with this item's result, and run once each.

        They are pickled at once, so later changes have no effect.

        If this try fails, or its worker dies, none of them is added: the next try adds them. An item whose id the job
        has already is left out. May be called several times, also after `JobQueue.seal`: the job ends when all its
        items have ended. Never waits, even beyond ``max_waiting``.

        Raises `JobStateError` if the job is not open; `ItemPicklingError` for an item that can't be pickled; TypeError
        for items without the ids that the job's have, or with ids that are not text, numbers, bytes or tuples of these,
        and for text, bytes, a mapping or a data frame instead of items; RuntimeError in ``setup``, and once the item
        has ended.
        """
        running, position = self._running, self._position
        if not running.indices or position != len(running.out):
            raise RuntimeError("add(): expected to be called while an item of the job runs, got called elsewhere")
        if not running.is_open:
            raise JobStateError(
                f"job {running.job_id!r}: expected a job made by open_job() to add items to, got another"
            )
        check_items(items)
        new = list(items)
        ids = plain_ids(running.id_rule, new)
        running.added.setdefault(position, []).append((_pickled(new), ids))


def _pickled(items: list[Any]) -> PickledItems:
    try:
        return PickledItems(items)
    except Exception as error:
        at = next((at for at, item in enumerate(items) if not _can_be_pickled(item)), None)
        which, item = ("items", items) if at is None else (f"items[{at}]", items[at])
        raise ItemPicklingError(
            f"{which}: expected what can be pickled, got {shown(item)} of type {type(item).__name__}: {text_of(error)}"
        ) from error


def _can_be_pickled(item: Any) -> bool:
    try:
        PickledItems([item])
    except Exception:
        return False
    return True


def _running_here() -> Running | None:
    links = worker_links.here()
    if links is None:
        return None
    running: Running | None = links.running
    return running


def index_and_attempt() -> tuple[int | None, int]:
    """Return the index of the running item (None: none runs), and its try."""
    running = _running_here()
    if running is None or len(running.out) >= len(running.indices):
        return None, 0
    position = len(running.out)
    return running.indices[position], running.attempts[position] if running.attempts else 1


def current_item() -> CurrentItem:
    """Return the item of the calling handler; in ``setup``, one without id.

    Works in every thread of the worker. Raises RuntimeError if no handler runs.
    """
    running = _running_here()
    if running is None:
        raise RuntimeError("current_item(): expected to be called inside a handler or setup, got called elsewhere")
    return CurrentItem(running)


def random_numbers(seed: int, slot: int | None) -> Any:
    """Return a new generator for the item of that slot; None: for the job's setup.

    It depends only on the job's seed and the item's slot: so it is the same for any number of workers, any order and
    any try, and no two items share any numbers.

    With NumPy that is ``default_rng(SeedSequence(seed, spawn_key=(slot,)))``: NumPy's own way to seed parallel streams,
    ``SeedSequence(seed).spawn(n)``, gives the same to the child of that number.
    """
    try:
        import numpy as np  # 100 ms, once, only in workers whose handlers use it
    except ImportError:
        return random.Random(f"{seed} {slot}")  # hashes the whole text
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=() if slot is None else (slot,)))
