"""Jobs with stages on queues with a journal: they go on where they were, whenever their program ended."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue.sinks
from mpqueue import JobQueue, JournalError, JournalMismatchError, Rerun, StageError
from tests.support.command_line import main
from tests.support.length import IS_LONG
from tests.support.programs import WAS_KILLED, run_program
from tests.support.this_system import KILL
from tests.support.waiting import Gate, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

INPUTS = 24

Stages = list[Callable[..., Any]]

#: Its inputs go through three stages: a value of a class of its own, several values of which one is big, and rows. Then
#: the same journal gets jobs of the other kinds: a list, an open job whose handler adds items, and a stream.
PROGRAM = """
import json, os, signal, sys, threading, time
import mpqueue.sinks
from mpqueue import JobQueue, Stage, current_item, imap

journal, output, log, after, ordered = sys.argv[1:6]


class Picture:
    def __init__(self, number):
        self.number = number


def note(what, number):
    with open(log, "a") as file:
        file.write(f"{what} {number}\\n")


def load(number):
    note("load", number)
    return Picture(number)


def cut(picture):
    note("cut", picture.number)
    for part in range(picture.number % 4):
        yield picture, part, bytes(300_000 if part == 1 else 10)


def write(part):
    picture, number, content = part
    time.sleep(0.005)
    return picture.number * 100 + number


def square(item):
    number = item if isinstance(item, int) else item["id"]
    note("square", number)
    time.sleep(0.002)
    return number * number


def grow(number):
    if number % 3:
        current_item().add([3 * number, 3 * number + 1] if number < INPUTS else [])
    return square(number)


if __name__ == "__main__":
    if float(after):
        threading.Timer(float(after), os.kill, [os.getpid(), KILL_NUMBER]).start()
    with JobQueue(2, journal=journal) as queue:
        stages = [load, cut, Stage(write, ordered=ordered == "ordered")]
        job = queue.run_stages(range(INPUTS), stages, id="pictures", results=mpqueue.sinks.jsonl(output))
        print(job.completed, job.failed)
        listed = queue.run([{"id": number} for number in range(INPUTS)], square, id="list", chunksize=3)
        grown = queue.open_job("open", [1, 2], grow)
        run = queue.start(grown)
        queue.seal(grown)
        run.result()
        print(json.dumps([listed.results, sorted(grown.results)]))
    print([*imap(square, range(INPUTS), concurrency=2, journal=journal, job_id="stream")])
    os._exit(0)
""".replace("KILL_NUMBER", str(int(KILL))).replace("INPUTS", str(INPUTS))


def expected_of(number: int) -> list[int]:
    return [number * 100 + part for part in range(number % 4)]


def grown_from(number: int) -> list[int]:
    """The items that come of that one of the open job."""
    adds = number % 3 and number < INPUTS
    return [number, *(each for more in (3 * number, 3 * number + 1) if adds for each in grown_from(more))]


@pytest.mark.holds("promise: With a journal, a job goes on where it was", "fault: kill -9 of your program")
@pytest.mark.parametrize("ordered", ["any order", pytest.param("ordered", marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", range(20 if IS_LONG else 1))
def test_whenever_it_is_killed_each_item_of_each_kind_ends_once(tmp_path: Path, ordered: str, seed: int) -> None:
    chance, output, log = random.Random(seed), tmp_path / "rows.jsonl", tmp_path / "log"
    log.touch()
    run = partial(run_program, tmp_path, PROGRAM, tmp_path / "run.db", output, log, check=False)
    ends = iter([*(chance.uniform(0.1, 1.2) for _ in range(8 if IS_LONG else 2)), 0])
    while (done := run(next(ends), ordered)).returncode:
        assert done.returncode == WAS_KILLED, done.stderr
    ran = log.read_text()
    again = run(0, ordered)
    assert (again.stdout, again.stderr, log.read_text()) == (done.stdout, done.stderr, ran), "nothing is left to run"
    counts, others, stream = done.stdout.splitlines()
    squares = [number * number for number in range(INPUTS)]
    grown = [number * number for first in (1, 2) for number in grown_from(first)]
    assert (counts, json.loads(others), json.loads(stream)) == (f"{INPUTS} 0", [squares, sorted(grown)], squares)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted((row["id"], row["result"]) for row in rows) == [(at, expected_of(at)) for at in range(INPUTS)]
    with sqlite3.connect(tmp_path / "run.db") as journal:
        assert journal.execute("SELECT count(*) FROM passed").fetchone() == (0,), "what has passed on is let go"
    journal.close()


# -- in one program ----------------------------------------------------------------------------------------------------


def double(folder: Path, number: int) -> int:
    with (folder / "double").open("a") as file:
        file.write(f"{number}\n")
    return 2 * number


def invert(number: int) -> float:
    return 1 / number


def text_of(number: int) -> str:
    return str(number)


def calls(folder: Path) -> Counter[int]:
    return Counter(map(int, (folder / "double").read_text().split()))


def test_what_has_ended_is_not_done_again_and_says_how_it_ended(tmp_path: Path) -> None:
    stages: Stages = [partial(double, tmp_path), invert]
    for _ in range(2):
        with JobQueue(1, journal=tmp_path / "run.db", max_retries=0) as queue:
            job = queue.run_stages([4, 0, 2], stages, id="numbers")
            assert (job.status, [item.result for item in job.items]) == ("completed_with_errors", [0.125, None, 0.25])
            error = job.items[1].exception
            assert isinstance(error, StageError)
            assert (error.stage, type(error.__cause__)) == ("invert", ZeroDivisionError)
    assert set(calls(tmp_path).values()) == {1}
    with JobQueue(1, journal=tmp_path / "run.db") as queue:
        past = queue.load_job("numbers")
        assert [str(item.status) for item in past.items] == ["completed", "failed", "completed"]
        assert past.items[0].result == 0.125
        for refused in (partial(queue.retry_failed, "numbers"), past.items[0].replay):
            with pytest.raises(JournalError, match="got one with stages; call run_stages"):
                refused()


def test_a_stage_s_code_is_the_job_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal = tmp_path / "run.db"
    others: Stages = [partial(double, tmp_path), text_of]
    with JobQueue(1, journal=journal) as queue:
        queue.run_stages([4, 2], [partial(double, tmp_path), invert], id="numbers")
    with JobQueue(1, journal=journal) as queue, caplog.at_level(logging.WARNING):
        queue.run_stages([4, 2], others, id="numbers")
    assert "stage 2, 'text_of' (now" in caplog.text
    with JobQueue(1, journal=journal) as queue:
        job = queue.run_stages([4, 2], others, id="numbers", rerun=Rerun(redo="all"))
        assert job.results == ["8", "4"]
        with pytest.raises(JournalMismatchError, match="expected a job with a list of items, got a job with stages"):
            queue.create_job("numbers", [4, 2], str, replace=True)


def test_inputs_may_change(tmp_path: Path) -> None:
    journal = tmp_path / "run.db"
    stages: Stages = [partial(double, tmp_path), text_of]
    with JobQueue(1, journal=journal) as queue:
        queue.run_stages([4, 2], stages, id="numbers")
    with JobQueue(1, journal=journal) as queue:
        with pytest.raises(JournalMismatchError, match="update=True"):
            queue.run_stages([2, 7], stages, id="numbers")
        assert queue.run_stages([2, 7], stages, id="numbers", rerun=Rerun(update=True)).results == ["4", "14"]
    assert calls(tmp_path) == {4: 1, 2: 1, 7: 1}


def test_random_numbers_are_those_of_the_input(tmp_path: Path) -> None:
    def draw(_: Any) -> int:
        return int(mpqueue.current_item().rng.integers(1 << 30))

    drawn: list[Any] = []
    for inputs in ([1, 2], [2, 1]):
        with JobQueue(1, journal=tmp_path / "run.db") as queue:
            job = queue.run_stages(inputs, [str, draw], id="numbers", rerun=Rerun(update=True, redo="all"), seed=7)
            drawn.append(dict(zip(inputs, job.results, strict=True)))
    assert drawn[0] == drawn[1]


def hold(gate: Gate, number: int) -> int:
    """Of all but one, nothing is passed on until the gate is open."""
    if number != 8:
        gate.pass_through(number)
    return number


def test_a_cancelled_one_goes_on_with_what_was_passed_on(tmp_path: Path, gate: Gate) -> None:
    journal = tmp_path / "run.db"
    stages: Stages = [partial(double, tmp_path), partial(hold, gate)]
    with JobQueue(2, journal=journal) as queue:
        run = queue.start_stages([4, 2], stages, id="numbers")
        wait_until(lambda: run.job.completed == 1, what="one of two")
        gate.wait_for(4)
        queue.cancel("numbers", kill=True)
        assert run.result().status == "cancelled"
    gate.open()
    with JobQueue(2, journal=journal) as queue:
        assert queue.run_stages([4, 2], stages, id="numbers").results == [8, 4]
    assert calls(tmp_path) == {4: 1, 2: 1}


def hold_at_the_end(gate: Gate, number: float) -> float:
    gate.pass_through(number)
    return number


@pytest.mark.parametrize(
    ("places", "result", "doubled"),
    [([0, 1, 2], 0.125, ["4"]), ([1, 0, 2], 0.5, ["4", "0.25"]), ([0, 2], 8, ["4", "4"]), ([1, 2], 0.25, ["4"])],
)
def test_values_on_their_way_are_those_of_the_stages_that_made_them(
    tmp_path: Path, gate: Gate, places: list[int], result: float, doubled: list[str]
) -> None:
    """The program goes on with these of its stages, while an input is on its way to the last one."""
    journal = tmp_path / "run.db"
    stages: Stages = [partial(double, tmp_path), invert, partial(hold_at_the_end, gate)]
    with JobQueue(1, journal=journal) as queue:
        queue.start_stages([4], stages, id="numbers")
        gate.wait_for(0.125)
        queue.cancel("numbers", kill=True)
    gate.open()
    with JobQueue(1, journal=journal) as queue:
        assert queue.run_stages([4], [stages[place] for place in places], id="numbers").results == [result]
    assert (tmp_path / "double").read_text().split() == doubled, "the same stages do nothing again"


def test_an_order_of_stages_is_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stages: Stages = [partial(double, tmp_path), invert]
    for ordered in (stages, stages[::-1]):
        with JobQueue(1, journal=tmp_path / "run.db") as queue, caplog.at_level(logging.WARNING):
            assert queue.run_stages([4], ordered, id="numbers").results == [0.125]
    assert "have changed since 1 of these results was made" in caplog.text


#: Two inputs are on their way when the program ends. The first one changes, and the program ends again while it reads
#: what was passed on of the second one.
CHANGES = """
import os, signal, sys, threading, time
from mpqueue import JobQueue, Rerun


def how():
    return os.environ["HOW"]


class Value:
    def __init__(self, number):
        self.number = number

    def __setstate__(self, state):
        if how() == "reads" and os.environ["PROGRAM"] == str(os.getpid()):
            os.kill(os.getpid(), KILL_NUMBER)
        self.__dict__.update(state)


def wrap(item):
    return Value(item["number"])


def number_of(value):
    while how() == "first":
        time.sleep(1)
    return value.number


if __name__ == "__main__":
    os.environ.update(HOW=sys.argv[2], PROGRAM=str(os.getpid()))
    if how() == "first":
        threading.Timer(2.0, os.kill, [os.getpid(), KILL_NUMBER]).start()
    items = [{"id": "a", "number": 1 if how() == "first" else 10}, {"id": "b", "number": 2}]
    with JobQueue(3, journal=sys.argv[1]) as queue:
        print(queue.run_stages(items, [wrap, number_of], id="numbers", rerun=Rerun(update=True)).results)
""".replace("KILL_NUMBER", str(int(KILL)))


def test_a_changed_input_does_not_get_what_was_passed_on_before_it_changed(tmp_path: Path) -> None:
    run = partial(run_program, tmp_path, CHANGES, tmp_path / "run.db", check=False)
    assert run("first").returncode == WAS_KILLED
    assert run("reads").returncode == WAS_KILLED
    done = run("last")
    assert (done.stdout, done.returncode) == ("[10, 2]\n", 0), done.stderr


def test_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("def read(text):\n    return int(text)\n\n\ndef invert(number):\n    return 1 / number\n")
    Path("in.txt").write_text("4\n0\n")
    arguments = ["run", "own.py:read", "own.py:invert", "in.txt", "--from", "lines", "-j", "1", "--journal", "run.db"]
    for _ in range(2):
        assert main([*arguments, "--retries", "0", "--no-progress"]) == 1
        rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert [row["result"] for row in rows] == [0.25, None]
