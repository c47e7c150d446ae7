"""The needs of a job's items as its user states them, checked against the queue's resources.

Functions of an item are called here, in the thread that creates the job.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.resources import CPUS, MEMORY, JobNeeds, Needs, needs_of
from mpqueue._options import size_in_bytes
from mpqueue._plain import plain
from mpqueue.errors import shown
from mpqueue.retry import check_number

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
