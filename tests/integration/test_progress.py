"""``progress=``: what a callable hears, and what is to be seen on a terminal."""

from __future__ import annotations

import ast
import contextlib
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

import mpqueue
from mpqueue import JobQueue, Progress, current_item
from tests.support import handlers as do
from tests.support.front_ends import FRONT_ENDS, FrontEnd
from tests.support.loops import in_loops
from tests.support.programs import run_program
from tests.support.terminals import screen, terminal
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_pool_ends", "forked_workers")]


@pytest.mark.parametrize("chunksize", [None, 1, 7, 1000])
def test_the_last_state_is_told_before_the_run_resolves_whatever_the_chunks(chunksize: int | None) -> None:
    heard: list[Progress] = []
    with JobQueue(2) as queue:
        queue.run(range(1000), do.succeed, id="job", progress=heard.append, chunksize=chunksize)
        last = heard[-1]
    assert (last.job_id, last.status, last.total) == ("job", "completed", 1000)
    assert (last.completed, last.failed, last.retries, last.partly_done) == (1000, 0, 0, 0)
    counts = [progress.completed for progress in heard]
    assert counts == sorted(counts)


def test_the_last_state_is_told_once_also_where_listeners_are_slower_than_the_job() -> None:
    heard: list[Progress] = []
    with JobQueue(2) as queue:
        queue.on("job:progress", lambda *_: threading.Event().wait(0.25))
        queue.run(range(4), do.succeed, progress=heard.append, chunksize=1)
    assert [progress.completed for progress in heard if progress.status.final] == [4]


def test_a_second_run_of_failed_items_begins_where_the_first_ended(tmp_path: Path) -> None:
    def handle(item: str) -> str:
        if item == "b" and not (tmp_path / "well").exists():
            raise ValueError
        return item

    heard: list[Progress] = []
    with JobQueue(2, max_retries=0) as queue:
        queue.run(list("abc"), handle, id="job")
        (tmp_path / "well").touch()
        queue.retry_failed("job", progress=heard.append).result()
    assert {progress.already for progress in heard} == {2}
    assert (heard[-1].completed, heard[-1].failed) == (3, 0)


def test_fractions_that_handlers_report_count(gate: Gate) -> None:
    def handle(item: str) -> str:
        if item != "c":
            current_item().report(0.25 if item == "a" else 0.5)
            gate.pass_through(item)
        return item

    heard: list[Progress] = []
    with JobQueue(2) as queue:
        job = queue.create_job("job", list("abc"), handle, chunksize=1)
        run = queue.start("job", progress=heard.append)
        gate.wait_for("a", "b")
        wait_until(lambda: heard and heard[-1].partly_done == 0.75)
        assert [item.fraction for item in job.items] == [0.25, 0.5, 0.0]
        assert heard[-1].done == 0.75
        gate.open()
        run.result()
        assert [item.fraction for item in job.items] == [1.0, 1.0, 1.0]


def test_what_an_item_reported_is_not_counted_for_the_next_chunk_s(gate: Gate) -> None:
    def handle(item: str) -> str:
        if item == "a":
            current_item().report(1.0)
        else:
            gate.pass_through(item)
        return item

    with JobQueue(1) as queue:
        job = queue.create_job("job", ["a", "b"], handle, chunksize=1)
        run = queue.start("job")
        gate.wait_for("b")
        assert job.items[1].status == "processing"
        assert job.items[1].fraction == 0.0
        gate.open()
        run.result()


def test_a_callable_that_raises_is_logged_once_and_the_job_goes_on(
    caplog: pytest.LogCaptureFixture, gate: Gate
) -> None:
    def show(progress: Progress) -> None:
        raise ValueError("no")

    ended = threading.Event()
    with JobQueue(1) as queue:
        queue.create_job("job", ["a", "b"], do.only("a", do.announce(gate, do.succeed)))
        run = queue.start("job", progress=show)
        run.add_done_callback(lambda _: ended.set())
        assert run.result().status == "completed"
        assert ended.wait(300)
    assert [record.message.partition("(")[0] for record in caplog.records] == ["the progress callable raised "]


def test_what_can_t_be_shown_is_refused_before_anything_is_created() -> None:
    wrong: Any
    with JobQueue(1) as queue:
        for wrong in (1, None, "yes"):
            with pytest.raises(TypeError, match=r"progress: expected True, False or a callable, got .* of type"):
                queue.run(["a"], do.succeed, progress=wrong)
        assert queue.jobs() == []
    for call in (mpqueue.map, mpqueue.imap, mpqueue.starmap):
        with pytest.raises(TypeError, match="progress"):
            call(do.succeed, "a", progress=wrong)
    with pytest.raises(TypeError, match="progress"):
        mpqueue.Pool(1, progress=wrong)
    with pytest.raises(TypeError, match="progress"):
        mpqueue.Executor(1, progress=wrong)


# --- the drop-ins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", [one for one in FRONT_ENDS if one.tells_progress], ids=str)
def test_the_drop_ins_tell_the_last_state_before_they_return(front_end: FrontEnd) -> None:
    heard: list[Progress] = []
    threads: set[str] = set()

    def show(progress: Progress) -> None:
        threads.add(threading.current_thread().name.rstrip("-0123456789"))
        heard.append(progress)

    with front_end.open(progress=show) as call:
        assert sorted(call(do.square, range(50))) == [number * number for number in range(50)]
    assert (heard[-1].completed, heard[-1].failed, heard[-1].total) == (50, 0, 50)
    assert [progress.status for progress in heard if progress.status.final] == ["completed"]
    assert heard[-1].status.final
    assert threads == {"mpqueue-listeners"}


def test_an_iterator_that_is_closed_early_tells_nothing_more() -> None:
    heard: list[Progress] = []
    numbers = mpqueue.imap(do.succeed, iter(int, 1), concurrency=1, progress=heard.append)
    next(numbers)
    numbers.close()
    assert [progress.status for progress in heard if progress.status.final] == ["cancelled"]
    assert heard[-1].status.final


class Answered:
    """A function for ``progress=`` that goes on only when another thread, or the loop, has answered."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []
        self.threads: set[threading.Thread] = set()
        self.missed = False
        self._asked: deque[threading.Event] = deque()

    def __call__(self, progress: Progress) -> None:
        self.threads.add(threading.current_thread())
        answered = threading.Event()
        self._asked.append(answered)
        self.missed |= not answered.wait(300)
        self.heard.append(progress)

    @property
    def has_ended(self) -> bool:
        """True once the last state was told."""
        return bool(self.heard) and self.heard[-1].status.final

    def answer(self) -> bool:
        """Let it go on if it waits; True."""
        while self._asked:
            self._asked.popleft().set()
        return True

    async def answer_always(self) -> None:
        """In a task, which the loop has to run for it."""
        while True:
            self.answer()
            await anyio.sleep(0.001)


@pytest.mark.parametrize("imap", [mpqueue.imap, mpqueue.imap_unordered])
def test_dropping_an_iterator_waits_for_no_function(imap: Callable[..., Any]) -> None:
    show = Answered()
    numbers = imap(do.succeed, iter(int, 1), concurrency=1, progress=show)
    assert next(numbers) == 0
    del numbers
    wait_until(lambda: show.answer() and show.has_ended)
    assert (show.heard[-1].status, show.missed) == ("cancelled", False)
    assert threading.current_thread() not in show.threads


def test_closing_an_iterator_waits_a_while_for_a_function_that_hangs() -> None:
    show = Answered()
    numbers = mpqueue.imap(do.succeed, iter(int, 1), concurrency=1, progress=show)
    assert next(numbers) == 0
    numbers.close()
    assert list(numbers) == []
    assert not show.has_ended
    wait_until(lambda: show.answer() and show.has_ended)
    assert (show.heard[-1].status, show.missed) == ("cancelled", False)


def take_all(results: AsyncIterator[int]) -> Awaitable[None]:
    async def take() -> None:
        assert sorted([number async for number in results]) == list(range(50))

    return take()


async def leave(results: AsyncIterator[int]) -> None:
    async for _ in results:
        break


async def close(results: AsyncIterator[int]) -> None:
    async with contextlib.aclosing(cast("AsyncGenerator[int]", results)):
        await anext(results)


@in_loops
@pytest.mark.parametrize(("end", "status"), [(take_all, "completed"), (leave, "cancelled"), (close, "cancelled")])
async def test_a_function_may_wait_for_the_loop_that_iterates(
    end: Callable[[AsyncIterator[int]], Awaitable[None]], status: str
) -> None:
    show = Answered()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show.answer_always)
        await end(mpqueue.imap(do.succeed, range(50), concurrency=1, progress=show))
        if end is not leave:
            assert show.has_ended
        while not show.has_ended:  # noqa: ASYNC110 - told on another thread
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()
    assert (show.heard[-1].status, show.missed) == (status, False)


@in_loops
async def test_a_wait_for_the_last_call_that_is_cancelled_loses_nothing() -> None:
    show = Answered()
    results = mpqueue.imap(do.succeed, range(5), concurrency=1, progress=show)
    assert [await anext(results) for _ in range(5)] == list(range(5))
    with anyio.move_on_after(0.01) as scope:
        await anext(results)
    assert scope.cancelled_caught
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(show.answer_always)
        assert [number async for number in results] == []
        tasks.cancel_scope.cancel()
    assert show.has_ended


def test_the_end_of_a_pool_s_iterator_waits_for_the_last_call_as_long_as_it_may() -> None:
    show = Answered()
    with mpqueue.Pool(1, progress=show) as pool:
        numbers = pool.imap(do.square, range(3))
        assert [next(numbers) for _ in range(3)] == [0, 1, 4]
        with pytest.raises(StopIteration):
            numbers.next(timeout=0.01)
        assert not show.has_ended
        result = pool.map_async(do.square, range(3))
        result.wait(0.01)
        assert not result.ready()
        wait_until(lambda: show.answer() and result.ready())
        assert result.get() == [0, 1, 4]
        assert not show.missed


# --- what is to be seen -----------------------------------------------------------------------------------------------


TALKS = """
    import logging, sys
    import mpqueue
    from mpqueue import current_item

    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")

    def talk(number):
        current_item().report(0.5)
        print("said", number)
        logging.info("logged %d", number)
        return number

    with mpqueue.JobQueue(2) as queue:
        job = queue.run(range(8), talk, id="talks", progress=True, chunksize=2)
    print("after", job.completed)
"""


def shown_on_terminal(folder: Path, body: str) -> list[str]:
    with terminal(folder, body) as shown:
        code = shown.end()
        assert code == 0, shown.text
        return [line for line in screen(shown.text) if line]


def test_a_bar_ends_above_what_is_printed_later_and_is_not_torn(tmp_path: Path) -> None:
    lines = shown_on_terminal(tmp_path, TALKS)
    assert lines[-1] == "after 8"
    bar = lines[-2]
    assert bar.startswith("talks:")
    assert "8/8" in bar
    said = {f"said {number}" for number in range(8)} | {f"logged {number}" for number in range(8)}
    others = [line for line in lines[:-2] if line not in said]
    assert said <= set(lines)
    assert [line for line in others if "said" in line or "logged" in line] == []


def test_nothing_is_drawn_where_stderr_is_no_terminal(tmp_path: Path) -> None:
    done = run_program(tmp_path, TALKS)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "after 8"


def test_a_bar_is_followed_by_the_failures_in_groups_and_that_of_a_call_is_not(tmp_path: Path) -> None:
    body = """
        import mpqueue

        def load(number):
            if number < 9:
                raise ValueError("bad header")

        with mpqueue.JobQueue(1, max_retries=0) as queue:
            queue.run(range(10), load, id="job", progress=True)
        try:
            mpqueue.map(load, range(10), progress=True, concurrency=1)
        except ValueError:
            print("after")
    """
    lines = shown_on_terminal(tmp_path, body)
    assert (lines[0].startswith("job: 100%"), "10/10  9 failed" in lines[0]) == (True, True)
    assert lines[1] == "  ValueError × 9 at program.py:6, first: 0: bad header"
    assert [line.partition(":")[0] for line in lines[2:]] == ["load", "after"]


def test_a_job_inside_a_worker_shows_no_bar(tmp_path: Path) -> None:
    body = """
        import mpqueue

        def nested(number):
            return sum(mpqueue.map(int, range(number), progress=True))

        with mpqueue.JobQueue(1) as queue:
            print(queue.run([3, 4], nested, id="outer", progress=True).results)
    """
    with terminal(tmp_path, body) as shown:
        assert shown.end() == 0, shown.text
        text = shown.text
    assert [line for line in screen(text) if line][-1] == "[3, 6]"
    assert "int:" not in text
    assert "outer: 100%" in text


NOTEBOOK = """
    import os

    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["IPYTHONDIR"] = os.getcwd()

    import nbclient, nbformat

    code = "import mpqueue; mpqueue.map(str, range(5), concurrency=1, progress=True)"
    cell = nbformat.v4.new_code_cell(code)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3")
    client.execute()
    print([sorted(output["data"].values()) for output in cell.outputs if output.output_type == "display_data"])
"""


def test_a_notebook_shows_a_bar_in_its_cell(tmp_path: Path) -> None:
    (line,) = run_program(tmp_path, NOTEBOOK).stdout.splitlines()
    ((html, text),) = ast.literal_eval(line)
    assert '<code>str: 100%</code> <progress value="1.000"></progress> <code>5/5' in html
    assert text.startswith("str: 100% [####################] 5/5")


LIVE_NOTEBOOK = """
    import os

    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["IPYTHONDIR"] = os.getcwd()

    import nbclient, nbformat

    code = "import mpqueue; q = mpqueue.JobQueue(1); display(q.serve()); q.run([1], abs, id='job'); q.close()"
    cell = nbformat.v4.new_code_cell(code)
    notebook = nbformat.v4.new_notebook(cells=[cell])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    print([output["data"] for output in cell.outputs])
"""


def test_the_cell_that_serves_a_page_follows_its_jobs_to_the_end(tmp_path: Path) -> None:
    (line,) = run_program(tmp_path, LIVE_NOTEBOOK).stdout.splitlines()
    (shown,) = ast.literal_eval(line)
    assert shown["text/plain"] == "<Page closed>"
    assert "The live page is closed." in shown["text/html"]
    assert "<td>job</td><td>completed</td>" in shown["text/html"]


@pytest.mark.parametrize(
    "wait", ["queue.run([1, 2], handle, id='job', progress=True)", "queue.start('again', progress=True).result()"]
)
def test_an_interrupted_job_s_bar_ends_above_the_traceback(wait: str, tmp_path: Path) -> None:
    body = """
        import mpqueue
        from pathlib import Path
        from tests.support import handlers as do
        from tests.support.waiting import Gate

        handle = do.only(2, do.announce(Gate(Path(".")), do.hang_sleep))
        with mpqueue.JobQueue(1) as queue:
            queue.create_job("again", [1, 2], handle)
            WAIT
    """
    with terminal(tmp_path, body.replace("WAIT", wait)) as shown:
        Gate(tmp_path).wait_for(2)
        shown.press_ctrl_c()
        shown.end()
        lines = [line for line in screen(shown.text) if line]
    assert "KeyboardInterrupt" in lines[-2:]  # a note may follow, which says where the job is
    at = next(number for number, line in enumerate(lines) if line.startswith("Traceback"))
    assert lines[at] == "Traceback (most recent call last):"
    assert sum(line.startswith(("job:", "again:")) for line in lines) == 1
    assert lines[at - 1].startswith(("job:", "again:"))
