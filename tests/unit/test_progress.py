"""What `Progress` tells, how it is written as one line, and what ``progress=`` takes."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import Any

import pytest

from mpqueue._output import bars, log_lines
from mpqueue._output.bars import PlainBar, aside, describe, minutes
from mpqueue._output.log_lines import LogLines
from mpqueue._output.progress import Progress, Showing, label_of, make_display
from mpqueue.status import JobStatus
from tests.support import handlers as do
from tests.support.terminals import screen


def made(**facts: Any) -> Progress:
    """A job in the middle: 30 of 100 items have ended after 10 seconds."""
    known: dict[str, Any] = {
        "job_id": "job",
        "status": JobStatus.RUNNING,
        "total": 100,
        "completed": 29,
        "failed": 1,
        "retries": 3,
        "running": 0.0,
        "elapsed": 10.0,
    }
    return Progress(**{**known, **facts})


def test_what_runs_counts_by_its_fraction() -> None:
    progress = made(running=0.5)
    assert (progress.done, progress.fraction) == (30.5, 0.305)


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


@pytest.mark.skipif(find_spec("tqdm") is None, reason="the bar is tqdm's")
def test_sixty_columns_keep_what_failed() -> None:
    assert "1 failed" in f"thumbnails: {describe(made())}"[:60]
    bar = bars._tqdm_class().format_meter(
        30, 100, 10.0, ncols=60, prefix="thumbnails", bar_format=bars._SHAPE, items="30/100", postfix=made().troubles
    )
    assert "30/100, 1 failed, 3 retries" in bar[:60]


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
    assert not log_lines.are_wanted()  # in a test of pytest
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert log_lines.are_wanted()
    monkeypatch.setenv("MPQUEUE_PROGRESS", "0")
    book: Any = None
    assert make_display(Showing(progress=True), book, book, lambda: 0.0) is None


def test_minutes_become_hours() -> None:
    assert [minutes(seconds) for seconds in (0.4, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]


def test_plain_bars_share_a_line_and_each_stays_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    first, second = PlainBar("first"), PlainBar("second")
    first.draw(made(completed=99))
    second.draw(made(total=None, failed=0, retries=0))
    assert screen(shown.getvalue()) == [
        f"first: {describe(made(completed=99))} | second: 29 items  2.9/s"[:79].rstrip()
    ]
    with aside():
        shown.write("a log line\n")
    first.close()
    second.close()
    lines = screen(shown.getvalue())
    assert [line.partition(":")[0] for line in lines] == ["a log line", "first", "second", ""]


def test_a_broken_terminal_ends_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    bar = PlainBar(None)
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
