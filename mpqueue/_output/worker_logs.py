"""The handlers' log records from the workers, handed to this process's logging, on the listener thread.

The loggers' levels, filters and handlers of this process decide about a record as if it had been logged here. It has
five more attributes: ``mpqueue_job``, ``mpqueue_item``, ``mpqueue_label``, ``mpqueue_attempt`` and ``mpqueue_worker``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from mpqueue._core.state.job_book import JobBook
from mpqueue._output.bars import aside
from mpqueue._plain import plain
from mpqueue._wire.frames import RecordFrame, Speech
from mpqueue._wire.pickling.packed_handler import PackedHandler

_log = logging.getLogger("mpqueue")


def hand_on(job: JobBook, lane: int, records: Sequence[RecordFrame]) -> None:
    """Log these records here. Bars on the terminal make room for the output."""
    with aside():
        for frame in records:
            logger = logging.getLogger(frame.fields["name"])
            record = logging.makeLogRecord(_fields_of(frame, job, lane))
            if logger.isEnabledFor(record.levelno):
                try:
                    logger.handle(record)
                except Exception:  # noqa: BLE001 - a filter or a handler of the user's, which may meet the next line too
                    with contextlib.suppress(Exception):
                        _log.exception("a logging filter or handler raised; the record is dropped, the job goes on")


def _fields_of(frame: RecordFrame, job: JobBook, lane: int) -> dict[str, object]:
    return {
        "mpqueue_job": job.id if job.listed else None,
        "mpqueue_item": None if frame.place is None else job.table.id_of(frame.place),
        "mpqueue_label": None if frame.place is None else job.table.label_of(frame.place),
        "mpqueue_attempt": frame.attempt,
        "mpqueue_worker": lane,
        **frame.fields,  # a record of a job inside a job keeps the inner job's attributes
    }


def with_speech(job: JobBook, *, beside_bar: bool) -> PackedHandler:
    """Return the handler of a starting job: its workers' loggers get the levels of this process's loggers."""
    handler: PackedHandler = job.handler
    manager = logging.root.manager
    levels = {"": plain(logging.root.level)}
    for name, logger in list(manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            levels[plain(name)] = plain(logger.level)
    speech = Speech(levels, plain(manager.disable), job.options.capture_output, beside_bar)
    return handler._replace(frame=handler.frame._replace(speech=speech))
