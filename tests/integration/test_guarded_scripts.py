"""Scripts that guard their start, with `Pool` and `Executor`: workers import them, as `multiprocessing` has it.

The same script with `multiprocessing`'s own pool, of processes that are spawned, says what is expected.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.support.programs import run_in_way, run_program, write_program

pytestmark = pytest.mark.slow

#: How a script begins that runs with each of them: ``with opened(2) as run`` gives a ``map``.
CHOICE = """
import contextlib
import multiprocessing
import sys

import mpqueue


@contextlib.contextmanager
def opened(workers, initializer=None, initargs=()):
    if sys.argv[1] == "multiprocessing":
        with multiprocessing.get_context("spawn").Pool(workers, initializer, initargs) as pool:
            yield pool.map
    elif sys.argv[1] == "Pool":
        with mpqueue.Pool(workers, initializer, initargs, max_retries=0) as pool:
            yield pool.map
    else:
        with mpqueue.Executor(workers, initializer, initargs, max_retries=0) as executor:
            yield lambda function, items: [executor.submit(function, item).result() for item in items]
"""


def said_by_each(folder: Path, script: str) -> list[str]:
    """What the script prints with `multiprocessing.Pool`, `mpqueue.Pool` and `mpqueue.Executor`."""
    body = CHOICE + textwrap.dedent(script)
    return [run_program(folder, body, which).stdout for which in ("multiprocessing", "Pool", "Executor")]


CHECKER = """
CHECKS = {}


def register(check):
    CHECKS[check.__name__] = check


def trailing_blanks(line):
    return line != line.rstrip()


register(trailing_blanks)


def findings(path):
    with open(path) as file:
        lines = file.read().splitlines()
    return [(number, name) for number, line in enumerate(lines) for name, check in CHECKS.items() if check(line)]
"""
FIXER = """
import glob
import json
import threading

import checker

json.REGISTRY = ["set at the top"]
lock = threading.Lock()


class Tabs:
    limit = 0


json.TABS = Tabs


def tabs_in_line(line):
    return line.count("\\t") > Tabs.limit


checker.register(tabs_in_line)


def fix(path):
    with lock:
        found = checker.findings(path)
    return path, found, json.REGISTRY, json.TABS is Tabs


def main():
    with opened(2) as run:
        for path, found, registry, is_same in run(fix, sorted(glob.glob("*.txt"))):
            print(path, found, registry, is_same)


if __name__ == "__main__":
    main()
"""


def test_workers_have_what_a_guarded_script_did_to_other_modules(tmp_path: Path) -> None:
    """As autopep8 registers checks of its own with pycodestyle."""
    write_program(tmp_path, CHECKER, "checker.py")
    for number in range(26):
        (tmp_path / f"{number}.txt").write_text("a\tb\n" * number + "c  \n")
    expected, *ours = said_by_each(tmp_path, FIXER)
    assert "[(0, 'tabs_in_line'), (1, 'trailing_blanks')] ['set at the top'] True" in expected
    assert ours == [expected, expected]


STATE = """
    import collections
    import enum
    import functools
    import random
    import warnings
    from dataclasses import dataclass

    settings = {"factor": 1}
    calls = []
    model = None
    warnings.filterwarnings("error", "told", UserWarning)
    Pair = collections.namedtuple("Pair", "one other")


    class Color(enum.Enum):
        RED = 1


    class TooLargeError(ValueError):
        def __init__(self, number, limit):
            super().__init__(number, limit)
            self.limit = limit


    @dataclass
    class Point:
        x: int
        color: Color = Color.RED

        def shifted(self, by):
            return Point(self.x + by, self.color)


    @functools.cache
    def table():
        calls.append(1)
        return random.Random(1).random()


    def shift(point):
        assert type(point) is Point and point.color is Color.RED
        return point.shifted(settings["factor"]), Pair(point, Color.RED), __name__


    def count(_):
        return table(), len(calls)


    def warn(_):
        try:
            warnings.warn("told", UserWarning)
        except UserWarning:
            return "raised"


    def refuse(number):
        raise TooLargeError(number, 5)


    def load(value):
        global model
        model = value


    def use(item):
        return item, model


    if __name__ == "__main__":
        settings["factor"] = 1000
        with opened(1) as run:
            (made, pair, name), = run(shift, [Point(1)])
            print(made, type(made) is Point, type(pair) is Pair, pair.other is Color.RED, name)
            print(run(count, range(3)), run(warn, [0]))
            print(run(functools.partial(Point.shifted, by=2), [Point(1)]), run(Point(1).shifted, [2, 3]))
            try:
                run(refuse, [7])
            except TooLargeError as error:
                print(error.args, error.limit)
        with opened(1, load, (Point(3),)) as run:
            print(run(use, [1, 2]), model)
"""


def test_functions_and_classes_of_a_guarded_script_are_those_of_the_worker_s_own_module(tmp_path: Path) -> None:
    expected, *ours = said_by_each(tmp_path, STATE)
    assert expected.splitlines()[0] == (
        "Point(x=2, color=<Color.RED: 1>) True True True __mp_main__"  # not what the guarded part has set
    )
    assert ours == [expected, expected]


BY_VALUE = """
    import mpqueue

    OFFSET = 1


    def shift(number):
        return number + OFFSET


    def shift_more(number):
        return shift(number) + more


    def shift_most(number):
        return shift_more(number)


    if __name__ == "__main__":
        more = 100

        class Local:
            def __init__(self, number):
                self.number = shift(number)

        def make(number):
            return Local(number)

        def adder(amount):
            return lambda number: shift(number) + amount + more

        with mpqueue.Pool(1) as pool, mpqueue.Executor(1) as executor:
            for run in (pool.map, lambda function, items: list(executor.map(function, items))):
                made = run(make, [1])[0]
                print(type(made) is Local, made.number, run(adder(10), [1]), run(lambda n: (n, more), [1]))
                print(run(shift_more, [1]), run(shift_most, [1]))
"""


def test_what_only_the_guarded_part_defines_is_sent_by_value(tmp_path: Path) -> None:
    assert run_program(tmp_path, BY_VALUE).stdout == "True 2 [112] [(1, 100)]\n[102] [102]\n" * 2


RUN_ANYHOW = """
    import json
    import sys

    import mpqueue

    print("begun")
    json.REGISTRY = ["set at the top"]


    def look(item):
        return item, getattr(json, "REGISTRY", None)


    if __name__ == "__main__":
        with mpqueue.Pool(1) as pool:
            print(pool.map(look, [1]))
"""


@pytest.mark.long(but=["script", "-m module"])
@pytest.mark.parametrize("way", ["script", "-m module", "-m package.module", "-c", "stdin", "-m package", "folder"])
def test_the_main_module_is_imported_however_multiprocessing_would_find_it(way: str, tmp_path: Path) -> None:
    done = run_in_way(tmp_path, RUN_ANYHOW, way)
    if way in ("script", "-m module", "-m package.module"):
        assert sorted(done.stdout.splitlines()) == ["[(1, ['set at the top'])]", "begun", "begun"]
    else:
        assert done.stdout == "begun\n[(1, None)]\n"


UNGUARDED = """
    import json

    import mpqueue

    json.REGISTRY = ["set at the top"]


    def look(item):
        return item, getattr(json, "REGISTRY", None)


    with mpqueue.Pool(1) as pool:
        print(pool.map(look, [1]))

    if __name__ == "__main__":
        print("begun once")
"""


def test_a_pool_that_no_guard_holds_imports_nothing(tmp_path: Path) -> None:
    assert run_program(tmp_path, UNGUARDED).stdout == "[(1, None)]\nbegun once\n"


#: A module that starts workers whenever it is imported, and a script that imports it.
STARTS = "import mpqueue\n\nwith mpqueue.Pool(1) as pool:\n    print(pool.map(abs, [-1]))\n"
STARTS_TOO = """
    import mpqueue
    import starts


    def double(number):
        return 2 * number


    if __name__ == "__main__":
        for make, run in (
            (mpqueue.Pool, lambda pool: pool.map(double, [1])),
            (mpqueue.Executor, lambda executor: executor.submit(double, 1).result()),
        ):
            with make(1) as workers:
                try:
                    run(workers)
                except mpqueue.errors.WorkerStartError as error:
                    print(type(error).__name__, error)
"""


def test_a_worker_that_would_start_workers_while_it_imports_the_script_says_what_to_do(tmp_path: Path) -> None:
    write_program(tmp_path, STARTS, "starts.py")
    lines = run_program(tmp_path, STARTS_TOO).stdout.splitlines()
    assert lines[0] == "[1]"
    assert [line.partition(" ")[0] for line in lines[1:]] == ["WorkerStartError", "ExecutorStartError"]
    for line in lines[1:]:
        assert 'below `if __name__ == "__main__":`' in line
        assert "program.py in a worker has failed" in line


LOGS = """
    import logging
    import sys

    import mpqueue

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="root: %(message)s")
    log = logging.getLogger("apart")
    log.propagate = False
    log.addHandler(logging.StreamHandler(sys.stdout))


    def work(item):
        logging.info("begins")
        log.info("ends")


    if __name__ == "__main__":
        with mpqueue.Pool(1) as pool:
            pool.map(work, [1])
"""


def test_what_calls_log_is_written_once_though_the_script_sets_logging_up_at_its_top(tmp_path: Path) -> None:
    assert run_program(tmp_path, LOGS).stdout == "root: begins\nends\n"


RAISES = """
    from concurrent.futures.process import BrokenProcessPool

    import mpqueue

    if __name__ != "__main__":
        raise RuntimeError("no license here")


    if __name__ == "__main__":
        with mpqueue.Pool(1) as pool:
            try:
                pool.map(abs, [1])
            except mpqueue.errors.WorkerStartError as error:
                print(error)
        with mpqueue.Executor(1) as executor:
            try:
                executor.submit(abs, 1).result()
            except BrokenProcessPool as error:
                print(error)
"""


def test_a_script_that_a_worker_cannot_import_fails_the_calls_and_says_why(tmp_path: Path) -> None:
    lines = run_program(tmp_path, RAISES).stdout.splitlines()
    assert len(lines) == 2
    assert all("program.py in a worker has failed: RuntimeError" in line for line in lines)
    assert all("no license here" in line for line in lines)


LAZY = """
    import json

    import mpqueue

    executor = mpqueue.Executor(1)
    json.REGISTRY = ["set at the top"]


    def look(item):
        return item, json.REGISTRY


    if __name__ == "__main__":
        print(executor.submit(look, 1).result())
        executor.shutdown()
"""


def test_an_executor_at_the_top_of_a_script_whose_calls_a_guard_holds(tmp_path: Path) -> None:
    assert run_program(tmp_path, LAZY).stdout == "(1, ['set at the top'])\n"
