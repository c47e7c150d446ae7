"""Ctrl-C at a real terminal, and what a terminal does to workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from mpqueue import JobQueue
from tests.support import handlers as do
from tests.support.leaks import descendants
from tests.support.systems import LINUX_ONLY
from tests.support.terminals import terminal
from tests.support.waiting import Gate, wait_until

pytestmark = pytest.mark.slow

RUNS = """
    import threading
    import mpqueue
    from pathlib import Path
    from tests.support import handlers as do
    from tests.support.waiting import Gate

    gate = Gate(Path("."))
    try:
        with mpqueue.JobQueue(2) as queue:
            handler = do.only("a", do.succeed, do.announce(gate, {hang}))
            job = queue.create_job("job", ["a", "b", "c", "d"], handler, chunksize=1)
            {start}
    except KeyboardInterrupt:
        print("interrupted")
    print(job.status, job.completed, job.results, [str(item.status) for item in job.items])
    print([item.attempts for item in job.items])
"""


def check_interrupted(text: str) -> None:
    assert text == (
        "interrupted\n"
        "cancelled 1 ['a', None, None, None] ['completed', 'pending', 'pending', 'pending']\n"
        "[1, 0, 0, 0]\n"
    )


WHERE = {
    "in result": "queue.start('job').result()",
    "at the end of the block": "queue.start('job')",
    "in as_completed": "for item in queue.start('job').as_completed(): pass",
    "in the user's own code": "queue.start('job'); threading.Event().wait()",
}
HANGS = ["do.hang_sleep", "do.hang_holding_gil", "do.sigterm_ignore_and_hang"]


@pytest.mark.long(
    but=["in result-do.hang_sleep", "at the end of the block-do.hang_sleep", "in result-do.hang_holding_gil"]
)
@pytest.mark.holds("fault: Ctrl-C")
@pytest.mark.parametrize(
    ("where", "hang"), [*((where, HANGS[0]) for where in WHERE), *(("in result", hang) for hang in HANGS[1:])]
)
def test_ctrl_c_ends_the_block_shows_no_worker_s_traceback_and_keeps_results(
    where: str, hang: str, tmp_path: Path
) -> None:
    body = RUNS.format(hang=hang, start=WHERE[where])
    with terminal(tmp_path, body) as shown:
        Gate(tmp_path).wait_for_count(2)
        shown.press_ctrl_c()
        assert shown.end() == 0, shown.text
        check_interrupted(shown.text)


def test_ctrl_c_that_nobody_catches_shows_one_traceback_the_user_s(tmp_path: Path) -> None:
    body = """
        import mpqueue
        from pathlib import Path
        from tests.support import handlers as do
        from tests.support.waiting import Gate

        with mpqueue.JobQueue(3) as queue:
            queue.run(list("abc"), do.announce(Gate(Path(".")), do.hang_sleep))
    """
    with terminal(tmp_path, body) as shown:
        Gate(tmp_path).wait_for("a", "b", "c")
        shown.press_ctrl_c()
        assert shown.end() in (-signal.SIGINT, 128 + signal.SIGINT, 1)
        assert shown.text.count("Traceback") == 1
        *_, raised, note = shown.text.splitlines()
        assert raised == "KeyboardInterrupt"
        assert note.startswith("mpqueue: job 'job-1' is cancelled; 0 of its 3 items have completed: see queue.last_job")
        assert "tests/support/handlers.py" not in shown.text


@pytest.mark.long(but=["1", "3"])
@pytest.mark.parametrize("moment", range(4))
def test_ctrl_c_while_workers_start_shows_no_worker_s_traceback(moment: int, tmp_path: Path) -> None:
    body = """
        import mpqueue
        from tests.support import handlers as do
        try:
            with mpqueue.JobQueue(6) as queue:
                queue.create_job("job", range(100), do.hang_sleep)
                queue.start("job")
                print("started", flush=True)
        except KeyboardInterrupt:
            print("interrupted")
    """
    with terminal(tmp_path, body) as shown:
        wait_until(lambda: "started\n" in shown.text)  # unbuffered, the end of the line is written by itself
        wait_until(lambda: len([*descendants(shown.process.pid)]) >= moment)
        shown.press_ctrl_c()
        assert shown.end() == 0, shown.text
        assert shown.text == "started\ninterrupted\n"


def test_ctrl_c_twice_ends_the_program_too(tmp_path: Path) -> None:
    body = RUNS.format(hang="do.hang_sleep", start="queue.start('job').result()")
    with terminal(tmp_path, body) as shown:
        Gate(tmp_path).wait_for_count(2)
        shown.press_ctrl_c()
        shown.press_ctrl_c()
        shown.end()
        assert "handlers.py" not in shown.text


def test_ctrl_c_in_an_event_loop_ends_the_block(tmp_path: Path) -> None:
    body = """
        import asyncio
        import mpqueue
        from pathlib import Path
        from tests.support import handlers as do
        from tests.support.waiting import Gate

        jobs = []

        async def main():
            async with mpqueue.JobQueue(2) as queue:
                jobs.append(queue.create_job("job", list("abc"), do.announce(Gate(Path(".")), do.hang_sleep)))
                await queue.start("job")

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted", jobs[0].status)
    """
    with terminal(tmp_path, body) as shown:
        Gate(tmp_path).wait_for("a", "b")
        shown.press_ctrl_c()
        assert shown.end() == 0, shown.text
        assert shown.text == "interrupted cancelled\n"


def test_queue_installs_no_signal_handlers_in_the_parent() -> None:
    signals = [number for number in signal.valid_signals() if number not in (signal.SIGKILL, signal.SIGSTOP)]
    before = [signal.getsignal(number) for number in signals]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with JobQueue(1) as queue:
        queue.run(["a", "b"], do.succeed)
        assert [signal.getsignal(number) for number in signals] == before
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    assert [signal.getsignal(number) for number in signals] == before


# --- sessions and groups ---------------------------------------------------------------------------------------------


def session_and_group(_item: int) -> tuple[int, int, int]:
    return os.getsid(0), os.getpgid(0), os.getpid()


@pytest.mark.long(but=["started"])
@pytest.mark.parametrize(
    "preload", [pytest.param(None, id="started"), pytest.param(["json"], id="forked", marks=LINUX_ONLY)]
)
def test_a_worker_is_in_the_program_s_session_and_in_a_group_of_its_own(preload: list[str] | None) -> None:
    with JobQueue(1, preload=preload) as queue:
        session, group, pid = queue.run([1], session_and_group).results[0] or (0, 0, 0)
    assert session == os.getsid(0)
    assert group == pid


def test_a_terminal_stops_no_handler_that_reads_from_it_writes_to_it_or_changes_it(tmp_path: Path) -> None:
    body = """
        import subprocess
        import mpqueue

        def use_terminal(item):
            commands = "stty tostop; echo written; stty -tostop; read line < /dev/tty || echo no terminal"
            return subprocess.run(["sh", "-c", commands], check=True, stderr=subprocess.DEVNULL).returncode

        subprocess.run(["stty", "tostop"], check=True)
        with mpqueue.JobQueue(1, max_retries=0) as queue:
            run = queue.start(queue.create_job("job", [1], use_terminal))
            print(run.result(300).results)
    """
    with terminal(tmp_path, body) as shown:
        wait_until(lambda: "[0]" in shown.text, what="the handler's end")
        assert shown.end() == 0, shown.text
        assert shown.text == "written\nno terminal\n[0]\n"
