"""Pipelines: items go through several handlers, each a stage with workers, retries and limits of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Unpack

from mpqueue import _options as checks
from mpqueue._call_checks import check_calls, check_items
from mpqueue._core.state.item_table import DISCARD, ONWARD, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._declared import At, check_names, read, takes
from mpqueue._options import GivenOptions, QueueOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._plain import plain
from mpqueue._queue.choosing import check_job, choose_needs
from mpqueue._queue.new_job import sample, send_results_to
from mpqueue._wire.item_names import IdRule
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy

if TYPE_CHECKING:
    from mpqueue._keywords import StageKeywords


class Stage:
    """One stage of a pipeline: its handler and its own options, which are those of `create_job`.

    The handler gets the value that the stage before returned; if that stage yields, each value is an item of its own.
    ``name`` is shown in errors and on the live page (None: the handler's). At most ``concurrency`` workers run it at a
    time. If ``max_waiting`` items of the stage have not ended, the stage before waits (None: as many as keep the
    workers busy). An ``ordered`` stage gets its items in the order of the inputs. ``uses`` are the needs of each of its
    items while it runs; functions of the item are refused, since the items are not known in advance.
    """

    @takes(GivenOptions, At.STAGE)
    def __init__(self, handler: Callable[..., Any], name: str | None = None, **options: Unpack[StageKeywords]) -> None:
        check_names(GivenOptions, At.STAGE, "Stage", options, ("handler", "name"))
        self.handler = handler
        self.name = name
        self.options = options

    def __repr__(self) -> str:
        given = {"handler": self.handler, "name": self.name, **self.options}
        return f"Stage({', '.join(f'{name}={shown(value)}' for name, value in given.items() if value is not None)})"


def make_pipeline(
    job_id: str,
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    asked: GivenOptions,
    queue: QueueOptions,
    backend: Backend,
    concurrency: int,
    *,
    sink: Any = None,
    listed: bool = True,
) -> tuple[JobBook, list[tuple[str, Stage]]]:
    """Return the head of a new pipeline, whose jobs have no numbers yet, and its stages, each with its name.

    Raises the errors of `JobQueue.run_stages`.
    """
    named = name_stages(stages)
    cores = getattr(backend, "count_cores", None)
    # An input has one try; its stages retry their own items.
    overall = dataclasses.replace(checks.job_options(queue, asked, count_cores=cores), retry=RetryPolicy(max_retries=0))
    own = [_read(name, stage) for name, stage in named]
    job_options, needs = [], []
    shared = {one: getattr(overall, one) for one in ("priority", "profile")}
    for place, ((name, _), of_it) in enumerate(zip(named, own, strict=True)):
        with _in_stage(name):
            each = checks.job_options(queue, of_it, count_cores=cores)
            needs.append(choose_needs(of_it, None, queue, backend, concurrency))
        seed = seed_of(place, overall.seed)
        job_options.append(dataclasses.replace(each, seed=seed, max_waiting=None, **shared))
        check_job(backend, job_options[-1])
    transport = backend.capabilities.handler_transport
    check_items(items)
    table = make_table(items)
    table.label = asked.label
    head = JobBook(0, job_id, table, overall, None, listed=listed)
    jobs = []
    for place, ((name, stage), of_it, each) in enumerate(zip(named, own, job_options, strict=True)):
        stage_id, is_last = f"{job_id}/{name}", place == len(named) - 1
        stage_table = ItemTable([], None, IdRule.POSITION, grows=True)
        if not place:
            stage_table = ItemTable(table.payloads, table.ids, table.rule)
            stage_table.label = table.label
        stage_table.sink = ONWARD
        rule, first = stage_table.rule, stage_table.payloads
        packed = pack_handler(stage_id, stage.handler, of_it.setup, rule, each.seed, transport=transport, items=first)
        discards = is_last and sink is DISCARD
        frame = packed.frame._replace(is_stage=True, passes_on=not is_last, discards=discards, profile=each.profile)
        packed = packed._replace(frame=frame)
        jobs.append(JobBook(0, stage_id, stage_table, each, packed, listed=listed))
        sample(jobs[-1])
    for job, need in zip(jobs, needs, strict=True):
        if need is not None:
            job.need(need)
    Pipeline(head, jobs, [(name, each.max_waiting, each.ordered) for (name, _), each in zip(named, own, strict=True)])
    if sink is not None:
        send_results_to(sink, head)
    return head, named


def name_stages(stages: Iterable[Stage | Callable[..., Any]]) -> list[tuple[str, Stage]]:
    """Return each stage with its name. Raises TypeError or ValueError if something is no stage."""
    if isinstance(stages, (str, bytes, Stage)) or callable(stages) or not isinstance(stages, Iterable):
        raise TypeError(f"stages: expected a list of functions and Stages, got {shown(stages)}")
    given = [one if isinstance(one, Stage) else Stage(one) for one in stages]
    if not given:
        raise ValueError("stages: expected at least one function or Stage, got none")
    taken = _given_names(given)
    named = []
    for place, stage in enumerate(given):
        if not callable(stage.handler):
            raise TypeError(
                f"stages[{place}]: expected a function or a Stage of one, got {shown(stage.handler)} of type "
                f"{type(stage.handler).__name__}"
            )
        name = plain(stage.name) if stage.name is not None else _free_name(_own_name(stage.handler, place), taken)
        taken.add(name)
        _check_handler(name, stage)
        named.append((name, stage))
    return named


def _check_handler(name: str, stage: Stage) -> None:
    """Raise TypeError for a handler that can't take an item: otherwise all of its items would fail."""
    setup = stage.options.get("setup")
    if setup is None or callable(setup):
        with _in_stage(name):
            check_calls(stage.handler, with_state=setup is not None)


@contextlib.contextmanager
def _in_stage(name: str) -> Iterator[None]:
    """Name the stage in errors of the block."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"stage {name!r}: {error}") from None


def _read(name: str, stage: Stage) -> GivenOptions:
    with _in_stage(name):
        return read(GivenOptions, At.STAGE, "Stage", stage.options)


def _given_names(stages: Sequence[Stage]) -> set[str]:
    names: set[str] = set()
    for place, stage in enumerate(stages):
        if stage.name is None:
            continue
        if not isinstance(stage.name, str) or not stage.name:  # type: ignore[redundant-expr]
            raise TypeError(f"stages[{place}].name: expected a text that is not empty, got {shown(stage.name)}")
        name = plain(stage.name)
        if name in names:
            raise ValueError(f"stages[{place}].name: expected a name of its own, got {name!r} once more")
        names.add(name)
    return names


def _own_name(handler: Callable[..., Any], place: int) -> str:
    name = getattr(inspect.unwrap(handler), "__name__", None)
    if name is None and isinstance(function := getattr(handler, "func", None), Callable):  # type: ignore[arg-type]
        name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and name.isidentifier() else f"stage-{place + 1}"


def _free_name(name: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def seed_of(place: int, overall: int) -> int:
    """Return the stage's own seed: with one seed for all, an item would get the same numbers in each stage."""
    return checks.named_seed(overall, f"stage {place}") if place else overall
