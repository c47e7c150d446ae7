"""What a worker sent, made into objects again: the only place of the parent where results are unpickled.

Runs on the thread that brings the answer (a lane's own), so that a slow or broken result holds up its own lane only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpqueue._core.item_table import Failure
from mpqueue._core.messages import ChunkReported
from mpqueue._engine.kept_errors import let_go, text_of
from mpqueue._wire.frames import FailureFrame, ReportFrame, load_frame
from mpqueue._wire.payload import Packed, load, load_home
from mpqueue._wire.records import load_record
from mpqueue._wire.segments import SegmentGoneError
from mpqueue.errors import RemoteError, RemoteTraceback, ResultPicklingError

OnFree = Callable[[int], None]


def decode_report(data: bytes, lane: int, generation: int, on_free: OnFree, now: Callable[[], float]) -> ChunkReported:
    """The report in a worker's answer, which came ``now``; ``on_free`` hears of segments that nobody views any more.

    Raises only where the answer is none of ours.
    """
    received = now()
    frame: ReportFrame = load_frame(data)
    failures = {position: _failure(failure) for position, failure in frame.failures.items()}
    results, unreadable = _results(frame, failures, on_free)
    return ChunkReported(
        lane=lane,
        generation=generation,
        chunk=frame.chunk,
        first=frame.first,
        done=frame.first + len(results),
        results=results,
        failures={at: failure for at, failure in failures.items() if at < len(results)} if unreadable else failures,
        stretches=frame.stretches,
        busy=frame.busy,
        ended=frame.ended,
        final=frame.final,
        setup_failure=None if frame.setup_failure is None else _failure(frame.setup_failure),
        returned=frame.returned,
        records=[load_record(record) for record in frame.records] if frame.records else (),
        output=frame.output,
        peaks=frame.peaks,
        times=frame.times,
        size=len(data) + _size_beside(frame.results),
        received=received,
        decoded=now(),
        unreadable=unreadable,
    )


def _size_beside(results: Packed | list[Packed]) -> int:
    """Bytes of the results that are in segments."""
    if isinstance(results, Packed):
        return 0 if results.segment is None else results.segment.size
    return sum(one.segment.size for one in results if one.segment is not None)


def _results(frame: ReportFrame, failures: dict[int, Failure], on_free: OnFree) -> tuple[list[Any], Failure | None]:
    """One entry a position, as far as they could be had; and what was in the way of the next one, if anything was.

    A result that is unpickled by itself and fails adds to the ``failures``.
    """
    if isinstance(frame.results, Packed):
        return _together(frame.results, frame.done - frame.first, failures, on_free)
    results: list[Any] = [None] * (frame.done - frame.first)
    positions = [at for at in range(len(results)) if at not in failures]
    for at, packed in zip(positions, frame.results, strict=True):
        try:
            results[at] = load_home(packed, on_free)
        except SegmentGoneError as error:
            return results[:at], _unreadable(error)
        except BaseException as error:
            failures[at] = _unreadable(error)
    return results, None


def _together(
    packed: Packed, count: int, failures: dict[int, Failure], on_free: OnFree
) -> tuple[list[Any], Failure | None]:
    """Plain data, in one pickle. It always comes back, unless its writer is gone or there is no memory for it here."""
    if not count:
        return [], None
    try:
        loaded: list[Any] = load(packed, on_free)
    except BaseException as error:
        positions = [at for at in range(count) if at not in failures]
        if len(positions) > 1 or isinstance(error, SegmentGoneError):
            return [], _unreadable(error)
        failures[positions[0]] = _unreadable(error)
        return [None] * count, None
    if not failures:
        return loaded, None
    values = iter(loaded)
    return [None if at in failures else next(values) for at in range(count)], None


def _unreadable(error: BaseException) -> Failure:
    broken = ResultPicklingError(f"the result can't be unpickled: {text_of(error)}")
    broken.__cause__ = error
    return Failure(broken, let_go(error))


def decode_failure(data: bytes) -> Failure | None:
    """The failure in a worker's answer, where there is one."""
    frame: FailureFrame | None = load_frame(data)
    return None if frame is None else _failure(frame)


def _failure(frame: FailureFrame) -> Failure:
    type_name, message, trace, bases = frame.stand_in
    error: BaseException
    if frame.result is not None:
        reason, message = f"{type_name}: {message}", f"the result {frame.result} can't be pickled: {message}"
        error = ResultPicklingError(message, frame.result, reason)
    else:
        error = _unpickled(frame) or RemoteError(type_name, message, trace, bases)
    error.__cause__ = RemoteTraceback(trace)
    return Failure(error, trace, frame.elapsed, frame.charged, text=message or type_name.rpartition(".")[2])


def _unpickled(frame: FailureFrame) -> BaseException | None:
    if frame.error is None:
        return None
    try:
        error = load_home(frame.error)
    except BaseException:
        return None
    return error if isinstance(error, BaseException) else None
