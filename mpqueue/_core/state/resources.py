"""The resources of a queue, and the needs of running items: places, memory, and named things, such as GPUs.

A lane holds its items' needs from its first chunk until it has none, or its worker is dead: all its chunks need the
same, and it runs one item at a time. So everything is given back exactly once, for every end of a chunk. An *indexed*
resource has units numbered from 0 up; a lane holds particular units.

CPUs are counted in places: by default an item takes one, its lane, and the queue has as many as it has workers. So only
CPUs beyond an item's first one are counted here.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mpqueue._core.messages import MemoryRead
from mpqueue._core.state.item_table import ItemTable
from mpqueue._options import size_in_bytes
from mpqueue._plain import plain
from mpqueue.errors import shown
from mpqueue.retry import check_number

#: The name of memory, which is counted in bytes. All other resources are indexed.
MEMORY = "memory"
#: The name of the places in needs. No resource has it.
CPUS = "cpu"


class Needs(NamedTuple):
    """The needs of one item while it runs."""

    cpus: int = 1
    amounts: tuple[tuple[str, int], ...] = ()  #: by name, each more than 0, in the names' order

    def amount(self, name: str) -> int:
        """Return how much of that resource the item needs."""
        return dict(self.amounts).get(name, 0)


NO_NEEDS = Needs()


def needs_of(cpus: int = 1, memory: int = 0, uses: Mapping[str, int] | None = None) -> Needs:
    """Return the needs of one item, in one form."""
    amounts = {**(uses or {}), MEMORY: memory}
    return Needs(cpus, tuple(sorted((name, amount) for name, amount in amounts.items() if amount)))


class Grant(NamedTuple):
    """The resources that a lane holds. ``units``: the units of the indexed ones, by name."""

    needs: Needs
    units: Mapping[str, Sequence[int]]


class JobNeeds(NamedTuple):
    """The needs of a job's items: the ``kinds`` that occur, and ``of``, each item's kind; None: there is only one."""

    kinds: Sequence[Needs]
    of: Sequence[int] | None = None
    memory: int | None = None  #: total bytes, if they were needed

    def of_item(self, index: int) -> Needs:
        """Return the needs of that item."""
        return self.kinds[0 if self.of is None else self.of[index]]

    def most_at_a_time(self, places: int, limits: Mapping[str, int]) -> int:
        """Return how many items of the first kind fit at a time into that many places and these amounts."""
        first, amounts = self.kinds[0], {**limits} if self.memory is None else {**limits, MEMORY: self.memory}
        return min([places // first.cpus, *(amounts[name] // amount for name, amount in first.amounts)])

    @property
    def any_memory(self) -> bool:
        """True if any item has a need of memory."""
        return any(name == MEMORY for needs in self.kinds for name, _ in needs.amounts)


class Left(NamedTuple):
    """The resources left for a lane that begins: places, of which it takes one, and amounts by name."""

    places: int
    amounts: Mapping[str, int]

    def has(self, needs: Needs) -> bool:
        """True if no need is lacking."""
        return needs.cpus <= self.places and all(amount <= self.amounts[name] for name, amount in needs.amounts)


class Resources:
    """The resources of a queue: how much of each there is, and how much of it is left."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self.limits = dict(limits)
        self.left = dict(limits)
        #: CPUs that lanes hold beyond the one of each lane with a chunk.
        self.more_cpus = 0
        self._units = {name: list(range(count)) for name, count in limits.items() if name != MEMORY}

    def limit_memory(self, most: int | None) -> None:
        """Set the amount of memory, unless it is known already."""
        if most is not None and MEMORY not in self.limits:
            self.limits[MEMORY] = self.left[MEMORY] = most

    def take(self, needs: Needs, device: str | None, kept: Sequence[int]) -> Grant:
        """Take these needs; of ``device``, an indexed resource, the units that the lane ``kept``, if they are free."""
        self.more_cpus += needs.cpus - 1
        units = {}
        for name, amount in needs.amounts:
            self.left[name] -= amount
            if name != MEMORY:
                units[name] = self._take_units(name, amount, kept if name == device else ())
        return Grant(needs, units)

    def _take_units(self, name: str, amount: int, kept: Sequence[int]) -> list[int]:
        free = self._units[name]
        if len(kept) == amount and self.are_free(name, kept):
            for unit in kept:
                free.remove(unit)
            heapq.heapify(free)
            return list(kept)
        return sorted(heapq.heappop(free) for _ in range(amount))

    def are_free(self, name: str, units: Sequence[int]) -> bool:
        """True if all of these units are left."""
        return set(units) <= set(self._units[name])

    def give_back(self, grant: Grant) -> None:
        """Take back a lane's resources."""
        self.more_cpus -= grant.needs.cpus - 1
        for name, amount in grant.needs.amounts:
            self.left[name] += amount
        for name, units in grant.units.items():
            for unit in units:
                heapq.heappush(self._units[name], unit)


# -- Headroom: the memory that the machine has left, and how many lanes may work at a time with it. --------------------
#
# A lane that begins an item may come to need as much as the largest worker of the last seconds. So as many may work as
# there is room for such workers; one always may, since memory may stay short. Falling memory is assumed to fall further
# until a look and a kill later.

#: The machine has little memory left below this part of it, or below these bytes if that is less.
SHORT_PART, SHORT_BYTES = 0.1, 1 << 30
#: Almost nothing is left below this part of it, or below these bytes.
SCARCE_PART, SCARCE_BYTES = 0.03, 256 << 20
#: It has enough again above this multiple of that limit.
ENOUGH = 1.5
#: Seconds from a look at falling memory until the next one has had an effect.
HORIZON = 0.1
#: Seconds in which the remembered size of large workers falls to a half.
HALF_LIFE = 5.0


class Headroom:
    """The headroom of the machine, or of the control group that this process is in."""

    def __init__(self) -> None:
        self.lanes: int | None = None  #: how many lanes may work at a time; None: all
        self.scarce = False  #: almost nothing is left, or will be
        self._short = False
        self._largest = 0.0
        self._available: int | None = None
        self._looked_at = 0.0

    def look(self, message: MemoryRead, now: float) -> None:
        """Use a look at the memory; if nothing is known of the machine, nothing changes."""
        available, total = message.available, message.total
        if available is None or total is None:
            return
        passed = now - self._looked_at
        used = [worker.used for worker in message.workers]
        self._largest = max([self._largest * 0.5 ** (passed / HALF_LIFE), *used])
        coming = available - self._falls(available, passed)
        little = min(total * SHORT_PART, SHORT_BYTES)
        self._short = coming < (little * ENOUGH if self._short else little)
        self.scarce = coming < min(total * SCARCE_PART, SCARCE_BYTES)
        if self._short:
            self.lanes = 1
        else:
            room = (available + sum(used) - little) // max(1.0, self._largest)
            self.lanes = max(1, int(room))
        self._available, self._looked_at = available, now

    def _falls(self, available: int, passed: float) -> float:
        """Return the bytes by which the available memory will have fallen at the horizon."""
        if self._available is None or passed <= 0:
            return 0.0
        return max(0.0, (self._available - available) * HORIZON / passed)


# -- The needs of a job's items as its user states them, checked against the queue's resources. ------------------------
#
# Functions of an item are called here, in the thread that creates the job.

#: A whole number, or a function of an item that returns one; for memory, bytes, also as text: "3GB".
Amount = int | str | Callable[[Any], int | str]
#: Amounts by name, or a function of an item that returns them.
Uses = Mapping[str, Amount] | Callable[[Any], Mapping[str, int | str]]


def any_function(uses: Uses) -> bool:
    """True if a need is a function of the item."""
    named = uses.values() if isinstance(uses, Mapping) else [uses]
    return any(map(callable, named))


class Supply(NamedTuple):
    """The CPUs, resources and memory that the queue has."""

    cpus: int
    limits: Mapping[str, int]  #: of the resources
    memory: Callable[[], int | None]  #: total bytes of the machine; called if needed
    uncounted: str = ""  #: why CPUs and memory are not counted here


def check_needs(uses: Uses, table: ItemTable | None, supply: Supply) -> JobNeeds:
    """Return the needs of the items. ``table``: None if no function is called.

    Raises TypeError or ValueError for needs that are invalid, or can never be met, and errors of the functions.
    """
    stated = _Stated(uses, supply)
    if table is None or not any_function(uses):
        return JobNeeds([stated.of_one(None, "")], None, stated.memory)
    kinds: dict[Needs, int] = {}
    of = array("I")
    for index, item in enumerate(table.payloads):
        needs = stated.of_one(item, f" of item {table.named_plainly(index)}")
        of.append(kinds.setdefault(needs, len(kinds)))
    return JobNeeds([*kinds] or [Needs()], of, stated.memory)


class _Stated:
    """The given ``uses``, compared with the supply."""

    def __init__(self, uses: Uses, supply: Supply) -> None:
        self._uses = uses
        self._supply = supply
        self._limits = dict(supply.limits)
        self.memory: int | None = None  #: total bytes of the machine, once needed
        #: Sizes by a function are of many kinds.
        self._rounds = callable(uses.get(MEMORY) if isinstance(uses, Mapping) else uses)

    def of_one(self, item: Any, whose: str) -> Needs:
        """Return the needs of one item; ``whose``: the item, if that matters."""
        named = _call(f"uses{whose}", self._uses, item) if callable(self._uses) else self._uses
        if not isinstance(named, Mapping):
            raise TypeError(f"uses{whose}: expected a mapping of names to numbers, got {shown(named)}")
        cpus, memory, others = 1, 0, {}
        for named_as, given in named.items():
            name = plain(named_as)
            what = f"uses[{name!r}]{whose}"
            value = _call(what, given, item) if callable(given) else given
            if name == CPUS:
                cpus = self._cpus(what, value)
            elif name == MEMORY:
                memory = self._size(what, value)
            else:
                others[name] = self._units(what, whose, name, value)
        return needs_of(cpus, memory, others)

    def _cpus(self, what: str, value: Any) -> int:
        self._check_counted(what)
        count = _whole(what, value, low=1)
        if count > self._supply.cpus:
            raise ValueError(f"{what}: expected at most {self._supply.cpus}, the queue's concurrency, got {count}")
        return count

    def _size(self, what: str, value: Any) -> int:
        self._check_counted(what)
        if MEMORY not in self._limits:
            self.memory = self._supply.memory()
            if self.memory is None:
                raise ValueError(
                    f"{what}: expected none, since this system does not say how much there is, got {shown(value)}; "
                    'set how much the queue may use, as in JobQueue(resources={"memory": "16GB"})'
                )
            self._limits[MEMORY] = self.memory
        size, limit = size_in_bytes(what, value, low=0), self._limits[MEMORY]
        if size > limit:
            raise ValueError(f"{what}: expected at most the {limit:,} bytes that the queue may use, got {size:,}")
        return _coarse(size, limit) if self._rounds else size

    def _units(self, what: str, whose: str, name: Any, value: Any) -> int:
        limits = self._supply.limits
        if name not in limits:
            there = ", ".join(map(repr, [CPUS, *dict.fromkeys([MEMORY, *limits])]))
            hint = "; CPUs are called 'cpu'" if name == "cpus" else ""
            raise ValueError(
                f"uses{whose}: expected names of what there is ({there}), got {shown(name)}; "
                f"JobQueue(resources={{...}}) lists what there is beside CPUs and memory{hint}"
            )
        amount = _whole(what, value, low=0)
        if amount > limits[name]:
            raise ValueError(f"{what}: expected at most {limits[name]}, all there are, got {amount}")
        return amount

    def _check_counted(self, what: str) -> None:
        if self._supply.uncounted:
            raise ValueError(
                f"{what}: expected none, since {self._supply.uncounted}; count with names of your own, as in "
                "JobQueue(resources=...), instead"
            )


def _whole(what: str, value: Any, low: int) -> int:
    check_number(what, value, low=low, integer=True)
    return int.__index__(value)


def _call(name: str, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except Exception as error:
        error.add_note(f"mpqueue: raised by the function that says {name}")
        raise


def _coarse(size: int, limit: int) -> int:
    """Round a size up by at most an eighth, so that items of nearly the same size are of one kind."""
    step = 1 << max(0, size.bit_length() - 4)
    return min(limit, -(-size // step) * step)
