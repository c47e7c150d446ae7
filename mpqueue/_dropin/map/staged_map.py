"""`stages`: a batch that goes through several functions, on the warm pool of `map`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from mpqueue._core.state.item_table import read_all
from mpqueue._dropin.map.lent_queues import queue_for
from mpqueue._dropin.map.map_options import DROPIN_RETRY, OnError
from mpqueue._dropin.map.whole_map import Batch, check_failure_options
from mpqueue._options import Concurrency, check_timeout, choose_concurrency, choose_policy
from mpqueue._output.progress import ShowProgress, check_progress
from mpqueue._parent.lane_protocol import Backend
from mpqueue._queue.choosing import choose_backend
from mpqueue._queue.growing.stages import PipelineOptions, Stage
from mpqueue.retry import RetryPolicy


def stages(
    items: Iterable[Any],
    stages: Sequence[Stage | Callable[..., Any]],
    *,
    concurrency: Concurrency = None,
    max_retries: int | None = None,
    retry: RetryPolicy | None = None,
    timeout: float | None = None,
    progress: ShowProgress = False,
    on_error: OnError = "raise",
    max_failures: int | None = None,
    seed: int | None = None,
    backend: str | Backend = "loky",
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
    check_progress(progress)
    check_failure_options(on_error, max_failures)
    workers = choose_concurrency(concurrency, getattr(choose_backend(backend), "count_cores", None))
    check_timeout(timeout)
    policy = choose_policy("stages", max_retries, retry, delays=DROPIN_RETRY) or DROPIN_RETRY
    given = read_all(items)
    options = PipelineOptions(seed=seed, concurrency=workers, max_failures=max_failures)
    with queue_for(workers, None, backend) as queue:
        defaults = replace(queue._options, retry=policy, timeout=timeout)
        batch = Batch(
            partial(queue._host.start_stages, given, stages, options, defaults, progress=progress), max_failures
        )
        try:
            batch.run.result()
        except BaseException:
            batch.run._kill()
            batch.run._end_bar()
            raise
    return batch.outcomes(on_error)
