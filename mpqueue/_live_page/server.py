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

import uvicorn

from mpqueue._core.state.lane_book import LaneState
from mpqueue._engines.loky.loky_lane import DESCRIPTORS, DESCRIPTORS_KEPT
from mpqueue._live_page.access import Guard
from mpqueue._live_page.app import make_app
from mpqueue._live_page.door import MOST_HEADERS, TAKEN_AT_A_TIME, Door
from mpqueue._live_page.feed import PageFeed
from mpqueue._live_page.served import Served
from mpqueue._os.descriptors import descriptor_limits
from mpqueue._os.process.process_signals import report_broken_pipes
from mpqueue.errors import shown

log = logging.getLogger("mpqueue")

#: Seconds in which answers under way may be read when the page is closed, and may be made.
READING_PATIENCE, PATIENCE = 1, 2
#: Seconds that `close` waits for the thread; a user's ``repr`` may hang there.
CLOSE_LIMIT = 5.0
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
        self._door = Door(self._reserve)
        self._closed = False
        self._lock = threading.Lock()
        begun: Begun = Future()
        self._thread = threading.Thread(target=self._run, args=(begun,), name="mpqueue-page", daemon=True)
        self._thread.start()
        self._loop, self._feed, guard = begun.result()
        self.url: str = f"http://{_address(self._socket)}{guard.place}?token={guard.token}"

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
        return f"<Page {'closed' if self._closed else 'at ' + self.url.partition('?')[0]}>"

    def _reserve(self) -> int:
        """The descriptors that have to stay free: for two starts at a time, and for each worker still to start.

        At most half of the process's limit, or a queue with very many workers would have no page.
        """
        to_come = sum(lane.state is not LaneState.READY for lane in self._served.lanes())
        return int(min(2 * DESCRIPTORS + to_come * DESCRIPTORS_KEPT, descriptor_limits().now / 2))

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
            timeout_graceful_shutdown=PATIENCE,
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        begun.set_result((asyncio.get_running_loop(), feed, guard))
        try:
            await feed.run()
        finally:
            with self._lock:  # from now on nothing is sent to the loop
                self._closed = True
            server.should_exit = True
            asyncio.get_running_loop().call_later(READING_PATIENCE, self._door.close)
            await serving
            feed.forget()  # a closed page keeps no job


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
