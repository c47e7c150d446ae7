"""Profiles: how samples are taken, collapsed, bounded and merged, and the files that are made of them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mpqueue._core.state.item_table import ItemTable
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._report import plots, profile
from mpqueue._report.figures import measure
from mpqueue._report.job_report import Report
from mpqueue._report.profile import SCHEMA, Frame, Frames, JobSamples, Profile, make_profile
from mpqueue._wire.frames import OTHERS, Stack, Stacks, dump_stacks, load_stacks
from mpqueue._wire.item_names import IdRule
from mpqueue._worker import sampler
from mpqueue._worker.sampler import INNERMOST, OUTERMOST, JobSampling, stack_of
from mpqueue.retry import RetryPolicy
from tests.support.runs import Run


def stack(*names: str) -> Stack:
    return tuple((name, "/code/scans.py", line) for line, name in enumerate(names, 1))


def test_a_package_s_file_is_named_with_its_folder() -> None:
    frames = [Frame("load", "/code/scans.py", 12), Frame("loads", "/lib/json/__init__.py", 346), Frame("len", "", 0)]
    assert list(map(str, frames)) == ["load (scans.py:12)", "loads (json/__init__.py:346)", "len"]


# -- one worker --------------------------------------------------------------------------------------------------------


def taken(made: JobSampling, first: int, done: int) -> list[tuple[int, str, float]]:
    """What is sent: the position, the function further in, and the seconds."""
    data = made.take(first, done)
    found = () if data is None else load_stacks(data)
    return [(position, places[-1][0], round(seconds, 6)) for position, places, seconds in found]


def test_where_a_look_costs_more_the_sampler_looks_less_often() -> None:
    quick, slow = (sampler.RECKONED * sampler.LOOK_INTERVAL_S * sampler.BUDGET * times for times in (0.5, 4))
    assert sampler.interval_for(0.0) == sampler.interval_for(quick) == sampler.LOOK_INTERVAL_S
    assert slow / (sampler.RECKONED * sampler.interval_for(slow)) == pytest.approx(sampler.BUDGET)
    assert sampler.interval_for(1e9) == sampler.MAX_INTERVAL_S


def test_a_deep_stack_keeps_both_ends() -> None:
    def deep(count: int) -> Stack | None:
        return deep(count - 1) if count else stack_of(inspect.currentframe())

    found = deep(300)
    assert found is not None
    assert len(found) == OUTERMOST + 1 + INNERMOST
    assert found[OUTERMOST] == OTHERS
    assert found[-1][0] == found[-INNERMOST][0] == deep.__qualname__


# -- on the way --------------------------------------------------------------------------------------------------------


def test_samples_travel_whole() -> None:
    one, other = Stacks(10), Stacks(10)
    one.add(stack("a", "b"), 1.0)
    one.add(stack("a"), 2.0)
    one.add(stack("a"), 0.5)
    other.add(stack("a", "b"), 4.0)
    rows = list(load_stacks(dump_stacks({0: one, 3: other})))
    assert rows == [(0, stack("a", "b"), 1.0), (0, stack("a"), 2.5), (3, stack("a", "b"), 4.0)]


def test_too_many_stacks_become_one_for_each_line_of_the_handler_and_no_second_is_lost() -> None:
    stacks = Stacks(16)
    for number in range(100):
        stacks.add((("handler", "h.py", number % 2), ("f", "f.py", number)), 1.0)
    assert len(stacks.seconds) == 18
    assert stacks.seconds[("handler", "h.py", 1), OTHERS] == 42
    for number in range(1_000):
        stacks.add((("handler", "h.py", number),), 1.0)
    assert len(stacks.seconds) == 19
    assert stacks.total == 1_100
    assert (OTHERS,) in stacks.seconds


# -- all workers -------------------------------------------------------------------------------------------------------


def report(seconds: Mapping[int, float], *names: str) -> bytes:
    """A worker's samples, by position."""
    found = {}
    for position, spent in seconds.items():
        found[position] = Stacks(10)
        found[position].add(stack(*names), spent)
    return dump_stacks(found)


def test_workers_are_merged_and_told_apart_and_so_are_the_slowest_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "SLOWEST", 2)
    samples = JobSamples()
    samples.keep(1, range(10, 12), report({0: 1.0, 1: 2.0}, "a", "b"))
    samples.keep(0, [30], report({0: 0.5, 1: 9.0}, "a"))  # the second was given to another worker
    samples.keep(0, [40], report({0: 3.0}, "a"))
    samples.keep(0, [10], report({0: 4.0}, "a"))
    merged = samples.merged()
    assert merged.whole == {stack("a", "b"): 3.0, stack("a"): 7.5}
    assert merged.workers == {0: {stack("a"): 7.5}, 1: {stack("a", "b"): 3.0}}
    assert merged.items == {40: {stack("a"): 3.0}, 10: {stack("a"): 4.0}}
    samples.begin()
    assert samples.merged() == ({}, {}, {})


def test_what_is_told_apart_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOST_STACKS", "MOST_OF_WORKER", "MOST_OF_ITEM"):
        monkeypatch.setattr(profile, name, 8)
    samples = JobSamples()
    for number in range(200):
        samples.keep(0, [0], report({0: 1.0}, "a", f"f{number}"))
    merged = samples.merged()
    assert {len(merged.whole), len(merged.workers[0]), len(merged.items[0])} == {9}
    assert sum(merged.whole.values()) == sum(merged.items[0].values()) == 200
    assert len(samples._known) <= 17


# -- what users get ----------------------------------------------------------------------------------------------------

A, B, C = Frame("handler", "/code/scans.py", 10), Frame("load<&>", "/code/scans.py", 3), Frame("sorted", "", 0)
STACKS: Mapping[Frames, float] = {(A, B): 1.0, (A, B, C): 2.0, (A,): 0.25}


@pytest.fixture(name="profile")
def made_profile() -> Profile:
    return Profile("scans", STACKS, {0: STACKS, 1: {(A,): 0.5}}, {"scan;\n<1>": {(A, B): 1.0}})


def test_lines_have_their_own_seconds_and_all_below(profile: Profile) -> None:
    assert profile.seconds == 3.25
    assert profile.lines() == [(C, 2.0, 2.0), (B, 1.0, 3.0), (A, 0.25, 3.25)]
    assert Profile("r", {(A, A): 1.0}, {}, {}).lines() == [(A, 1.0, 1.0)], "a recursion counts once"
    assert repr(profile) == "<Profile of job 'scans': 3.25 s in 3 stacks>"
    assert [str(frame) for frame in (A, C)] == ["handler (scans.py:10)", "sorted"]


def test_items_are_named_by_their_ids_the_slowest_first() -> None:
    samples = JobSamples()
    samples.keep(0, [0, 1, 2], report({0: 1.0, 1: 3.0, 2: 0.01}, "a"))
    table = ItemTable(["x", "y", "z"], ["idx", "idy", "idz"], IdRule.POSITION)
    book = JobBook(1, "job", table, JobOptions(RetryPolicy()), None, samples=samples)
    made = make_profile(book)
    assert made is not None
    assert list(made.items) == ["idy", "idx"], "what was looked at once is not known to be slow"
    assert make_profile(replace(book, samples=None)) is None


def test_speedscope_gets_what_its_schema_asks_for(profile: Profile, tmp_path: Path) -> None:
    path = profile.to_speedscope(tmp_path / "profile.json")
    written = json.loads(path.read_text())
    assert written["$schema"] == SCHEMA
    frames = written["shared"]["frames"]
    assert {"name": "handler (scans.py:10)", "file": "/code/scans.py", "line": 10} in frames
    assert {"name": "sorted"} in frames
    assert [each["name"] for each in written["profiles"]] == [
        *("all workers", "worker 0", "worker 1"), "item 'scan;\\n<1>'"
    ]  # fmt: skip
    for each in written["profiles"]:
        assert (each["type"], each["unit"], each["startValue"]) == ("sampled", "seconds", 0)
        assert len(each["samples"]) == len(each["weights"])
        assert each["endValue"] == pytest.approx(sum(each["weights"]))
        assert all(0 <= number < len(frames) for sample in each["samples"] for number in sample)
    whole = written["profiles"][0]
    names = {tuple(frames[number]["name"] for number in one): w for one, w in zip(whole["samples"], whole["weights"])}  # noqa: B905
    assert names == {tuple(map(str, one)): seconds for one, seconds in STACKS.items()}


def test_folded_stacks_are_a_line_each(tmp_path: Path) -> None:
    odd = Frame("semi;colon", "/code/new\nline\udcff.py", 1)
    made = Profile("odd", {(A, odd): 1.5, (A,): 1e-9}, {}, {})
    lines = made.to_collapsed(tmp_path / "stacks.txt").read_text().splitlines()
    assert lines == ["handler (scans.py:10) 1", r"handler (scans.py:10);semi:colon (new\nline\udcff.py:1) 1500000"]


def test_the_page_has_a_flame_graph_whose_script_its_policy_names(profile: Profile, tmp_path: Path) -> None:
    page = plots.draw_flames(profile)
    data = json.loads(page.partition("id='flame-data'>")[2].partition("</script>")[0])
    for frame in data["shared"]["frames"]:
        assert frame.pop("source") == ""
    assert data == json.loads(profile.to_speedscope(tmp_path / "profile.json").read_text())
    assert "load<&>" not in page
    assert page.count("<script>") == 1
    assert page.isascii()
    assert plots.script_policy().startswith("'sha256-")


def test_a_line_s_text_is_shown_where_its_file_is_there() -> None:
    here = Frame("test", __file__, 1)
    assert '"source":"\\"\\"\\"' in plots.draw_flames(Profile("job", {(here,): 1.0}, {}, {})).replace(" ", "")


def test_what_would_be_too_narrow_is_not_drawn() -> None:
    wide: dict[Frames, float] = {(A, Frame(f"f{number}", "f.py", number)): float(number + 1) for number in range(1_000)}
    page = plots.draw_flames(Profile("wide", wide, {}, {}))
    (drawn,) = json.loads(page.partition("id='flame-data'>")[2].partition("</script>")[0])["profiles"]
    assert len(drawn["samples"]) == plots.MOST_STACKS
    assert min(drawn["weights"]) == 1_001 - plots.MOST_STACKS
    assert drawn["endValue"] == sum(wide.values())


def test_a_job_that_was_too_short_says_so() -> None:
    run = Run(range(1))
    run.chunk(0, 1)
    figures = measure(run.end(1), 1, 1)
    report = Report(figures, [], Profile("short", {}, {}, {}))
    for written in (str(report), report.to_html()):
        assert "Nothing was sampled" in written
