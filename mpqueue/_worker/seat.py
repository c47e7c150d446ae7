"""A worker's seat: its station, its way home for log records, and its side of the shared segments."""

from __future__ import annotations

from typing import Any, NamedTuple

from mpqueue._wire.memory.shared import Shared, Token
from mpqueue._worker.chunk.log_records import RecordsHome
from mpqueue._worker.exchange import WorkerExchange
from mpqueue._worker.station import Station


class Seat(NamedTuple):
    """One worker's seat. A process of ours has one; one of another engine has as many as there are lanes in it."""

    station: Station
    home: RecordsHome
    exchange: WorkerExchange
    is_at_home: bool  #: in the parent's own process, whose loggers and imports are the parent's
    brought: dict[Token, Shared[Any]]  #: shared objects that are kept for this worker


def take_seat(station: Station, *, shares_memory: bool = True, is_at_home: bool = False) -> Seat:
    """Return a seat for the worker of that station. ``shares_memory``: its results go through segments."""
    exchange = WorkerExchange(station.ledger if shares_memory else None, carries=station.carries_segments)
    return Seat(station, RecordsHome(station), exchange, is_at_home, {})
