"""The connections of a page: limits on their number, and on the time that a stranger may stay.

Every local user can connect to the page, with or without its token, and each connection takes a descriptor of the
program whose workers need descriptors too. So a `Door` bounds them:

- A connection is a *stranger* until it has made a request with the token. Strangers have few places, for a short time.
  A new connection takes the place of the oldest stranger, so a flood of strangers never keeps out the holder of the
  token.
- A new connection gets no place of its own while the program has few descriptors left: the rest is for workers.

A connection that breaks a rule is closed at once, without an answer. Everything runs on the page's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from mpqueue._os.descriptors import descriptors_left

#: The most connections, and the most strangers among them.
MOST, MOST_STRANGERS = 64, 32
#: Connections that are accepted in a row: so each is looked at before it is the oldest.
TAKEN_AT_A_TIME = 2
#: Seconds that a stranger may stay.
STRANGER_SECONDS = 5.0
#: The most bytes of a request's line and headers.
MOST_HEADERS = 16 << 10


class Door:
    """The open connections. ``reserve`` gives the number of descriptors that have to stay free."""

    def __init__(self, reserve: Callable[[], int]) -> None:
        self._reserve = reserve
        self._strangers: dict[Connection, None] = {}  #: the oldest first
        self._guests: set[Connection] = set()

    def connect(self, **arguments: Any) -> Connection:
        """Return the protocol of a connection: uvicorn calls this for each one that it has accepted."""
        return Connection(self, **arguments)

    def enter(self, connection: Connection) -> None:
        """Find a place for a new connection, if necessary the oldest stranger's; else close it."""
        is_full = len(self._strangers) >= MOST_STRANGERS or len(self._strangers) + len(self._guests) >= MOST
        self._strangers[connection] = None
        if is_full or descriptors_left() < self._reserve():
            self.end_stranger(next(iter(self._strangers)))
        connection.loop.call_later(STRANGER_SECONDS, self.end_stranger, connection)

    def end_stranger(self, connection: Connection) -> None:
        """End that connection if it is still a stranger's."""
        if connection in self._strangers:
            del self._strangers[connection]
            connection.transport.abort()

    def admit(self, connection: Connection) -> None:
        """Note that the connection has shown the token."""
        if connection in self._strangers:
            del self._strangers[connection]
            self._guests.add(connection)

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._strangers.pop(connection, None)
        self._guests.discard(connection)

    def close(self) -> None:
        """End the remaining connections: their viewers have not read their answers, and are probably gone."""
        for connection in (*self._strangers, *self._guests):
            connection.transport.abort()


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self.app_state = {**self.app_state, "admit": self._admit}  # each request's ``scope["state"]``

    def _admit(self) -> None:
        self._door.admit(self)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or cut it off if there is no room."""
        super().connection_made(transport)
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which was closed."""
        self._door.leave(self)
        super().connection_lost(exc)
