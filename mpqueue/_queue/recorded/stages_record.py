"""`StagesRecord`: the record of a job with stages in its queue's journal.

A journal has the inputs, like the items of a list; their outcomes; and the values on their way between stages.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpqueue._core.state.pipeline import Pipeline
from mpqueue._options import GivenOptions
from mpqueue._parent.journal.growth import REMOVE_ALL, PassRecord, Value, read_passed
from mpqueue._queue.growing.stages import seed_of
from mpqueue._queue.new_job import reseed
from mpqueue._queue.recorded.code_parts import CodeNow, code_of_stages
from mpqueue._queue.recorded.job_record import JobRecord
from mpqueue._queue.recorded.record_options import RecordOptions
from mpqueue._queue.recorded.resume import AFRESH, Plan
from mpqueue._wire.parcels import Parcel

if TYPE_CHECKING:
    from mpqueue._parent.journal.recorder import Recorder

#: The name of a stage, its handler and its setup.
StageFunctions = tuple[str, Callable[..., Any], Callable[..., Any] | None]


class StagesRecord(JobRecord):
    """The record of a pipeline that has not started. Its book is the pipeline's head."""

    def __init__(self, pipeline: Pipeline, stages: Sequence[StageFunctions], asked: GivenOptions) -> None:
        super().__init__(pipeline.head, None, asked)
        self._pipeline = pipeline
        self._stages = stages

    def record_or_go_on(self, recorder: Recorder, created_at: float, options: RecordOptions) -> None:
        """Record the job, or continue its record.

        Values that stages had passed on are reused for inputs that have not ended, unless the inputs run anew.
        """
        pipeline, head = self._pipeline, self.book
        recorded = recorder.journal.find(head.id)
        super().record_or_go_on(recorder, created_at, options)
        number = recorder.recording_of(head).number
        slots = range(len(head.table)) if head.table.slots is None else head.table.slots
        record = pipeline.record = PassRecord(slots)
        pipeline.jobs[0].table.slots = head.table.slots
        if recorded is None:
            return
        passed = read_passed(recorder.journal.reader, recorded)
        values = self._on_their_way(passed, slots)
        for root in values:
            record.keep(root, passed[slots[root]])
        if passed:
            recorder.journal.ask(lambda store: store.write([(REMOVE_ALL, (number,)), *record.statements(number)]))
        pipeline.go_on({root: [(path, at, Parcel(data)) for path, at, data in own] for root, own in values.items()})
        if head.restored:
            for job in pipeline.jobs:
                job.status = head.status

    def _on_their_way(self, passed: dict[int, list[Value]], slots: Sequence[int]) -> dict[int, list[Value]]:
        """Return the values on their way that can be unpickled, for inputs that go on: by index, with today's paths."""
        table, count = self.book.table, len(self._pipeline.jobs)
        found = {}
        for root, slot in enumerate(slots) if passed else ():
            own = passed.get(slot)
            if own is None or table.ended(root) or root in self._afresh:
                continue
            places = {place for _, place, _ in own}
            if max(places) < count and self._pipeline.can_go_on(places) and all(_can_be_had(data) for *_, data in own):
                found[root] = [((root, *path[1:]), place, data) for path, place, data in own]
        return found

    _afresh: frozenset[int] = frozenset()  #: the indices of inputs that run as if for the first time

    def _follow(self, plan: Plan) -> None:
        super()._follow(plan)
        self._afresh = frozenset(plan.those(*AFRESH))

    def _take_code(self) -> CodeNow:
        code = code_of_stages(self._stages)
        self.book.table.code = code.code.number
        return code

    def _take_seed(self, seed: int) -> None:
        """Take the record's seed, unless the user has given one; each stage's seed follows from it."""
        if self._seed_given:
            return
        self.book.options = dataclasses.replace(self.book.options, seed=seed)
        for place, job in enumerate(self._pipeline.jobs):
            reseed(job, seed_of(place, seed))


def _can_be_had(data: bytes) -> bool:
    """Return False for a value that can't be unpickled, say because its class is gone: its stage runs again."""
    try:
        Parcel(data).load()
    except Exception:  # noqa: BLE001 - whatever unpickling raises
        return False
    return True
