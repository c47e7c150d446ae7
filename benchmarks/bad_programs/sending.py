"""Programs that send too much, or too often, or wait for what they send."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator

import mpqueue
from benchmarks.bad_programs.program import Program, Ran, cold, spin, warm


def heavy_closure() -> Ran:
    """A lookup table of 31 MB is a variable that a lambda uses."""
    table = {number: f"the entry of {number} in the table, with some more text" for number in range(400_000)}
    return warm(range(200), lambda number: (spin(0.002), table[number])[1])


def shared_table() -> Ran:
    """It is shared instead, as one string of bytes, of which each item reads its part."""
    table = mpqueue.share(b"".join(b"%-80d" % number for number in range(400_000)))
    return warm(range(200), lambda number: (spin(0.002), table[80 * number : 80 * number + 80])[1])


def square(number: int) -> int:
    """What a loop does in a tenth of a microsecond."""
    return number * number


def short_items() -> Ran:
    """Three million numbers to be squared, each of them an item."""
    return warm(range(3_000_000), square)


def squares(numbers: range) -> list[int]:
    """A range of them."""
    return [number * number for number in numbers]


def ranges() -> Ran:
    """A range of them is an item."""
    return warm([range(at, at + 50_000) for at in range(0, 3_000_000, 50_000)], squares)


def few_squares() -> Ran:
    """Two thousand numbers to be squared, in a pool that is opened for it."""
    return cold(range(2000), lambda number: number * number)


def loop_of_squares() -> Ran:
    """The same as a loop."""
    started = time.perf_counter()
    for number in range(2000):
        square(number)
    seconds = time.perf_counter() - started
    return few_squares()._replace(seconds=seconds)


#: A page of 60,000 words.
PAGE = " ".join(f"word-{number}" for number in range(60_000))


def words_of_page(_: int) -> list[str]:
    """A page that is taken apart: many small objects."""
    spin(0.008)
    return PAGE.split()


def results_in_band() -> Ran:
    """Results are lists of thousands of small strings."""
    return warm(range(60), words_of_page)


def page_as_text(_: int) -> str:
    """The same as one text, which is taken apart where it is needed."""
    spin(0.008)
    return " ".join(PAGE.split())


def results_as_text() -> Ran:
    """Results are one string each."""
    return warm(range(60), page_as_text)


def count_words(words: list[str]) -> int:
    """A little work on many objects."""
    spin(0.006)
    return len(words)


def items_of_objects() -> Ran:
    """Items are lists of thousands of small strings, made in the program."""
    return warm([[f"word {number} {at}" for at in range(30_000)] for number in range(60)], count_words)


def count_in_text(text: str) -> int:
    """The worker takes the text apart."""
    return count_words(text.split("\n"))


def items_of_text() -> Ran:
    """Items are one string each."""
    return warm(["\n".join(f"word {number} {at}" for at in range(30_000)) for number in range(60)], count_in_text)


def crawl() -> Iterator[array[int]]:
    """Makes items slowly, one after another: reads, parses, decodes."""
    for number in range(150):
        spin(0.006)
        yield array("q", [number] * 100)


def add_up(numbers: array[int]) -> int:
    """The rest of the work, which is short."""
    spin(0.002)
    return sum(numbers)


def slow_generator() -> Ran:
    """A generator does most of the work, before a worker sees the first item."""
    return warm(crawl(), add_up)


def crawl_one(number: int) -> int:
    """The handler does it."""
    spin(0.006)
    return add_up(array("q", [number] * 100))


def handler_crawls() -> Ran:
    """The generator's work is the handler's."""
    return warm(range(150), crawl_one)


def parse(number: int) -> int:
    """50 us of work."""
    spin(50e-6)
    return number


def chunks_of_one() -> Ran:
    """``chunksize=1``, copied from a program whose items were long."""
    return warm(range(8000), parse, chunksize=1)


def free_chunks() -> Ran:
    """Without it."""
    return warm(range(8000), parse)


PROGRAMS = (
    Program("heavy_closure", "loading", "mpqueue.share() it", heavy_closure, shared_table),
    Program("short_items", "short items", "Do more in one item", short_items, ranges),
    Program("few_squares", "plain loop", "Use a loop", few_squares, loop_of_squares),
    Program("results_in_band", "results pickled", "put numbers into a numpy array, and text", results_in_band,
            results_as_text),
    Program("items_of_objects", "items pickled", "put numbers into a numpy array, and text", items_of_objects,
            items_of_text),
    Program("slow_generator", "slow items source", "Let the handler do that work", slow_generator, handler_crawls),
    Program("chunks_of_one", "short items", "Leave chunksize out", chunks_of_one, free_chunks),
)  # fmt: skip
