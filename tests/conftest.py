"""What every test runs in: a private temporary folder, and the proof that it left nothing behind."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from mpqueue._parent import users_threads
from mpqueue.testing import close_shared_pool
from tests.support import leaks, length
from tests.support.disk import Disk, watched
from tests.support.startup import sitecustomize
from tests.support.this_system import IS_WINDOWS
from tests.support.waiting import Gate, wait_until

#: Seconds that asynchronous cleaning up may take: worker exit, unlinking by a resource tracker, threads running out.
#: Under wine all of it takes longer.
GRACE = 60.0 if IS_WINDOWS else 20.0

#: The files that take longest, the longest first: from minutes down to a quarter of one.
LONGEST = (
    "test_ray_contract.py",
    "test_ray.py",
    "test_command_line.py",
    "test_docs_code.py",
    "test_crash_table.py",
    "test_engines.py",
    "test_live_page.py",
    "test_dask_processes.py",
    "test_preload.py",
    "test_command_line_journal.py",
    "test_command_line_answers.py",
    "test_dask.py",
    "test_live_page_details.py",
    "test_journal.py",
    "test_joblibs_own_tests.py",
    "test_docs_commands.py",
    "test_examples.py",
    "test_line_faults.py",
    "test_faults_world.py",
    "test_closing.py",
    "test_simulation.py",
    "test_refusals.py",
    "test_memory_limit.py",
    "test_journal_streams.py",
    "test_sinks.py",
    "test_workers.py",
    "test_executor.py",
    "test_imap.py",
    "test_open_jobs_journal.py",
    "test_journal_edits.py",
    "test_guarded_scripts.py",
    "test_slow_starts.py",
    "test_progress.py",
    "test_faults_processes.py",
    "test_everything_at_once.py",
    "test_cpython_executor.py",
    "test_restarts.py",
    "test_leak_check.py",
)

#: So many tests may pass until what has come to stay is passed over by collections of garbage.
REST = 25

_number = itertools.count()
_ROOT = Path(__file__).parent.parent
_TEMPORARY_FOLDER = pytest.StashKey[str]()

# No deadline: how long an example takes on a busy machine says nothing about it.
settings.register_profile("mpqueue", deadline=None, print_blob=True)
settings.load_profile("mpqueue")


def pytest_configure(config: pytest.Config) -> None:
    """Mark all that this run starts, and give it a temporary folder in which every file is its own."""
    receive_signals()
    # One of several that share the tests has its own: what the others start is not its.
    if leaks.COOKIE not in os.environ or hasattr(config, "workerinput"):
        os.environ[leaks.COOKIE] = uuid.uuid4().hex
    # Workers and scripts find the package and `tests.support.handlers` wherever they run, and tag their names first.
    path = [str(_ROOT), os.path.dirname(sitecustomize.__file__), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    sitecustomize.install()
    # Each test in which such a thread did something waits for its end.
    users_threads.LINGER = 0.02
    # pytest's own tmp_path stays where it was, for a look at it afterwards.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    tempfile.tempdir = os.environ["TMPDIR"] = config.stash[_TEMPORARY_FOLDER] = tempfile.mkdtemp(prefix="mpq-")


def receive_signals() -> None:
    """Let this process, and so each program that the tests start, receive the signals that tests send.

    A background command of a shell script ignores Ctrl-C and Ctrl-\\, one under nohup the end of its terminal. Programs
    inherit which signals are ignored and which are blocked.
    """
    if IS_WINDOWS:
        return
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    for number in numbers:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Collect no garbage while nothing but tests is made: a sixth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what only the long form has. And where several processes share the tests, begin with the longest files:
    else all wait for one of them in the end. Their order is kept with ``--no-loadscope-reorder`` only.
    """
    length.leave_out(config, items)
    if hasattr(config, "workerinput"):
        rank = {name: at for at, name in enumerate(LONGEST)}
        items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary folder."""
    shutil.rmtree(config.stash[_TEMPORARY_FOLDER], ignore_errors=True)


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """Fail the test when a process, thread, shared segment, temporary file or descriptor outlives it.

    There is no way round it. What a fixture of a wider scope holds is not counted, as it was there before.
    """
    if next(_number) % REST == 0:
        # What is here by now stays, and collections, of which each test makes some, need not look at it again.
        gc.collect()
        gc.freeze()
    before = leaks.Snapshot.take()
    yield
    if not leaks.Snapshot.take().since(before):
        return

    def left() -> dict[str, list[str]]:
        gc.collect()
        return leaks.without_strangers(leaks.Snapshot.take().since(before))

    if not left():
        return
    gc.unfreeze()  # what was in use when it was frozen may be garbage by now
    try:
        wait_until(lambda: not left(), timeout=GRACE)
    except AssertionError:
        remains = left()
        if remains:
            leaks.kill(remains)
            pytest.fail(leaks.report(remains), pytrace=False)


@pytest.fixture(scope="module")
def forked_workers(request: pytest.FixtureRequest) -> Iterator[Callable[[], AbstractContextManager[object]]]:
    """Workers are forked from a process that has imported the test's file, see `tests.support.forked_workers`.

    In what it gives, ``with forked_workers():``, they start as ever.
    """
    from tests.support.forked_workers import forked_workers  # the unit tests of the core do without loky

    with forked_workers(request.module.__name__) as ordinary_workers:
        yield ordinary_workers


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    """Where the test and its handlers meet."""
    return Gate(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's journal is."""
    return tmp_path / "run.db"


@pytest.fixture
def disk() -> Iterator[Disk]:
    """What SQLite writes to: it can be full, or slow."""
    with watched() as found:
        yield found


@pytest.fixture
def shared_pool_ends() -> Iterator[None]:
    """End the pool of `mpqueue.map` and its kin with the test."""
    yield
    close_shared_pool(kill=True)
