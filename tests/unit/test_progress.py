"""What `Progress` tells, how it is written as one line, and what ``progress=`` takes."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any, cast

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._output import progress
from mpqueue._output.job_facts import Progress
from mpqueue._output.progress import (
    LogLines,
    Showing,
    TerminalBar,
    are_wanted,
    aside,
    describe,
    label_of,
    make_displays,
)
from mpqueue._text import done, minutes, rate
from mpqueue.retry import RetryPolicy
from mpqueue.status import JobStatus
from tests.support import handlers as do
from tests.support.terminals import screen

if TYPE_CHECKING:
    from mpqueue._parent.listeners import ListenerThread


def made(**facts: Any) -> Progress:
    """A job in the middle: 30 of 100 items have ended after 10 seconds."""
    known: dict[str, Any] = {
        "job_id": "job",
        "status": JobStatus.RUNNING,
        "total": 100,
        "completed": 29,
        "failed": 1,
        "retries": 3,
        "partly_done": 0.0,
        "elapsed": 10.0,
    }
    return Progress(**{**known, **facts})


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        pytest.param({"partly_done": 0.5}, {"done": 30.5, "fraction": 0.305}, id="what runs counts by its fraction"),
        pytest.param({"already": 20}, {"rate": 1.0, "eta": 70.0}, id="of what was done since the start"),
        pytest.param({"completed": 0, "failed": 0}, {"rate": None, "eta": None}, id="nothing before the first item"),
        pytest.param({"total": None}, {"eta": None, "fraction": None}, id="nothing without a total"),
        pytest.param({"total": 0, "completed": 0, "failed": 0}, {"fraction": 1.0}, id="a job without items is done"),
        pytest.param({"status": JobStatus.CANCELLED}, {"eta": 0.0}, id="nothing is left of a job that has stopped"),
        ({}, {"troubles": "1 failed, 3 retries"}),
        ({"retries": 1, "failed": 0}, {"troubles": "1 retry"}),
        ({"retries": 0, "failed": 2}, {"troubles": "2 failed"}),
        ({"retries": 0, "failed": 0}, {"troubles": ""}),
    ],
)
def test_progress_tells_what_is_known_of_the_job(facts: dict[str, Any], told: dict[str, Any]) -> None:
    progress = made(**facts)
    assert {name: getattr(progress, name) for name in told} == told


BEGUN = {"completed": 0, "failed": 0, "retries": 0, "starting": 2}


def test_what_partly_done_was_called_before_says_what_it_is_called_now() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'running'; progress.partly_done is what you want$"):
        made().running  # type: ignore[attr-defined] # noqa: B018


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({}, "[######..............] 30/100  1 failed, 3 retries  3/s  0:24 left"),
        ({"total": None, "retries": 0, "failed": 0}, "29 items  2.9/s  0:10"),
        ({"total": None, "completed": 0, "retries": 0}, "1 item  1 failed  0.1/s  0:10"),
        ({"completed": 100, "failed": 0, "retries": 0}, "[####################] 100/100  10/s  0:10"),
        ({"starting": 2, "retries": 0}, "[######..............] 30/100  1 failed  3/s  0:24 left"),
        # Until the first item, workers that start are named.
        (BEGUN, "[....................] 0/100  starting 2 workers"),
        ({**BEGUN, "total": None}, "0 items  starting 2 workers"),
    ],
)
def test_one_line_says_it_all(facts: dict[str, Any], line: str) -> None:
    assert describe(made(**facts)) == line


def test_all_is_done_only_at_the_end_a_rate_is_a_number_for_people_and_minutes_become_hours() -> None:
    assert [done(part) for part in (0.0, 0.29, 0.999, 1.0)] == ["0%", "29%", "99%", "100%"]
    assert [rate(speed) for speed in (0.123456, 2.9, 99.96, 999.4, 12345.6)] == [
        *("0.123/s", "2.9/s", "100/s", "999/s", "12,346/s")
    ]
    assert [minutes(seconds) for seconds in (0.4, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]


@pytest.mark.parametrize("columns", [50, 60, 80, 100])
@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"completed": 49, "total": 100_000},
        {"retries": 0},
        {"partly_done": 0.5},
        {"failed": 1, "completed": 0},
        {"failed": 1345, "completed": 530_000, "total": 1_000_000, "pace": 124.0},
        {"failed": 12_345, "completed": 530_000, "total": 1_000_000, "pace": 1.0},
    ],
)
def test_a_third_of_the_line_is_the_bar_and_what_failed_and_the_time_left_stay(
    facts: dict[str, Any], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(progress, "NARROW", columns + 1)
    bar, told = TerminalBar("thumbnails of a long name"), made(**facts)
    bar.draw(told)
    (line,) = screen(shown.getvalue())
    bar.close()
    assert f" {told.failed} failed" in line
    assert told.eta is not None
    assert line.endswith(f" {minutes(math.ceil(told.eta))} left")
    assert len(line) <= columns
    drawn = line[line.index("[") : line.index("]") + 1]
    assert not set(drawn) - set("[█░]")
    assert len(drawn) >= columns // 3 - 2


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end_of_a_job_that_is_not_short() -> None:
    lines: list[str] = []
    LogLines(lambda _: "", lines.append)(made(elapsed=0.5, status=JobStatus.COMPLETED))
    assert lines == []
    show = LogLines(lambda progress: progress.job_id, lines.append)
    for elapsed in range(13):
        show(made(elapsed=float(elapsed)))
    over = made(elapsed=12.5, status=JobStatus.COMPLETED)
    show(over)
    show(over)
    assert lines == [f"job: {describe(shown)}" for shown in (made(elapsed=5.0), made(elapsed=10.0), over)]


def test_lines_are_for_logs_that_somebody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not are_wanted()  # in a test of pytest
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert are_wanted()
    monkeypatch.setenv("MPQUEUE_PROGRESS", "0")
    book, thread = JobBook(1, "job", make_table([]), JobOptions(RetryPolicy()), None), cast("ListenerThread", None)
    assert make_displays(Showing(progress=True), book, thread, lambda: 0.0, failures=False) == []


def test_bars_are_one_below_the_other_and_each_stays_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)

    def seen() -> list[str]:
        return [line.partition(":")[0] for line in screen(shown.getvalue())]

    first, second = TerminalBar("first"), TerminalBar("second")
    first.draw(made(completed=99))
    second.draw(made(total=None, failed=0, retries=0))
    first.draw(made(completed=99))
    assert seen() == ["first", "second"]
    assert screen(shown.getvalue())[1] == "second: 29 items  2.9/s  0:10"
    with aside():
        shown.write("a log line\n")
    assert seen() == ["a log line", "first", "second"]
    second.close()
    assert seen() == ["a log line", "second", "first"]
    first.draw(made(completed=99))
    first.close()
    assert seen() == ["a log line", "second", "first", ""]


def test_a_broken_terminal_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bar = TerminalBar(None)
    shown.close()
    bar.draw(made())
    bar.close()
    assert not progress.can_draw()


def test_a_bar_is_labelled_by_the_function_s_name() -> None:
    assert (label_of(do.succeed), label_of(lambda item: item), label_of(object())) == ("succeed", None, None)
