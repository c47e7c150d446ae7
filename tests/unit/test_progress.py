"""What `Progress` tells, how it is written as one line, and what ``progress=`` takes."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import pytest

from mpqueue._core.state.item_table import make_table
from mpqueue._core.state.job_book import JobBook
from mpqueue._options import JobOptions
from mpqueue._output import bars
from mpqueue._output.bars import TerminalBar, aside, describe
from mpqueue._output.job_facts import Progress
from mpqueue._output.progress import LogLines, Showing, are_wanted, label_of, make_displays
from mpqueue._output.words import done, minutes, rate
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


def test_what_runs_counts_by_its_fraction() -> None:
    progress = made(partly_done=0.5)
    assert (progress.done, progress.fraction) == (30.5, 0.305)


def test_what_partly_done_was_called_before_says_what_it_is_called_now() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'running'; progress.partly_done is what you want$"):
        made().running  # type: ignore[attr-defined] # noqa: B018


def test_rate_and_eta_come_from_what_was_done_since_the_start() -> None:
    progress = made(already=20)
    assert (progress.rate, progress.eta) == (1.0, 70.0)


def test_nobody_can_tell_before_the_first_item_or_without_a_total() -> None:
    assert (made(completed=0, failed=0).rate, made(completed=0, failed=0).eta) == (None, None)
    assert (made(total=None).eta, made(total=None).fraction) == (None, None)


def test_a_job_without_items_is_done() -> None:
    assert made(total=0, completed=0, failed=0).fraction == 1.0


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "1 failed, 3 retries"),
        ({"retries": 1, "failed": 0}, "1 retry"),
        ({"retries": 0, "failed": 2}, "2 failed"),
        ({"retries": 0, "failed": 0}, ""),
    ],
)
def test_troubles_are_named_where_there_are_any(facts: dict[str, int], text: str) -> None:
    assert made(**facts).troubles == text


def test_one_line_says_it_all() -> None:
    assert describe(made()) == "[######..............] 30/100  1 failed, 3 retries  3/s  0:23 left"
    assert describe(made(total=None, retries=0, failed=0)) == "29 items  2.9/s  0:10"
    assert describe(made(completed=100, failed=0, retries=0)) == "[####################] 100/100  10/s  0:10"


def test_all_is_done_only_at_the_end_and_a_rate_is_a_number_for_people() -> None:
    assert [done(part) for part in (0.0, 0.29, 0.999, 1.0)] == ["0%", "29%", "99%", "100%"]
    assert [rate(speed) for speed in (0.123456, 2.9, 99.96, 999.4, 12345.6)] == [
        *("0.123/s", "2.9/s", "100/s", "999/s", "12,346/s")
    ]


@pytest.mark.parametrize("columns", [50, 60, 80, 100])
@pytest.mark.parametrize(
    "facts",
    [{}, {"completed": 49, "total": 100_000}, {"retries": 0}, {"partly_done": 0.5}, {"failed": 1, "completed": 0}],
)
def test_a_third_of_the_line_is_the_bar_and_what_failed_and_the_time_left_stay(
    facts: dict[str, Any], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(bars, "NARROW", columns + 1)
    bar = TerminalBar("thumbnails of a long name")
    bar.draw(made(**facts))
    (line,) = screen(shown.getvalue())
    bar.close()
    assert " 1 failed" in line
    assert line.endswith(" left")
    assert len(line) <= columns
    drawn = line[line.index("[") : line.index("]") + 1]
    assert not set(drawn) - set("[█░]")
    assert len(drawn) >= columns // 3 - 2


@pytest.mark.parametrize("total", [100, None])
def test_workers_that_start_are_named_until_the_first_item(total: int | None) -> None:
    waiting = made(completed=0, failed=0, retries=0, starting=2, total=total)
    assert describe(waiting).endswith("  starting 2 workers")
    assert "starting" not in describe(made(starting=2))


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    lines: list[str] = []
    show = LogLines(lambda progress: progress.job_id, lines.append)
    for elapsed in range(13):
        show(made(elapsed=float(elapsed)))
    assert lines == [f"job: {describe(made(elapsed=5.0))}", f"job: {describe(made(elapsed=10.0))}"]
    over = made(elapsed=12.5, status=JobStatus.COMPLETED)
    show(over)
    show(over)
    assert lines[2:] == [f"job: {describe(over)}"]


def test_a_short_job_writes_no_line_into_a_log() -> None:
    lines: list[str] = []
    LogLines(lambda _: "", lines.append)(made(elapsed=0.5, status=JobStatus.COMPLETED))
    assert lines == []


def test_lines_are_for_logs_that_somebody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not are_wanted()  # in a test of pytest
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert are_wanted()
    monkeypatch.setenv("MPQUEUE_PROGRESS", "0")
    book, thread = JobBook(1, "job", make_table([]), JobOptions(RetryPolicy()), None), cast("ListenerThread", None)
    assert make_displays(Showing(progress=True), book, thread, lambda: 0.0, failures=False) == []


def test_minutes_become_hours() -> None:
    assert [minutes(seconds) for seconds in (0.4, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]


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
    assert not bars.can_draw()


@pytest.mark.parametrize("value", [1, "yes", None])
def test_what_is_neither_a_bool_nor_a_callable_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"progress: expected True, False or a callable, got .* of type"):
        Showing(value)


def test_a_bar_is_labelled_by_the_function_s_name() -> None:
    assert (label_of(do.succeed), label_of(lambda item: item), label_of(object())) == ("succeed", None, None)
