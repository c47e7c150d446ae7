"""Handlers' log records, on their way home: kept by a handler at the root logger, and sent with the next report.

A report may be long in coming, and a worker that dies sends none. So a record is sent at once, by the outbox, if none
was for `INTERVAL` seconds; those that follow it within that time are sent together, by a thread of its own. Until a
record has been sent it also stands in the outbox's file, where the parent finds it when this worker has died. A job
that logs nothing costs one look at an empty queue for each report.

Warnings (`warnings.warn`) become records of the logger ``py.warnings``, as `logging.captureWarnings` has it.
"""

from __future__ import annotations

import logging
import queue
import threading
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Protocol

from mpqueue._os import monotonic as clock
from mpqueue._os.process.own_forks import in_each_fork
from mpqueue._os.process.process_signals import came_of_signal
from mpqueue._plain import plain
from mpqueue._text import repr_of
from mpqueue._wire.frames import RecordFrame, Speech, begin_unsent, dump_record, unsent
from mpqueue._wire.memory.ledger import UNSENT
from mpqueue._worker import station
from mpqueue._worker.chunk.failures import plain_text
from mpqueue._worker.handlers import current_item as context
from mpqueue._worker.station import Station

#: Seconds between two sendings by the outbox: a record is at most so late, where the parent has emptied it. Where
#: chunks may take longer, as with many workers, it is as much as they may.
INTERVAL = 0.2
#: Records that are kept for one sending; what is logged beyond them is counted and dropped.
MOST = 10_000
#: Bytes of them that are left in the outbox's file for the case of this worker's death.
MOST_BYTES = 1_000_000
#: What a LogRecord has by itself; anything else came by ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
#: Not sent: written out, or without a meaning in another process.
_LEFT_OUT = frozenset({"msg", "args", "exc_info", "message", "asctime"})


class Sender(Protocol):
    """A chunk that runs: it can send what was logged so far."""

    def send_records(self) -> bool:
        """Send it now; False where that must wait."""


class RecordsHome(logging.Handler):
    """One worker's handler at the root logger. Any thread may log."""

    def __init__(self, station: Station) -> None:
        super().__init__()
        self._station = station
        self.levels: Mapping[str, int] = {"": logging.NOTSET}  #: of the parent's loggers; the root's name is empty
        self.sender: Sender | None = None  #: the chunk at hand; set by the main thread
        self.chunk = 0  #: the number of the chunk at hand, also while its handler is loaded
        self._kept: deque[bytes] = deque()
        self._unsent = 0  #: bytes of them in the outbox's file
        self._dropped = 0
        self._sent_at = float("-inf")
        self.interval = INTERVAL  #: seconds between two sendings; longer where chunks are
        self._due: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._taking = threading.RLock()
        self._thread: threading.Thread | None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit a record. The lock is taken by `with`, so that a signal's handler that raises can't leave it taken."""
        if passes := bool(self.filter(record)):
            with self._taking:
                self.emit(record)
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, and send it soon."""
        if not self._station.is_own_process and station.here() is not self._station:
            return  # another's, who lives in the same process
        if record.levelno < self._level_of(record.name):
            return
        try:
            data = dump_record(_frame_of(record))
        except Exception as error:
            if came_of_signal(error):
                raise
            self.handleError(record)
            return
        if len(self._kept) >= MOST:
            self._dropped += 1
            return
        self._kept.append(data)
        # It is sent with the report at the latest: an error in sending it earlier must not fail the code that logs.
        try:
            self._leave(data)
            if self.sender is not None and not self._send_now():
                self._send_later()
        except (OSError, RuntimeError) as error:
            if came_of_signal(error):
                raise

    def _level_of(self, name: str) -> int:
        """Return the level that the parent's logger of this name lets through."""
        while name and name not in self.levels:
            name = name.rpartition(".")[0]
        return self.levels[name]

    @property
    def is_alone(self) -> bool:
        """True if no other code logs in this process."""
        return self._station.is_own_process

    def take(self) -> Sequence[bytes]:
        """Take the records since the last call, to be sent."""
        if not self._kept:
            return ()
        with self._taking:  # no thread logs meanwhile
            taken = list(self._kept)
            self._kept.clear()
            dropped, self._dropped = self._dropped, 0
            self._unsent = 0
            self._station.ledger.words[UNSENT] = 0
        if dropped:
            text = f"{dropped} log records were dropped: more than {MOST} came within {self.interval:g} s"
            taken.append(dump_record(_frame_of(logging.makeLogRecord(_of_ours(text)))))
        return taken

    def give_back(self, records: Sequence[bytes]) -> None:
        """Put back records that could not be sent: they go with the next report."""
        self._kept.extendleft(reversed(records))

    def _leave(self, data: bytes) -> None:
        """Leave a record where the parent finds it if this worker dies now. Called with the handler's lock held."""
        outbox = self._station.outbox
        if outbox is None or self._unsent > MOST_BYTES:
            return
        data = unsent(data) if self._unsent else begin_unsent(self.chunk) + unsent(data)
        try:
            outbox.leave_unsent(data, self._unsent)
        except OSError:  # files must not grow so far: then it is lost with this worker, if that dies
            return
        self._unsent += len(data)
        self._station.ledger.words[UNSENT] = self._unsent

    def _send_now(self) -> bool:
        now = clock.monotonic()
        if now - self._sent_at < self.interval:
            return False
        return self._send(now)

    def _send(self, now: float) -> bool:
        sender = self.sender
        if sender is None or not sender.send_records():
            return False
        self._sent_at = now
        return True

    def _send_later(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="mpqueue-records", daemon=True)
            self._thread.start()
        if self._due.empty():
            self._due.put(None)

    def _loop(self) -> None:
        """Send what waits, on the thread, as long as a chunk runs; what is left then goes with its report."""
        while True:
            self._due.get()
            threading.Event().wait(self.interval)
            if self._kept and self.sender is not None and not self._send(clock.monotonic()):
                self._due.put(None)


def _of_ours(text: str) -> dict[str, Any]:
    return {"name": "mpqueue", "msg": text, "levelno": logging.WARNING, "levelname": "WARNING"}


def _frame_of(record: logging.LogRecord) -> RecordFrame:
    fields: dict[str, Any] = {}
    for name, value in vars(record).items():
        if name not in _LEFT_OUT:
            fields[name] = _plain(plain(value) if name in _OWN else value)
    fields["msg"] = record.getMessage()
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    index, attempt = context.place()
    return RecordFrame(fields, index, attempt)


def _plain(value: Any) -> Any:
    """The value where it is plain data, else its ``repr``: reading a record must not run users' code."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        return [_plain(one) for one in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain(one) for key, one in value.items()}
    return plain_text(repr_of(value))


def leave_to_the_program() -> None:
    """Take off the loggers what the main module has put on them here: in the program, it is there for these records."""
    root = logging.getLogger()
    for logger in (root, *root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True


def install(home: RecordsHome, speech: Speech | None) -> None:
    """Take home what is logged from now on, as far as the parent's loggers let it through."""
    root = logging.getLogger()
    if home not in root.handlers:
        root.addHandler(home)
        if home.is_alone:
            _once(home)
    if speech is not None:
        # To set a level costs a look at every logger, also where it is set already.
        if home.is_alone and root.manager.disable != speech.disabled:
            logging.disable(speech.disabled)
        home.levels = speech.levels
        with _setting:
            _set_levels(speech.levels)


#: Of this process's loggers, by name: the levels that they were given, and those that other code has set, such as the
#: initializer. Several workers may live in one process.
_given: dict[str, int] = {}
_own: dict[str, int] = {}
_setting = threading.Lock()


def _set_levels(levels: Mapping[str, int]) -> None:
    """Give the loggers these levels, or their own where these let more through, for handlers that were added here.

    So a logger that the parent has set back has its own one again.
    """
    for name in {*levels, *_given}:
        logger = logging.getLogger(name or None)
        if logger.level != _given.get(name, logging.NOTSET if name else logging.WARNING):
            _own[name] = logger.level
        if name and _own.get(name) == logging.NOTSET:
            del _own[name]
        level = min((each[name] for each in (levels, _own) if name in each), default=logging.NOTSET)
        if logger.level != level:
            logger.setLevel(level)
        if name in levels:
            _given[name] = level
        else:
            del _given[name]


@cache
def _once(home: RecordsHome) -> None:
    warnings.showwarning = _log_warning
    # In a process that a handler has forked, there is no way home: it logs as any process.
    in_each_fork(lambda: logging.getLogger().removeHandler(home))


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if file is not None:
        file.write(text)
        return
    logger = logging.getLogger("py.warnings")
    if logger.isEnabledFor(logging.WARNING):
        logger.handle(logger.makeRecord(logger.name, logging.WARNING, filename, lineno, text.rstrip(), (), None))
