"""Classes, globals and caches of a script in its workers: each job has what it was created with, and its changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import run_program

pytestmark = pytest.mark.slow

#: For jobs that are at work in turns: those of an open job run, then those of others, then more of it.
IN_TURNS = """
    import operator

    import mpqueue
    from mpqueue import Stage

    ended = {}

    def run_more(queue, run, items):
        before = len(run.job.results)
        queue.add_items(run.job, items)
        for _ in items:
            next(ended[run.job.id])
        return run.job.results[before:]


    def begin(queue, name, handler, **options):
        run = queue.start(queue.open_job(name, [], handler, chunksize=1, **options))
        ended[name] = run.as_completed()
        return run
"""

CREATED_WITH = """
    class Base:
        level = 0

    class Config(Base):
        table = [0]

        def ask(self):
            return Config.level, self.table[0], FACTOR

        @classmethod
        def ask_class(cls):
            return super().__thisclass__.level, cls.table[0], FACTOR

    FACTOR = 0

    def look(item):
        return Config.level, Config.table[0], FACTOR, *Config().ask(), *Config.ask_class()

    def change(number):
        global FACTOR
        Base.level = Config.table[0] = FACTOR = number

    if __name__ == "__main__":
        with mpqueue.JobQueue(2) as queue:
            runs = []
            for number in range(1, 5):
                change(number)
                runs.append(begin(queue, str(number), look))
                for created, run in enumerate(runs, 1):
                    for _ in range(3):
                        found = run_more(queue, run, range(4))
                        assert found == [(created,) * 9] * 4, found
                    change(-number)
                    assert queue.run(range(4), look).results == [(-number,) * 9] * 4
                    change(number)
            for run in runs:
                queue.seal(run.job)
                run.result(300)
        assert look(0) == (4,) * 9
"""


@pytest.mark.holds("promise: Data does not change")
def test_each_job_has_the_class_attributes_and_globals_that_it_was_created_with(tmp_path: Path) -> None:
    assert run_program(tmp_path, IN_TURNS + CREATED_WITH).stderr == ""


INSTANCES = """
    import abc
    import enum
    import functools
    from dataclasses import dataclass
    from typing import NamedTuple

    class Color(enum.Enum):
        RED = 1

    class Flag(enum.IntFlag):
        ON = 1
        LOUD = 2

    class Pair(NamedTuple):
        left: int
        color: Color

    class Shape(abc.ABC):
        made = 0

        @abc.abstractmethod
        def area(self): ...

    @dataclass
    class Square(Shape):
        side: int
        color: Color = Color.RED

        def __post_init__(self):
            Shape.made += 1

        def area(self):
            return self.side ** 2

        def grown(self):
            return type(self)(self.side + 1, self.color)

    @dataclass
    class Named(Square):
        name: str = "x"

        def area(self):
            return super().area()

    class Only:
        one = None

        def __new__(cls):
            if cls.one is None:
                cls.one = super().__new__(cls)
            return cls.one

    class TooLargeError(ValueError):
        pass

    def is_right(values):
        shape, pair, color, flag, only, kind = values
        assert type(shape) is Named is kind and isinstance(shape, Shape) and shape == Named(shape.side, Color.RED)
        assert shape.area() == shape.side ** 2 and shape.color is Color.RED is pair.color is color
        assert type(pair) is Pair and pair == Pair(1, Color.RED) and isinstance(pair, Pair)
        assert flag == Flag.ON | Flag.LOUD and type(flag) is Flag and Color(1) is color
        assert only is Only() and type(only) is Only
        return True

    def make(side=2):
        return Named(side), Pair(1, Color.RED), Color.RED, Flag.ON | Flag.LOUD, Only(), Named

    def grow(values):
        assert is_right(values)
        return values[0].grown(), *values[1:]

    def grow_or_refuse(values):
        if values[0].side > 3:
            raise TooLargeError(values[0].side)
        return grow(values)

    def give(values):
        assert is_right(values)
        yield values
        yield grow(values)

    if __name__ == "__main__":
        items = [make(side) for side in range(1, 5)]
        sides = lambda results: [values[0].side for values in results if is_right(values)]
        with mpqueue.JobQueue(2) as queue, mpqueue.Executor(1) as executor, mpqueue.Pool(1) as pool:
            for _ in range(3):
                assert sides(queue.run(items, grow).results) == [2, 3, 4, 5]
                assert queue.run(items, is_right).results == [True] * 4
                assert sides(queue.run(range(4), make).results) == [0, 1, 2, 3]
                assert sides(mpqueue.imap(functools.partial(grow), items)) == [2, 3, 4, 5]
                job = queue.run_stages(items, [Stage(grow), Stage(give), Stage(grow)])
                found = [sides(results) for results in job.results]
                assert found == [[3, 4], [4, 5], [5, 6], [6, 7]], found
                assert sides(executor.submit(grow, values).result() for values in items) == [2, 3, 4, 5]
                assert sides(executor.map(grow, items)) == sides(pool.map(grow, items)) == [2, 3, 4, 5]
                assert sides([pool.apply(grow, (values,)) for values in items]) == [2, 3, 4, 5]
                assert [pool.apply(lambda values: grow(values)[0].side, (values,)) for values in items] == [2, 3, 4, 5]
                assert sides(executor.submit(Named.grown, values[0]).result() and values for values in items)
                failed = queue.run(items, grow_or_refuse, max_retries=0)
                assert type(failed.items[3].exception) is TooLargeError, failed.items[3].exception
                error = executor.submit(grow_or_refuse, items[3]).exception()
                assert type(error) is TooLargeError and error.args == (4,), error
                Shape.made = -1  # another class content by now
"""


def test_instances_are_of_the_class_that_a_function_names_in_workers_in_stages_and_back_home(tmp_path: Path) -> None:
    assert run_program(tmp_path, IN_TURNS + INSTANCES).stderr == ""
