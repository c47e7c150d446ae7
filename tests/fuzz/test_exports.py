"""Jobs with odd results, written as tables: whole, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpqueue import Job, JobQueue
from tests.fuzz.judge import Refused, ask, fuzzed
from tests.fuzz.odd import PAYLOADS, VALUES, Odd, values
from tests.support import handlers as do

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
COLUMNS = ("id", "status", "result", "error", "payload", "attempts", "no such column", "result.a")
names = st.lists(st.sampled_from(COLUMNS), max_size=4).map(lambda chosen: Odd(repr(chosen), lambda: chosen))


@pytest.fixture
def odd_job() -> Iterator[Job]:
    """A job with one item for each odd thing that comes home."""
    with JobQueue(2, max_retries=0) as queue:
        yield queue.run([make() for make in (*VALUES[:50], *PAYLOADS)], do.succeed)


@fuzzed(90)
@given(st.sampled_from(FORMATS), st.one_of(st.just(Odd("None", lambda: None)), names, values))
def test_export_writes_a_whole_file_or_none(
    odd_job: Job, tmp_path_factory: pytest.TempPathFactory, format_: str, columns: Odd
) -> None:
    path = tmp_path_factory.mktemp("export") / f"table.{format_}"
    written = ask(lambda: odd_job.export(path, columns=columns.make()))
    if isinstance(written, Refused):
        assert list(path.parent.iterdir()) == []
    else:
        assert list(path.parent.iterdir()) == [path]


@fuzzed(60)
@given(values, values)
def test_export_to_an_odd_place(
    odd_job: Job, tmp_path_factory: pytest.TempPathFactory, path: Odd, format_: Odd
) -> None:
    folder = tmp_path_factory.mktemp("export")
    where = path.make()
    target = folder / where.replace("/", "-") if isinstance(where, str) else where
    try:
        written = ask(lambda: odd_job.export(target, columns=["id"], format=format_.make()))
    except OSError:  # no such name
        return
    assert isinstance(written, Refused) or Path(written).parent == folder
