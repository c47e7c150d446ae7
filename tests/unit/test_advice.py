"""The advice of a report. Most rules are held by test_bad_programs.py, with figures that were recorded."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Sequence

import pytest

from mpqueue._core.state.job_book import JobBook
from mpqueue._report.figures import measure
from mpqueue._report.report_sections import facts, subtitles
from mpqueue._report.rules import advise, conclude
from tests.support.runs import START, Run


def advice(book: JobBook, cpus: int = 8, alone: JobBook | None = None) -> list[str]:
    now = START + 1e6
    figures = measure(book, now, cpus)
    return conclude(figures, advise(figures, None if alone is None else measure(alone, now, cpus)))


def imports() -> JobBook:
    run = Run()
    run.chunk(0, 10, loading=4.0)
    return run.end(10)


def slow_objects() -> JobBook:
    run = Run()
    run.chunk(0, 10, unpacking=4.0, size=100)
    return run.end(10)


def big_results() -> JobBook:
    run = Run()
    run.chunk(0, 10, packing=3.0, size=5_000_000)
    return run.end(10)


def long_setup() -> JobBook:
    run = Run(lanes=2)
    for lane in (0, 1):
        run.chunk(0, 10, lane=lane, setup=6.0)
    return run.end(10)


def run_with_a_death() -> Run:
    """A worker died, and its successor has run what there was."""
    run = Run()
    run.timings.lane_gone(0, START + 2, worked=True, died=True)
    run.timings.lane_ready(0, START + 3)
    run.chunk(3, 10)
    return run


def dying_workers() -> JobBook:
    return run_with_a_death().end(10)


def dying_workers_and_failures() -> JobBook:
    run = run_with_a_death()
    run.book.failed = 1
    return run.end(10)


def few_items() -> JobBook:
    run = Run(range(2), lanes=4)
    run.chunk(0, 10)
    run.chunk(0, 10, lane=1)
    return run.end(10)


def busy_machine() -> JobBook:
    run = Run()
    run.chunk(0, 10, cpu=6.0, delayed=4.0)
    return run.end(10)


@pytest.mark.parametrize(
    ("made", "starts", "says"),
    [
        (imports, "Each worker took 4.00 s to load the handler, 40% of the time", "Keep one queue for several jobs"),
        (few_items, "2 items for 4 workers", "cut the items smaller"),
        (busy_machine, "For 40% of their time at work the workers had no free CPU", "other programs"),
        (
            dying_workers,
            "1 worker died and had to be replaced, 30%",
            "that; item.history of items tried again has why.",
        ),
        (dying_workers_and_failures, "1 worker died", "into that; job.failures and item.history have why."),
        (slow_objects, "40% of the time went into pickling and unpickling items", "slow to pickle: send plain data"),
        (
            big_results,
            "30% of the time went",
            "they are 5.00 MB each: put numbers into a numpy array, and text into one str",
        ),
    ],
)
def test_what_is_slow_is_named_with_its_figures(made: Callable[[], JobBook], starts: str, says: str) -> None:
    found = [text for text in advice(made()) if text.startswith(starts)]
    assert len(found) == 1, advice(made())
    assert says in found[0]


@pytest.mark.parametrize(("cpus", "says"), [(2, False), (3, True), (4, True)])
def test_items_are_not_to_be_cut_for_more_workers_than_there_are_cpus(cpus: int, says: bool) -> None:
    found = [one for one in advise(measure(few_items(), START + 1e6, cpus)) if one.rule.name == "few items"]
    assert bool(found) == says
    for one in found:
        assert one.gain == pytest.approx(min(cpus, 4) / 2, rel=0.01)


def test_items_are_not_to_be_cut_where_other_programs_have_the_cpus() -> None:
    run = Run(range(2), lanes=4)
    for lane in (0, 1):
        run.chunk(0, 10, lane=lane, cpu=3.0, delayed=6.9)
    assert not [text for text in advice(run.end(10), cpus=4) if "cut the items smaller" in text]


def well_made(wall: float = 10, lanes: int = 8) -> JobBook:
    run = Run(lanes=lanes)
    for lane in range(lanes):
        run.chunk(0, wall * 0.98, lane=lane, items=50)
    return run.end(wall)


def test_a_job_that_is_as_quick_as_it_can_be_is_told_so() -> None:
    (text,) = advice(well_made())
    assert text == ("The workers were in your handler 98% of the time: only a quicker handler, or more CPUs, can help.")


def test_a_job_that_leaves_cpus_unused_is_told_so() -> None:
    (text,) = advice(well_made(), cpus=32)
    assert text == (
        "8 workers for 32 CPUs, and the handler computes: JobQueue(32), or JobQueue(None) for one worker a CPU. "
        "Gain: up to 3.8x."
    )


def test_what_takes_little_of_the_time_is_not_worth_a_sentence() -> None:
    run = Run()
    run.timings.handler_packed(0.1, 31_000_000, "")
    run.chunk(0, 95, loading=0.3, setup=5, unpacking=2, packing=2, cpu=80, delayed=4)
    assert len(advice(run.end(100))) == 1  # that it is well made


def test_many_numbers_are_not_called_slow_to_pickle() -> None:
    run = Run(range(10**6))
    run.chunk(0, 1, items=10**6, unpacking=0.2, packing=0.3, handling=0.1)
    (text,) = advice(run.end(1))
    assert text.startswith("Items take 100 ns: they were sent 1,000,000 at a time, and still 90% of the time went")


def test_what_is_said_has_its_gain_by_amdahls_law() -> None:
    (text,) = advice(long_setup(), cpus=2)
    assert text.endswith("Gain: up to 2.5x.")  # 60% of the time is gone then


def test_a_million_numbers_are_not_called_slow_to_make() -> None:
    run = Run(range(10**6), lanes=2)
    run.timings.items_read(0.3)
    for lane in (0, 1):
        run.chunk(0, 1, lane=lane, items=500_000)
    assert "slow items source" not in {one.rule.name for one in advise(measure(run.end(1), START + 1e6, 2))}


def test_an_open_job_whose_items_come_slowly_is_told_so() -> None:
    run = Run(lanes=2)
    for number in range(10):
        run.chunk(number, number + 0.2, lane=number % 2, left=number)
    figures = dataclasses.replace(measure(run.end(10), START + 1e6, 2), grows=True)
    (text,) = conclude(figures, advise(figures))
    assert text.startswith("The workers waited 77% of the time for items to be added.")


def test_short_items_on_warm_workers_are_said_to_be_short_and_nothing_else() -> None:
    """That they are long, or wait for a disk, or took more CPU time than there was, is not said beside it."""
    run = Run(range(2 * 10**6), lanes=2)
    for lane in (0, 1):
        run.chunk(0, 0.8, lane=lane, items=10**6, handling=0.15, cpu=0.8)
    figures = measure(run.end(0.8), START + 1e6, 2)
    assert [one.rule.name for one in advise(figures)] == ["short items"]
    assert dict(facts(figures))["CPU time"] == "1.60 s, 100% of the time that workers had chunks in hand"


def test_the_gravest_comes_first() -> None:
    run = Run()
    run.chunk(0, 10, setup=2.0, packing=5.0, cpu=8.0)
    assert [text.split()[0] for text in advice(run.end(10), cpus=1)] == ["50%", "setup"]


def test_items_that_take_as_long_beside_others_as_alone_are_not_called_bound() -> None:
    assert not [text for text in advice(well_made(), alone=well_made(80, lanes=1)) if "times one" in text]


def test_a_job_that_one_worker_ran_tells_for_certain() -> None:
    alone = Run(lanes=1, job_id="alone")
    alone.chunk(0, 10, items=100)
    run = Run(lanes=4)
    for lane in range(4):
        run.chunk(0, 10, lane=lane, items=30)
    (text,) = (text for text in advice(run.end(10), alone=alone.end(10)) if "times one" in text)
    assert text.startswith("4 workers gave 1.2 times one: alone an item took 100 ms (job 'alone'), here 333 ms.")
    assert "Or these were other items" not in text


@pytest.mark.parametrize(("supply", "says"), [(24 * 10**9, True), (None, False)])
def test_what_items_need_of_memory_is_offered(supply: int | None, says: bool) -> None:
    run = Run(lanes=2)
    for lane in (0, 1):
        run.chunk(0, 10, lane=lane, items=2)
    run.book.table.note_peaks({1: 2_100_000_000, 2: 300_000_000})
    figures = measure(run.end(10), START + 1e6, 8, supply)
    told = dict(facts(figures))
    assert told["the most memory"] == "2.10 GB, in item 1; the median is 2.10 GB"
    assert told.get("to say so") == ('uses={"memory": "2.5GB"} lets 9 run at once' if says else None)
    scarce = measure(run.book, START + 1e6, 8, 3 * 10**9)
    assert any(
        'kills workers: uses={"memory": "2.5GB"} lets 1 run' in text for text in conclude(scarce, advise(scarce))
    )


def test_a_pause_makes_neither_a_figure_nor_advice_worse() -> None:
    """Each of two workers runs five items; between the second and the third, they are paused, or are not."""

    def run_it(pause: float) -> JobBook:
        run = Run(range(10), lanes=2)
        for at in range(5):
            begun = 0.3 * at + (pause if at > 1 else 0)
            if at == 2 and pause:
                run.timings.paused(START + 0.5)
                run.timings.resumed(START + begun)
            for lane in (0, 1):
                run.chunk(begun, begun + 0.3, lane=lane, cpu=0.001)
        return run.end(1.5 + pause)

    assert advice(run_it(3), cpus=2) == advice(run_it(0), cpus=2) != []
    figures = measure(run_it(3), START + 1e6, 2)
    assert not [line for line in subtitles(figures) if "outside the handler" in line]
    assert [(part.key, round(part.seconds, 6)) for part in figures.work] == [("handler", 3)]


def test_what_runs_now_is_not_outside_the_handler() -> None:
    run = Run(range(4), lanes=2)
    run.chunk(0, 1)
    run.book.lanes = 0b11
    lines = [*subtitles(measure(run.book, START + 2, 2))]
    assert not [line for line in lines if "outside the handler" in line], lines


def one_long_item(workers: int, costs: Sequence[float] | None = None) -> JobBook:
    """20 items that wait for 0.2 s, one of them for 3 s, which is the first."""
    run = Run(range(20), lanes=workers)
    run.book.order_by(costs)
    run.chunk(0, 3, lane=0, cpu=0.001)
    free = [(0.0, lane) for lane in range(1, workers)] + [(3.0, 0)]
    for _ in range(19):
        begun, lane = heapq.heappop(free)
        run.chunk(begun, begun + 0.2, lane=lane, cpu=0.001)
        heapq.heappush(free, (begun + 0.2, lane))
    return run.end(max(ended for ended, _ in free))


def test_more_workers_are_not_said_to_be_quicker_than_the_longest_item() -> None:
    (found,) = (one for one in advise(measure(one_long_item(2), START + 1e6, 2)) if "JobQueue(" in one.text)
    assert found.gain == pytest.approx(one_long_item(2).timings.sums.handling / 2 / 3, rel=0.1)


def test_more_workers_are_not_said_to_compute_more_than_the_cpus_do() -> None:
    """Each of two workers uses 1.1 CPUs: three CPUs need 0.73 s for what took 1 s, although there are more workers."""
    run = Run(range(40), lanes=2)
    for lane in (0, 1):
        for at in range(20):
            run.chunk(at * 0.05, at * 0.05 + 0.05, lane=lane, cpu=0.055)
    (found,) = advise(measure(run.end(1), START + 1e6, 3))
    assert found.rule.name == "unused CPUs"
    assert found.gain == pytest.approx(1 / (40 * 0.055 / 3), rel=0.01)


@pytest.mark.parametrize("costs", [None, [3.0] + [0.2] * 19], ids=["in the items' order", "by cost"])
def test_a_long_item_that_comes_first_is_not_what_a_handler_loads(costs: Sequence[float] | None) -> None:
    for workers in (2, 4):
        assert not [text for text in advice(one_long_item(workers, costs)) if "preload" in text]


def test_items_that_are_long_first_by_cost_are_not_what_a_handler_loads() -> None:
    """Both workers begin with long ones."""

    def run_it(costs: Sequence[float] | None) -> list[str]:
        run = Run(range(12), lanes=2)
        run.book.order_by(costs)
        for lane in (0, 1):
            run.chunk(0, 3, lane=lane)
            for at in range(5):
                run.chunk(3 + at * 0.2, 3.2 + at * 0.2, lane=lane)
        return advice(run.end(4), cpus=2)

    assert [text for text in run_it(None) if "preload" in text and "unless these are longer items" in text]
    assert not [text for text in run_it([3.0] * 2 + [0.2] * 10) if "preload" in text]


def test_items_that_are_sorted_already_are_not_to_be_sorted() -> None:
    (text,) = (text for text in advice(one_long_item(16)) if text.startswith("At the end"))
    assert "times the median. Cut it up. Gain: up to 7" in text


def test_long_items_first_are_advised_where_that_helps() -> None:
    run = Run(range(20), lanes=2)
    for at in range(19):
        run.chunk(at // 2 * 0.2, at // 2 * 0.2 + 0.2, lane=at % 2)
    run.chunk(1.8, 4.8, lane=1)
    (text,) = (text for text in advice(run.end(4.8), cpus=2) if text.startswith("At the end"))
    assert "Cut it up, or put long items first (cost=)" in text


def test_a_job_without_items_or_time_has_no_advice() -> None:
    assert advice(Run(()).end(0)) == []
