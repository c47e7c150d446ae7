"""The server of a page: a socket, and a thread with its own event loop.

The page looks at a queue and never owns it: it holds nothing that keeps the queue alive, and ends with it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from concurrent.futures import Future
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mpqueue._live_page.access import Guard
from mpqueue._live_page.app import make_app
from mpqueue._live_page.feed import PageFeed
from mpqueue._live_page.served import Served, addresses
from mpqueue._os.descriptors import descriptors_left
from mpqueue._os.process_signals import report_broken_pipes
from mpqueue._output.progress import in_notebook
from mpqueue.errors import shown

log = logging.getLogger("mpqueue")

#: Seconds in which answers under way may be read when the page is closed, and may be made.
READING_WAIT_S, CLOSING_WAIT_S = 1, 2
#: Seconds that `close` waits for the thread; a user's ``repr`` may hang there.
CLOSE_LIMIT = 5.0
#: Seconds between two looks of a notebook's cell.
CELL_INTERVAL = 1.0
#: The most connections that wait to be accepted.
WAITING = 1024
#: Seconds for which Linux holds a connection on which nothing is sent.
DEFER_SECONDS = 5


Begun = Future[tuple[asyncio.AbstractEventLoop, PageFeed, Guard]]


class Page:
    """A live page. ``url`` contains the token: it lets everyone see the queue's jobs, and cancel them."""

    def __init__(self, served: Served, host: str, port: int, hosts: tuple[str, ...]) -> None:
        self._served = served
        self._hosts = (*hosts, f"[{host}]" if ":" in host else host)
        self._socket = _listen(host, port)
        self._port = self._socket.getsockname()[1]
        self._door = Door()
        self._closed = False
        self._lock = threading.Lock()
        begun: Begun = Future()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="mpqueue-page", daemon=True)
        self._thread.start()
        self._loop, self._feed, guard = begun.result()
        self.url: str = f"http://{_address(self._socket)}{guard.place}?token={guard.token}"
        addresses[served] = self.url

    def close(self) -> None:
        """End the server: viewers get the last state and the end. Leaves no thread. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._feed.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_LIMIT)
            if self._thread.is_alive():
                log.warning("closing leaves the thread of the live page behind: something that it asked still runs")

    def __repr__(self) -> str:
        return f"<Page {'closed' if self._closed else f'on port {self._port}; page.url is its address'}>"

    def _repr_html_(self) -> str:
        """Return for notebooks a link to the page, while it is open, and a table of its jobs."""
        from mpqueue._output.notebook_forms import page_as_html  # few programs need it

        return page_as_html(None if self._closed else self.url, self._served.books() or ())

    def _ipython_display_(self) -> None:
        """Show the page in IPython; in a notebook, the table in the cell follows the jobs while the page is open."""
        from IPython.display import display  # it asks

        shown = display(self._forms(), raw=True, display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        with self._lock:
            if in_notebook() and not self._closed:
                asyncio.run_coroutine_threadsafe(self._follow(shown), self._loop)

    def _forms(self) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    async def _follow(self, shown: Any) -> None:
        """Update what a cell shows, at last when the page's loop ends."""
        before: dict[str, str] = {}
        try:
            while True:
                await asyncio.sleep(CELL_INTERVAL)
                if before != (before := self._forms()):
                    shown.update(before, raw=True)
        finally:
            shown.update(self._forms(), raw=True)

    def _run(self, begun: Begun) -> None:
        report_broken_pipes()
        try:
            asyncio.run(self._serve(begun))
        except BaseException as error:
            if begun.done():  # the queue's work goes on without its page
                log.exception("the live page ended; the jobs go on")
            else:
                begun.set_exception(error)
        finally:
            self._socket.close()

    async def _serve(self, begun: Begun) -> None:
        feed = PageFeed(self._served)
        guard = make_app(self._served, feed, self._hosts)
        config = uvicorn.Config(
            guard,
            loop="asyncio",
            http=self._door.connect,  # type: ignore[arg-type] # called with a connection's parts, as a class would be
            backlog=TAKEN_AT_A_TIME,
            h11_max_incomplete_event_size=MOST_HEADERS,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # otherwise each invalid request would log a warning
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSING_WAIT_S,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        begun.set_result((asyncio.get_running_loop(), feed, guard))
        try:
            await feed.run()
        finally:
            with self._lock:  # from now on nothing is sent to the loop
                self._closed = True
            addresses.pop(self._served, None)
            server.should_exit = True
            asyncio.get_running_loop().call_later(READING_WAIT_S, _cut, server)
            await serving
            feed.forget()  # a closed page keeps no job


def _cut(server: uvicorn.Server) -> None:
    """End the remaining connections: their viewers have not read their answers, and are probably gone."""
    for connection in tuple(server.server_state.connections):
        connection.transport.abort()


class _Listening(socket.socket):
    """A socket on which many connections may wait; asyncio accepts as many at a time as may wait: here few."""

    def listen(self, backlog: int = 0, /) -> None:
        """Let at least `WAITING` connections wait."""
        super().listen(max(backlog, WAITING))


def _listen(host: str, port: int) -> socket.socket:
    """A socket that accepts connections from now on, so that the address works as soon as it is known."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = _Listening(family, kind, protocol)
        try:
            # On Windows, SO_REUSEADDR would let a second program listen on an address in use.
            alone = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
            listening.setsockopt(socket.SOL_SOCKET, alone, 1)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):
                # Linux holds a connection until something was sent. So a request is there as soon as its connection is,
                # and connections that send nothing take no place at all.
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
            listening.bind(address)
            listening.listen()
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        hint = " (port=0 takes a free one)" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        raise OSError(error.errno, f"serve: expected to listen on {host!r}, port {port}: {error}{hint}") from error
    except ValueError as error:  # a text that can't be an address
        raise ValueError(f"host: expected a name or an address, got {shown(host)}: {error}") from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- The connections of a page: limits on their number, and on the time that a stranger may stay. ----------------------
#
# Every local user can connect to the page, with or without its token, and each connection takes a descriptor of the
# program whose workers need descriptors too. So a `Door` bounds them:
#
# - A connection is a *stranger* until it has made a request with the token. Strangers have few places, for a short
#   time. A new connection takes the place of the oldest stranger, so a flood of strangers never keeps out the holder of
#   the token.
# - A new connection gets no place of its own while the program has few descriptors left: the rest is for workers.
#
# A connection that breaks a rule is closed at once, without an answer. Everything runs on the page's event loop.

#: The most connections, and the most strangers among them.
MAX_CONNECTIONS, MAX_STRANGERS = 64, 32
#: Connections that are accepted in a row: so each is looked at before it is the oldest.
TAKEN_AT_A_TIME = 2
#: Seconds that a stranger may stay.
STRANGER_SECONDS = 5.0
#: The descriptors that stay free for workers.
DESCRIPTORS_FREE = 64
#: The most bytes of a request's line and headers.
MOST_HEADERS = 16 << 10


class Door:
    """The strangers among the open connections."""

    def __init__(self) -> None:
        self._strangers: dict[Connection, None] = {}  #: the oldest first

    def connect(self, **arguments: Any) -> Connection:
        """Return the protocol of a connection: uvicorn calls this for each one that it has accepted."""
        return Connection(self, **arguments)

    def enter(self, connection: Connection) -> None:
        """Find a place for a new connection, if necessary the oldest stranger's; else close it."""
        self._strangers[connection] = None
        is_full = len(self._strangers) > MAX_STRANGERS or len(connection.connections) > MAX_CONNECTIONS
        if is_full or descriptors_left() < DESCRIPTORS_FREE:
            self.end_stranger(next(iter(self._strangers)))
        connection.loop.call_later(STRANGER_SECONDS, self.end_stranger, connection)

    def end_stranger(self, connection: Connection) -> None:
        """End that connection if it is still a stranger's."""
        if connection in self._strangers:
            del self._strangers[connection]
            connection.transport.abort()

    def forget(self, connection: Connection) -> None:
        """Forget a connection that has shown the token, or that is closed."""
        self._strangers.pop(connection, None)


class Connection(H11Protocol):
    """One connection."""

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self.app_state = {**self.app_state, "admit": partial(door.forget, self)}  # each request's ``scope["state"]``

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or cut it off if there is no room."""
        super().connection_made(transport)
        self._door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which was closed."""
        self._door.forget(self)
        super().connection_lost(exc)
