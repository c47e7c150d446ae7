"""Names, lines, errors and results that are no text, or steer a terminal, or can't be printed: nothing is lost by them.

File names and input are bytes; Python has those that are no UTF-8 as lone surrogates.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mpqueue import JobQueue, RetryPolicy
from tests.integration.test_otel import Telemetry
from tests.support.pages import visit
from tests.support.programs import PATIENCE, run_program
from tests.support.terminals import terminal_with

pytestmark = pytest.mark.slow

OWN = r"""
import logging
from pathlib import Path

def work(name):
    logging.getLogger("own").warning("at %s\x1b[2J", name)
    if name.startswith("bad"):
        raise ValueError(f"{name}\x1b]0;title\x07\nfailed: forged")
    if name.startswith("big"):
        return {"number": 10**5000, name: float("nan"), "half": "\ud800"}
    return {"size": len(Path(name).read_bytes())}
"""
#: The last is the bystander.
NAMES = [b"a\xff.txt", b"bad\xfe\x1b[31m.txt", b"big\xfd.txt", b"good.txt"]
ENVIRONMENTS: list[dict[str, str]] = [
    {},
    {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "ascii"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    for name in NAMES:
        (tmp_path / os.fsdecode(name)).write_bytes(b"12345")
    (tmp_path / "list").write_bytes(b"\n".join(NAMES) + b"\n")
    return tmp_path


def mpqueue(
    folder: Path, *arguments: str | bytes, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [sys.executable, "-m", "mpqueue", *arguments],
        cwd=folder,
        env=os.environ | (environment or {}),
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done


def names_of(rows: bytes) -> list[bytes]:
    """The items of rows of JSON, which is UTF-8."""
    return [os.fsencode(json.loads(line)["payload"]) for line in rows.decode().splitlines()]


@pytest.mark.long(but=["C"])
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=["UTF-8", "C", "ascii"])
def test_names_that_are_no_text_are_items_and_come_back_in_rows(folder: Path, environment: dict[str, str]) -> None:
    options = ("-j", "1", "--retries", "0", "--journal", "run.db")
    done = mpqueue(folder, "run", "own:work", *NAMES, *options, environment=environment)
    assert done.returncode == 1  # of the bad one
    assert names_of(done.stdout) == NAMES
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert int(rows[2]["result"]["number"], 16) == 10**5000
    assert rows[2]["result"]["half"] == "\ud800"
    assert rows[3]["result"] == {"size": 5}
    told = done.stderr.decode()
    assert "\x1b" not in told
    assert r"WARNING own: a\udcff.txt: at a\udcff.txt\x1b[2J" in told
    assert (
        "failed: bad\\udcfe\\x1b[31m.txt: ValueError: bad\\udcfe\\x1b[31m.txt\\x1b]0;title\\x07\n    failed: forged"
        in told
    )
    assert "4 items: 3 completed, 1 failed" in told

    exported = mpqueue(folder, "export", "run.db", environment=environment)
    assert names_of(exported.stdout) == NAMES
    failures = mpqueue(folder, "failures", "run.db", "--traceback", environment=environment)
    assert (failures.returncode, b"\x1b" in failures.stdout) == (0, False)
    as_json = mpqueue(folder, "failures", "run.db", "--json", environment=environment)
    assert names_of(as_json.stdout) == [NAMES[1]]


def test_a_terminal_is_steered_by_no_name_and_no_error(folder: Path) -> None:
    """With rows, bar, logs and colours on it, whose own escapes are all that it gets."""
    names = [os.fsdecode(name) for name in (*NAMES, b"\xc2\x9b2Jevil.txt", b"gpj.\xe2\x80\xaename.txt")]
    for name in names:
        (folder / name).write_bytes(b"12345")
    with terminal_with(folder, "-m", "mpqueue", "run", "own:work", *names, "-j", "1", "--retries", "0") as shown:
        assert shown.end() == 1
        text = shown.text
    assert "\x1b[31mfailed:\x1b[0m bad\\udcfe\\x1b[31m.txt" in text
    assert r"\u202ename.txt" in text
    assert not {"\x9b", "\x07", "\u202e"} & set(text)
    assert "\x1b]0;" not in text
    assert "\x1b[2J" not in text
    assert "5 completed" in text


@pytest.mark.long
def test_the_handler_s_file_may_have_a_name_that_is_no_text_and_the_journal_too(folder: Path) -> None:
    handler = os.fsdecode(b"own\xff.py")
    (folder / handler).write_text("def work(name):\n    return name\n")
    arguments = (os.fsencode(f"{handler}:work"), b"list", b"-j", b"1", b"--journal", b"run\xff.db")
    done = mpqueue(folder, "run", *arguments)
    assert (done.returncode, json.loads(done.stdout)["result"]) == (0, "list")
    assert mpqueue(folder, "run", *arguments).stdout == done.stdout
    assert rb"own\udcff.py:work" in mpqueue(folder, "status", b"run\xff.db").stdout
    assert mpqueue(folder, "export", b"run\xff.db", arguments[0]).stdout == done.stdout


def no_text(item: Any) -> Any:
    """The result of each, or its error."""
    if item["id"] == "error\udcff":
        raise ValueError("\ud800\x1b[2J \udcfe")
    if item["id"] == "unprintable error":
        raise ValueError(10**5000)
    return item["is"]


def deep(depth: int = 480) -> list[Any]:
    """As deep as it can come home."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


def items() -> list[dict[str, Any]]:
    """The bystander comes last."""
    return [
        {"id": "\udcff\u202e\x1b", "is": "\udcff"},
        {"id": 10**5000, "is": [10**5000, {10**5000: "\ud800"}]},
        {"id": ("\ud800", 10**5000), "is": {"\udcff": float("inf"), "a": "one\rline"}},
        {"id": "error\udcff", "is": None},
        {"id": "unprintable error", "is": None},
        {"id": "deep", "is": deep()},
        {"id": "fine", "is": "fine"},
    ]


def test_the_live_page_tells_what_is_no_text() -> None:
    with JobQueue(1, max_retries=0) as queue:
        page = visit(queue.serve().url)
        job = queue.run(items(), no_text, id="job\udcff\x1b")
        states = page.ask("jobs")
        assert (states.status, states.json[0]["completed"]) == (200, 5)
        number = states.json[0]["number"]
        for index in range(job.total):
            answer = page.ask(f"jobs/{number}/items/{index}")
            assert (answer.status, answer.json["status"]) == (200, str(job.items[index].status))
        assert page.ask(f"jobs/{number}/items/0").json["result"] == r"\udcff"
        assert "an int of 16,610 bits" in page.ask(f"jobs/{number}/items/1").json["result"]
        name = states.json[0]["jobId"]
        with page.stream() as stream:
            stream.listen_until(lambda: len(stream.statuses(name)) == job.total)
            assert stream.statuses(name)[-1] == "completed"


def test_every_export_and_the_report_can_be_written(tmp_path: Path) -> None:
    """In a process of its own: the libraries of tables start threads that stay."""
    body = r"""
        import json
        from mpqueue import JobQueue
        from tests.integration.test_no_text import items, no_text

        with JobQueue(1, max_retries=0, journal="run\udcff.db") as queue:
            queue.run(items(), no_text, id="job\udcff")
        with JobQueue(1, max_retries=0) as queue:
            job = queue.run(items(), no_text, id="job\udcff\x1b[2J", profile=True)
            print(job.report())
        with JobQueue(1, max_retries=0, journal="run\udcff.db") as queue:
            kept = queue.get_job("job\udcff")
            assert kept.results[:4] == job.results[:4] and kept.completed == 5

        for form in ("csv", "tsv", "json", "jsonl", "parquet"):
            for columns in (None, ["id", "payload", "result", "error", "exception", "history"]):
                job.export(f"x.{form}", columns=columns)
                kept.export(f"x.{form}", columns=columns)
        rows = [json.loads(line) for line in open("x.jsonl", encoding="utf-8")]
        assert (rows[0]["id"], rows[0]["result"], rows[-1]["result"]) == ("\udcff\u202e\x1b", "\udcff", "fine")
        assert int(rows[1]["id"], 16) == 10**5000
        frame = job.to_pandas(["id", "result"])
        assert (frame["id"][0], frame["result"][0]) == ("\udcff\u202e\x1b", "\udcff")
        assert job.to_pandas().shape == job.to_polars().shape
        assert job.to_polars(["payload.id"])["payload.id"][0] == "\\udcff\u202e\x1b"
        for name in ("report.html", "report.txt"):
            written = open(job.report().save(name), encoding="utf-8").read()
            assert "\x1b" not in written and "\u202e" not in written
        json.dumps(job.to_dict())
        print("all is well")
    """
    told = run_program(tmp_path, body).stdout
    assert "\x1b" not in told
    assert told.endswith("all is well\n")


def test_spans_have_text_that_can_be_sent() -> None:
    telemetry = Telemetry()
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0)) as queue:
        telemetry.instrument(queue)
        queue.run(items(), no_text, id="job\udcff")
    (span,) = telemetry.spans("mpqueue.job")
    span.to_json().encode()
    assert span.attributes is not None
    assert span.attributes["mpqueue.job.id"] == r"job\udcff"
    for event in span.events:
        assert event.attributes is not None
        str(dict(event.attributes)).encode()
    assert [event.name for event in span.events].count("item failed") == 2
