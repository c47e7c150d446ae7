"""The frame in which a thread is."""

from __future__ import annotations

import gc
import sys
import threading

import pytest

from mpqueue._os.process_signals import frame_of

#: An identifier that no thread has.
NO_THREAD = -1


def test_this_thread_is_in_the_frame_that_asks_and_none_is_in_one_that_has_ended() -> None:
    assert frame_of(threading.get_ident()) is sys._getframe()
    assert frame_of(NO_THREAD) is None


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="there a collection waits for the end of a call")
def test_nothing_is_collected_while_the_interpreter_holds_its_lock() -> None:
    begun, threshold = list[str](), gc.get_threshold()

    def note(phase: str, _: object) -> None:
        if phase == "start":
            begun.append(sys._getframe(1).f_code.co_name)

    gc.callbacks.append(note)
    gc.set_threshold(1)
    try:
        for _ in range(100):
            frame_of(NO_THREAD)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(note)
    assert "frame_of" not in begun
    assert gc.isenabled()
