"""A live page, as a program sees it: requests with full control of their headers, and the stream."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

#: Seconds that one answer may take.
PATIENCE = 300.0


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, as JSON."""
        return json.loads(self.body)


@dataclass
class Visitor:
    """Somebody who asks a page. ``headers`` go with each request."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The page's path."""
        return urlsplit(self.url).path

    @property
    def token(self) -> str:
        """What is in the address."""
        return urlsplit(self.url).query.removeprefix("token=")

    @property
    def netloc(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Answer:
        """One request, to a path below the page's or (with a leading slash) any other; ``_`` in headers is ``-``."""
        connection = http.client.HTTPConnection(self.netloc, timeout=PATIENCE)
        with contextlib.closing(connection):
            full = path if path.startswith("/") else self.place + path
            sent = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, full, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        answer = self.ask(path)
        assert answer.status == 200, answer
        return answer.json

    def items(self, number: int, **wish: object) -> list[Any]:
        """All items of a job, or those that are wished for, page by page."""
        told: list[Any] = []
        while True:
            query = urlencode(wish | {"offset": len(told), "limit": 200})
            page = self.get(f"jobs/{number}/items?{query}")
            told += page["rows"]
            if len(told) >= page["matching"] or not page["rows"]:
                return told

    def post(self, path: str, **body: Any) -> Answer:
        """Press a button."""
        return self.ask(path, "POST", json.dumps(body))

    @contextlib.contextmanager
    def stream(self) -> Iterator[Stream]:
        """Listen."""
        connection = http.client.HTTPConnection(self.netloc, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", self.place + "events", headers=self.headers)
            answer = connection.getresponse()
            assert answer.status == 200
            with contextlib.closing(answer):
                yield Stream(answer, self)


class Stream:
    """Server-sent events, and what a page would know from them."""

    def __init__(self, answer: http.client.HTTPResponse, visitor: Visitor) -> None:
        self._answer = answer
        self._visitor = visitor
        self.states: dict[str, Any] = {}
        self.workers: Any = None
        self.names: list[str] = []
        self.ended = False

    def next(self) -> tuple[str, Any]:
        """The next event; ``("", None)`` at the end."""
        name, data = "", ""
        while True:
            line = self._answer.readline().decode().rstrip("\n")
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data = line[6:]
            elif name:
                self._take(name, json.loads(data))
                return name, json.loads(data)
            elif not line and self._answer.isclosed():
                self.ended = True
                return "", None

    def _take(self, name: str, data: Any) -> None:
        self.names.append(name)
        match name:
            case "job:state":
                self.states[data["jobId"]] = data
            case "job:gone":
                self.states = {name: one for name, one in self.states.items() if one["number"] != data["number"]}
            case "workers":
                lanes = {} if self.workers is None else {lane["number"]: lane for lane in self.workers["lanes"]}
                lanes |= {lane["number"]: lane for lane in data["lanes"]}
                self.workers = data | {"lanes": [lanes[number] for number in sorted(lanes.keys() - set(data["gone"]))]}
            case _:
                pass

    def listen_until(self, condition: Callable[[], Any]) -> None:
        """Take events until the condition holds, or the stream ends, which is an error."""
        while not condition():
            self.next()
            assert not self.ended, "the stream ended too early"

    def items(self, job_id: str) -> list[Any]:
        """The job's items, asked for now; none of a job that the stream has not named, or that was cleared."""
        state = self.states.get(job_id)
        number = None if state is None else state["number"]
        if number is None or self._visitor.ask(f"jobs/{number}/items?limit=0").status == 404:
            return []
        return self._visitor.items(number)

    def statuses(self, job_id: str) -> list[str]:
        """How the job's items stand now, in their order."""
        return [item["status"] for item in self.items(job_id)]


def visit(url: str) -> Visitor:
    """Exchange the token for a cookie, as a browser does."""
    visitor = Visitor(url)
    answer = visitor.ask(f"{visitor.place}?token={visitor.token}")
    assert answer.status == 303, answer
    visitor.headers["Cookie"] = answer.headers["Set-Cookie"].partition(";")[0]
    return visitor


@contextlib.contextmanager
def dashboard(*journals: object, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """``mpqueue dashboard``, running: the address that it prints, and the process; it ends by Ctrl-C, with 130."""
    command = [sys.executable, "-m", "mpqueue", "dashboard", *map(str, journals)]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), process
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    finally:
        process.kill()
        print(process.communicate()[1])  # for a test that has failed
