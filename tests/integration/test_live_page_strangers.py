"""Connections without the token: they stop no job, keep no viewer out, and end by themselves."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mpqueue import JobQueue
from mpqueue._live_page import aside, door
from mpqueue._live_page.server import Page
from tests.support import handlers as do
from tests.support.length import long
from tests.support.pages import PATIENCE, Visitor, visit
from tests.support.programs import run_program
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

Connect = Callable[[bytes], socket.socket]


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(1) as queue:
        queue.run(["item"], do.succeed, id="bystander")
        yield queue


@pytest.fixture
def page(queue: JobQueue) -> Page:
    return queue.serve()


@pytest.fixture
def viewer(page: Page) -> Iterator[Visitor]:
    """Somebody with the token, whose stream is open all the time, and goes on afterwards."""
    viewer = visit(page.url)
    with viewer.stream() as stream:
        stream.listen_until(lambda: stream.statuses("bystander") == ["completed"])
        yield viewer
        page._door.request_seconds, page._door.reading_seconds = door.REQUEST_SECONDS, door.READING_SECONDS
        told = len(stream.names)
        stream.listen_until(lambda: len(stream.names) > told)
    assert viewer.get("jobs")[0]["jobId"] == "bystander"


@pytest.fixture
def connect(page: Page) -> Iterator[Connect]:
    """Make connections that send something."""
    with contextlib.ExitStack() as made:

        def connect(data: bytes) -> socket.socket:
            host, _, port = Visitor(page.url).netloc.partition(":")
            connection = socket.create_connection((host, int(port)), PATIENCE)
            made.enter_context(connection)
            connection.sendall(data)
            return connection

        yield connect


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the page closes the connection, however it does."""
    received = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while data := connection.recv(1 << 16):
            received += data
    return received


# --- many connections -------------------------------------------------------------------------------------------------

ATTACKED = """
    import resource, subprocess, sys
    from mpqueue import JobQueue, RetryPolicy
    from tests.support import handlers as do
    from tests.support.pages import Visitor, visit

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    with JobQueue(2, retry=RetryPolicy(1, base_delay=0)) as queue:
        url = queue.serve().url
        host, port = Visitor(url).netloc.split(":")
        command = [sys.executable, "-m", "tests.support.strangers", sys.argv[1], host, port, "1000"]
        strangers = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        strangers.stdout.readline()
        crash_each_tenth = do.only_multiples(10, do.at_first(do.kill_self))
        run = queue.start(queue.create_job("job", range(60), crash_each_tenth, chunksize=1).id)
        viewer = visit(url)
        seen = [viewer.get("jobs")[0]["jobId"]]
        assert run.result(timeout=100).results == list(range(60)), run.result().failures
        seen.append(viewer.get("jobs")[0]["status"])
        strangers.stdin.close()
        strangers.wait()
        strangers.stdout.close()
        print(*seen)
"""


@pytest.mark.parametrize("kind", [long("nothing"), "half", long("trickle")])
def test_a_thousand_half_open_connections_stop_neither_the_job_nor_its_viewer(kind: str, tmp_path: Path) -> None:
    done = run_program(tmp_path, ATTACKED, kind, timeout=110)
    assert (done.stdout, done.stderr) == ("job completed\n", "")


def test_a_new_connection_takes_the_place_of_the_oldest_stranger(viewer: Visitor, connect: Connect) -> None:
    strangers = [connect(b"GET / HT") for _ in range(door.MOST_STRANGERS_OF_ONE)]
    newest = connect(b"GET / HT")
    assert read_to_end(strangers[0]) == b""
    newest.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
    assert read_to_end(newest).startswith(b"HTTP/1.1 403 ")


def test_no_place_is_found_while_the_program_needs_its_descriptors(
    viewer: Visitor, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setattr(door, "descriptors_left", lambda: 0)
        assert read_to_end(connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")) == b""
    assert read_to_end(connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")).startswith(b"HTTP/1.1 403 ")


# --- slow ones --------------------------------------------------------------------------------------------------------

REQUESTS = {
    "half a line": b"GET / HT",
    "half a header": b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ",
    "no body": b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_that_never_ends_is_ended(viewer: Visitor, page: Page, connect: Connect, request_: bytes) -> None:
    page._door.request_seconds = 0.2
    read_to_end(connect(request_))


def test_bytes_that_trickle_in_gain_no_time(viewer: Visitor, page: Page, connect: Connect) -> None:
    page._door.request_seconds = 0.2
    connection = connect(b"GET / HTTP/1.1\r\nX: ")
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while not select.select([connection], [], [], 0.01)[0]:
            connection.sendall(b"x")
    read_to_end(connection)


def test_a_viewers_connection_that_idles_or_sends_half_a_body_is_ended(
    viewer: Visitor, page: Page, connect: Connect
) -> None:
    page._door.request_seconds = 0.2
    known = f"Host: localhost\r\nCookie: {viewer.headers['Cookie']}\r\n"
    idle = connect(f"GET {viewer.place}jobs HTTP/1.1\r\n{known}\r\n".encode())
    half = connect(f"POST {viewer.place}jobs/1/pause HTTP/1.1\r\n{known}Content-Length: 9\r\n\r\n{{".encode())
    assert read_to_end(idle).startswith(b"HTTP/1.1 200 ")
    assert read_to_end(half) == b""


def test_an_answer_that_nobody_reads_is_ended(viewer: Visitor, page: Page, connect: Connect) -> None:
    page._door.reading_seconds = 0.2
    request = f"GET {viewer.place}style.css HTTP/1.1\r\nHost: localhost\r\nCookie: {viewer.headers['Cookie']}\r\n\r\n"
    unread = connect(request.encode())
    wait_until(lambda: len(page._door._guests) == 2, what="the connection to be a guest's")
    unread.sendall(request.encode() * 1000)
    wait_until(lambda: len(page._door._guests) == 1, what="the connection to be closed")


# --- threads ----------------------------------------------------------------------------------------------------------


class Hangs:
    """Its ``repr`` hangs until it is told."""

    go_on = threading.Event()
    here = threading.Semaphore(0)

    def __repr__(self) -> str:
        self.here.release()
        self.go_on.wait(PATIENCE)
        return "free"


def test_details_that_hang_take_few_threads(
    queue: JobQueue, viewer: Visitor, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "_free", threading.BoundedSemaphore(1))
    queue.create_job("hangs", [Hangs()], do.succeed)
    path = "jobs/2/items/0"
    hanging = connect(
        f"GET {viewer.place}{path} HTTP/1.1\r\nHost: localhost\r\nCookie: {viewer.headers['Cookie']}\r\n\r\n".encode()
    )
    assert Hangs.here.acquire(timeout=PATIENCE)
    assert viewer.ask(path).status == 503
    Hangs.go_on.set()
    assert hanging.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert viewer.ask(path).status == 200
