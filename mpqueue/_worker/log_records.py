"""Handlers' log records on their way to the parent: a handler at the root logger keeps them for the next report.

A report may take long, and a worker that dies sends none. So a record is sent at once, in an early report, if none was
sent for `SENDING_INTERVAL_S`; a separate thread sends those that follow within that time together. Until a record has
been sent it is also in the outbox, where the parent finds it after this worker's death. A job that logs nothing
costs one look at an empty queue for each report.

Warnings (`warnings.warn`) become records of the logger ``py.warnings``, as with `logging.captureWarnings`.
"""

from __future__ import annotations

import _thread
import logging
import queue
import threading
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from mpqueue._os import system as clock
from mpqueue._os.process_handle import in_each_fork
from mpqueue._os.process_signals import came_of_signal
from mpqueue._plain import plain
from mpqueue._text import repr_of
from mpqueue._wire.frames import RecordFrame, Speech, begin_unsent, dump_frame, unsent
from mpqueue._wire.memory.ledger import UNSENT
from mpqueue._worker.handlers import current_item
from mpqueue._worker.results import plain_text
from mpqueue._worker.worker_links import WorkerLinks

if TYPE_CHECKING:
    from mpqueue._worker.chunk_run import ChunkRun

#: Seconds between two sendings, and the longest delay of a record.
#: If chunks may take longer, as with many workers, the delay is as long as theirs.
SENDING_INTERVAL_S = 0.2
#: The most records that are kept for one sending; further ones are counted and dropped.
MAX_KEPT_RECORDS = 10_000
#: The most bytes of them in the outbox for the case of this worker's death.
MAX_UNSENT_BYTES = 1_000_000
#: Attributes of every LogRecord; others came by ``extra``.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
#: Not sent: they are formatted already, or have no meaning in another process.
_LEFT_OUT = frozenset({"msg", "args", "exc_info", "message", "asctime"})


class LogOutlet(logging.Handler):
    """One worker's handler at the root logger. Any thread may log."""

    def __init__(self, links: WorkerLinks) -> None:
        super().__init__()
        self._links = links
        self.levels: Mapping[str, int] = {"": logging.NOTSET}  #: the parent's loggers' levels; the root's name is empty
        self.sender: ChunkRun | None = None  #: the current chunk; set by the main thread
        self.chunk = 0  #: the current chunk's number, also while its handler is loaded
        self._kept: deque[bytes] = deque()
        self._unsent = 0  #: bytes of them in the outbox
        self._dropped = 0
        self._sent_at = float("-inf")
        self.interval = SENDING_INTERVAL_S  #: seconds between two sendings; longer if chunks are
        self._due: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._taking = threading.RLock()
        self._has_thread = False

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit a record. The lock is taken by `with`, so that a signal handler that raises can't leave it taken."""
        if passes := bool(self.filter(record)):
            with self._taking:
                self.emit(record)
        return passes

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, and send it soon."""
        if record.levelno < self._level_of(record.name):
            return
        try:
            data = dump_frame(_frame_of(record))
        except Exception as error:
            if came_of_signal(error):
                raise
            self.handleError(record)
            return
        if len(self._kept) >= MAX_KEPT_RECORDS:
            self._dropped += 1
            return
        self._kept.append(data)
        # The report will send it: an error in sending it earlier must not fail the code that logs.
        try:
            self._leave(data)
            if self.sender is not None:
                is_soon = clock.monotonic() - self._sent_at < self.interval
                if is_soon or not self._send():
                    self._send_later()
        except (OSError, RuntimeError) as error:
            if came_of_signal(error):
                raise

    def _level_of(self, name: str) -> int:
        """Return the level from which the parent's logger of this name accepts records."""
        while name and name not in self.levels:
            name = name.rpartition(".")[0]
        return self.levels[name]

    def take(self) -> Sequence[bytes]:
        """Take the records since the last call, to be sent."""
        if not self._kept:
            return ()
        with self._taking:  # no thread logs meanwhile
            taken = list(self._kept)
            self._kept.clear()
            dropped, self._dropped = self._dropped, 0
            self._unsent = 0
            self._links.ledger.words[UNSENT] = 0
        if dropped:
            text = f"{dropped} log records were dropped: more than {MAX_KEPT_RECORDS} came within {self.interval:g} s"
            own = {"name": "mpqueue", "msg": text, "levelno": logging.WARNING, "levelname": "WARNING"}
            taken.append(dump_frame(_frame_of(logging.makeLogRecord(own))))
        return taken

    def give_back(self, records: Sequence[bytes]) -> None:
        """Put back records that could not be sent: the next report has them."""
        self._kept.extendleft(reversed(records))

    def _leave(self, data: bytes) -> None:
        """Leave a record for the parent in case this worker dies now. Called with the handler's lock held."""
        outbox = self._links.outbox
        if outbox is None or self._unsent > MAX_UNSENT_BYTES:
            return
        data = unsent(data) if self._unsent else begin_unsent(self.chunk) + unsent(data)
        try:
            outbox.leave_unsent(data, self._unsent)
        except OSError:  # files must not grow that large: if this worker dies, the record is lost
            return
        self._unsent += len(data)
        self._links.ledger.words[UNSENT] = self._unsent

    def _send(self) -> bool:
        sender, now = self.sender, clock.monotonic()
        if sender is None or not sender.send_records():
            return False
        self._sent_at = now
        return True

    def _send_later(self) -> None:
        if not self._has_thread:
            # In one step: a signal's handler that raises within `Thread.start` leaves half a thread, and a KeyError.
            _thread.start_new_thread(self._loop, ())
            self._has_thread = True
        if self._due.empty():
            self._due.put(None)

    def _loop(self) -> None:
        """Send waiting records, on the thread, while a chunk runs; its report has the rest."""
        while True:
            self._due.get()
            threading.Event().wait(self.interval)
            if self._kept and self.sender is not None and not self._send():
                self._due.put(None)


def _frame_of(record: logging.LogRecord) -> RecordFrame:
    fields: dict[str, Any] = {}
    for name, value in vars(record).items():
        if name not in _LEFT_OUT:
            fields[name] = _plain(plain(value) if name in _OWN else value)
    fields["msg"] = record.getMessage()
    if record.exc_info and not record.exc_text:
        fields["exc_text"] = logging.Formatter().formatException(record.exc_info)
    index, attempt = current_item.index_and_attempt()
    return RecordFrame(fields, index, attempt)


def _plain(value: Any) -> Any:
    """The value if it is plain data, else its ``repr``: reading a record must not run users' code."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) in (list, tuple):
        return [_plain(one) for one in value]
    if type(value) is dict and all(type(key) is str for key in value):
        return {key: _plain(one) for key, one in value.items()}
    return plain_text(repr_of(value))


def leave_to_the_program() -> None:
    """Remove the main module's log handlers here: the same handlers in the program get these records."""
    root = logging.getLogger()
    for logger in (root, *root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True


def install(outlet: LogOutlet, speech: Speech | None) -> None:
    """Take records from now on, as far as the parent's loggers accept them. In a process that is the worker's own."""
    root = logging.getLogger()
    if outlet not in root.handlers:
        root.addHandler(outlet)
        _once(outlet)
    if speech is not None:
        # Setting a level costs a look at every logger, even if it does not change.
        if root.manager.disable != speech.disabled:
            logging.disable(speech.disabled)
        outlet.levels = speech.levels
        _set_levels(speech.levels)


#: By name: the levels given to this process's loggers, and those set by other code, such as the initializer.
_given: dict[str, int] = {}
_own: dict[str, int] = {}


def _set_levels(levels: Mapping[str, int]) -> None:
    """Give the loggers these levels, or their own if those accept more, for handlers that were added here.

    So a logger whose level the parent has reset has its own again.
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
def _once(outlet: LogOutlet) -> None:
    warnings.showwarning = _log_warning
    # In a process that a handler has forked, nothing can be sent: it logs like any process.
    in_each_fork(lambda: logging.getLogger().removeHandler(outlet))


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
