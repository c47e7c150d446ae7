"""The worker's entrance: a frame comes in, a frame goes out. No error of users' code may pass through here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys

from mpqueue._os import system as clock
from mpqueue._wire.frames import (
    THREAD_VARIABLES,
    ChunkFrame,
    Ended,
    FailureFrame,
    ForgetFrame,
    ForgottenFrame,
    HandlerFrame,
    InitializeFrame,
    ItemGrant,
    NodeFrame,
    RelayedFrame,
    ReportFrame,
    WorkTimes,
    dump_frame,
    dump_with_segments,
    is_plain,
    load_frame,
)
from mpqueue._wire.line import Answer
from mpqueue._wire.memory import segments, shared
from mpqueue._wire.memory.ledger import CLAIM, SINCE, Phase, pack_claim
from mpqueue._wire.memory.segments import NOTHING_CARRIED, Carried
from mpqueue._wire.pickling import classes, main_names
from mpqueue._wire.pickling.main_names import take_path
from mpqueue._wire.pickling.payload import Packed, load, view_parts
from mpqueue._worker import log_records as records
from mpqueue._worker import worker_links
from mpqueue._worker.chunk_run import ChunkRun, note_memory
from mpqueue._worker.chunk_timer import ChunkTimer
from mpqueue._worker.exchange import WorkerContext, make_context
from mpqueue._worker.handlers.loaded_jobs import LoadedJob
from mpqueue._worker.results import pack_failure, stand_in
from mpqueue._worker.sampler import StackSampler
from mpqueue._worker.timing import ChunkTimes
from mpqueue._worker.worker_links import WorkerLinks


class Worker:
    """One worker: its loaded jobs, and its answers to frames. Used by one thread at a time."""

    def __init__(self, context: WorkerContext) -> None:
        self.context = context
        self.chunk_timer = ChunkTimer()
        self.sampler = StackSampler()
        self._loaded: dict[int, LoadedJob] = {}

    def receive(self, data: bytes) -> Answer:
        """Do the work of a frame; returns the answer."""
        begun = clock.monotonic()
        frame = load_frame(data)
        if not isinstance(frame, RelayedFrame):
            return self._obey(frame, begun)
        relayed, carried = _opened(frame)
        exchange = self.context.exchange
        exchange.carried = carried
        try:
            return self._obey(load_frame(relayed), begun)
        finally:
            exchange.carried = NOTHING_CARRIED

    def _obey(self, frame: ChunkFrame | ForgetFrame | InitializeFrame | NodeFrame, begun: float) -> Answer:
        if isinstance(frame, ChunkFrame):
            report = self._run_chunk(frame, begun)
            return Answer(dump_frame(report), plain=is_plain(report))
        if isinstance(frame, InitializeFrame):
            return Answer(dump_frame(self._initialize(frame)))
        if isinstance(frame, NodeFrame):
            self._claim(self.context.logs.chunk, Phase.LOADING)
            self._take_path(frame.path)
            for lent in frame.lent:
                self.context.brought[lent.token] = shared.take_in(lent)
            self._claim(self.context.logs.chunk, Phase.IDLE)
            return Answer(b"", plain=True)
        # Time of a setup's end belongs to no chunk: the claim is for the chunk whose report was sent last.
        self._claim(self.context.logs.chunk, Phase.LOADING)
        complaint = self._forget(frame.job)
        self._claim(self.context.logs.chunk, Phase.IDLE)
        return Answer(
            dump_frame(ForgottenFrame(complaint, self.context.logs.take(), self.context.exchange.done_with()))
        )

    def close(self, *, quietly: bool = False) -> None:
        """End the setups that have yielded (not ``quietly``), and the threads. Only if the process goes on."""
        for number in [] if quietly else list(self._loaded):
            complaint = self._forget(number)
            if complaint is not None:
                logging.getLogger("mpqueue").warning("the end of a setup failed:\n%s", complaint)
        self.chunk_timer.end()
        self.sampler.end()
        logging.getLogger().removeHandler(self.context.logs)
        self.context.logs.close()

    def _claim(self, chunk: int, phase: Phase) -> None:
        """Note in the ledger what this worker does while it runs no item."""
        words = self.context.links.ledger.words
        words[SINCE] = clock.monotonic_ns()
        words[CLAIM] = pack_claim(chunk, phase, 0, 0)

    def _take_path(self, path: tuple[str, ...] | None) -> None:
        if path is not None and self.context.links.is_own_process:
            take_path(path)

    def _initialize(self, frame: InitializeFrame) -> FailureFrame | None:
        self._claim(0, Phase.LOADING)
        scope = None if self.context.links.is_own_process else classes.Scope()
        try:
            self._take_path(frame.path)
            if scope is None:
                records.install(self.context.logs, None)
                main_names.run_initializer(lambda: load(frame.initializer))
            else:
                with classes.in_scope(scope):
                    load(frame.initializer)()
        except BaseException as error:
            return pack_failure(error)
        finally:
            classes.leave(scope)
            self._claim(0, Phase.IDLE)
        return None

    def _run_chunk(self, frame: ChunkFrame, begun: float) -> ReportFrame:
        context = self.context
        times = ChunkTimes(begun, own_process=context.links.is_own_process)
        context.logs.chunk, context.logs.interval = frame.chunk, max(records.SENDING_INTERVAL_S, frame.limit)
        context.exchange.chunk_begins(frame.chunk, frame.returned)
        apply_grant(context.links, frame.grant)
        shared.forget(frame.unshared)
        for token in frame.unshared:
            context.brought.pop(token, None)
        if frame.path is not None:
            self._begin_loading(frame.chunk)
            self._take_path(frame.path)
        self._claim(frame.chunk, Phase.UNPACKING)
        for job_number in frame.forget:
            self._forget(job_number)
        try:
            job = self._loaded.get(frame.job)
            if job is None:
                assert frame.handler is not None, "the first chunk of a job brings its handler"
                loaded = self._load(frame, frame.handler)
                if isinstance(loaded, FailureFrame):
                    return self._setup_failed(frame, loaded, begun)
                job = loaded
                times.loading, times.setup = job.seconds_loading, job.seconds_in_setup
            run = ChunkRun(context, job, frame, times)
            self.chunk_timer.watch(run)
            if job.sampling is not None:
                self.sampler.watch(job.sampling)
            before = classes.enter(job.scope)
            try:
                return run.run()
            except BaseException as error:  # from a signal's handler, say
                run.end_worker(error)
                raise
            finally:
                classes.enter(before)
                self.chunk_timer.watch(None)
                self.sampler.watch(None)
        finally:
            context.logs.sender = None
            context.links.running = None

    def _begin_loading(self, chunk: int) -> None:
        note_memory(self.context.links.ledger)  # memory in use by now is not the loading's
        self._claim(chunk, Phase.LOADING)

    def _load(self, frame: ChunkFrame, handler: HandlerFrame) -> LoadedJob | FailureFrame:
        self._begin_loading(frame.chunk)
        started = clock.monotonic()
        try:
            job = self._loaded[frame.job] = LoadedJob(frame.job, handler, self.context)
            return job
        except BaseException as error:
            return pack_failure(error, clock.monotonic() - started)
        finally:
            self._claim(frame.chunk, Phase.UNPACKING)

    def _setup_failed(self, frame: ChunkFrame, failure: FailureFrame, begun: float) -> ReportFrame:
        now = clock.monotonic()
        return ReportFrame(
            chunk=frame.chunk,
            first=0,
            done=0,
            results=Packed(b""),
            failures={},
            stretches=(),
            busy=failure.elapsed,
            ended=Ended.SETUP_FAILED,
            setup_failure=failure,
            records=self.context.logs.take(),
            times=WorkTimes(begun, now, 0.0, failure.elapsed, 0.0, 0.0, 0.0, 0.0, 0.0),
        )

    def _forget(self, job_number: int) -> str | None:
        """Drop a job; returns None, or the traceback of an error at the end of its setup."""
        job = self._loaded.pop(job_number, None)
        if job is None:
            return None
        try:
            job.close()
        except BaseException as error:
            return stand_in(error)[2]
        return None


def _opened(frame: RelayedFrame) -> tuple[bytes | memoryview, Carried]:
    """Return the program's frame inside this one, and the segments that it carries. Raises OSError if unreadable."""
    relayed, beside = view_parts(frame.frame)
    return relayed, dict(zip(frame.serials, beside or [memoryview(each) for each in frame.contents], strict=True))


_worker: Worker | None = None


def receive(data: bytes) -> Answer:
    """Answer a frame in a process that is a single worker. Called on its main thread."""
    global _worker
    if _worker is None:
        here = worker_links.here()
        assert here is not None, "frames are received in workers only"
        if (asking := here.asking) is not None:
            segments.ask_writer = asking.ask
        _worker = Worker(make_context(here))
        if here.carries_segments and isinstance(here.outbox, worker_links.SharedOutbox):
            here.outbox.take_carried = _worker.context.exchange.take_carried
    answer = _worker.receive(data)
    leaving = _worker.context.exchange.take_carried()
    return answer._replace(data=dump_with_segments(answer.data, leaving)) if leaving else answer


# -- The CPUs and GPUs of this worker for the current items: for their inner threads, and visible to them. -------------


def apply_grant(links: WorkerLinks, grant: ItemGrant | None) -> None:
    """Give the worker what its items hold, before any import for them."""
    links.uses = {} if grant is None else grant.uses
    if grant is not None and grant.variables:
        os.environ.update(grant.variables)
    cpus = 1 if grant is None else grant.cpus
    if cpus != links.cpus and links.is_own_process:
        _set_threads(links, cpus)
    links.cpus = cpus


def _set_threads(links: WorkerLinks, cpus: int) -> None:
    """Multiply the threads that a worker starts with: libraries imported later read them, loaded ones are set."""
    if links.threads is None:
        links.threads = {name: int(text) for name in THREAD_VARIABLES if (text := os.environ.get(name, "")).isdigit()}
    os.environ.update((name, str(count * cpus)) for name, count in links.threads.items())
    count = max(links.threads.values(), default=1) * cpus
    with contextlib.suppress(Exception):  # libraries of unknown versions are left unchanged
        if "numpy" in sys.modules and importlib.util.find_spec("threadpoolctl") is not None:
            importlib.import_module("threadpoolctl").threadpool_limits(count)
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(count)
