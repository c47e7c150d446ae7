"""Which code made a job's results, compared with the code of today: what is done again, and what people are told."""

from __future__ import annotations

import pytest

from mpqueue._queue.recorded.code_parts import PYTHON, Code, CodeNow
from mpqueue._queue.recorded.resume import MadeBy
from mpqueue.status import COMPLETED, FAILED, PENDING

TODAY = Code(PYTHON, {"f": "new", "g": "same"}, {})
BEFORE = Code(PYTHON, {"f": "old", "g": "same"}, {})
OF_ANOTHER_PYTHON = Code("3.9.1/other", {"f": "old", "g": "same"}, {})
NOT_RECORDED = 77


def made_by(*codes: Code, older: bool = False) -> MadeBy:
    """What a journal says that has these codes, read today."""
    return MadeBy(codes, CodeNow(TODAY, {"f": "`f`, h.py:3"}), is_older=older)


def test_results_of_todays_code_need_no_look() -> None:
    made = made_by(TODAY)
    assert not made.may_differ
    assert not made.is_new
    made.look([COMPLETED, FAILED], [TODAY.number] * 2)
    assert [*made.changed] == []
    assert (made.describe_change(), made.describe_codes(), made.describe_unknown()) == ("", "", "")


@pytest.mark.parametrize("codes", [(BEFORE, TODAY), (), (TODAY, BEFORE), (BEFORE,)])
def test_results_may_differ_where_other_code_is_known_or_none(codes: tuple[Code, ...]) -> None:
    made = made_by(*codes)
    assert made.may_differ
    assert made.is_new == (codes[-1:] != (TODAY,))


def test_of_a_journal_that_had_one_hash_for_the_job_nothing_is_known() -> None:
    assert made_by(TODAY, older=True).may_differ


def test_what_other_code_has_made_is_named_and_what_has_not_ended_is_not() -> None:
    made = made_by(BEFORE, TODAY)
    made.look([COMPLETED, FAILED, PENDING, COMPLETED], [BEFORE.number, BEFORE.number, BEFORE.number, TODAY.number])
    assert [*made.changed] == [0, 1]
    assert made.describe_change() == "`f`, h.py:3 has changed since 2 of these results were made"
    assert made.describe_codes() == "`f`, h.py:3 has changed since some of these results were made"
    assert made.describe_unknown() == ""


def test_one_result_is_spoken_of_as_one() -> None:
    made = made_by(BEFORE, OF_ANOTHER_PYTHON)
    made.look([COMPLETED, COMPLETED], [BEFORE.number, OF_ANOTHER_PYTHON.number])
    assert made.describe_change().endswith("since 1 of these results was made")
    assert "since 1 of these results was made can't be known: Python 3.9.1 made them" in made.describe_unknown()


def test_what_another_python_or_nobody_known_made_is_no_change() -> None:
    made = made_by(OF_ANOTHER_PYTHON, TODAY)
    made.look([COMPLETED] * 3, [OF_ANOTHER_PYTHON.number, OF_ANOTHER_PYTHON.number, NOT_RECORDED])
    assert [*made.changed] == []
    assert made.describe_change() == ""
    assert "since 3 of these results were made" in made.describe_unknown()
    unknown = made_by(TODAY)
    unknown.look([COMPLETED], [NOT_RECORDED])
    assert "what made them is not recorded" in unknown.describe_unknown()


def test_todays_code_is_written_last_and_once() -> None:
    for codes in [(BEFORE,), (TODAY, BEFORE)]:
        assert made_by(*codes).all() == [BEFORE, TODAY]
