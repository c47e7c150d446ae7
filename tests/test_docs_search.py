"""The documentation's site, and its search: what people type, in their own words, leads to a page that answers.

The site is built, and its index is asked as Material's search asks it in a browser: with lunr, each word as the
beginning of a word, titles before text.
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lunr.builder import Builder  # type: ignore[import-untyped]
from lunr.stop_word_filter import stop_word_filter  # type: ignore[import-untyped]

import mpqueue

ROOT = Path(__file__).parent.parent
#: Pages that are looked at before somebody types other words.
PATIENCE = 3

pytestmark = pytest.mark.slow

#: What people asked in other projects' issue trackers, and where it is answered.
ASKED = {
    "TerminatedWorkerError": "questions/ coming-from/",
    "BrokenProcessPool": "questions/ coming-from/",
    "one worker died batch lost": "questions/",
    "don't stop all tasks when one failed": "questions/",
    "worker died unexpectedly": "questions/",
    "pool hangs when worker is killed": "questions/",
    "resubmit after crash": "questions/",
    "exception can't be unpickled": "questions/ how-to/errors/",
    "task stuck third party library": "questions/ how-to/retries-and-timeouts/",
    "timeout per task": "questions/ how-to/retries-and-timeouts/",
    "timeout chunk results lost": "questions/",
    "never stuck pool": "questions/",
    "cancel running": "questions/ how-to/pause-cancel-close/",
    "ctrl-c takes forever": "questions/ how-to/pause-cancel-close/",
    "KeyboardInterrupt": "how-to/errors/ how-to/pause-cancel-close/ how-to/retries-and-timeouts/ questions/",
    "sigint partially runs next task": "questions/",
    "clear queue": "questions/ how-to/pause-cancel-close/",
    "retry delay exponential backoff jitter": "questions/ how-to/retries-and-timeouts/",
    "return_exceptions": "questions/ how-to/map/",
    "raise first error": "questions/ how-to/map/",
    "tolerate failures": "questions/ how-to/map/",
    "memory leak restart worker": "questions/ how-to/setup-and-workers/",
    "generator infinite input": "questions/ how-to/map/",
    "large constant argument": "questions/ how-to/models-and-big-data/",
    "shared memory numpy array": "questions/ how-to/models-and-big-data/",
    "progress bar": "how-to/progress-and-events/ questions/ coming-from/",
    "logging from workers": "how-to/logging-and-output/ questions/",
    "stdout per job": "how-to/logging-and-output/ questions/",
    "which arguments failed": "questions/",
    "edited module old code": "questions/ how-to/notebooks/",
    "process number gpu": "questions/ how-to/setup-and-workers/ how-to/gpus-memory-and-licences/",
    "initializer": "questions/ how-to/setup-and-workers/",
    "can't pickle lambda": "questions/ how-to/notebooks/",
    "__main__ guard": "questions/ how-to/notebooks/",
    "notebook hangs": "questions/ how-to/notebooks/",
    "chunksize tiny tasks slow": "questions/",
    "daemonic processes children": "questions/",
    "OMP_NUM_THREADS": "questions/ how-to/setup-and-workers/",
    "orphans": "questions/",
    "type hints mypy": "questions/",
    "priority": "questions/ reference/api/",
    "redis broker": "questions/ coming-from/",
    "security pickle": "questions/ explanation/promises/",
    "ray": "coming-from/",
    "dask": "coming-from/",
    "ray cluster": "how-to/cluster-ray/ how-to/cluster/",
    "dask cluster": "how-to/cluster-dask/ how-to/cluster/",
    "dask worker modules": "how-to/cluster-dask/",
    "many machines": "questions/ how-to/cluster/",
    "job array": "how-to/slurm-and-kubernetes/",
    "multiprocessing pool": "coming-from/",
    "celery": "coming-from/",
    "same random numbers": "questions/ how-to/setup-and-workers/",
    "pytorch model": "how-to/models-and-big-data/ how-to/setup-and-workers/",
    "scikit-learn GridSearchCV": "coming-from/",
    "out of memory": "questions/ how-to/memory/",
    "memory limit": "questions/ how-to/memory/",
    "dashboard": "questions/ how-to/live-page/",
    "checkpoint resume": "questions/ how-to/journal/",
    "pdb breakpoint": "questions/ how-to/other-engines/",
    "why slow": "questions/ how-to/why-slow/",
    "csv export": "how-to/export/",
    "django": "how-to/web-applications/ questions/",
    "fastapi": "how-to/web-applications/ questions/",
    "celery task processes": "how-to/web-applications/ questions/ coming-from/",
    "pandas apply parallel": "how-to/pandas/ questions/",
    "pandarallel": "how-to/pandas/",
    "polars": "how-to/pandas/ questions/",
    "hugging face dataset map": "how-to/pandas/ questions/",
    "subprocess has abruptly died": "how-to/pandas/",
    "jupyter": "how-to/notebooks/ questions/",
    "how many workers": "questions/",
    "slower than a loop": "questions/",
    "several arguments": "questions/",
    "stop after failures": "how-to/pause-cancel-close/ questions/",
    "only new files": "questions/ how-to/journal/",
    "slurm": "how-to/slurm-and-kubernetes/ questions/",
    "kubernetes": "how-to/slurm-and-kubernetes/ questions/",
    "rate limit": "questions/",
    "pytest hangs": "questions/",
    "cuda fork": "questions/",
    "cannot re-initialize CUDA in forked subprocess": "questions/",
    "too many open files": "questions/",
    "globals not updated": "questions/",
    "python 3.14 pool": "questions/",
    "return a value from a process": "questions/",
    "ctrl-c does not stop": "questions/ how-to/pause-cancel-close/",
    "database connection per worker": "questions/ how-to/setup-and-workers/",
    "save results as they come": "questions/ how-to/results-that-do-not-fit/ how-to/progress-and-events/",
    "add tasks while running": "questions/ how-to/open-jobs/",
    "macos": "how-to/platforms/",
    "windows": "how-to/platforms/",
    "docker seccomp": "how-to/platforms/",
    "max_retries": "how-to/retries-and-timeouts/ questions/ reference/api/ adr/0005-what-max-retries-counts/",
}

#: The same, in words that are not those of the headings, and the section that answers: it is among the first ones.
ANSWERED = {
    "worker process unexpectedly terminated": "one-worker-died",
    "why did my worker die": "worker-died-unexpectedly",
    "pool.map hangs forever after kill": "the-pool-hangs-for-ever",
    "rebuild BrokenProcessPool": "do-i-have-to-rebuild",
    "exception can't be pickled": "an-exception-that-cant-be-pickled",
    "kill task after timeout": "a-task-hangs-or-is-stuck",
    "which results are lost when chunk times out": "a-timeout-loses-the-results",
    "guarantee that a call returns": "a-pool-that-never-gets-stuck",
    "cancel a running future": "cancel-a-running-task",
    "ctrl-c needs to be pressed twice": "ctrl-c-takes-for-ever",
    "interrupted worker starts next task": "after-ctrl-c-a-worker",
    "clear promises never settle": "clear-the-queue",
    "exponential backoff": "retry-with-a-delay",
    "checkpoint and resume": "checkpoint-and-resume",
    "fail fast": "raise-at-the-first-error",
    "limit total memory": "out-of-memory",
    "memory leak warning worker stopped": "a-library-leaks-memory",
    "map reads whole generator": "map-reads-the-whole-input",
    "send constant once per worker": "a-large-constant-argument",
    "callback on completed task": "progress-bar-eta",
    "logging lost in workers": "logging-from-worker-processes",
    "print output per task": "stdout-and-stderr-of-each-task",
    "pid of failed process": "which-arguments-and-which-process",
    "peak memory per task": "cpu-time-and-peak-memory",
    "reload changed module": "i-edited-a-module",
    "worker id for gpu": "worker-number-one-gpu",
    "pickle local function": "cant-pickle-lambda",
}
#: Sections that are looked at.
SECTIONS = 4


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    site = ROOT / "site"
    if not is_built(site):
        site = tmp_path_factory.mktemp("site")
        build(site)
    return site


@pytest.fixture(scope="module")
def search(site: Path) -> Search:
    return Search(json.loads((site / "search" / "search_index.json").read_text()))


def is_built(site: Path) -> bool:
    """Whether ``make docs`` has built it since the last change of what it is made from."""
    index = site / "search" / "search_index.json"
    sources = [
        ROOT / "mkdocs.yml",
        ROOT / "tests" / "support" / "docs_site.py",
        *(ROOT / "docs").rglob("*"),
        *(ROOT / "mpqueue").rglob("*.py"),
    ]
    return index.exists() and index.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def build(site: Path) -> None:
    """As ``make docs`` does."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300)


class Search:
    """The index of a site, asked as its page does."""

    def __init__(self, index: dict[str, Any]) -> None:
        self._separator = index["config"]["separator"]
        builder = Builder()
        builder.ref("location")
        builder.field("title", boost=1000)
        builder.field("text")
        builder.pipeline.add(stop_word_filter)
        for section in index["docs"]:
            words = {name: " ".join(self._words(section[name])) for name in ("title", "text")}
            builder.add({"location": section["location"], **words}, {"boost": section.get("boost", 1)})
        self._lunr = builder.build()

    def _words(self, text: str) -> list[str]:
        plain = html.unescape(re.sub("<[^>]+>", " ", text)).lower()
        return [word for word in re.split(self._separator, plain) if word]

    def sections(self, typed: str) -> dict[str, float]:
        """The places of sections, the best first, and how well each fits."""
        words = [word for word in self._words(typed) if word]
        scores = {}
        for found in self._lunr.search(" ".join(f"{word}*" for word in words)):
            terms = found["match_data"].metadata
            share = sum(any(term.startswith(word) for term in terms) for word in words) / len(words)
            scores[found["ref"]] = found["score"] * (1 + share**2)
        return dict(sorted(scores.items(), key=lambda one: -one[1]))

    def pages(self, typed: str) -> list[str]:
        """The pages in the order in which they are shown, by their best section."""
        return list(dict.fromkeys(place.partition("#")[0] for place in self.sections(typed)))


@pytest.mark.parametrize(("typed", "answered"), ASKED.items(), ids=list(ASKED))
def test_what_people_type_leads_to_a_page_that_answers(search: Search, typed: str, answered: str) -> None:
    shown = search.pages(typed)[:PATIENCE]
    assert set(shown) & set(answered.split()), shown


def test_the_first_page_answers_nine_of_ten(search: Search) -> None:
    first = {typed: search.pages(typed)[0] for typed in ASKED}
    wrong = {typed: page for typed, page in first.items() if page not in ASKED[typed].split()}
    assert len(wrong) <= len(ASKED) // 10, wrong


@pytest.mark.parametrize(("typed", "answer"), ANSWERED.items(), ids=list(ANSWERED))
def test_the_section_that_answers_is_among_the_first(search: Search, typed: str, answer: str) -> None:
    shown = list(search.sections(typed))[:SECTIONS]
    assert any(place.startswith(f"questions/#{answer}") for place in shown), shown


def test_each_page_shows_the_version_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert f'<span class="version">{mpqueue.__version__}</span>' in text, page
        assert not re.findall(r"<(?:script|img|source|iframe)[^>]+=[\"']?(?:https?:)?//[^>]+>", text), page
        assert not re.findall(r"<link[^>]+rel=.(?:stylesheet|icon|preconnect)[^>]+=.https?:[^>]+>", text), page


def test_every_page_but_decisions_can_be_found_by_its_title(search: Search) -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    titles = re.findall(r"^ +- (?P<title>[^:\n]+): (?P<page>(?!adr)[a-z0-9/-]+)\.md$", menu, re.MULTILINE)
    assert len(titles) > 20
    for title, page in titles:
        if (ROOT / "docs" / f"{page}.md").exists():  # a page that is made from the code is not in the search
            assert f"{page}/" in search.pages(title)[:PATIENCE], title
