"""Functions and classes that no worker can import: of scripts and notebooks; and modules that were edited."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.support.programs import run_in_way, run_program

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent.parent / "examples" / "first_batch.ipynb"

SCRIPT = """
    import enum
    import os
    from dataclasses import dataclass

    import mpqueue

    print("begun")
    OFFSET = 10

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

        count = 0  # of those made here: each process counts its own

        def __post_init__(self):
            Point.count += 1

        def shifted(self):
            return Point(self.x + OFFSET, self.color)

    def shift(point):
        return point.shifted()

    def countdown(number):
        return [number, *countdown(number - 1)] if number else []

    def refuse(number):
        raise TooLargeError(number, OFFSET)

    def make_adder(amount):
        def add(number):
            return number + amount
        return add

    points = mpqueue.map(shift, [Point(1), Point(2)])
    print(points == [Point(11), Point(12)], type(points[0]) is Point, points[0].color is Color.RED)
    print(Point.count)
    print(mpqueue.map(countdown, [3]), mpqueue.map(make_adder(5), [1]), mpqueue.map(lambda n: n + OFFSET, [1]))
    OFFSET = 20
    print(mpqueue.map(lambda n: n + OFFSET, [1]), list(mpqueue.imap(shift, [Point(1)])) == [Point(21)])
    try:
        mpqueue.map(refuse, [7], max_retries=0)
    except TooLargeError as error:
        print(error.args, error.limit)
    with mpqueue.JobQueue(1) as queue:
        print(queue.run([Point(3)], Point.shifted).results == [Point(23)])
    with mpqueue.Executor(1) as executor:
        print(executor.submit(make_adder(1), 2).result(), executor.submit(shift, Point(4)).result() == Point(24))
    with mpqueue.Pool(1) as pool:
        print(pool.map(shift, [Point(5)]) == [Point(25)])
"""
SAID = """\
begun
True True True
4
[[3, 2, 1]] [6] [11]
[21] True
(7, 20) 20
True
3 True
True
"""


@pytest.mark.long(but=["script", "-c"])
@pytest.mark.parametrize("way", ["script", "-c", "stdin", "-m module"])
def test_program_without_a_guard_runs_once_and_its_functions_in_workers(way: str, tmp_path: Path) -> None:
    assert run_in_way(tmp_path, SCRIPT, way).stdout == SAID


TEMPLATE = """
    class Item:
        number = NUMBER
        def ask(self):
            return self.number

    def f(item):
        return NUMBER
"""
EDITED = """
    import importlib, os, sys
    from pathlib import Path

    import mpqueue


    # A folder that the workers have not heard of: they have started already.
    folder = Path("library")
    folder.mkdir()
    sys.path.insert(0, str(folder.absolute()))

    def edit(number):
        (folder / "edited.py").write_text(Path("template").read_text().replace("NUMBER", str(number)))

    edit(1)
    (folder / "user.py").write_text("import edited\\n\\ndef g(item):\\n    return edited.f(item)\\n")
    import edited, user

    def ask_all():
        one = {"concurrency": 1, "max_retries": 0}
        return [
            mpqueue.map(edited.f, [0], **one)[0],
            mpqueue.starmap(edited.f, [(0,)], **one)[0],
            next(mpqueue.imap(edited.f, [0], **one)),
            mpqueue.map(user.g, [0], **one)[0],
            mpqueue.map(lambda item: edited.f(item), [0], **one)[0],
            mpqueue.map(edited.Item.ask, [edited.Item()], **one)[0],
            mpqueue.map(lambda item: type(item).number, [edited.Item()], **one)[0],
            queue.run([0], edited.f).results[0],
            executor.submit(edited.f, 0).result(),
            pool.apply(edited.f, (0,)),
        ]

    with mpqueue.JobQueue(1, max_retries=0) as queue, mpqueue.Executor(1) as executor, mpqueue.Pool(1) as pool:
        print(*ask_all())
        edit(2000)
        print(*ask_all())
        importlib.reload(edited)
        print(*ask_all())
        edit(30000)
        del sys.modules["edited"]
        edited = user.edited = importlib.import_module("edited")
        print(*ask_all())
"""


def test_warm_workers_run_what_was_edited_and_reloaded(tmp_path: Path) -> None:
    (tmp_path / "template").write_text(textwrap.dedent(TEMPLATE))
    lines = run_program(tmp_path, EDITED).stdout.splitlines()
    assert lines == [
        " ".join(["1"] * 10),
        " ".join(["1"] * 10),  # edited, and not reloaded: as here
        " ".join(["2000"] * 10),
        " ".join(["30000"] * 10),
    ]


EXECUTE = """
    import json, os, sys

    os.environ["JUPYTER_RUNTIME_DIR"] = os.environ["IPYTHONDIR"] = os.getcwd()

    import nbclient, nbformat

    notebook = nbformat.read(sys.argv[1], as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": "."}})
    client.execute()
    print(json.dumps([cell.outputs for cell in notebook.cells if cell.cell_type == "code"]))
"""


def said(outputs: list[Any]) -> str:
    """What a cell printed, and its value."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "".join("".join(text) for text in texts)  # a text, or a list of its lines


@pytest.mark.long
def test_notebook_says_what_is_stored_in_it(tmp_path: Path) -> None:
    stored = json.loads(NOTEBOOK.read_text())
    now = json.loads(run_program(tmp_path, EXECUTE, NOTEBOOK).stdout)
    before = [cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert list(map(said, now)) == list(map(said, before))
    assert sum(map(bool, before)) >= 6


IN_A_CHILD = """
    import multiprocessing
    import sys

    import mpqueue

    class Doubled:
        def __init__(self, item):
            self.value = 2 * item

    def double(item):
        return Doubled(item)

    def work(count):
        with mpqueue.JobQueue(1, max_retries=0) as queue:
            return [result.value for result in queue.run(range(count), double).results]

    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print(pool.apply(work, (3,)))
"""


@pytest.mark.long(but=["spawn"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_script_s_functions_run_also_where_the_script_is_a_child_of_multiprocessing(
    method: str, tmp_path: Path
) -> None:
    """There its module has another name; forkserver is what Python takes by default since 3.14."""
    done = run_program(tmp_path, IN_A_CHILD, method)
    assert (done.stdout, done.stderr) == ("[0, 2, 4]\n", "")


KEPT = """
import functools
import itertools

import mpqueue

numbers = itertools.count()
loads = []
seen = {}
settings = {"factor": 1}


class Config:
    path = None
    others = ()

    @classmethod
    def begin(cls, path):
        cls.path = path


class Collector:
    def __init__(self):
        self.items = []

    def add(self, item):
        self.items.append(item)
        return list(self.items)


def count(_=None):
    return next(numbers)


@functools.cache
def model():
    loads.append(1)
    return 10


def use_model(item):
    return model() * item, len(loads)


def remember(key, value=None):
    seen[key] = value
    return sorted(seen)


def scaled(item):
    seen[item] = item
    return settings["factor"] * item, len(seen)


def begin(path):
    Config.path = path
    configured.path = path


def begin_class(config, path):
    config.path = path


def configured(_):
    return Config.path, Config.others, getattr(configured, "path", None)


def also_configured(_):
    return Config.path


paths = []


def read_settings():
    paths.append(settings["path"])
    return settings["path"], paths


STEP = (
    "number = 0\\n"
    "def step():\\n"
    "    global number\\n"
    "    number += 1\\n"
    "    return number\\n"
)
exec(STEP)


def counter():
    number = 0

    def count_on():
        nonlocal number
        number += 1
        return number

    return count_on


def add(items, item):
    items.append(item)
    return list(items)


def add_in(task):
    items, collector = task["items"]
    collector.add(task["item"])
    assert add(items, task["item"]) == collector.items
    return items


with mpqueue.Executor(1) as executor:
    one_by_one = lambda function, *args: executor.submit(function, *args).result()
    assert [one_by_one(count) for _ in range(4)] == [0, 1, 2, 3]
    assert list(executor.map(count, range(3))) == [4, 5, 6]
    assert [one_by_one(use_model, item) for item in (1, 2)] == [(10, 1), (20, 1)]
    assert [one_by_one(functools.partial(remember, value=[]), key) for key in "ab"] == [["a"], ["a", "b"]]

    assert [one_by_one(scaled, item) for item in (1, 2)] == [(1, 1), (2, 2)]
    settings["factor"] = 5
    assert [one_by_one(scaled, item) for item in (3, 4)] == [(15, 1), (20, 2)], "what has changed here counts"

    # What a call brings is its own, as in `concurrent.futures`: also where calls are sent together.
    collector, mine = Collector(), []
    alone = [[item] for item in range(50)]
    for function in (collector.add, functools.partial(add, mine), functools.partial(collector.add)):
        assert [future.result() for future in [executor.submit(function, item) for item in range(50)]] == alone
        assert list(executor.map(function, range(50))) == alone
    assert {future.result() for future in [executor.submit(mine.append, item) for item in range(50)]} == {None}
    tasks = [{"items": (mine, collector), "item": item} for item in range(50)]
    assert [future.result() for future in [executor.submit(add_in, task) for task in tasks]] == alone
    assert list(executor.map(add_in, tasks)) == alone
    assert (collector.items, mine) == ([], [])

with mpqueue.Pool(1) as pool:
    assert pool.map(count, range(3)) == [0, 1, 2]
    assert [pool.apply(count) for _ in range(2)] == [3, 4]
    assert list(pool.imap(count, range(2))) == [5, 6]
    assert pool.starmap(remember, ["ab"]) == [["a"]]
    assert pool.starmap(remember, ["bc"]) == [["a", "b"]]
    results = [pool.apply_async(collector.add, (item,)) for item in range(50)]
    assert [result.get() for result in results] == alone

    # What the program has now counts, also where that is what it had before.
    for path in ("a.csv", "b.csv", "a.csv"):
        Config.path = settings["path"] = path
        assert (pool.map(configured, [0]), pool.apply(read_settings)) == ([(path, (), None)], (path, [path]))
        assert pool.map(also_configured, [0]) == [path]
    Config.path = settings["path"] = None
    assert (pool.map(also_configured, [0]), pool.apply(also_configured, (0,))) == ([None], None)
    assert pool.map(configured, [0]) == [(None, (), None)]
    assert [pool.apply(step) for _ in range(2)] == [1, 2]
    exec(STEP)
    assert [pool.apply(step) for _ in range(2)] == [1, 2], "defined anew"

    one, other = counter(), counter()
    assert [pool.apply(each) for each in (one, other, one, other)] == [1, 1, 1, 1]
    results = [pool.apply_async(each) for each in [one] * 20]
    assert [result.get() for result in results] == [1] * 20

for initializer, arguments in ((begin, ("a.csv",)), (Config.begin, ("a.csv",)), (begin_class, (Config, "a.csv"))):
    with mpqueue.Pool(1, initializer, arguments) as pool:
        assert pool.map(configured, [0])[0][:2] == ("a.csv", ())
        Config.others = ("b.csv",)
        assert pool.apply(configured, (0,))[:2] == ("a.csv", ()), "a class that an initializer names is the worker's"
        Config.others = ()
        for path in ("a", "b", "a"):
            settings["path"] = path
            assert pool.apply(read_settings)[0] == path
"""


def test_a_worker_goes_on_with_the_globals_of_a_script_and_a_call_with_objects_of_its_own(tmp_path: Path) -> None:
    assert run_program(tmp_path, KEPT).stderr == ""


OWN_ATTRIBUTES = """
import os
import time

import mpqueue
from mpqueue import Stage


class Model:
    pass


class Config:
    factor = 1
    pid = None
    model = Model()
    cache = {}

    def __init__(self, number):
        self.number = number


class Trained(Model):
    pass


def set_up():
    Config.pid = os.getpid()
    Config.model = Trained()
    Config.cache["setup"] = True


def look(item, state=None):
    return Config.factor, Config.pid == os.getpid(), type(Config.model).__name__, sorted(Config.cache)


def make(number, state):
    time.sleep(0.01)
    return Config(number)


def check(item, state):
    time.sleep(0.01)
    return look(item)


def look_alone(item):
    return look(item)


if __name__ == "__main__":
    own, fresh = (1, True, "Trained", ["setup"]), (1, False, "Model", [])
    with mpqueue.JobQueue(2) as queue:
        items = [Config(number) for number in range(40)]
        assert queue.run(items, look, setup=set_up).results == [own] * 40
        job = queue.run_stages(range(40), [Stage(make, setup=set_up), Stage(check, setup=set_up)])
        assert job.results == [own] * 40, job.results

        # Another job in between, whose function brings the class, has what the program has by then.
        job = queue.open_job("open", [], look, setup=set_up)
        run = queue.start(job)
        ended = run.as_completed()
        for factor in (1, 2, 1):
            Config.factor = factor
            queue.add_items(job, items)
            for _ in items:
                next(ended)
            assert job.results[-40:] == [own] * 40, job.results[-40:]
            assert queue.run(items[:4], look_alone).results == [(factor, *fresh[1:])] * 4
        queue.seal(job)
        assert run.result(300).completed == 120

        assert queue.run(range(4), look_alone).results == [fresh] * 4
        assert queue.run(items, look_alone).results == [fresh] * 40
"""


def test_what_a_setup_sets_on_a_class_of_the_script_is_there_for_its_job_and_no_other(tmp_path: Path) -> None:
    assert run_program(tmp_path, OWN_ATTRIBUTES).stderr == ""


GLOBALS_OF_SETUP = """
import functools
import os

import mpqueue
from mpqueue import Stage

model = None
cache = {}
factor = 2


def load():
    global model
    model = 10
    cache["loaded"] = True
    compute.calls = 0


def helper(item):
    return item * model * factor


def compute(item, state):
    compute.calls += 1
    return helper(item), sorted(cache), compute.calls > 0


def compute_other(item):
    return model, sorted(cache)


def refuse_first(item, state):
    if not os.path.exists("seen"):
        open("seen", "w").close()
        raise ValueError
    return compute(item, state)


if __name__ == "__main__":
    with mpqueue.JobQueue(2) as queue:
        for factor in (2, 3):
            expected = [(item * 10 * factor, ["loaded"], True) for item in range(20)]
            assert queue.run(range(20), compute, setup=load).results == expected
            assert queue.run_stages(range(20), [Stage(compute, setup=load)]).results == expected
            assert queue.run(range(4), compute_other).results == [(None, [])] * 4
    # Also where both come from a journal.
    with mpqueue.JobQueue(1, journal="run.db", max_retries=0) as queue:
        queue.create_job("job", range(1), functools.partial(refuse_first), setup=load)
        assert queue.start("job").result().failed == 1
    with mpqueue.JobQueue(1, journal="run.db") as queue:
        assert queue.retry_failed("job").result().results == expected[:1]
        assert queue.get_job("job").items[0].replay() == expected[0]
    assert model is None and not cache
"""


def test_globals_that_a_setup_sets_in_a_script_are_there_for_its_handler_and_no_other_job(tmp_path: Path) -> None:
    assert run_program(tmp_path, GLOBALS_OF_SETUP).stderr == ""
