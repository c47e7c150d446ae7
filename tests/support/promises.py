"""What users are promised, and which tests hold each promise, by the marks on the tests.

A test says which promise it holds::

    @pytest.mark.holds("seed: pause: new items don't start until the job is resumed")

The promises are read from where users read them: the bold sentences and the waits of docs/explanation/promises.md, the
faults of README.md, the errors of `mpqueue.errors`; and here stands what the first user asked for, `SEED`. The marks
are read from the tests' source, so that the table needs no test to run. Beside each promise stands when and where it is
held: a mark `long` says which tests are for the nights (tests/support/length.py), and `LOTS` which run elsewhere too.
``python -m tests.support.promises`` writes the table, docs/explanation/held-promises.md (`make held-promises`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mpqueue import errors
from tests.support.lots import lots_of

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "explanation" / "held-promises.md"

#: What the JavaScript queue did that mpqueue began as, sentence by sentence.
SEED = (
    "JobQueue: concurrency is 3 by default",
    "JobQueue: max_retries is 3 by default",
    "JobQueue: a worker that finishes an item takes the next pending one",
    "JobItem: id, status, attempts, error, result, proposed_alt",
    "JobItem: pending, processing, completed, failed or retry",
    "Job: id, status, total, completed, failed, started_at, finished_at, items, paused, cancelled",
    "Job: pending, running, paused, completed, completed_with_errors or cancelled",
    "create_job: the job is not started",
    "create_job: the handler may be a coroutine function",
    "start: the result is the finished job",
    "start: a job that is not found is an error",
    "start: the status becomes running",
    "start: no more items run at once than the concurrency allows",
    "start: failed items are retried with exponential backoff",
    "start: all items are waited for",
    "start: the final status depends on the results",
    "pause: paused is true, and the status is paused",
    "pause: active items run to their end",
    "pause: new items don't start until the job is resumed",
    "resume: a paused job goes on",
    "cancel: cancelled is true",
    "cancel: active items may complete",
    "cancel: pending items don't start",
    "cancel: the final status is cancelled",
    "get_job: a job by its id, None for an unknown one",
    "clear_job: the job is removed from the queue",
    "get_stats: running with paused, pending, completed and total",
    "events: the queue is an event emitter",
    "events: job:started, with the job's id",
    "events: job:progress after each item that completes or fails, with the whole state",
    "events: job:finished, with id, status, completed, failed and duration",
    "retries: after 2, 4 and 8 seconds",
    "retries: after max_retries the item has failed",
)

#: On the page.
PROGRAM = """\
```python
import pytest
from mpqueue import JobQueue


@pytest.mark.holds("promise: Every item ends once")
def test_items_come_home_in_order():
    with JobQueue(2) as queue:
        assert queue.run(range(500), abs).results == list(range(500))


test_items_come_home_in_order()
```""".splitlines()


def promises() -> list[str]:
    """All of them, as marks name them, in the order of the table."""
    page = (ROOT / "docs" / "explanation" / "promises.md").read_text()
    promised = page.partition("## Promised")[2].partition("\n## ")[0]
    waits = page.partition("| what is waited for")[2].partition("\n\n")[0]
    faults = (ROOT / "README.md").read_text().partition("| what happens | what you get |")[2].partition("\n\n")[0]
    found = [f"promise: {_plain(text)}" for text in re.findall(r"^- \*\*(.+?)\*\*", promised, re.MULTILINE | re.DOTALL)]
    found += [f"wait: {_plain(row)}" for row in _first_cells(waits)]
    found += [f"fault: {_plain(row)}" for row in _first_cells(faults)]
    found += [f"error: {name}" for name in errors.__all__]
    return found + [f"seed: {sentence}" for sentence in SEED]


def _first_cells(table: str) -> list[str]:
    return [line.split("|")[1] for line in table.splitlines()[2:] if line.startswith("| ")]


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[`*]|\[(?P<text>[^\]]*)\]\([^)]*\)", lambda m: m["text"] or "", text).split()).rstrip(".")


def held() -> dict[str, list[str]]:
    """The tests of each promise that some mark names, as file::test."""
    found: dict[str, list[str]] = {}
    for test, marks in _marked_tests():
        for mark in marks:
            if ast.unparse(mark).startswith("pytest.mark.holds("):
                assert isinstance(mark, ast.Call)
                for argument in mark.args:
                    found.setdefault(ast.literal_eval(argument), []).append(test)
    return found


def of_the_nights() -> set[str]:
    """The tests of which no case runs at each commit, as far as their marks tell."""
    return {test for test, marks in _marked_tests() if any(ast.unparse(mark) == "pytest.mark.long" for mark in marks)}


def _marked_tests() -> Iterator[tuple[str, list[ast.expr]]]:
    """Each test with its marks, and each file with those of all its tests."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        text = path.read_text()
        if "mark.holds" in text:
            name = path.relative_to(ROOT).as_posix()
            for statement in ast.parse(text).body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{name}::{statement.name}", statement.decorator_list
                elif isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "pytestmark":
                    whole = statement.value
                    yield name, whole.elts if isinstance(whole, ast.List) else [whole]


def table() -> str:
    """The page: each promise with its tests, and where they run besides."""
    tests, nights = held(), of_the_nights()
    lines = [
        "# Which tests hold each promise",
        "",
        "Which tests would fail if a promise were broken? `make held-promises` lists them by marks like this:",
        "",
        *PROGRAM,
        "",
        "A promise without a test, or a mark without a promise, fails a test of its own.",
        "",
        "Each commit runs them on Linux, except those of *each night* (`make test-all`). *Elsewhere*, at least one",
        "case runs too: in CPython for Windows under wine, with what any POSIX system has (as macOS), on each other",
        "Python.",
    ]
    kinds = {
        "promise": "[What is promised](promises.md)",
        "wait": "[Every wait has an end](promises.md#every-wait-has-an-end)",
        "fault": "When things go wrong (README)",
        "error": "Errors",
        "seed": "What the first user asked for",
    }
    for kind, title in kinds.items():
        lines += ["", f"## {title}", "", "| promise | tests | elsewhere |", "|---|---|---|"]
        for promise in promises():
            if promise.startswith(f"{kind}: "):
                of_it = tests.get(promise, [])
                names = "<br>".join(f"`{name.removeprefix('tests/')}`" for name in of_it)
                where = ["each night"] if nights.issuperset(of_it) else []
                where += dict.fromkeys(lot for test in of_it for lot in lots_of(test))
                lines.append(f"| {promise.removeprefix(f'{kind}: ')} | {names} | {', '.join(where)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    PAGE.write_text(table())
