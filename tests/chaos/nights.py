"""Nights: a batch with a journal is run again and again on a list that changes, is killed, and its files are damaged.

A batch is a job with a list, or a stream, which may also be broken off. The books: what comes of an item is its own,
whatever was added, removed, changed, doubled or put elsewhere; what ended in a night that came to its end is not called
again while it is as it was (but for a stream's items that failed); damage is refused with every file left as it
was but SQLite's own, or costs the damaged items another call, and never a wrong value.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.night_program import BROKEN_OFF, REFUSED, STREAMS, digest, fails, name_of, outcome, worth

#: Seconds that one run of the program may take.
PATIENCE = 300.0
#: Nights of one batch.
NIGHTS = 12
ROOT = Path(__file__).parents[2]


class Nights:
    """One batch after the other, each run in one of these ways.

    ``complaints`` is what was found wrong, with the folder that shows it.
    """

    def __init__(self, seed: int, folder: Path, ways: Sequence[str]) -> None:
        self.complaints: list[str] = []
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)
        self._folder = folder
        self._ways = ways

    def run_for(self, seconds: float) -> None:
        """As many batches as there is time for, at least one."""
        end = time.monotonic() + seconds
        while not self.complaints:
            seed = self._rng.randrange(2**32)
            batch = Batch(seed, self._folder / f"batch-{seed}", self.counts, self._ways)
            for _ in range(NIGHTS):
                complaints = batch.spend_night()
                if complaints:
                    self.complaints += [
                        f"batch {seed} in {batch.folder}, night {batch.night}: {one}" for one in complaints
                    ]
                    return
                if time.monotonic() >= end:
                    break
            shutil.rmtree(batch.folder)
            if time.monotonic() >= end:
                return


class Batch:
    """One list of items, which are texts, or mappings with ids, and its journal."""

    def __init__(self, seed: int, folder: Path, counts: Counter[str], ways: Sequence[str]) -> None:
        self.folder = folder
        self.night = 0
        self._counts = counts
        self._rng = random.Random(seed)
        self._way = self._rng.choice(ways)
        self._with_ids = self._rng.random() < 0.5
        self._items = [self._new_item() for _ in range(self._rng.choice((0, 1, 20, 100)))]
        self._done: Counter[str] = Counter()  #: what ended in the last night that came to its end
        self._damaged = False  #: since then
        folder.mkdir()

    def spend_night(self) -> list[str]:
        """Change the list, perhaps damage a file, and run the program until it is through; returns what is wrong."""
        self.night += 1
        self._counts[f"nights of {self._way}"] += 1
        self._edit()
        (self.folder / "list.json").write_text(json.dumps(self._items))
        if self.night > 1 and self._rng.random() < 0.25:
            complaints = self._run_damaged()
            if complaints is not None:
                return complaints
        ends = self._rng.choice((0, 0, 1, 3))
        for run in range(ends + 1):
            code = self._run(10 ** self._rng.uniform(-0.5, 0.5) if run < ends else None)
            if code == 0:
                return self._audit()
            if run == ends or code in (REFUSED, 1):
                return [f"run {run} ended with {code}: {self._said()}"]
        return ["it is never through"]

    # -- the list --------------------------------------------------------------------------------------------

    def _new_item(self) -> Any:
        value = self._rng.randrange(10**6)
        if not self._with_ids:
            return f"picture-{value}"
        taken = {item["id"] for item in getattr(self, "_items", ())}
        number = next(number for number in iter(lambda: self._rng.randrange(10**6), None) if number not in taken)
        return {"id": number, "value": value}

    def _edit(self) -> None:
        rng, items = self._rng, self._items
        for _ in range(rng.choice((0, 1, 2, 4))):
            match rng.choice(("add", "remove", "shuffle", "change", "double", "turn")):
                case "add":
                    for _ in range(rng.choice((1, 5, 40))):
                        items.insert(rng.randint(0, len(items)), self._new_item())
                case "remove":
                    for _ in range(min(len(items), rng.choice((1, 5, 40)))):
                        items.pop(rng.randrange(len(items)))
                case "shuffle":
                    rng.shuffle(items)
                case "change" if self._with_ids and items:
                    at = rng.randrange(len(items))
                    items[at] = {**items[at], "value": rng.randrange(10**6)}
                case "double" if not self._with_ids and items:
                    items.insert(rng.randint(0, len(items)), rng.choice(items))
                case "turn":
                    items.reverse()

    # -- the program -----------------------------------------------------------------------------------------

    def _run(self, seconds: float | None) -> int:
        """The exit code of a run, which is ended after so many seconds, or, if it is a stream's, broken off."""
        command = [sys.executable, "-m", "tests.chaos.night_program", str(self.folder), self._way]
        if seconds is not None and self._way in STREAMS and self._rng.random() < 0.3:
            command.append(str(self._rng.randint(0, len(self._items))))
            seconds = None
        with open(self.folder / "stderr", "wb") as errors:
            program = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            code = program.wait(PATIENCE if seconds is None else seconds)
            self._counts["streams broken off"] += code == BROKEN_OFF
            return code
        except subprocess.TimeoutExpired:
            number = self._rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
            self._counts[f"{number.name} of programs" if seconds is not None else "hung"] += 1
            program.send_signal(number if seconds is not None else signal.SIGKILL)
            program.wait(PATIENCE)
            return -number

    def _said(self) -> str:
        return (self.folder / "stderr").read_text(errors="replace")[-3000:]

    # -- damage ----------------------------------------------------------------------------------------------

    def _run_damaged(self) -> list[str] | None:
        """Damage a file and run the program: None where the journal was refused, and is whole again."""
        files = [path for path in self._files() if path.stat().st_size]
        kept = {path: path.read_bytes() for path in files}
        path = self._rng.choice(files)
        what = self._damage(path)
        self._counts[f"files {what}"] += 1
        self._damaged = True
        before = {path: path.read_bytes() for path in self._files()}
        code = self._run(None)
        if code == 0:
            return self._audit()
        if code != REFUSED:
            return [f"{path.name} was {what}, and the run ended with {code}: {self._said()}"]
        self._counts["refusals"] += 1
        after = {path: path.read_bytes() for path in self._files()}
        values = [one for one in before if one.suffix == ".value" and after.get(one) != before[one]]
        if values or (self.folder / "run.db").exists() != any(one.name == "run.db" for one in before):
            return [
                f"{path.name} was {what}, the journal was refused, and {values} are not as they were: {self._said()}"
            ]
        for other in self._files():
            other.unlink()
        for path, content in kept.items():
            path.write_bytes(content)
        self._calls()  # what was called before it was refused
        self._damaged = False
        return None

    def _files(self) -> list[Path]:
        beside = self.folder / "run.db.files"
        found = [*self.folder.glob("run.db*"), *(beside.iterdir() if beside.is_dir() else ())]
        return sorted(path for path in found if path.is_file())

    def _damage(self, path: Path) -> str:
        content = bytearray(path.read_bytes())
        match self._rng.choice(("flipped", "flipped", "flipped", "cut", "emptied", "removed", "overwritten")):
            case "flipped":
                content[self._rng.randrange(len(content))] ^= 1 << self._rng.randrange(8)
                what = "flipped"
            case "cut":
                del content[self._rng.randrange(len(content)) :]
                what = "cut"
            case "emptied":
                content.clear()
                what = "emptied"
            case "removed":
                path.unlink()
                return "removed"
            case _:
                at, size = self._rng.randrange(len(content)), self._rng.choice((16, 4096))
                content[at : at + size] = self._rng.randbytes(len(content[at : at + size]))
                what = "overwritten"
        path.write_bytes(content)
        return what

    # -- the books -------------------------------------------------------------------------------------------

    def _audit(self) -> list[str]:
        told = json.loads((self.folder / "results.json").read_text())
        (self.folder / "results.json").unlink()
        calls = self._calls()
        complaints = list(self._objections(told))
        if not self._damaged:
            again = [name for name, times in calls.items() if times > 0 and self._was_done(name)]
            if self._way in STREAMS:
                again = [name for name in again if not fails(json.loads(name))]
            complaints += [f"{name} was called again, although it had ended and is as it was" for name in again]
        self._done = Counter(map(name_of, self._items))
        self._damaged = False
        self._counts["items"] += len(self._items)
        self._counts["calls"] += sum(calls.values())
        return complaints[:5]

    def _was_done(self, name: str) -> bool:
        return self._done[name] >= Counter(map(name_of, self._items))[name]

    def _objections(self, told: dict[str, Any]) -> Any:
        names = [name_of(item) for item in self._items]
        if [name for name, _ in told["items"]] != names:
            yield "its items are not those of the list"
        for item, (name, said), (_, result) in zip(self._items, told["items"], told["results"], strict=True):
            right = None if fails(item) else digest(outcome(item))
            expected = f"failed {worth(item)}" if right is None else f"completed {right}"
            if said != expected or result != right:
                yield f"{name}: expected {expected}, got {said} and the result {result}"

    def _calls(self) -> Counter[str]:
        """The calls of this night, by the item."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return Counter(lines)
