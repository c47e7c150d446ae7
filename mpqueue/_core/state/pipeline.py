"""The stages of a pipeline: the input of each stage's items, and the outcome of each input.

A pipeline is a job for each stage, and one more, the *head*, which users hold: it has one item for each input, runs
nothing itself, and has the inputs' outcomes. The value that a stage's item returns is the next stage's item; each value
that it yields is one too.

The *path* of an item is the place of its input, and the places of the yielded values on the way. So the items of one
input have an order that does not depend on which worker was faster.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from mpqueue._core.state.columns import Sparse, put
from mpqueue._core.state.item_table import DISCARD, Failure, ItemTable
from mpqueue._wire.parcels import Yielded
from mpqueue.errors import ItemCancelledError, StageError
from mpqueue.status import COMPLETED

if TYPE_CHECKING:
    from mpqueue._core.state.job_book import JobBook

Path = tuple[int, ...]
_POSITIVE = (1 << 63) - 1


class Origins:
    """The origins of a stage's items, except for the first stage. Each has the id and the label of its input."""

    def __init__(self, inputs: ItemTable) -> None:
        self.inputs = inputs  #: the pipeline's
        self.input_of: Any = array("Q")  #: by the item's index, even once it has ended; None: its row is gone
        self.paths: dict[int, Path] = {}  #: of the items that have not ended

    def note(self, paths: Sequence[Path]) -> None:
        """Note the paths of items that the stage is about to get."""
        places = range(len(self.input_of), len(self.input_of) + len(paths))
        self.paths.update(zip(places, paths, strict=True))
        if isinstance(self.input_of, Sparse):
            put(self.input_of, places, [path[0] for path in paths])
        else:
            self.input_of.extend([path[0] for path in paths])

    def slots_of(self, indices: Sequence[int]) -> Sequence[int]:
        """Return numbers for the items' random numbers, by their paths, independent of the order in which they came."""
        paths, slots = [self.paths[index] for index in indices], self.inputs.slots
        if slots is not None:
            paths = [(slots[path[0]], *path[1:]) for path in paths]
        return [path[0] if len(path) == 1 else hash(path) & _POSITIVE for path in paths]


@dataclass(eq=False, slots=True)
class StageBook:
    """One stage: its place among the stages, and the arrival of its items."""

    pipeline: Pipeline
    place: int
    name: str
    most: int | None = None  #: the most unfinished items in it; None: as many as keep it busy
    ordered: bool = False  #: its items come in the order of their inputs
    turn: int = 0  #: the first input from which items may still come
    next_ordered: StageBook | None = None  #: the first ordered stage after it
    early: dict[int, list[tuple[Path, Any]]] = field(default_factory=dict)  #: by input: items before their turn
    #: By input: the number of its items in the stages before, from the last ordered one on, which has had its turn
    #: there; if it is not 1.
    coming: dict[int, int] = field(default_factory=dict)
    turned: set[int] = field(default_factory=set)  #: later inputs that had their turn in an earlier run
    #: Later inputs without further items: they were cancelled, failed, or had their turn in an earlier run.
    skipped: int = 0
    unwanted: set[int] = field(default_factory=set)  #: items that have just come, of cancelled inputs

    @property
    def is_last(self) -> bool:
        """True for the stage whose results are the pipeline's."""
        return self.place == len(self.pipeline.jobs) - 1

    @property
    def after(self) -> JobBook | None:
        """The next stage's job."""
        return None if self.is_last else self.pipeline.jobs[self.place + 1]

    @property
    def limit(self) -> int:
        """The number of unfinished items that may be in this stage. Not for the first one."""
        if self.most is not None:
            return self.most
        jobs = self.pipeline.jobs
        return jobs[self.place].sizer.between_stages(self.pipeline.count_lanes(), jobs[self.place - 1].sizer)

    @property
    def room(self) -> int:
        """The number of further items that may begin here, so that not too many of their results wait."""
        own, after = self.pipeline.jobs[self.place], self.after
        if after is None and self.pipeline.head.held_back:  # its results wait to be written
            return 0
        room = len(own.table)
        if after is not None:
            assert after.stage is not None
            room = after.stage.limit - (len(after.table) - after.completed - after.failed) - own.items_out
        if self.place == 0 and self.next_ordered is not None:
            room = min(room, self.pipeline.horizon - (len(own.table) - own.waiting))
        return room

    def items_of(self, inputs: Collection[int]) -> list[int]:
        """Return the unfinished items of these inputs in this stage."""
        table = self.pipeline.jobs[self.place].table
        if table.origins is not None:
            return [index for index, path in table.origins.paths.items() if path[0] in inputs]
        return [index for index in inputs if not table.ended(index)]

    def inputs_of(self, indices: Sequence[int]) -> set[int]:
        """Return the inputs from which these items of this stage came."""
        origins = self.pipeline.jobs[self.place].table.origins
        return set(indices) if origins is None else {origins.input_of[index] for index in indices}

    def take_unwanted(self) -> set[int]:
        """Take the items that have just come and must not run."""
        unwanted, self.unwanted = self.unwanted, set()
        return unwanted

    def came(self, root: int, left: int) -> dict[int, list[tuple[Path, Any]]]:
        """Note how many items of that input are left in the stages before, see ``coming``.

        Returns the inputs that have their turn now, in order, each with its items.
        """
        self.coming[root] = left
        if left:
            return {}
        self.skipped += root not in self.early
        turns = self._take_turns()
        self.pipeline.moved(self, skips=not turns and root not in self.early)
        return turns

    def go_on(
        self, turned: set[int], coming: dict[int, int], early: dict[int, list[tuple[Path, Any]]]
    ) -> dict[int, list[tuple[Path, Any]]]:
        """Set these, before the start. Returns the inputs that have their turn now, each with its items."""
        self.turned, self.coming, self.early = turned, coming, early
        self.skipped = len(turned)
        return self._take_turns()

    def _take_turns(self) -> dict[int, list[tuple[Path, Any]]]:
        turns: dict[int, list[tuple[Path, Any]]] = {}
        while (had_it := self.turn in self.turned) or self.coming.get(self.turn) == 0:
            if had_it:  # later stages know of what has come of it
                self.turned.discard(self.turn)
                self.skipped -= 1
            else:
                del self.coming[self.turn]
                turns[self.turn] = own = sorted(self.early.pop(self.turn, ()), key=_path_of)
                self.skipped -= not own
            self.turn += 1
        return turns


@dataclass(eq=False, slots=True)
class _Spread:
    """The items made from one input, if it was not exactly one on its way."""

    open: int = 1  #: items that have not ended
    results: list[tuple[Path, Any]] = field(default_factory=list)
    failure: tuple[Path, Failure] | None = None  #: the first one, by its path


@dataclass(slots=True)
class InputsEnded:
    """Inputs with nothing left to do, and their outcomes, in the form of `mpqueue._core.rules.outcomes.record`."""

    indices: list[int] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)  #: by position
    fed: list[JobBook] = field(default_factory=list)  #: the stages that got items meanwhile


class PassHook(Protocol):
    """A journal's record of the values on their way from stage to stage."""

    def note(self, path: Path, place: int, brought: Sequence[tuple[Path, object]]) -> None:
        """Note the values for the next stage of the item at this path, which has ended in the stage at this place."""


class Pipeline:
    """A pipeline of stages, made with its jobs before the start; then it is the scheduler's, like their books."""

    def __init__(self, head: JobBook, jobs: Sequence[JobBook], stages: Sequence[tuple[str, int | None, bool]]) -> None:
        """Make it of ``stages``: each job with its name, its limit of items, and whether they come in order."""
        self.head = head
        self.jobs = list(jobs)
        self.count_lanes: Callable[[], int] = lambda: 1  #: set when it is started
        self.record: PassHook | None = None
        self.has_spread = False  #: values were yielded: a stage may have more items than there are inputs, or fewer
        self._spread: dict[int, _Spread] = {}
        self._on_their_way = 0  #: inputs that had begun in an earlier run, and go on in this one
        self._horizon = 0
        self._due_to: StageBook | None = None  #: the stage that determines it; None: it has to be found again
        head.pipeline = self
        head.pending.clear()
        for place, (job, (name, most, ordered)) in enumerate(zip(jobs, stages, strict=True)):
            job.stage = StageBook(self, place, name, most, ordered)
            job.in_order = ordered
            job.sealed = place == 0
            if place:
                job.table.origins = Origins(head.table)
        following: StageBook | None = None
        for job in reversed(jobs):
            assert job.stage is not None
            job.stage.next_ordered = following
            following = job.stage if job.stage.ordered else following

    @property
    def total(self) -> int:
        """Number of inputs."""
        return len(self.head.table)

    @property
    def is_over(self) -> bool:
        """True if no stage has work left."""
        return all(job.status.final for job in reversed(self.jobs))  # the last stage ends last

    @property
    def lanes_held(self) -> int:
        """The lanes that hold chunks of any stage."""
        return sum(job.lanes_held for job in self.jobs)

    def may_have_more(self, lane_job: JobBook | None) -> bool:
        """False if all stages together have as many lanes as they may, and this lane's job is none of them."""
        most = self.head.options.max_lanes
        return most is None or self.lanes_held < most or lane_job in self.jobs

    @property
    def seconds(self) -> float:
        """The worker seconds that all stages have used, and those of items under way."""
        return sum(job.seconds_used + job.seconds_expected for job in self.jobs)

    @property
    def horizon(self) -> int:
        """The first input that may not begin yet, since too many are between it and the one whose turn it is.

        It is found again when an item has come to the stage that determines it, or an input is skipped: so it costs a
        look at all stages about once per input. The input whose turn it is there has begun by then, or is the next one:
        so it can't last. An input that may begin always may: it may have to do so again. Those that had begun in an
        earlier run leave room for one, however few may be between the stages in this run.
        """
        if self._due_to is None:
            window = skipped = 0
            ends = list[tuple[int, StageBook]]()
            for job in self.jobs[1:]:
                stage = job.stage
                assert stage is not None
                window += stage.limit
                if stage.ordered:
                    skipped += stage.skipped
                    ends.append((stage.turn + skipped + max(window, self._on_their_way + 1), stage))
            least, self._due_to = min(ends, key=_end_of)
            self._horizon = max(self._horizon, least)
        return self._horizon

    def moved(self, stage: StageBook, *, skips: bool) -> None:
        """Note that all items of an input have come to this stage; ``skips``: none came, before its turn."""
        if skips or self._due_to is stage:
            self._due_to = None

    def take_outcomes(
        self, job: JobBook, indices: Sequence[int], results: Sequence[Any], failed: Collection[int]
    ) -> InputsEnded:
        """Give the results of a stage's ended items to the next stage. Returns the inputs that are finished.

        ``failed`` are the indices of items that failed for good; ``results`` has any value in their places.
        """
        stage, table = job.stage, job.table
        assert stage is not None
        ended, arrivals = InputsEnded(), list[tuple[Path, Any]]()
        took, used = self.head.table.elapsed, self.head.table.cpu
        for index, result in zip(indices, results, strict=True):
            path = (index,) if table.origins is None else table.origins.paths.pop(index)
            took[path[0]] += table.elapsed[index]
            used[path[0]] += table.cpu[index]
            if index in failed:
                more = 0
                self._failed(path, _in_stage(stage.name, table.failures[index]), ended)
            elif stage.is_last:
                more = 0
                self._through(path, result, ended)
            elif type(result) is Yielded:
                more = len(result.values)
                values = [((*path, at), value) for at, value in enumerate(result.values)]
                self._note(path, stage, values)
                arrivals += self._arrive(stage, path, values)
                self._spread_out(path[0], more, ended)
            else:
                more = 1
                self._note(path, stage, [(path, result)])
                arrivals += self._arrive(stage, path, [(path, result)])
            arrivals += self._come(stage, path[0], more, ended)
        table.pass_on(indices, failed)
        after = stage.after
        if arrivals and after is not None:
            after.take_arrivals(arrivals)
            ended.fed.append(after)
        return ended

    def _note(self, path: Path, stage: StageBook, brought: Sequence[tuple[Path, object]]) -> None:
        if self.record is not None:
            self.record.note(path, stage.place, brought)

    def can_go_on(self, places: Collection[int]) -> bool:
        """True if an input can go on with its values, which are on their way to these stages.

        All of them come to an ordered stage, or have had their turn there: not only some.
        """
        ordered = self._ordered_places
        return len({bisect_left(ordered, place) for place in places}) == 1

    def go_on(self, on_their_way: Mapping[int, Sequence[tuple[Path, int, Any]]]) -> None:
        """Continue after the inputs that have ended before, by a journal: the rest runs. Before it is started.

        For inputs that can go on, these values are on their way: each with its path, and the place of the stage that
        gets it.
        """
        status, ended = self.jobs[0].table.status, self.head.table.ended_indices()
        self._on_their_way = len(on_their_way)
        for root in (*ended, *on_their_way):
            status[root] = COMPLETED
        self.jobs[0].go_on()
        for root, values in on_their_way.items():
            if [path for path, _, _ in values] != [(root,)]:
                self.has_spread = True
                self._spread[root] = _Spread(len(values))
        ordered = self._ordered_places
        turns = {root: bisect_left(ordered, values[0][1]) for root, values in on_their_way.items()}
        for job in self.jobs[1:]:
            assert job.stage is not None
            place = job.stage.place
            here = {
                root: own
                for root, values in on_their_way.items()
                if (own := sorted([(path, value) for path, at, value in values if at == place], key=_path_of))
            }
            if job.stage.ordered:
                number = ordered.index(place)
                turned = {*ended, *(root for root, turn in turns.items() if turn > number)}
                coming = {
                    root: len(values) - len(here.get(root, ()))
                    for root, values in on_their_way.items()
                    if turns[root] == number
                }
                here = job.stage.go_on(turned, coming, here)
                turns |= dict.fromkeys(here, number + 1)
            job.take_arrivals([arrival for own in here.values() for arrival in own])
        self.head.pending.clear()

    @property
    def _ordered_places(self) -> list[int]:
        return [job.stage.place for job in self.jobs if job.stage is not None and job.stage.ordered]

    def forget(self) -> None:
        """Forget cancelled items on their way, now that everything has ended."""
        self._spread.clear()
        for job in self.jobs:
            assert job.stage is not None
            job.stage.early.clear()
            job.stage.coming.clear()
            job.stage.turned.clear()
            if (origins := job.table.origins) is not None:
                for index in origins.paths:
                    job.table.payloads[index] = None
                origins.paths.clear()

    def _arrive(self, stage: StageBook, path: Path, values: list[tuple[Path, Any]]) -> list[tuple[Path, Any]]:
        """Return the items that the next stage gets of these values now."""
        after = stage.after
        assert after is not None
        assert after.stage is not None
        if not after.stage.ordered:
            return values
        if values:
            after.stage.early.setdefault(path[0], []).extend(values)
        return []

    def _come(self, stage: StageBook, root: int, more: int, ended: InputsEnded) -> list[tuple[Path, Any]]:
        """Report to the next ordered stage how many items an ended one brings. Returns the next stage's items.

        Each further ordered stage learns which inputs have had their turn in the one before.
        """
        other, arrivals = stage.next_ordered, list[tuple[Path, Any]]()
        if other is None:
            return arrivals
        after = stage.place + 1
        turns = other.came(root, other.coming.get(root, 1) - 1 + (0 if other.place == after else more))
        while turns and other is not None:
            if ready := [arrival for own in turns.values() for arrival in own]:
                if other.place == after:
                    arrivals = ready
                else:
                    job = self.jobs[other.place]
                    job.take_arrivals(ready)
                    ended.fed.append(job)
            if (other := other.next_ordered) is not None:
                come = [other.came(root, len(own)) for root, own in turns.items()]
                turns = {root: own for each in come for root, own in each.items()}
        return arrivals

    def _spread_out(self, root: int, count: int, ended: InputsEnded) -> None:
        self.has_spread = True
        spread = self._spread.setdefault(root, _Spread())
        spread.open += count - 1
        self._end_if_over(root, spread, ended)

    def _through(self, path: Path, result: Any, ended: InputsEnded) -> None:
        root = path[0]
        if type(result) is Yielded:
            spread = self._spread.setdefault(root, _Spread())
            spread.results += [((*path, at), value) for at, value in enumerate(result.values)]
        elif (known := self._spread.get(root)) is None:
            ended.indices.append(root)
            ended.results.append(result)
            return
        else:
            spread = known
            spread.results.append((path, result))
        spread.open -= 1
        self._end_if_over(root, spread, ended)

    def _failed(self, path: Path, failure: Failure, ended: InputsEnded) -> None:
        root = path[0]
        spread = self._spread.setdefault(root, _Spread())
        if spread.failure is None or path < spread.failure[0]:
            spread.failure = path, failure
        spread.open -= 1
        self._end_if_over(root, spread, ended)

    def _end_if_over(self, root: int, spread: _Spread, ended: InputsEnded) -> None:
        if spread.open:
            return
        del self._spread[root]
        if spread.failure is not None:
            elapsed = self.head.table.elapsed[root]
            ended.failures[len(ended.indices)] = replace(spread.failure[1], elapsed=elapsed)
        discards = self.head.table.sink is DISCARD  # otherwise its list would be held, with as many places
        ended.indices.append(root)
        ended.results.append(None if discards else [value for _, value in sorted(spread.results, key=_path_of)])


def _path_of(entry: tuple[Path, Any]) -> Path:
    return entry[0]


def _end_of(entry: tuple[int, StageBook]) -> int:
    return entry[0]


def _in_stage(name: str, failure: Failure) -> Failure:
    """Return the failure as that of an input."""
    if isinstance(failure.own, ItemCancelledError):
        return failure  # the input's error
    error = StageError(f"in stage {name!r}: {type(failure.error).__name__}: {failure.message}", name)
    error.__cause__ = failure.error
    return Failure(error, failure.traceback, failure.elapsed, failure.charged)
