"""What users give: the choice of a queue's engine and journal, and the books of a job.

Options that the engine does not support are refused.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from mpqueue._core.commands import Capabilities
from mpqueue._core.state.item_table import DISCARD, ItemTable, check_unique, read_all
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.resources import JobNeeds, Supply, any_function, check_needs
from mpqueue._engines.loky.loky_pool import LokyBackend
from mpqueue._options import GivenOptions, JobOptions, QueueOptions
from mpqueue._parent.deliveries import Delivery
from mpqueue._parent.lane_protocol import Backend
from mpqueue._parent.running import memory_supply
from mpqueue._plain import plain
from mpqueue._wire.item_names import IdRule, rule_of
from mpqueue._wire.parcels import plain_ids
from mpqueue._wire.pickling.packed_handler import HandlerTransport, PackedHandler, pack_handler
from mpqueue._wire.pickling.script import Script, script_here
from mpqueue.errors import shown

if TYPE_CHECKING:
    from mpqueue._parent.journal.journal_reader import RecordedJob


_DASK = "dask://"
_WHICH = "'loky' or a Backend (see mpqueue.backends), 'dask://HOST:PORT' or 'ray'"


def choose_backend(backend: str | Backend) -> Backend:
    """Return the engine of that name, connected to its cluster, or the given engine.

    Raises TypeError or ValueError for anything else, and the engine's own errors.
    """
    if isinstance(backend, str):
        if backend == "loky":
            return LokyBackend()
        if backend.startswith(_DASK) and len(backend) > len(_DASK):
            from mpqueue.backends import DaskBackend  # an extra

            return DaskBackend(f"tcp://{backend.removeprefix(_DASK)}")
        if backend == "ray" or backend.startswith("ray://"):
            from mpqueue.backends import RayBackend  # an extra

            return RayBackend(None if backend == "ray" else backend)  # raises: the error says why it refuses an address
        raise ValueError(f"backend: expected {_WHICH}, got {shown(backend)}")
    able = isinstance(getattr(backend, "capabilities", None), Capabilities) and hasattr(backend, "open")
    if isinstance(backend, type) or not able:
        raise TypeError(f"backend: expected {_WHICH}, got {shown(backend)} of type {type(backend).__name__}")
    return backend


def script_for(backend: Backend, *, starts_now: bool) -> Script | None:
    """The main module that a drop-in's workers import; None if they import none: see `script_here`."""
    able = backend.capabilities
    return script_here(starts_now=starts_now) if able.own_processes and able.is_here else None


def journal_path(journal: str | os.PathLike[str] | None) -> str | None:
    """Return the journal's full path. Raises TypeError or ValueError if it is no path."""
    if journal is None:
        return None
    try:
        path = os.fspath(journal)
    except TypeError:
        raise TypeError(f"journal: expected a path, got {shown(journal)} of type {type(journal).__name__}") from None
    if not isinstance(path, str) or not path or "\0" in path:  # type: ignore[redundant-expr]
        raise ValueError(f"journal: expected the path of a file as text, got {shown(path)}")
    from mpqueue._parent.journal.checks import own_path  # only journals need it

    return own_path(plain(path))


def choose_sink(results: Any, journal: str | None) -> Any:
    """Return the sink, `DISCARD`, or None if results are kept. ``journal`` is the queue's.

    Raises TypeError or ValueError for anything else, and the errors of the sink's own check.
    """
    if isinstance(results, str):
        if results not in ("keep", DISCARD):
            raise ValueError(f"results: expected 'keep', 'discard' or a sink, got {shown(results)}")
        return DISCARD if results == DISCARD else None
    from mpqueue._output.row_outlet import check_sink  # few programs need it

    check_sink(results, journal)
    return results


def check_queue(backend: Backend, options: QueueOptions, *, has_initializer: bool, has_preload: bool) -> None:
    """Raise ValueError if the queue's options need something that the engine can't do."""
    able = backend.capabilities
    _refuse_limit(backend, "timeout", options.timeout)
    limits = options.per_worker
    _refuse_limit(backend, "per_worker['setup_timeout']", limits.setup_timeout)
    if limits.memory is not None and able.is_here and not able.shares_memory:
        raise ValueError(f"per_worker['memory']: expected None, since {backend!r} has workers that can't be measured")
    if limits.threads is not None and not able.own_processes:
        raise ValueError(
            f"per_worker['threads']: expected None, since the workers of {backend!r} are not started by mpqueue"
        )
    if has_preload and not able.can_fork:
        where = (
            "this system has no safe fork" if able.own_processes else f"the workers of {backend!r} are not forked here"
        )
        raise ValueError(f"preload: expected None, since {where}; use initializer or setup to import early")
    if options.gpu_env and not (able.own_processes and able.is_here):
        why = "not started by mpqueue" if able.is_here else "on several machines, whose GPUs are not counted"
        raise ValueError(f"gpu_env: expected False, since the workers of {backend!r} are {why}")
    if options.gpu_env and (has_initializer or has_preload):
        name = "initializer" if has_initializer else "preload"
        raise ValueError(f"{name}: expected None with gpu_env=True, since it runs before a worker knows its GPU")


def check_job(backend: Backend, options: JobOptions) -> None:
    """Raise ValueError if a job's options need something that the engine can't do."""
    _refuse_limit(backend, "timeout", options.timeout)
    if options.capture_output and not backend.capabilities.own_processes:
        raise ValueError(f"capture_output: expected False, since the processes of {backend!r} run other things too")


def choose_needs(
    asked: GivenOptions,
    table: ItemTable | None,
    options: QueueOptions,
    backend: Backend,
    concurrency: int,
) -> JobNeeds | None:
    """Return the items' needs by ``uses``; None without it. ``table`` is None if the items come later.

    Raises TypeError or ValueError, and the functions' errors.
    """
    uses = asked.uses
    if uses is None:
        return None
    able, why = backend.capabilities, ""
    if not (able.own_processes and able.is_here):
        where = (
            "not started by mpqueue" if able.is_here else "on several machines, whose CPUs and memory are not counted"
        )
        why = f"the workers of {backend!r} are {where}"
    if table is None and any_function(uses):
        raise ValueError("uses: expected numbers where the items are still to come, got functions")
    return check_needs(uses, table, Supply(concurrency, options.resources, memory_supply, why))


def _refuse_limit(backend: Backend, name: str, seconds: float | None) -> None:
    if seconds is not None and not backend.capabilities.own_processes:
        raise ValueError(f"{name}: expected None, since {backend!r} can't end an item that runs; got {seconds!r}")


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


def make_growing(items: Iterable[Any]) -> ItemTable:
    """Return an open job's first items. Raises the errors of `make_table`, and TypeError for ids that are not plain."""
    payloads = read_all(items)
    rule = rule_of(payloads[0]) if payloads else IdRule.POSITION
    ids = plain_ids(rule, payloads)
    check_unique(ids or [])
    return ItemTable(payloads, ids, rule, grows=True)


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


def replay_item(packed: PackedHandler, table: ItemTable, index: int) -> Any:
    """Run an item once more in this process, as `JobItem.replay` describes."""
    from mpqueue._worker.handlers.loaded_jobs import replay  # most programs don't need it, and start faster without

    return replay(packed.frame, table.payloads[index], index, table.attempts[index] + 1, table.slots_of([index]))
