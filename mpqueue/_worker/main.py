"""The worker's entrance: a frame comes in, a frame goes out. Nothing that user code does may raise through here."""

from __future__ import annotations

import time

from mpqueue._wire import main_names, shared
from mpqueue._wire.frames import (
    ChunkFrame,
    Ended,
    FailureFrame,
    ForgetFrame,
    ForgottenFrame,
    HandlerFrame,
    InitializeFrame,
    ReportFrame,
)
from mpqueue._wire.imports import catch_up
from mpqueue._wire.ledger import CLAIM, SINCE, Phase, pack_claim
from mpqueue._wire.payload import Packed, dump_frame, load, load_frame
from mpqueue._worker import context, exchange, guard, records, station
from mpqueue._worker.chunk_run import ChunkRun
from mpqueue._worker.failures import pack_failure, stand_in
from mpqueue._worker.loaded import LoadedJob
from mpqueue._worker.station import Station
from mpqueue._worker.watchdog import Watchdog

_loaded: dict[int, LoadedJob] = {}
_watchdog = Watchdog()


def receive(data: bytes) -> bytes:
    """Do what a frame says, in the worker's main thread; returns the answer."""
    here = station.here()
    assert here is not None, "frames are received in workers only"
    frame: ChunkFrame | ForgetFrame | InitializeFrame = load_frame(data)
    if isinstance(frame, ChunkFrame):
        return dump_frame(_run_chunk(here, frame))
    if isinstance(frame, InitializeFrame):
        return dump_frame(_initialize(frame))
    return dump_frame(ForgottenFrame(_forget(frame.job), records.home.take()))


def _initialize(frame: InitializeFrame) -> FailureFrame | None:
    if frame.imports is not None:
        catch_up(frame.imports)
    records.install(None)
    try:
        main_names.run_initializer(lambda: load(frame.initializer))
    except BaseException as error:
        return pack_failure(error)
    return None


def _run_chunk(here: Station, frame: ChunkFrame) -> ReportFrame:
    guard.rearm()
    records.home.chunk = frame.chunk
    exchange.results.chunk_begins(frame.chunk, frame.returned)
    shared.forget(frame.unshared)
    if frame.imports is not None:
        catch_up(frame.imports)
    for job_number in frame.forget:
        _forget(job_number)
    try:
        job = _loaded.get(frame.job)
        if job is None:
            assert frame.handler is not None, "the first chunk of a job brings its handler"
            loaded = _load(here, frame, frame.handler)
            if isinstance(loaded, FailureFrame):
                return _setup_failed(frame, loaded)
            job = loaded
        run = ChunkRun(here, job, frame)
        _watchdog.watch(run)
        try:
            return run.run()
        except BaseException as error:  # a late signal's, say; or a fault of ours
            return run.broken_by(error)
        finally:
            _watchdog.watch(None)
    finally:
        records.home.sender = None
        context.enter(None)


def _load(here: Station, frame: ChunkFrame, handler: HandlerFrame) -> LoadedJob | FailureFrame:
    words = here.ledger.words
    words[SINCE] = time.monotonic_ns()
    words[CLAIM] = pack_claim(frame.chunk, Phase.LOADING, 0, 0)
    started = time.monotonic()
    try:
        job = _loaded[frame.job] = LoadedJob(frame.job, handler, here)
        return job
    except BaseException as error:
        return pack_failure(error, time.monotonic() - started)
    finally:
        words[CLAIM] = pack_claim(frame.chunk, Phase.IDLE, 0, 0)


def _setup_failed(frame: ChunkFrame, failure: FailureFrame) -> ReportFrame:
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
        records=records.home.take(),
    )


def _forget(job_number: int) -> str | None:
    """Drop a job; the answer is None, or the traceback of what the end of its setup raised."""
    job = _loaded.pop(job_number, None)
    if job is None:
        return None
    try:
        job.close()
    except BaseException as error:
        return stand_in(error)[2]
    return None
