"""An exception, made ready to travel."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from mpqueue._wire.pickling.payload import load
from mpqueue._worker.results import pack_failure


class PicklesItsTracebackError(Exception):
    """As every exception does once tblib's reducers are installed; a deep traceback can't be pickled then."""

    def __reduce__(self) -> tuple[Any, ...]:
        if self.__traceback__ is not None:
            raise pickle.PicklingError("excessively deep recursion required")
        return type(self), self.args


def test_an_exception_travels_as_itself_whatever_its_traceback_is_like() -> None:
    with pytest.raises(PicklesItsTracebackError) as raised:
        raise PicklesItsTracebackError("text")
    frame = pack_failure(raised.value)
    assert raised.value.__traceback__ is raised.tb
    assert frame.error is not None
    found = load(frame.error)
    assert (type(found), found.args) == (PicklesItsTracebackError, ("text",))
    _, text, trace, _ = frame.stand_in
    assert text == "text"
    assert 'raise PicklesItsTracebackError("text")' in trace
