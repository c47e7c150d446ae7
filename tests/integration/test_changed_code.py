"""Which code made a result that a journal has: what counts as another, what is told of that, and what runs again."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import mpqueue
from mpqueue import JobQueue
from mpqueue.errors import JournalMismatchError
from tests.support import journal_rc1 as rc1
from tests.support.journals import unpacked
from tests.support.kinds import EACH_KIND, Kind
from tests.support.programs import run_program
from tests.support.results import warned

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

Handler = Callable[[Any], Any]


def scale(item: int, by: int = 1) -> int:
    """The item, so many times."""
    return item * by


class Scaler:
    """Scales items, as a callable and by a method."""

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, item: int) -> int:
        return item * self.by

    def scale(self, item: int) -> int:
        """See `__call__`."""
        return item * self.by


def scaled(by: int) -> Callable[[Handler], Handler]:
    """A decorator with an argument."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def wrapper(item: Any) -> Any:
            return handler(item) * by

        return wrapper

    return decorate


def of_script(text: str, **names: Any) -> Handler:
    """The function ``handler`` of a script."""
    space = {"__name__": "__main__", **names}
    exec(compile(text, "script.py", "exec"), space)
    handler: Handler = space["handler"]
    return handler


HELPER = "def helper(x):\n    return x * {}\ndef handler(x):\n    return helper(x)"
CLASS = "class Config:\n    level = {}\ndef handler(x):\n    return x * Config.level"
DATA = "RATES = dict(a={})\ndef handler(x):\n    return x * RATES['a']"
DEFAULT = """
class Rate:
    def __init__(self, by):
        self.by = by
def handler(x, rate=Rate({})):
    return x * rate.by
"""
DEEP = """
def deep(x):
    return x + {}
class Do:
    def it(self, x):
        return deep(x)
DO = Do()
def handler(x):
    return DO.it(x)
"""


@pytest.mark.long(
    but=["state of a callable", "helper", "argument of a decorator", "default", "keyword of a partial", "deep"]
)
@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        pytest.param(Scaler(2), Scaler(3), "what is bound to `.*Scaler` has changed", id="state of a callable"),
        pytest.param(
            partial(scale, by=2), partial(scale, by=3), "what is bound to `.*scale`", id="keyword of a partial"
        ),
        pytest.param(
            partial(pow, 2), partial(pow, exp=2), "what is bound to `builtins.pow`", id="keyword, not argument"
        ),
        pytest.param(
            scaled(2)(lambda x: x), scaled(3)(lambda x: x), "<lambda>` .* changed", id="argument of a decorator"
        ),
        pytest.param(
            of_script(HELPER.format(2)), of_script(HELPER.format(3)), r"`helper` \(script.py:1\) has", id="helper"
        ),
        pytest.param(of_script(CLASS.format(2)), of_script(CLASS.format(3)), "`Config` has changed", id="class"),
        pytest.param(of_script(DATA.format(2)), of_script(DATA.format(3)), "`RATES` has changed", id="data"),
        pytest.param(
            of_script(DEFAULT.format(2)), of_script(DEFAULT.format(3)), "`handler` .* has changed", id="default"
        ),
        pytest.param(of_script(DEEP.format(2)), of_script(DEEP.format(3)), r"`deep` \(script.py:2\) has", id="deep"),
    ],
)
def test_what_a_handler_brings_along_counts(
    before: Handler, after: Handler, what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    map_ = partial(mpqueue.map, items=[2], concurrency=1, journal=tmp_path / "run.db", job_id="job")
    (first,) = map_(before)
    assert map_(before) == [first]
    assert not warned(caplog)
    assert map_(after) == [first]
    (warning,) = warned(caplog)
    assert re.search(what, warning)
    assert "since 1 of these results was made; what is done is not done again; Rerun(redo='changed-code')" in warning
    (again,) = map_(after, rerun=mpqueue.Rerun(redo="changed-code"))
    assert again == after(2)
    assert map_(after) == [again]
    assert not warned(caplog)


PROGRAM = """
    import logging
    import sys

    import mpqueue
    import images

    def scale(x):
        return x * {}

    def handler(x):
        return scale(x) + images.shift(x)

    logging.basicConfig(format="%(message)s")
    options = dict(rerun=mpqueue.Rerun(redo="changed-code")) if "redo" in sys.argv else dict()
    print(mpqueue.map(handler, range(3), concurrency=1, journal="run.db", **options))
"""


def test_edits_of_a_script_and_of_its_modules_are_told_and_run_again(tmp_path: Path) -> None:
    def run(by: int, shift: str, *arguments: str) -> tuple[str, str]:
        (tmp_path / "shifts.py").write_text(shift)
        (tmp_path / "images.py").write_text("from shifts import shift  # which does it\n")
        found = run_program(tmp_path, PROGRAM.format(by), *arguments)
        return found.stdout.strip(), found.stderr

    plain = "def shift(x):\n    return 1\n"
    assert run(2, plain) == ("[1, 3, 5]", "")
    assert run(2, f"# a comment\n{plain}") == ("[1, 3, 5]", "")
    results, warning = run(3, plain)
    assert results == "[1, 3, 5]"
    assert "`scale` (program.py:8) has changed since 3 of these results were made" in warning
    results, warning = run(2, "def shift(x):\n    return 10\n")
    assert "`shifts.py` has changed since 3 of these results were made" in warning
    assert run(3, plain, "redo") == ("[1, 4, 7]", "")
    assert run(3, plain) == ("[1, 4, 7]", "")


def codes(name: str) -> Handler:
    """The same function by name, with other code."""
    return of_script(f"def handler(item):\n    return {name!r} + str(item['id'])")


def items(count: int) -> list[Any]:
    return [{"id": number} for number in range(count)]


@EACH_KIND
def test_results_of_other_code_are_known_one_by_one(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an open job all run again if one is of other code."""

    def run(name: str, count: int, **options: Any) -> list[Any]:
        return kind.run(codes(name), items(count), tmp_path / "run.db", **options)

    assert run("a", 2) == ["a0", "a1"]
    assert run("b", 3) == ["a0", "a1", "b2"]
    (warning,) = warned(caplog)
    assert "`handler` (script.py:1) has changed since 2 of these results were made; what is done" in warning
    with pytest.raises(JournalMismatchError, match=r"since 1 of these results was made; with Rerun\(strict=True\)"):
        run("a", 3, rerun=mpqueue.Rerun(strict=True))
    assert run("a", 3, rerun=mpqueue.Rerun(redo="changed-code")) == ["a0", "a1", "a2"]
    assert run("a", 3, rerun=mpqueue.Rerun(strict=True)) == ["a0", "a1", "a2"]
    assert not warned(caplog)


def test_a_journal_that_was_pruned_knows_which_code_made_a_result(path: Path) -> None:
    with JobQueue(1, journal=path) as queue:
        queue.run(items(4), codes("a"), id="job", chunksize=1)
    with JobQueue(1, journal=path) as queue:
        queue.run(items(8), codes("b"), id="job", rerun=mpqueue.Rerun(update=True), chunksize=1)
        queue.prune("job")
        plan = queue.plan_job("job", items(8), codes("a"), rerun=mpqueue.Rerun(redo="changed-code"))
        assert (plan.changed, plan.to_run, plan.code_changed) == ((4, 5, 6, 7), 4, True)
        assert queue.plan_job("job", items(8), codes("b"), rerun=mpqueue.Rerun(redo="changed-code")).changed == (
            0,
            1,
            2,
            3,
        )


def test_failed_items_that_run_again_from_the_journal_are_of_the_code_that_is_in_there(
    tmp_path: Path, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(name: str) -> Handler:
        return of_script(f"import os\ndef handler(x):\n    if x and not os.path.exists({str(tmp_path / 'healed')!r}):\n"
                         f"        raise ValueError\n    return {name!r} + str(x)")  # fmt: skip

    with JobQueue(1, journal=path, max_retries=0) as queue:
        assert [item.error_type for item in queue.run([0, 1], failing("a"), id="job").items] == [None, "ValueError"]
    (tmp_path / "healed").touch()
    with JobQueue(1, journal=path) as queue:
        queue.load_job("job")
        queue.retry_failed("job").result()
    with JobQueue(1, journal=path) as queue:
        assert queue.create_job("job", [0, 1], failing("a"), rerun=mpqueue.Rerun(strict=True)).results == ["a0", "a1"]
    assert not warned(caplog)


def test_versions_of_installed_packages_are_told_with_what_has_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    def handler(by: int) -> Handler:
        return of_script(f"def handler(x):\n    return int(np.abs(x)) * {by}", np=np)

    map_ = partial(mpqueue.map, items=[2], concurrency=1, journal=tmp_path / "run.db", job_id="job")
    assert map_(handler(1)) == [2]
    version = np.__version__
    monkeypatch.setattr(np, "__version__", "99.0")
    assert map_(handler(1)) == [2]
    assert not warned(caplog)
    assert map_(handler(2)) == [2]
    assert f"has changed (numpy is 99.0 and was {version}) since" in warned(caplog)[0]


@pytest.fixture
def of_rc1(tmp_path: Path) -> Path:
    """A journal that mpqueue 1.0.0rc1 wrote."""
    return unpacked(rc1, tmp_path)


def test_a_journal_of_the_version_before_goes_on_and_says_once_that_it_does_not_know_its_code(
    of_rc1: Path, caplog: pytest.LogCaptureFixture
) -> None:
    unknown = "can't be known: what made them is not recorded; what is done is not done again; Rerun(redo='all') runs"
    for attempt in range(2):
        with JobQueue(1, journal=of_rc1) as queue:
            job = queue.create_job("values", rc1.VALUES, rc1.show)
            assert (job.completed, job.results[1]) == (len(rc1.VALUES), "rc1: str")
            assert queue.open_job("open", rc1.VALUES, rc1.show).completed == len(rc1.VALUES)
        stream = mpqueue.imap(rc1.show, rc1.VALUES, concurrency=1, journal=of_rc1, job_id="stream")
        assert [*stream] == [f"rc1: {type(item).__name__}" for item in rc1.VALUES]
        found = warned(caplog)
        assert len(found) == (0 if attempt else 3)
        assert all(unknown in each for each in found)
    with JobQueue(1, journal=of_rc1) as queue:
        assert queue.create_job(
            "values", rc1.VALUES, rc1.show, rerun=mpqueue.Rerun(redo="changed-code")
        ).completed == len(rc1.VALUES)
        (warning,) = warned(caplog)
        assert f"whether the code has changed since {len(rc1.VALUES)} of these results were made {unknown}" in warning


def test_an_item_of_which_the_version_before_did_not_know_what_it_is_runs_once_more(
    of_rc1: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for attempt in range(2):
        with JobQueue(1, journal=of_rc1) as queue:
            job = queue.create_job("named", rc1.NAMED, rc1.show)
            assert job.completed == (2 if attempt else 1)
            queue.start("named").result()
            assert any("the journal does not say what" in each for each in warned(caplog)) == (not attempt)


@pytest.mark.long(but=["partial-map", "method-map", "lambda-map", "decorated-map"])
@pytest.mark.parametrize("call", [mpqueue.map, lambda fn, items, **options: [*mpqueue.imap(fn, items, **options)]])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (partial(scale, by=2), partial(scale, by=3)),
        (Scaler(2).scale, Scaler(3).scale),
        (Scaler(2), Scaler(3)),
        (scaled(2)(scale), scaled(3)(scale)),
        (lambda item: item * 2, lambda item: item * 3),
    ],
    ids=["partial", "method", "object", "decorated", "lambda"],
)
def test_a_second_callable_by_the_same_name_does_not_get_the_first_one_s_results(
    path: Path, one: Handler, other: Handler, call: Callable[..., list[int]]
) -> None:
    """Where a call has no ``job_id``, its function's name stands for it, if that is the name of one function only."""
    assert call(one, [1, 2], journal=path) == [2, 4]
    with pytest.raises(JournalMismatchError, match=r"another callable by that name.* job_id= of its own"):
        call(other, [1, 2], journal=path)
    assert call(one, [1, 2], journal=path) == [2, 4]
    assert call(other, [1, 2], journal=path, job_id="other") == [3, 6]
    assert call(other, [1, 2], journal=path, rerun=mpqueue.Rerun(redo="changed-code")) == [3, 6]
