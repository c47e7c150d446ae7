"""What the items of a job need, as its user says it, checked against what the queue has.

Functions of an item are called here, in the thread that creates the job.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.needs.resources import MEMORY, JobNeeds, Needs, needs_of
from mpqueue._options import size_in_bytes
from mpqueue._plain import plain
from mpqueue.errors import shown
from mpqueue.retry import check_number

#: A whole number, or a function of an item that gives one.
Amount = int | Callable[[Any], int]
#: The same for bytes, also as text: "3GB".
Size = int | str | Callable[[Any], int | str]
#: Amounts by the names of resources, or a function of an item that gives them.
Uses = Mapping[str, Amount] | Callable[[Any], Mapping[str, int]]


class StatedNeeds(NamedTuple):
    """``cpus``, ``memory`` and ``uses`` of a job, as they were given."""

    cpus: Amount | None = None
    memory: Size | None = None
    uses: Uses | None = None

    @property
    def any_function(self) -> bool:
        """True where something depends on the item."""
        named = self.uses.values() if isinstance(self.uses, Mapping) else [self.uses]
        return any(map(callable, [self.cpus, self.memory, *named]))


class Supply(NamedTuple):
    """What the queue has."""

    cpus: int
    limits: Mapping[str, int]  #: of the resources
    memory: Callable[[], int | None]  #: bytes of the machine's; asked where it matters


def check_needs(stated: StatedNeeds, table: ItemTable | None, supply: Supply) -> JobNeeds | None:
    """The needs of the items; None where nothing was said. ``table``: None, where no function is asked.

    Raises TypeError or ValueError for what makes no sense, or can never be met, and what the functions raise.
    """
    if stated == StatedNeeds():
        return None
    memory = None
    if stated.memory is not None and MEMORY not in supply.limits:
        memory = supply.memory()
        if memory is None:
            raise ValueError(
                f"memory: expected None, since this system does not say how much there is, got {shown(stated.memory)}; "
                'set how much the queue may use, as in JobQueue(resources={"memory": "16GB"})'
            )
    limits = supply.limits if memory is None else {**supply.limits, MEMORY: memory}
    if table is None or not stated.any_function:
        return JobNeeds([_of_one(stated, None, "", supply.cpus, limits)], None, memory)
    return _of_each(stated, table, supply.cpus, limits)._replace(memory=memory)


def _of_each(stated: StatedNeeds, table: ItemTable, cpus: int, limits: Mapping[str, int]) -> JobNeeds:
    kinds: dict[Needs, int] = {}
    of = array("I")
    for index, item in enumerate(table.payloads):
        needs = _of_one(stated, item, f" of item {table.named_plainly(index)}", cpus, limits)
        if callable(stated.memory):
            needs = _rounded(needs, limits[MEMORY])
        of.append(kinds.setdefault(needs, len(kinds)))
    return JobNeeds([*kinds] or [Needs()], of)


def _of_one(stated: StatedNeeds, item: Any, whose: str, cpus: int, limits: Mapping[str, int]) -> Needs:
    """What one item needs; ``whose``: of which item, where that matters."""
    count = 1 if stated.cpus is None else _amount(f"cpus{whose}", stated.cpus, item, low=1)
    if count > cpus:
        raise ValueError(f"cpus{whose}: expected at most {cpus}, the queue's concurrency, got {count}")
    memory = 0
    if stated.memory is not None:
        size = _call(f"memory{whose}", stated.memory, item) if callable(stated.memory) else stated.memory
        memory = size_in_bytes(f"memory{whose}", size, low=0)
        if memory > limits[MEMORY]:
            raise ValueError(
                f"memory{whose}: expected at most the {limits[MEMORY]:,} bytes that the queue may use, got {memory:,}"
            )
    return needs_of(count, memory, dict(_uses(stated.uses, item, whose, limits)))


def _uses(uses: Uses | None, item: Any, whose: str, limits: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    named = _call(f"uses{whose}", uses, item) if callable(uses) else uses or {}
    if not isinstance(named, Mapping):
        raise TypeError(f"uses{whose}: expected a mapping of names to numbers, got {shown(named)}")
    for named_as, given in named.items():
        name = plain(named_as)
        if name not in limits or name == MEMORY:
            there = ", ".join(repr(other) for other in limits if other != MEMORY) or "none"
            raise ValueError(
                f"uses{whose}: expected names of the queue's resources ({there}), got {shown(name)}; "
                f"JobQueue(resources={{...}}) lists what there is"
            )
        amount = _amount(f"uses[{name!r}]{whose}", given, item, low=0)
        if amount > limits[name]:
            raise ValueError(f"uses[{name!r}]{whose}: expected at most {limits[name]}, all there are, got {amount}")
        yield name, amount


def _amount(name: str, given: Amount, item: Any, low: int) -> int:
    value = _call(name, given, item) if callable(given) else given
    check_number(name, value, low=low, integer=True)
    return int.__index__(value)


def _call(name: str, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except Exception as error:
        error.add_note(f"mpqueue: raised by the function that says {name}")
        raise


def _rounded(needs: Needs, limit: int) -> Needs:
    """The same with its memory rounded up by an eighth at most: items of nearly the same size are of one kind."""
    amounts = ((name, _coarse(amount, limit) if name == MEMORY else amount) for name, amount in needs.amounts)
    return needs._replace(amounts=tuple(amounts))


def _coarse(size: int, limit: int) -> int:
    step = 1 << max(0, size.bit_length() - 4)
    return min(limit, -(-size // step) * step)
