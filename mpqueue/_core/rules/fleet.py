"""Workers that come, fail to come, and go."""

from __future__ import annotations

from mpqueue._core.commands import (
    ForgetJob,
    InitializeLane,
    KillLane,
    RecycleLane,
    RetireLane,
    StartLane,
    TellDemand,
    Warn,
)
from mpqueue._core.messages import (
    LaneAbsent,
    LaneDied,
    LaneInitialized,
    LaneReady,
    LanesResized,
    LaneStartFailed,
    LanesWanted,
    ModulesReloaded,
    QueueOpened,
)
from mpqueue._core.rules import outcomes
from mpqueue._core.rules.blame import crash_error, death_of, running_item, worker_died
from mpqueue._core.rules.limits import await_answer, take_back
from mpqueue._core.rules.outcomes import fail_if_barred, fail_rest, finish_if_over
from mpqueue._core.state.books import Books, TimerKind
from mpqueue._core.state.job_book import JobBook
from mpqueue._core.state.lane_book import LaneBook, LaneState
from mpqueue.errors import SetupError, WorkerStartError, shown

#: Seconds before a start is tried again after a failure: doubled each time, up to the second number.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: A worker that died by itself within this many seconds after its start, before it did anything, may be one of many:
#: the next one waits as after a failed start.
EARLY = 1.0
#: Seconds after which the jobs fail if no worker has ever come, and every start fails for a lasting reason; and the
#: least number of failures per lane by then.
HOPELESS, HOPELESS_TRIES = 0.8, 2
#: The number of workers in a row that must die in the initializer, on each lane, for it to be the initializer's fault.
DEADLY = 3


def open_lanes(books: Books, _: QueueOpened) -> None:
    """Start all workers, side by side, as the first job starts."""
    if not books.opened:
        books.opened = True
        for lane in books.lanes:
            _start_now(books, lane)


def lane_ready(books: Books, lane: LaneBook, message: LaneReady) -> None:
    """Use a worker that has answered, or let it run the initializer first."""
    if lane.state is LaneState.ABSENT:
        books.enter(lane, LaneState.STARTING)
    books.ever_ready = True
    lane.pid = message.pid
    lane.ready_at = books.now
    books.die_together(lane, message.dies_with)
    if books.has_initializer:
        lane.asked(books.now)
        books.commands.append(InitializeLane(lane.number, lane.generation))
        await_answer(books, lane)
    else:
        _take_into_service(books, lane)


def lane_absent(books: Books, lane: LaneBook, message: LaneAbsent | None = None) -> None:
    """Go on without a worker for which there is no room now."""
    books.enter(lane, LaneState.ABSENT)
    lane.is_awaited = message is not None and message.awaited
    _nobody_there(books)
    for job in list(books.jobs.values()):
        fail_if_barred(books, job)


def lane_initialized(books: Books, lane: LaneBook, message: LaneInitialized) -> None:
    """Use a worker that has run the initializer; if that fails in every worker, nothing can run."""
    books.free_later(books.init_error)
    if message.failure is None:
        books.init_error = None
        _take_into_service(books, lane)
        return
    books.init_error, books.init_text = message.failure.error, message.text
    lane.start_failures += 1
    books.enter(lane, LaneState.DYING)
    books.commands.append(KillLane(lane.number))
    if not any(other.state in (LaneState.READY, LaneState.STARTING) for other in books.lanes):
        fail_for_initializer(books)


def fail_for_initializer(books: Books) -> None:
    """Fail the items that wait for workers that the initializer keeps from coming."""
    cause = books.init_error
    error = SetupError(f"the initializer failed in every worker; the last time with {books.init_text}")
    error.__cause__ = cause
    for job in list(books.jobs.values()):
        fail_rest(books, job, error)


def _take_into_service(books: Books, lane: LaneBook) -> None:
    books.enter(lane, LaneState.READY)
    for job in books.jobs.values():
        job.timings.lane_ready(lane.number, books.now)
    if lane.start_failures == 0:  # otherwise it may be one more that dies at once
        books.no_lanes_since = None


def lanes_wanted(books: Books, message: LanesWanted) -> None:
    """Add lanes until there are at least that many, or as many as the last `JobQueue.resize` has set."""
    while len(books.lanes) < (message.total if books.most_lanes is None else min(message.total, books.most_lanes)):
        lane = books.add_lane()
        if books.opened:
            _start_now(books, lane)


def lanes_resized(books: Books, message: LanesResized) -> None:
    """Change the number of lanes: more at once; fewer as each one has ended its items, or is killed.

    Items of a killed worker lose no try. The lanes with the highest numbers end.
    """
    books.most_lanes, books.wears_out = message.total, True
    lanes_wanted(books, LanesWanted(message.total))
    for lane in books.lanes:
        books.sort_in(lane)
        if not books.is_surplus(lane):
            if books.opened and lane.state is LaneState.ABSENT:
                _start_now(books, lane)
        elif message.kill and lane.chunks:
            take_back(books, lane)
    for job in list(books.jobs.values()):
        fail_if_barred(books, job)


def tell_demand(books: Books) -> None:
    """Report the waiting work to an engine that follows it, if it has halved or doubled. Costs 1 us per job."""
    lanes, seconds = 0, 0.0
    for job in books.jobs.values():
        more, work = _waiting(job)
        lanes, seconds = lanes + more, seconds + work
    if books.most_lanes is not None:
        lanes = min(lanes, max(0, books.most_lanes - books.at_work.bit_count()))
    told = books.told_demand
    if (_size(lanes), _size(seconds)) != (_size(told.lanes), _size(told.seconds)):
        books.told_demand = TellDemand(lanes, seconds)
        books.commands.append(books.told_demand)


def _waiting(job: JobBook) -> tuple[int, float]:
    """Return for how many more lanes the job has items, and the seconds that all its waiting items take."""
    if not job.runnable:
        return 0, 0.0
    waiting = len(job.pending) + sum(len(chunk.indices) for chunk in job.packed)
    most = job.options.max_lanes
    more = waiting if most is None else min(waiting, max(0, most - job.lanes_held))
    return more, waiting * (job.sizer.seconds_per_item or 0.0)


def _size(amount: float) -> int:
    return int(amount).bit_length()


def lane_start_failed(books: Books, lane: LaneBook, message: LaneStartFailed) -> None:
    """Start a worker again, after a growing pause, if its start failed."""
    if books.closing and _nothing_is_to_run(books):
        books.renew(lane, LaneState.DOWN)
        return
    books.last_start_error = message.error
    if message.final and not any(
        other.state in (LaneState.READY, LaneState.STARTING, LaneState.DYING) for other in books.lanes if other != lane
    ):
        _stop_for_want_of_workers(books, f"no worker can be started: {message.error}")
    if lane.start_failures == 0:
        books.commands.append(Warn(f"worker {lane.number} could not be started, trying again: {shown(message.error)}"))
    lane.start_failures += 1
    lane.hopeless = message.lasting
    _start_later(books, lane)
    if message.lasting and not books.ever_ready and books.no_lanes_since is not None:
        books.timers.add(books.no_lanes_since + HOPELESS, TimerKind.NO_LANES)


def lane_died(books: Books, lane: LaneBook, message: LaneDied) -> None:
    """Settle the chunks of a worker that has ended, and start the next one."""
    initializing = books.has_initializer and lane.state is LaneState.STARTING
    how, item = death_of(lane, message), running_item(lane, message)
    died = bool(lane.chunks) or not message.innocent  # otherwise it was dismissed, or its machine went
    for job in books.jobs.values():
        here = lane.job is job
        there = lane.job is not None and not here
        job.timings.lane_gone(
            lane.number,
            books.now,
            worked=here,
            died=died and not there,
            item=item if here else None,
            why=how,
            since=lane.chunks[0].left_at or lane.chunks[0].sent_at if lane.chunks else None,
            by_others=there,
        )
    if not message.innocent:
        why = "crash" if lane.verdict is None else lane.verdict.why.name.lower()
        books.deaths[why] = books.deaths.get(why, 0) + 1
    blamed = worker_died(books, lane, message)
    books.commands.append(RetireLane(lane.number))
    if initializing:
        _died_in_initializer(books, lane, message)
        return
    early = not blamed and not message.innocent and not lane.proven and books.now - lane.ready_at < EARLY
    if books.init_error is not None:
        _start_later(books, lane)
    elif early:
        books.last_start_error = crash_error(message, "as soon as it had started")
        lane.start_failures += 1
        _start_later(books, lane)
    else:
        lane.start_failures = 0
        _start_now(books, lane)


def _died_in_initializer(books: Books, lane: LaneBook, message: LaneDied) -> None:
    """Let the next worker try again: another program may have killed this one. If all die there, nothing can run."""
    books.last_start_error = error = crash_error(message, "while it ran the initializer")
    lane.start_failures += 1
    _start_later(books, lane)
    if all(other.start_failures >= DEADLY and other.state is not LaneState.READY for other in _lanes_there(books)):
        books.init_error, books.init_text = error, shown(error)
        fail_for_initializer(books)


def forget_lanes(books: Books) -> None:
    """Forget all workers, which are about to be killed: their items did not run, and their messages are void."""
    for lane in books.lanes:
        books.renew(lane, LaneState.DOWN)


def modules_reloaded(books: Books, _: ModulesReloaded) -> None:
    """Replace each worker that may have imported the older modules, once it has ended its chunks."""
    for lane in books.lanes:
        if lane.state in (LaneState.READY, LaneState.STARTING):
            books.renew_later(lane)


def recycle(books: Books, lane: LaneBook) -> None:
    """Replace the worker of an idle lane; no item is charged.

    Its generator setups are finished first.
    """
    heavy = [job for job in lane.loaded.values() if books.forgets_at_once(job)]
    books.commands.extend(ForgetJob(lane.number, lane.generation, job, at_once=True) for job in heavy)
    books.commands.append(RecycleLane(lane.number))
    for job in books.jobs.values():
        job.timings.lane_gone(lane.number, books.now, worked=False, died=False)
    _start_now(books, lane)


def start_again(books: Books) -> None:
    """Start workers again for a job that starts, if all starts were hopeless: the reason may have passed by now."""
    if _is_hopeless(books):
        books.no_lanes_since = books.now
        for lane in books.lanes:
            _start_now(books, lane)


def _is_hopeless(books: Books) -> bool:
    if books.ever_ready:
        return False
    lanes = _lanes_there(books)
    return bool(lanes) and all(
        lane.hopeless and lane.state is LaneState.DOWN and lane.start_failures >= HOPELESS_TRIES for lane in lanes
    )


def _lanes_there(books: Books) -> list[LaneBook]:
    """Return the lanes that may have a worker: there is room for it, and it is wanted."""
    return [lane for lane in books.lanes if lane.number not in books.absent and not books.is_surplus(lane)]


def start_due(books: Books, lane: LaneBook) -> None:
    """Start the lane's worker, now that the pause is over."""
    if lane.state is LaneState.DOWN:
        _start_now(books, lane)


def nobody_came(books: Books) -> None:
    """Stop every active job, if no worker could be started for that long.

    A start under way is no lack of workers: the engine has to end it. One that began later does not count, since starts
    that always fail leave no moment without any.
    """
    since, patience = books.no_lanes_since, books.capabilities.patience
    if since is None:
        return
    if _is_hopeless(books):
        patience = min(patience, HOPELESS)
    due = since + patience + books.sleeps.after(since)
    if books.now < due:
        if due > since + patience:
            books.timers.add(due, TimerKind.NO_LANES)
        return
    serving = [books.now - lane.ready_at for lane in books.lanes if lane.state in (LaneState.READY, LaneState.DYING)]
    if serving:
        if max(serving) >= EARLY:
            books.no_lanes_since = None
        else:
            books.timers.add(books.now + EARLY, TimerKind.NO_LANES)
        return
    books.timers.add(books.now + books.capabilities.patience, TimerKind.NO_LANES)
    waited = books.now - (due - patience)
    if starting := sum(lane.state is LaneState.STARTING and lane.started_at <= due for lane in books.lanes):
        if books.jobs and waited < 2 * patience:  # the first check
            workers = "1 worker is" if starting == 1 else f"{starting} workers are"
            text = f"no worker has come for {patience:g} s: {workers} starting, and the jobs wait"
            books.commands.append(Warn(text, with_load=books.capabilities.is_here))
        return
    if not any(lane.state is LaneState.ABSENT and lane.is_awaited for lane in books.lanes):
        reason = books.last_start_error
        why = "there was no room for any" if reason is None else f"the last reason: {shown(reason)}"
        _stop_for_want_of_workers(books, f"no worker could be started for {waited:.1f} s; {why}")
    books.no_lanes_since = books.now


def _stop_for_want_of_workers(books: Books, text: str) -> None:
    error = WorkerStartError(text)
    error.__cause__ = books.last_start_error
    if books.jobs:
        books.commands.append(Warn(text))
    for job in list(books.jobs.values()):
        if not job.listed:  # a separate call, whose caller gets the error
            fail_rest(books, job, error)
        elif job.active:
            _interrupt(books, job.family[0], error)


def _interrupt(books: Books, head: JobBook, error: WorkerStartError) -> None:
    """End the job in its current state; its items are not at fault. Its run raises; with a journal it can go on."""
    head.interrupted, head.stopped_why = error, str(error)
    for job in outcomes.drop_all(head):
        finish_if_over(books, job)


def _nothing_is_to_run(books: Books) -> bool:
    """True if a worker that starts would get no item."""
    return all(job.cancelled for job in books.jobs.values())


def _start_now(books: Books, lane: LaneBook) -> None:
    books.renew(lane)
    if books.is_surplus(lane):
        lane_absent(books, lane)
        return
    if books.closing and _nothing_is_to_run(books):
        books.enter(lane, LaneState.DOWN)
        return
    lane.started_at = books.now
    books.commands.append(StartLane(lane.number, lane.generation))
    _nobody_there(books)


def _start_later(books: Books, lane: LaneBook) -> None:
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(lane.start_failures - 1, 30))
    books.renew(lane, LaneState.DOWN)
    books.timers.add(books.now + pause, TimerKind.LANE_START, lane.number, lane.generation)
    _nobody_there(books)


def _nobody_there(books: Books) -> None:
    """Begin to count the time without workers, if there are none."""
    if books.no_lanes_since is None and not any(
        lane.state in (LaneState.READY, LaneState.DYING) for lane in books.lanes
    ):
        books.no_lanes_since = books.now
        books.timers.add(books.now + books.capabilities.patience, TimerKind.NO_LANES)
