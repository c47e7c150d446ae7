"""Plain words in all that people read: the pages, the live page, and the package's texts, docstrings and comments.

Each phrase has a replacement. The rules behind the list: the subject of a sentence is a thing or "you"; nothing is
personified; a number has its usual form. Terms that CONTRIBUTING or the guide defines (job, item, attempt, chunk,
lane, ledger, blame, claim) are allowed.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent

#: A phrase, as a regular expression in lower case, and what to write instead. A space also stands for a line break.
INSTEAD = {
    r"whoever|whomever": "the thing: the caller that ..., the worker that ...",
    r"nobody": "no worker, no caller, no process",
    r"somebody|everybody|anybody": "a caller, another program, every process",
    r"those who|he who|him who": "the callers that, the workers that",
    r"(?:is|are|was|were|be|been|being) told": "gets, receives; is reported to",
    r"hears?|heard|hearing": "gets, receives; arrives",
    r"mourn\w*": "handle the end of",
    r"bears?|bearing": "is safe to, tolerates",
    r"pays?|paid|paying": "costs, takes",
    r"travel\w*": "is sent, is copied",
    r"as ever": "as usual, as before",
    r"(?:comes?|came|coming|sends?|sent|brings?|brought|goes|go|gone) home": "arrives, is sent to the program",
    r"(?:at|is) home": "in the program",
    r"bec[ao]mes? of": "happens to",
    r"uncharged": "without losing a try",
    r"sits? (?:the|a) job out": "the job runs on the other workers",
    r"neighbours?": "the other items",
    r"guilty|poison\w*|innocent\w*": "the item at fault",
    r"sees? to it": "makes sure",
    r"in vain": "without success",
    r"for good measure|the lot|at all costs": "(leave it out)",
    r"lo and behold|no sooner": "as soon as",
    r"unless you say otherwise|if you say nothing|that say nothing": "by default",
    r"\d+ %": "74%",
    r"(?:quarter|tenth|fifth|twentieth|hundredth) of a second": "0.25 s",
}
_ANY = re.compile(r"\b(?:" + "|".join(INSTEAD).replace(" ", r"(?:\s|#:?)+") + r")(?!\w)")
_BLOCK = re.compile(r"^ *(`{3,}|~{3,}).*?^ *\1`*$", re.MULTILINE | re.DOTALL)


#: The parts of a Python file that are no code. Good enough for a file that ruff has formatted.
_PROSE = re.compile(r'"""(?:.*?)"""|"(?:[^"\\\n]|\\.)*"|#[^\n]*', re.DOTALL)


def findings(text: str, name: str) -> Iterator[str]:
    """Each phrase of ``text`` that should be another one: where it is, and what to write instead."""
    ends: list[int] = []
    for found in _ANY.finditer(text.lower()):
        ends = ends or list(accumulate(len(line) for line in text.splitlines(keepends=True)))
        line = bisect(ends, found.start())
        before = text[ends[line - 1] if line else 0 : found.start()]
        if before.replace("``", "`").count("`") % 2:
            continue  # the name of something
        words = re.sub(r"[\s#:]+", " ", found[0])
        instead = next(instead for phrase, instead in INSTEAD.items() if re.fullmatch(phrase, words))
        yield f"{name}:{line + 1}: {words!r}: write {instead}"


def of_files(paths: list[Path]) -> list[str]:
    assert paths
    found: list[str] = []
    for path in paths:
        text = path.read_text()
        if path.suffix == ".md":
            text = _BLOCK.sub(lambda block: blank(block[0]), text)
        elif path.suffix == ".py" and _ANY.search(text.lower()):
            text = without_code(text)
        found += findings(text, path.relative_to(ROOT).as_posix())
    return found


def without_code(text: str) -> str:
    """A Python file of which only strings and comments are left, each where it was."""
    parts: list[str] = []
    end = 0
    for prose in _PROSE.finditer(text):
        parts += blank(text[end : prose.start()]), prose[0]
        end = prose.end()
    return "".join(parts) + blank(text[end:])


def blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def listed(found: list[str]) -> str:
    return "\n" + "\n".join(found)


def test_pages_are_in_plain_words() -> None:
    found = of_files([*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))])
    assert not found, listed(found)


def test_live_page_is_in_plain_words() -> None:
    found = of_files(sorted((ROOT / "mpqueue" / "_live_page" / "static").rglob("*.*")))
    assert not found, listed(found)


def test_package_is_in_plain_words() -> None:
    found = of_files(sorted((ROOT / "mpqueue").rglob("*.py")))
    assert not found, listed(found)


def test_a_phrase_is_found_where_it_is_and_with_its_replacement() -> None:
    text = "A good line.\n# The caller is\n#: told nothing, and Nobody knows: 3 % of it, 3%, anybodys.\n"
    assert list(findings(text, "here")) == [
        "here:2: 'is told': write gets, receives; is reported to",
        "here:3: 'nobody': write no worker, no caller, no process",
        "here:3: '3 %': write 74%",
    ]
