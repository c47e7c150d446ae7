"""The connections of a page: limits on their number, and on the time that an unused one may stay.

Every local user can connect to the page, with or without its token, and each connection takes a descriptor of the
program whose workers need descriptors too. So a `Door` bounds them:

- A connection is a *stranger* until it has made a request with the token. Strangers have few places. A new connection
  takes the place of the oldest stranger, so a flood of strangers never keeps out the holder of the token.
- A new connection gets no place of its own while the program has few descriptors left: the rest is for workers.
- A request has to arrive completely in time, even if it comes in small parts. An answer has to be read.

A connection that breaks a rule is closed at once, without an answer. Everything runs on the page's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from mpqueue._os.descriptors import descriptors_left

#: The most connections; the most strangers, in all and from one address.
MOST, MOST_STRANGERS, MOST_STRANGERS_OF_ONE = 64, 32, 16
#: Connections that are accepted in a row: so each is looked at before it is the oldest.
TAKEN_AT_A_TIME = 2
#: Seconds in which a request has to arrive, and for which a connection may be idle between two.
REQUEST_SECONDS = 5.0
#: Seconds within which a reader has to take `LEAST_READ` bytes of a waiting answer, or all of it.
READING_SECONDS, LEAST_READ = 30.0, 16 << 10
#: The most bytes of a request's line and headers.
MOST_HEADERS = 16 << 10


class Door:
    """The open connections. ``reserve`` gives the number of descriptors that have to stay free."""

    def __init__(self, reserve: Callable[[], int]) -> None:
        self._reserve = reserve
        self._strangers: dict[Connection, None] = {}  #: the oldest first
        self._guests: set[Connection] = set()
        self.request_seconds = REQUEST_SECONDS
        self.reading_seconds = READING_SECONDS

    def connect(self, **arguments: Any) -> Connection:
        """Return the protocol of a connection: uvicorn calls this for each one that it has accepted."""
        return Connection(self, **arguments)

    def enter(self, connection: Connection) -> bool:
        """Find a place for a new connection, if necessary the oldest stranger's. False: there is none."""
        neighbours = [stranger for stranger in self._strangers if stranger.address == connection.address]
        if len(neighbours) >= MOST_STRANGERS_OF_ONE:
            self._drop(neighbours[0])
        elif self._is_full() or descriptors_left() < self._reserve():
            if not self._strangers:
                return False
            self._drop(next(iter(self._strangers)))
        self._strangers[connection] = None
        return True

    def admit(self, connection: Connection) -> None:
        """Note that the connection has shown the token."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._guests.add(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed, or about to be."""
        self._strangers.pop(connection, None)
        self._guests.discard(connection)

    def close(self) -> None:
        """End the remaining connections: their viewers have not read their answers, and are probably gone."""
        for connection in (*self._strangers, *self._guests):
            connection.transport.abort()

    def _is_full(self) -> bool:
        return len(self._strangers) >= MOST_STRANGERS or len(self._strangers) + len(self._guests) >= MOST

    def _drop(self, connection: Connection) -> None:
        self.leave(connection)
        connection.transport.abort()


class Connection(H11Protocol):
    """One connection. A timer runs while a request has to arrive, or an answer has to be read."""

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0  #: bytes that waited for the reader when the timer was set
        self.address: str | None = None
        self.app_state = {**self.app_state, "admit": self._admit}  # each request's ``scope["state"]``

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or cut it off if there is no room."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else None
        if self._door.enter(self):
            self._mind()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which was closed."""
        self._door.leave(self)
        self._stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take the received part of a request."""
        super().data_received(data)
        self._mind()

    def on_response_complete(self) -> None:
        """Note that an answer is written, though perhaps not read."""
        super().on_response_complete()
        self._mind()

    def pause_writing(self) -> None:
        """Pause writing: much of an answer is unread."""
        super().pause_writing()
        self._mind()

    def resume_writing(self) -> None:
        """Resume writing: most of an answer is read."""
        super().resume_writing()
        self._mind()

    def _admit(self) -> None:
        self._door.admit(self)

    def _mind(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        is_waiting = cycle is None or cycle.more_body or cycle.response_complete
        if not is_waiting and not self.flow.write_paused:
            self._stop()
        elif self._timer is None:
            self._start()

    def _start(self) -> None:
        self._unread = self.transport.get_write_buffer_size()
        seconds = self._door.reading_seconds if self._unread else self._door.request_seconds
        self._timer = self.loop.call_later(seconds, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """End the connection, whose time is over, unless it was reading."""
        left = self.transport.get_write_buffer_size()
        self._timer = None
        if self._unread and (not left or left <= self._unread - LEAST_READ):
            self._start()
        else:
            self.transport.abort()
