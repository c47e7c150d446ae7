"""Making the books of a job from what its user has given."""

from __future__ import annotations

import dataclasses
import importlib
import logging
import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.item_table import DISCARD, ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.resources import JobNeeds
from mpqueue._options import GivenOptions, JobOptions
from mpqueue._parent.deliveries import Delivery
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.pickling.packed_handler import HandlerTransport, PackedHandler, pack_handler
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob

log = logging.getLogger("mpqueue")

#: A number for each item, the way to get it, or (`RECORDED`) from the journal; None: the items keep their own order.
Cost = Callable[[Any], float] | Sequence[float] | str | None
#: The costs are the items' times in their last run, from the journal.
RECORDED = "recorded"


def make_job(
    job_id: str,
    table: ItemTable,
    options: JobOptions,
    handler: Callable[..., Any],
    asked: GivenOptions,
    *,
    is_open: bool = False,
    transport: HandlerTransport = HandlerTransport.IN_MEMORY,
    results: Any = None,
    needs: JobNeeds | None = None,
) -> JobBook:
    """Return the books of a new job, whose number is set before it is started. Raises the errors of `pack_handler`."""
    setup, cost = asked.setup, asked.cost
    table.label = asked.label
    packed = pack_handler(job_id, handler, setup, table.rule, options.seed, transport=transport, items=table.payloads)
    if results is DISCARD or is_open or options.profile:
        frame = packed.frame._replace(discards=results is DISCARD, is_open=is_open, profile=options.profile)
        packed = packed._replace(frame=frame)
    book = JobBook(0, job_id, table, options, packed, sealed=not is_open)
    sample(book)
    if needs is not None:
        book.need(needs)
    if results is not None:
        send_results_to(results, book)
    if cost is not None and not isinstance(cost, str):
        book.order_by(costs_of(cost, table))
    table.replay = partial(replay_item, packed)
    return book


def take_rule(book: JobBook, rule: IdRule) -> None:
    """Take the rule for ids of an open job's first item."""
    book.handler = book.handler._replace(frame=book.handler.frame._replace(id_rule=str(rule)))
    book.table.replay = partial(replay_item, book.handler)


def reseed(book: JobBook, seed: int) -> None:
    """Give the job, or stage, this seed."""
    book.options = dataclasses.replace(book.options, seed=seed)
    book.handler = book.handler._replace(frame=book.handler.frame._replace(seed=seed))


def sample(book: JobBook) -> None:
    """Make room for the samples of its handler, if the job is profiled."""
    if book.options.profile:
        from mpqueue._report.profile import JobSamples  # few programs need it

        book.samples = JobSamples()


def send_results_to(sink: Any, book: JobBook) -> None:
    """Send the job's results to the sink, or (`DISCARD`) nowhere."""
    book.table.sink = sink
    if sink is not DISCARD:
        from mpqueue._output.row_outlet import RowOutlet  # few programs need it

        outlet = RowOutlet(sink, book.table, book.id, captured=book.options.capture_output)
        book.delivery = Delivery(outlet)


def check_cost(asked: GivenOptions, *, has_journal: bool) -> None:
    """Raise TypeError or ValueError if it is no valid cost."""
    cost = asked.cost
    if cost is None:
        return
    if isinstance(cost, str) and cost != RECORDED:
        raise ValueError(f"cost: expected a function, a number for each item or {RECORDED!r}, got {shown(cost)}")
    if isinstance(cost, str) and not has_journal:
        raise ValueError(f"cost: expected a queue with a journal for {RECORDED!r}, got one without")
    if not callable(cost) and (isinstance(cost, Mapping | AbstractSet) or not isinstance(cost, Iterable)):
        raise TypeError(
            f"cost: expected a function of an item, or a list of numbers, got {shown(cost)} of type "
            f"{type(cost).__name__}"
        )


def costs_of(cost: Callable[[Any], float] | Sequence[float], table: ItemTable) -> array[float]:
    """Return each item's cost. Raises TypeError or ValueError if one is no number, and errors of ``cost``."""
    count = len(table)
    given = map(cost, table.payloads) if callable(cost) else islice(cost, count + 1)  # it may be endless
    costs: array[float] = array("d")
    for index, value in enumerate(given):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(
                f"{_cost_of(table, index)}: expected a number, got {shown(value)} of type {type(value).__name__}"
            ) from None
        if not math.isfinite(number):
            raise ValueError(f"{_cost_of(table, index)}: expected a finite number, got {number}")
        costs.append(number)
    if len(costs) != count:
        got = len(cost) if isinstance(cost, Sized) else len(costs) if len(costs) < count else "more"
        raise ValueError(f"cost: expected a number for each of {count} items, got {got} in {shown(cost)}")
    return costs


def _cost_of(table: ItemTable, index: int) -> str:
    return f"cost of item {table.named(index)}" if index < len(table) else "cost"


def restore_end(book: JobBook, recorded: RecordedJob) -> None:
    """Put the job into the state in which it was recorded."""
    book.status = recorded.status
    book.started_at, book.finished_at, book.duration = recorded.started_at, recorded.finished_at, recorded.duration


def find_named(name: str) -> Any:
    """Return the object with this name, `module:name`; None if there is none."""
    module, _, path = name.partition(":")
    try:
        return attrgetter(path)(importlib.import_module(module))
    except Exception:  # noqa: BLE001 - whatever importing raises
        return None


def replay_item(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    """Run an item once more in this process, as `JobItem.replay` describes."""
    from mpqueue._worker.handlers.loaded_jobs import replay  # most programs don't need it, and start faster without

    return replay(packed.frame, table.payloads[index], index, table.attempts[index] + 1, table.slots_of([index]))
