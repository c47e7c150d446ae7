"""Values as JSON has them: each has a form, and none is refused."""

from __future__ import annotations

import pytest

from mpqueue._output.export import json_ready

np = pytest.importorskip("numpy")


def test_moments_and_spans_of_numpy_are_text_in_each_unit() -> None:
    texts = [
        *((np.datetime64("2020-01-01T05:00:00", unit), "2020-01-01T05:00:00") for unit in ("s", "ms", "us", "ns")),
        (np.datetime64("2020-01-01"), "2020-01-01"),
        (np.datetime64("2020-01-01T05:00:00.25", "ns"), "2020-01-01T05:00:00.250000"),
        (np.datetime64("2020-01-01T05:00:00.123456789"), "2020-01-01T05:00:00.123456789"),
        (np.datetime64("20000-01-01", "s"), "20000-01-01T00:00:00"),
        (np.datetime64("20000-01-01"), "20000-01-01"),
        (np.datetime64("NaT", "ns"), None),
        (np.timedelta64(5, "s"), "datetime.timedelta(seconds=5)"),
        (np.timedelta64(5, "ns"), "np.timedelta64(5,'ns')"),
    ]
    for value, text in texts:
        assert json_ready(value) == text
        assert json_ready({"in": np.array([[value], [value]])}) == {"in": [[text], [text]]}


class Silent:
    """Has no repr."""

    def __repr__(self) -> str:
        raise ValueError


def test_json_ready_never_raises() -> None:
    assert json_ready({1: {Silent()}}) == {"1": ["<Silent: its repr() raised ValueError>"]}
    assert json_ready(np.int64(3)) == 3
    assert json_ready(np.bool_(True)) is True
    assert json_ready((np.nan, float("inf"), b"x")) == [None, None, "b'x'"]
