"""What a program has its signals do, and what the handlers of its signals raise."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue import Executor, JobQueue, Pool
from tests.support.programs import run_program
from tests.support.systems import LINUX_ONLY

pytestmark = pytest.mark.slow

# --- SIGPIPE ends the program -----------------------------------------------------------------------------------------

BROKEN_PIPES = """
    import os, signal
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    import mpqueue

    def die_at_each_second(item):
        number, _ = item
        if number % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    if __name__ == "__main__":
        with mpqueue.JobQueue(2, {options}) as queue:
            # So long that something is often being written when a worker dies.
            items = [(number, [bytes(60_000) for _ in range(40)]) for number in range(40)]
            job = queue.run(items, die_at_each_second, chunksize=1, max_retries=0)
            print(job.completed, job.failed)
"""


@pytest.mark.parametrize(
    "options",
    [pytest.param("", id="started"), pytest.param("preload=['json']", id="forked", marks=LINUX_ONLY)],
)
def test_where_sigpipe_ends_programs_a_worker_s_death_does_not(options: str, tmp_path: Path) -> None:
    done = run_program(tmp_path, BROKEN_PIPES.format(options=options))
    assert (done.stdout, done.stderr) == ("20 20\n", "")


def test_where_sigpipe_ends_programs_a_worker_that_never_stands_does_not(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    at_start = "import os, sys\nif 'resource_tracker' not in str(sys.orig_argv): os._exit(3)\n"
    (tmp_path / "workers" / "sitecustomize.py").write_text(at_start)
    body = """
        import os, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        import mpqueue

        os.environ["PYTHONPATH"] = f"{os.getcwd()}/workers:{os.environ.get('PYTHONPATH', '')}"
        try:
            with mpqueue.JobQueue(1) as queue:
                queue.run([1], abs)
        except mpqueue.WorkerStartError:
            print("no worker")
    """
    assert run_program(tmp_path, body).stdout == "no worker\n"


def test_where_sigpipe_ends_programs_viewers_that_leave_the_page_do_not(tmp_path: Path) -> None:
    body = r"""
        import signal, socket
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        import mpqueue
        from tests.support.pages import visit

        if __name__ == "__main__":
            with mpqueue.JobQueue(1) as queue:
                viewer = visit(queue.serve().url)
                host, _, port = viewer.netloc.partition(":")
                known = f"Host: localhost\r\nCookie: {viewer.headers['Cookie']}\r\n"
                for _ in range(20):
                    with socket.create_connection((host, int(port))) as leaving:
                        leaving.sendall(f"GET {viewer.place}style.css HTTP/1.1\r\n{known}\r\n".encode() * 50)
                print(queue.run([-1], abs).results, viewer.get("jobs")[0]["status"])
    """
    done = run_program(tmp_path, body)
    assert (done.stdout, done.stderr) == ("[1] completed\n", "")


# --- handlers of signals that raise -----------------------------------------------------------------------------------


class TimeUpError(Exception):
    """The time of the program is up."""


class Limit:
    """A limit of time, whose signal comes once."""

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGUSR1)

    def end(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self.before)
        raise TimeUpError("the time is up")


class Ringing:
    """Is being pickled when the signal comes."""

    def __reduce__(self) -> tuple[Any, ...]:
        if signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGUSR1)
        return Ringing, ()


@pytest.fixture
def limit() -> Iterator[Limit]:
    limit = Limit()
    signal.signal(signal.SIGUSR1, limit.end)
    yield limit
    signal.signal(signal.SIGUSR1, limit.before)


def create_job(handler: Callable[..., Any]) -> None:
    with JobQueue(1) as queue:
        queue.create_job("job", [1], handler)


def submit(handler: Callable[..., Any]) -> None:
    with Executor(1) as executor:
        executor.submit(handler, 1)


def map_in_pool(handler: Callable[..., Any]) -> None:
    with Pool(1) as pool:
        pool.map(handler, [1])


CALLS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "create_job": create_job,
    "map": map_in_pool,
    "submit": submit,
}


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("name", CALLS)
def test_what_the_handler_of_a_signal_raises_while_a_function_is_pickled_comes_out_as_it_is(name: str) -> None:
    ringing = Ringing()
    with pytest.raises(TimeUpError, match=r"^the time is up$"):
        CALLS[name](lambda item: (item, ringing))
