"""Times as texts: their forms, and what is refused."""

from __future__ import annotations

import pytest

from mpqueue._text import seconds_in


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("90s", 90),
        ("15m", 900),
        (" 3H50M ", 13_800),
        ("1d", 86_400),
        ("1.5h", 5_400),
        ("1d2h3m4s", 93_784),
        ("03:50:00", 13_800),
        ("2-12", 216_000),
        ("1-12:30", 131_400),
        ("1-00:00:01", 86_401),
    ],
)
def test_a_time_is_read_in_the_usual_forms(text: str, seconds: float) -> None:
    assert seconds_in(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "-1", "x", "3h50", "50m3h", "12:30", "1h-3", "nan", "inf", "1e3", "1 d"])
def test_what_is_no_time_or_could_mean_two_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as 90, 90s, 15m, 3h50m, 1d or 1-12:00:00"):
        seconds_in(text)


def test_a_time_that_no_thread_can_wait_for_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 11574d, got '12000d'"):
        seconds_in("12000d")
