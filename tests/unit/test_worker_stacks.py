"""What is shown of a worker's stack: the handler's frames, without mpqueue's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import mpqueue
from mpqueue._core.state.lane_book import LaneState
from mpqueue._parent.running import LaneStack, handlers_part, stacks_now

WORKER = Path(mpqueue.__file__).parent / "_worker"
SERVING = f"""  File "{WORKER / "chunk" / "chunk_run.py"}", line 280 in _run_items
  File "{WORKER / "main.py"}", line 120 in receive
  File "{WORKER / "serving.py"}", line 33 in serve
  File "/lib/loky/process_executor.py", line 500 in _process_worker"""
WATCHDOG = f"""Thread 0x01 (most recent call first):
  File "{WORKER / "chunk" / "watchdog.py"}", line 80 in _watch"""
USERS = """Thread 0x02 (most recent call first):
  File "/lib/threading.py", line 10 in wait
  File "/code/own.py", line 9 in beside"""


def text(*frames: str) -> str:
    current = "\n".join(["Current thread 0x03 (most recent call first):", *frames, SERVING])
    return f"{WATCHDOG}\n\n{USERS}\n\n{current}\n"


def test_the_handler_comes_first_then_the_users_own_threads() -> None:
    innermost, handler = '  File "/code/own.py", line 3 in load', '  File "/code/own.py", line 20 in handle'
    ours = f'  File "{WORKER / "handlers" / "current_item.py"}", line 90 in report'
    assert handlers_part(text(ours, innermost, handler)) == f"{innermost}\n{handler}\n\n{USERS}"
    assert handlers_part(text()) == USERS
    assert handlers_part(WATCHDOG) == handlers_part("") == ""
    assert handlers_part(f"{WATCHDOG}\n\nThread 0x04 (most recent call first):\n  <no Python frame>\n") == ""


class Lane:
    """One whose worker tells this of itself, or nothing for ever."""

    def __init__(self, *told: str | None) -> None:
        self.told = told

    def tell_stack(self, tell: Any) -> None:
        for each in self.told:
            tell(each)


def test_a_worker_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    class Book:
        def __init__(self, number: int, state: LaneState) -> None:
            self.number, self.state = number, state

    class Books:
        lanes = (*(Book(number, LaneState.READY) for number in range(4)), Book(4, LaneState.STARTING))

    lanes = {0: Lane(text('  File "/code/own.py", line 3 in load')), 1: Lane(None), 2: Lane()}
    found = stacks_now(cast("Any", Books), cast("Any", lanes.get), 0.0)
    assert [one.number for one in found] == [0, 1, 2, 3]
    assert found[0].stack is not None
    assert found[0].stack.startswith('  File "/code/own.py", line 3 in load')
    assert found[1:] == [LaneStack(number, None) for number in (1, 2, 3)]
