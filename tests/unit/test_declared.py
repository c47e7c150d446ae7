"""An option is declared once: what a call takes, shows and refuses, the types and the pages come from that."""

from __future__ import annotations

import argparse
import inspect
from dataclasses import dataclass
from typing import Any

import pytest

import mpqueue
from mpqueue._cli.flags import add_flags, given_flags
from mpqueue._declared import At, check_names, option, options_at, read, takes
from mpqueue._options import COUNT, SECONDS, YES_NO, GivenOptions
from tests.support import option_pages


@dataclass(frozen=True, kw_only=True)
class WithMore(GivenOptions):
    """A new option, as one would be added to `GivenOptions`."""

    spice: int | None = option(None, At.JOB | At.MAP | At.COMMAND, "How hot an item may be.", COUNT, flag="--spice")


@takes(WithMore, At.JOB)
def cook(first: str, **options: Any) -> WithMore:
    return read(WithMore, At.JOB, "cook", options, ("first",))


def test_a_new_option_is_declared_once_and_found_everywhere() -> None:
    shown = inspect.signature(cook).parameters
    assert next(iter(shown)) == "first"
    assert (shown["spice"].default, shown["spice"].annotation) == (None, "int | None")
    assert shown["spice"].kind is inspect.Parameter.KEYWORD_ONLY
    assert (cook("a", spice=3).spice, cook("a").spice) == (3, None)
    with pytest.raises(ValueError, match="spice: expected a whole number of at least 0, got -1"):
        cook("a", spice=-1)
    with pytest.raises(TypeError, match=r"cook\(\) got an unexpected keyword argument 'spcie'; did you mean spice\?"):
        cook("a", spcie=3)
    assert option_pages.keywords(WithMore).count("    spice: int | None\n") == 2, "of a job, and of `map`"
    (row,) = [row for row in option_pages.table(WithMore).splitlines() if row.startswith("| `spice` ")]
    assert row.startswith("| `spice` | none | How hot an item may be. | | x | | | | x |")
    assert row.endswith("`--spice` |")
    parser = argparse.ArgumentParser()
    add_flags(parser.add_argument, WithMore)
    assert "--spice N" in parser.format_help()
    assert given_flags(parser.parse_args(["--spice", "2"]), At.JOB, WithMore) == {"spice": 2}
    assert given_flags(parser.parse_args(["--spice", "2"]), At.STAGES, WithMore) == {}


def test_an_option_that_can_t_be_given_there_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Stage\(\) got an unexpected keyword argument 'priority'"):
        check_names(GivenOptions, At.STAGE, "Stage", {"priority": 1})
    with pytest.raises(TypeError, match=r"imap\(\) got an unexpected keyword argument 'deadline'"):
        read(GivenOptions, At.STREAM, "imap", {"deadline": 1})


def test_what_is_written_out_of_the_declarations_is_as_declared() -> None:
    why = "`make options` writes it anew"
    assert option_pages.KEYWORDS.read_text() == option_pages.keywords(), why
    assert option_pages.TABLE.read_text() == option_pages.table(), why


def test_each_option_that_the_command_line_has_can_be_read_from_a_word_or_is_a_switch() -> None:
    for one in options_at(GivenOptions, At.COMMAND).values():
        assert one.flag is not None
        assert one.kind is not None
        assert (one.kind.read is None) == (one.kind is YES_NO)


@pytest.mark.parametrize(
    "called", [mpqueue.JobQueue, mpqueue.JobQueue.create_job, mpqueue.map, mpqueue.imap, mpqueue.Stage, mpqueue.stages]
)
def test_a_signature_has_the_options_by_name(called: Any) -> None:
    shown = inspect.signature(called).parameters
    assert "timeout" in shown
    assert all(one.kind is not one.VAR_KEYWORD for one in shown.values())


@pytest.mark.parametrize(("given", "seconds"), [("90", 90.0), ("1h30m", 5400.0), (2, 2.0), ("0.5", 0.5)])
def test_a_time_is_a_number_of_seconds_or_a_text(given: Any, seconds: float) -> None:
    assert SECONDS.check("timeout", given) == seconds
    assert read(GivenOptions, At.JOB, "create_job", {"timeout": given, "deadline": given}).deadline == seconds
    assert mpqueue.RetryPolicy(base_delay=given, max_delay=given).base_delay == seconds


def test_what_an_option_was_called_before_says_what_it_is_called_now() -> None:
    with pytest.raises(TypeError, match=r"create_job\(\) has no option 'cpus': write uses={'cpu': 2}"):
        read(GivenOptions, At.JOB, "create_job", {"cpus": 2})


def test_a_rerun_is_checked_and_needs_a_journal() -> None:
    with pytest.raises(TypeError, match=r"map\(\) has no option 'update': write rerun=Rerun\(update=True\)"):
        mpqueue.map(abs, [1], update=True)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="redo: expected one of 'failed'"):
        mpqueue.Rerun(redo="some")
    with pytest.raises(ValueError, match="rerun: expected a journal as well, which records earlier runs"):
        mpqueue.map(abs, [1], rerun=mpqueue.Rerun(redo="all"))
    with mpqueue.JobQueue(1) as queue:
        with pytest.raises(TypeError, match="rerun: expected a Rerun, such as"):
            queue.create_job("job", [1], abs, rerun=True)  # type: ignore[call-overload]
        with pytest.raises(ValueError, match="rerun: expected a journal as well"):
            queue.create_job("job", [1], abs, rerun=mpqueue.Rerun(update=True))


@pytest.mark.parametrize(("at", "most"), [(At.JOB, 18), (At.OPEN, 18), (At.QUEUE, 12)])
def test_a_call_has_no_more_options_than_people_can_look_through(at: At, most: int) -> None:
    assert len(options_at(GivenOptions, at)) <= most, "which could become one?"
