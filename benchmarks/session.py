"""A run: rounds over all contenders, each measurement in a process of its own, everything written down.

Contenders take turns: every one is measured once before any is measured again, so that a slow minute of the machine
hits all of them. A process gets a question and a contender; when it exceeds its time it is killed, with everything
that it has started, and goes on with the next case.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks import contenders, machine, processes, questions
from benchmarks.case import Case, Sizes

ROOT = Path(__file__).parent.parent
#: Seconds that a contender may take to start, and to prepare a case.
PATIENCE = 120.0
#: Seconds that it gets to end by itself, so that contenders can tidy up.
FAREWELL = 10.0


@dataclass(slots=True)
class Session:
    """What is to be measured, and what has been."""

    sizes: Sizes
    rounds: int
    limit: float | None
    names: list[str]
    results: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        processes.adopt_orphans()

    def ask(self, question: str) -> dict[str, Any]:
        """Answer one question: all rounds of it."""
        module = questions.load(question)
        cases = module.cases(self.sizes)
        record: dict[str, Any] = {
            "question": module.QUESTION,
            "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "machine": machine.describe(),
            "settings": {"size": self.sizes.size, "workers": self.sizes.workers, "loop": asdict(self.sizes.loop)},
            "load": [machine.load()],
            "cases": {case.name: self._blank(case) for case in cases},
            "contenders": {},
        }
        stolen = machine.stolen()
        rounds = min(self.rounds, getattr(module, "ROUNDS", self.rounds))
        concerned = contenders.concerned(self.names, question, quick=self.sizes.size == "quick")
        for round_number in range(rounds):
            # Each round begins with another one, so that nobody always follows the same neighbour's heat.
            turn = round_number % len(concerned) if concerned else 0
            for name in concerned[turn:] + concerned[:turn]:
                record["contenders"][name] = contenders.BY_NAME[name].configuration
                self._measure(question, name, cases, round_number, record)
        record["load"].append(machine.load())
        record["stolen"] = round(machine.stolen() - stolen, 2)
        self.results[question] = record
        return record

    def _blank(self, case: Case) -> dict[str, Any]:
        return {"title": case.title, "x": case.x, "workers": case.workers or self.sizes.workers, "contenders": {}}

    def _measure(self, question: str, name: str, cases: list[Case], number: int, record: dict[str, Any]) -> None:
        """One round of one contender: all of its cases that it has not failed in before."""
        left = []
        for case in cases:
            if case.contenders and name not in case.contenders:
                continue
            entry = record["cases"][case.name]["contenders"].setdefault(name, {"rounds": []})
            if "failed" not in entry and "over" not in entry:
                entry["rounds"].append([])
                left.append(case)
        while left:
            stopped_at = self._run_child(question, name, left, number, record)
            left = [] if stopped_at is None else left[stopped_at + 1 :]

    def _run_child(
        self, question: str, name: str, cases: list[Case], number: int, record: dict[str, Any]
    ) -> int | None:
        """Measure in a new process; returns which case was the last where that one stopped it, else None."""
        cold = cases[0].cold
        by_name = {case.name: at for at, case in enumerate(cases)}
        order = {
            "question": question,
            "contender": name,
            "cases": list(by_name),
            "seed": number + 1,
            "size": self.sizes.size,
            "workers": self.sizes.workers,
            "loop": asdict(self.sizes.loop),
            "cold": cold,
        }
        current, limit = 0, PATIENCE
        with tempfile.TemporaryFile("w+") as log, _Child(order, log) as child:
            while True:
                message = child.next_message(limit)
                if message is None or message["event"] == "done":
                    break
                entry = record["cases"][message["case"]]["contenders"][name]
                current = by_name[message["case"]]
                if message["event"] == "measure":
                    entry["rounds"][-1].append(message["measures"])
                    limit = PATIENCE
                elif message["event"] == "failed":
                    entry["failed"] = message["error"]
                    limit = PATIENCE
                else:
                    limit = self.limit or cases[current].limit
            if message is not None:
                child.wait(FAREWELL)
                return None
            entry = record["cases"][cases[current].name]["contenders"][name]
            if child.exitcode is None:
                entry["over"] = limit
            else:
                entry["failed"] = f"the process ended with {child.exitcode}: {_last_line(log)}"
            return current


def _last_line(log: Any) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


class _Child:
    """A process that measures, and all that it starts."""

    def __init__(self, order: dict[str, Any], log: Any) -> None:
        self._answers, write = os.pipe()
        self._buffer = b""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
        # Installed packages are compiled; where this is set, those in a checkout are compiled at each start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.child", json.dumps({**order, "answers": write})],
            cwd=ROOT,
            env=environment,
            pass_fds=(write,),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        os.close(write)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._answers, selectors.EVENT_READ)
        self.exitcode: int | None = None

    def next_message(self, limit: float) -> dict[str, Any] | None:
        """What it says next; None where it ended, or said nothing for so many seconds."""
        until = time.monotonic() + limit
        while b"\n" not in self._buffer:
            left = until - time.monotonic()
            if left <= 0:
                return None
            if not self._selector.select(min(left, 1.0)):
                # Its workers hold the pipe too, so its own end is looked for.
                if self._process.poll() is None or self._selector.select(0):
                    continue
                self.exitcode = self._process.returncode
                return None
            data = os.read(self._answers, 1 << 16)
            if not data:
                self.exitcode = self._process.wait()
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def wait(self, patience: float) -> None:
        """Let it end, and what it has started, by itself."""
        until = time.monotonic() + patience
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        psutil.wait_procs(processes.descendants(), max(0.0, until - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        processes.end_all(FAREWELL)
        self._process.wait()
        for folder in Path("/dev/shm").glob(f"joblib_memmapping_folder_{self._process.pid}_*"):
            shutil.rmtree(folder, ignore_errors=True)
        self._selector.close()
        os.close(self._answers)
