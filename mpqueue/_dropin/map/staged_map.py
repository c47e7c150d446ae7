"""`stages`: a batch that goes through several functions, on the warm pool of `map`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from mpqueue._core.state.item_table import read_all
from mpqueue._declared import At, read, takes
from mpqueue._dropin.map.lent_queues import queue_for
from mpqueue._dropin.map.map_options import OnError, check_on_error, job_options
from mpqueue._dropin.map.whole_map import ON_ERROR, Batch
from mpqueue._options import GivenOptions
from mpqueue._output.progress import check_progress
from mpqueue._queue.growing.stages import Stage

if TYPE_CHECKING:
    from mpqueue._keywords import StagedMapKeywords


@takes(GivenOptions, At.STAGED_MAP)
def stages(
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    *,
    on_error: OnError = "raise",
    **options: Unpack[StagedMapKeywords],
) -> list[Any]:
    """Run each item through several functions, one after the other, on all cores; the results in the items' order.

    What one stage returns is the next one's item, and goes there as soon as it can; what it yields are as many. Where
    something was yielded, an item's result is the list of all that came of it. See `JobQueue.run_stages`, and `Stage`
    for the options of one stage. ``max_retries`` (3, after 0.1, 0.2 and 0.4 s), ``retry`` and ``timeout`` hold for
    stages without their own. ``concurrency`` caps the workers of all stages together (None: one for each CPU).
    ``progress`` shows a line for each stage. ``on_error`` and ``max_failures`` are as for `map`; the failure of an item
    is a `StageError` that names the stage. ``backend`` is as for `map`.

    An interruption (Ctrl-C) ends the running items, and goes on.
    """
    asked = read(GivenOptions, At.STAGED_MAP, "mpqueue.stages", options, ("items", "stages", "on_error"))
    check_progress(asked.progress)
    check_on_error(on_error, ON_ERROR)
    whole = job_options("stages", asked)
    given = read_all(items)
    with queue_for(whole.max_lanes, None, asked.backend) as queue:
        defaults = replace(queue._options, retry=whole.retry, timeout=whole.timeout)
        batch = Batch(
            partial(queue._host.start_stages, given, stages, asked, defaults, progress=asked.progress),
            asked.max_failures,
        )
        try:
            batch.run.result()
        except BaseException:
            batch.run._kill()
            batch.run._end_bar()
            raise
    return batch.outcomes(on_error)
