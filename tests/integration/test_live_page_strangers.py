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
from tests.support import handlers as do
from tests.support.length import long
from tests.support.pages import PATIENCE, Visitor, visit
from tests.support.programs import run_program

pytestmark = pytest.mark.slow

Connect = Callable[[bytes], socket.socket]


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    with JobQueue(1) as queue:
        queue.run(["item"], do.succeed, id="bystander")
        yield queue


@pytest.fixture
def viewer(queue: JobQueue) -> Iterator[Visitor]:
    """Somebody with the token, whose stream is open all the time, and goes on afterwards."""
    viewer = visit(queue.serve().url)
    with viewer.stream() as stream:
        stream.listen_until(lambda: stream.statuses("bystander") == ["completed"])
        yield viewer
        told = len(stream.names)
        stream.listen_until(lambda: len(stream.names) > told)
    assert viewer.get("jobs")[0]["jobId"] == "bystander"


@pytest.fixture
def connect(viewer: Visitor) -> Iterator[Connect]:
    """Make connections that send something."""
    with contextlib.ExitStack() as made:

        def connect(data: bytes) -> socket.socket:
            host, _, port = viewer.netloc.partition(":")
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
        assert run.result(timeout=300).results == list(range(60)), run.result().failures
        seen.append(viewer.get("jobs")[0]["status"])
        strangers.stdin.close()
        strangers.wait()
        strangers.stdout.close()
        print(*seen)
"""


@pytest.mark.parametrize("kind", [long("nothing"), "half", long("trickle")])
def test_a_thousand_half_open_connections_stop_neither_the_job_nor_its_viewer(kind: str, tmp_path: Path) -> None:
    done = run_program(tmp_path, ATTACKED, kind, timeout=300)
    assert (done.stdout, done.stderr) == ("job completed\n", "")


def test_a_new_connection_takes_the_place_of_the_oldest_stranger(viewer: Visitor, connect: Connect) -> None:
    strangers = [connect(b"GET / HT") for _ in range(32)]
    newest = connect(b"GET / HT")
    assert read_to_end(strangers[0]) == b""
    newest.sendall(b"TP/1.1\r\nHost: localhost\r\n\r\n")
    assert read_to_end(newest).startswith(b"HTTP/1.1 403 ")


# --- slow ones --------------------------------------------------------------------------------------------------------

STARTS = [
    b"GET / HT",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ",
    b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n123",
]


def test_requests_that_never_end_are_ended(viewer: Visitor, connect: Connect) -> None:
    started = [connect(start) for start in STARTS]
    trickling = connect(b"GET / HTTP/1.1\r\nX: ")
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while not select.select([trickling], [], [], 0.01)[0]:
            trickling.sendall(b"x")
    for connection in (*started, trickling):
        read_to_end(connection)


# --- threads ----------------------------------------------------------------------------------------------------------


class Hangs:
    """Its ``repr`` hangs until it is told."""

    go_on = threading.Event()
    here = threading.Semaphore(0)

    def __repr__(self) -> str:
        self.here.release()
        self.go_on.wait(PATIENCE)
        return "free"


def test_details_that_hang_take_few_threads(queue: JobQueue, viewer: Visitor, connect: Connect) -> None:
    queue.create_job("hangs", [Hangs()], do.succeed)
    path, known = "jobs/2/items/0", f"Host: localhost\r\nCookie: {viewer.headers['Cookie']}\r\n"
    hanging = [connect(f"GET {viewer.place}{path} HTTP/1.1\r\n{known}\r\n".encode()) for _ in range(32)]
    for _ in hanging:
        assert Hangs.here.acquire(timeout=PATIENCE)
    assert viewer.ask(path).status == 503
    Hangs.go_on.set()
    for connection in hanging:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert viewer.ask(path).status == 200
