"""Pipelines: items that go through several handlers, each a stage with workers, retries and limits of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpqueue import _options as checks
from mpqueue._call_checks import check_calls, check_items, names_options
from mpqueue._core.state.item_table import DISCARD, ONWARD, ItemTable, make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.needs.resources import JobNeeds
from mpqueue._core.state.pipeline import Pipeline
from mpqueue._options import JobOptions, QueueOptions
from mpqueue._parent.lane_protocol import Backend
from mpqueue._plain import plain
from mpqueue._queue.choosing import check_job, choose_needs
from mpqueue._queue.new_job import sample, send_results_to
from mpqueue._wire.ids import IdRule
from mpqueue._wire.item_labels import Label
from mpqueue._wire.pickling.packed_handler import pack_handler
from mpqueue.errors import shown
from mpqueue.retry import RetryPolicy, check_number


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a pipeline: its handler, and what holds for this stage only. The options are those of `create_job`.

    The handler gets what the stage before returned; of one that yields, each value is an item of its own for the next
    stage. ``name`` stands in errors and on the live page (None: the handler's). ``concurrency`` is how many workers run
    it at a time at most. At most ``max_waiting`` items are in the stage that have not ended: then the stage before
    waits (None: as many as keep the workers busy). An ``ordered`` stage gets its items in the order of the inputs.
    ``cpus``, ``memory`` and ``uses`` say what each of its items needs while it runs; functions of the item are refused,
    since it is not known when they would be asked.
    """

    handler: Callable[..., Any]
    name: str | None = None
    setup: Callable[[], Any] | None = None
    concurrency: int | None = None
    max_retries: int | None = None
    retry: RetryPolicy | None = None
    timeout: float | None = None
    chunksize: int | None = None
    capture_output: bool = False
    max_waiting: int | None = None
    ordered: bool = False
    cpus: int | None = None
    memory: int | str | None = None
    uses: Mapping[str, int] | None = None


Stage.__init__ = names_options("Stage")(Stage.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """What holds for a pipeline as a whole, see `JobQueue.run_stages`."""

    priority: int = 0
    seed: int | None = None
    max_failures: int | None = None
    deadline: float | None = None
    trace: bool = False
    profile: bool = False
    concurrency: int | None = None  #: how many workers all stages have at most, together
    results: Any = None  #: the sink of the last stage's results, or `DISCARD`; None: they are kept
    label: Label = None  #: how the inputs' labels are chosen


def make_pipeline(
    job_id: str,
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    options: PipelineOptions,
    queue: QueueOptions,
    backend: Backend,
    concurrency: int,
    *,
    listed: bool = True,
) -> tuple[JobBook, list[tuple[str, Stage]]]:
    """The head of a new pipeline, whose jobs have no numbers yet; and its stages, each with its name.

    Raises what `JobQueue.run_stages` raises.
    """
    named = name_stages(stages)
    overall = _overall(queue, options)
    seeds = [seed_of(place, overall.seed) for place in range(len(named))]
    job_options = [
        _options_of(name, stage, queue, options, seed) for (name, stage), seed in zip(named, seeds, strict=True)
    ]
    for each in job_options:
        check_job(backend, each)
    needs = [_needs_of(name, stage, queue, backend, concurrency) for name, stage in named]
    travels = backend.capabilities.handlers_travel
    check_items(items)
    table = make_table(items)
    table.label = options.label
    head = JobBook(0, job_id, table, overall, None, listed=listed)
    jobs = []
    for place, ((name, stage), each) in enumerate(zip(named, job_options, strict=True)):
        stage_id, is_last = f"{job_id}/{name}", place == len(named) - 1
        stage_table = ItemTable([], None, IdRule.POSITION, grows=True)
        if not place:
            stage_table = ItemTable(table.payloads, table.ids, table.rule)
            stage_table.label = table.label
        stage_table.sink = ONWARD
        rule, first = stage_table.rule, stage_table.payloads
        packed = pack_handler(stage_id, stage.handler, stage.setup, rule, each.seed, travels=travels, items=first)
        discards = is_last and options.results is DISCARD
        frame = packed.frame._replace(is_stage=True, passes_on=not is_last, discards=discards, profile=each.profile)
        packed = packed._replace(frame=frame)
        jobs.append(JobBook(0, stage_id, stage_table, each, packed, listed=listed))
        sample(jobs[-1])
    for job, need in zip(jobs, needs, strict=True):
        if need is not None:
            job.need(need)
    Pipeline(head, jobs, [(name, stage.max_waiting, stage.ordered) for name, stage in named])
    if options.results is not None:
        send_results_to(options.results, head)
    return head, named


def name_stages(stages: Iterable[Stage | Callable[..., Any]]) -> list[tuple[str, Stage]]:
    """Each stage with its name. Raises TypeError or ValueError for what are no stages."""
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
    """Raise TypeError where no item could be given to it: its items would fail one after the other."""
    try:
        if stage.setup is None or callable(stage.setup):
            check_calls(stage.handler, with_state=stage.setup is not None)
    except TypeError as error:
        raise TypeError(f"stage {name!r}: {error}") from None


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


def _overall(queue: QueueOptions, options: PipelineOptions) -> JobOptions:
    """The head's: each input has one try, which is all that its stages do with it."""
    return checks.job_options(
        queue,
        max_retries=0,
        retry=None,
        timeout=None,
        priority=options.priority,
        chunksize=None,
        seed=options.seed,
        trace=options.trace,
        profile=options.profile,
        max_failures=options.max_failures,
        deadline=options.deadline,
        concurrency=options.concurrency,
    )


def seed_of(place: int, overall: int) -> int:
    """The seed of the stage at that place. One seed for all would give an item the same numbers in each stage."""
    return checks.named_seed(overall, f"stage {place}") if place else overall


def _options_of(name: str, stage: Stage, queue: QueueOptions, options: PipelineOptions, seed: int) -> JobOptions:
    try:
        checks.check_bool("ordered", stage.ordered)
        if stage.max_waiting is not None:
            check_number("max_waiting", stage.max_waiting, low=1, integer=True)
        return checks.job_options(
            queue,
            max_retries=stage.max_retries,
            retry=stage.retry,
            timeout=stage.timeout,
            priority=options.priority,
            chunksize=stage.chunksize,
            capture_output=stage.capture_output,
            concurrency=stage.concurrency,
            seed=seed,
            trace=options.trace,
            profile=options.profile,
        )
    except (TypeError, ValueError) as error:
        raise type(error)(f"stage {name!r}: {error}") from None


def _needs_of(name: str, stage: Stage, queue: QueueOptions, backend: Backend, concurrency: int) -> JobNeeds | None:
    try:
        return choose_needs((stage.cpus, stage.memory, stage.uses), None, queue, backend, concurrency)
    except (TypeError, ValueError) as error:
        raise type(error)(f"stage {name!r}: {error}") from None
