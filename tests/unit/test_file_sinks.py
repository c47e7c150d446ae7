"""Files that get rows as they come hold the same as an export of the whole job."""

from __future__ import annotations

import csv
import datetime as dt
import gc
import json
import math
import os
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpqueue import sinks
from mpqueue._core.state.item_table import Failure, ItemTable, make_table
from mpqueue._output import export as exports
from mpqueue._output import file_sinks, formats, parquet_sink
from mpqueue._output.file_sinks import FileSink, JsonSink
from mpqueue._output.row_outlet import RowOutlet
from tests.support.systems import not_on_windows

# not in each environment of the tests
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
np = pytest.importorskip("numpy")

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, width=32),
    st.text("a\"\n\r,='é\x00", max_size=4),
    st.lists(st.integers(0, 3), max_size=2),
)
RESULTS = st.lists(
    st.one_of(st.just("fails"), VALUES, st.dictionaries(st.sampled_from(["a", "b", "c", "d,\n"]), VALUES, max_size=3)),
    max_size=12,
)
IN_TMP = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SINKS: dict[str, Any] = {
    "jsonl": sinks.jsonl,
    "json": JsonSink,
    "csv": sinks.csv,
    "tsv": sinks.csv,
    "parquet": sinks.parquet,
}


def table_of(results: list[Any]) -> ItemTable:
    table = make_table(range(len(results)))
    for index, result in enumerate(results):
        if type(result) is str and result == "fails":
            failure = Failure(ValueError("no"))
            table.fail_try(index, failure, 1)
            table.fail(index, failure)
        else:
            table.complete(range(index, index + 1), [result])
    return table


def write(sink: FileSink, table: ItemTable, pieces: list[range], *, finish: bool = True) -> str | None:
    outlet = RowOutlet(sink, table, "job", captured=False)
    outlet.open()
    try:
        for piece in pieces:
            outlet.put(piece, 1)
        if finish:
            outlet.finish()
            return None
    except BaseException:
        outlet.leave()
        raise
    return outlet.leave()


def cut(count: int, cuts: set[int]) -> list[range]:
    edges = sorted({0, count, *(at for at in cuts if at < count)})
    return [range(lo, hi) for lo, hi in pairwise(edges)]


def cells(path: Path, delimiter: str) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [
            {name: value for name, value in row.items() if value} for row in csv.DictReader(file, delimiter=delimiter)
        ]


def values(path: Path) -> list[dict[str, Any]]:
    rows = pq.read_table(path).to_pylist()
    return [{name: plain(value) for name, value in row.items() if value is not None} for row in rows]


def plain(value: Any) -> Any:
    """A number, or what is its text."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


@pytest.mark.parametrize("form", SINKS)
@IN_TMP
@given(results=RESULTS, cuts=st.sets(st.integers(1, 11)), few=st.booleans())
def test_a_file_holds_what_an_export_does(
    tmp_path: Path, form: str, results: list[Any], cuts: set[int], few: bool
) -> None:
    table = table_of(results)
    written, exported = tmp_path / f"written.{form}", tmp_path / f"exported.{form}"
    with pytest.MonkeyPatch.context() as patch:
        if few:
            patch.setattr(parquet_sink, "GROUP_ROWS", 4)
            patch.setattr(parquet_sink, "MERGED", 2)
            patch.setattr(file_sinks, "MOST_WAITING", 2)
        write(SINKS[form](written), table, cut(len(results), cuts))
    formats.export(table, exported)
    if form == "parquet":
        assert values(written) == values(exported)
    elif form in ("csv", "tsv"):
        delimiter = "," if form == "csv" else "\t"
        assert cells(written, delimiter) == cells(exported, delimiter)
    else:
        assert written.read_text() == exported.read_text()
    assert not [*tmp_path.glob("*.part"), *tmp_path.glob(".*")]


@pytest.mark.parametrize("form", SINKS)
@IN_TMP
@given(results=RESULTS.filter(len), cuts=st.sets(st.integers(1, 11)))
def test_what_is_left_can_be_read(tmp_path: Path, form: str, results: list[Any], cuts: set[int]) -> None:
    path = tmp_path / f"rows.{form}"
    kept = write(SINKS[form](path), table_of(results), cut(len(results), cuts)[:1], finish=False)
    part = path.with_name(f"{path.name}.part")
    count = cut(len(results), cuts)[0].stop
    assert kept == f"{count} row{'s' * (count > 1)} in {part}"
    if form == "parquet":
        assert pq.read_table(part).num_rows == count
    elif form == "json":
        assert len(json.loads(part.read_text())) == count
    elif form == "jsonl":
        assert part.read_text().count("\n") == count
    else:
        assert len(cells(part, "," if form == "csv" else "\t")) == count
    part.unlink()


@pytest.mark.parametrize(("form", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_rows_from_before_a_late_column_have_an_empty_cell_there(tmp_path: Path, form: str, delimiter: str) -> None:
    sink = sinks.csv(tmp_path / f"rows.{form}")
    text = f'a{delimiter}"{delimiter}\n{delimiter}"'
    sink.open()
    for result in ({"a": text}, {"a": 1, "b": 2}, {"c": 3}):
        sink.write([{"id": 0, "result": result}])
    sink.close()
    with (tmp_path / f"rows.{form}").open(newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter))
    assert rows == [
        ["id", "result.a", "result.b", "result.c"],
        ["0", text, "", ""],
        ["0", "1", "2", ""],
        ["0", "", "", "3"],
    ]


def test_a_schema_names_the_columns_and_refuses_what_does_not_fit(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("id", pa.int32()), pa.field("score", pa.float32()), pa.field("label", pa.string())])
    table = table_of([{"score": 0.5, "label": "cat"}, "fails", {"score": 1, "label": None}])
    write(sinks.parquet(tmp_path / "good.parquet", schema), table, [range(3)])
    read = pq.read_table(tmp_path / "good.parquet")
    assert read.schema == schema
    assert read.to_pydict() == {"id": [0, 1, 2], "score": [0.5, None, 1.0], "label": ["cat", None, None]}
    bad = table_of([{"score": 1.0}, {"score": "much"}])
    with pytest.raises(ValueError, match=r"column 'score': expected values of type float, got 'much' of type str"):
        write(sinks.parquet(tmp_path / "bad.parquet", schema), bad, [range(2)])
    strict = pa.schema([pa.field("score", pa.float64(), nullable=False)])
    with pytest.raises(ValueError, match=r"column 'score': expected values of type double, got None of type NoneType"):
        write(sinks.parquet(tmp_path / "bad2.parquet", strict), table, [range(3)])
    with pytest.raises(TypeError, match=r"schema: expected a pyarrow.Schema, got 3"):
        sinks.parquet(tmp_path / "x.parquet", 3)
    with pytest.raises(ValueError, match="columns: expected None, since the schema names them"):
        sinks.parquet(tmp_path / "x.parquet", schema, ["id"])


NAIVE = dt.datetime(2026, 3, 29, 2, 30, 0, 5)  # noqa: DTZ001 - such are meant
AWARE = NAIVE.replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.int64(), 0.5),
        (pa.int8(), np.float64(2.7)),
        (pa.float64(), True),
        (pa.float32(), 1e300),
        (pa.float16(), 1e6),
        (pa.list_(pa.int32()), [1, 2.5]),
        (pa.list_(pa.int8()), np.array([1.5, 2.0])),
        (pa.list_(pa.date32()), [NAIVE]),
        (pa.struct({"a": pa.int8()}), {"a": 1.5}),
        (pa.struct({"a": pa.int8()}), {"a": 1, "b": 2}),
        (pa.map_(pa.string(), pa.int8()), {"a": 1.5}),
        (pa.date32(), NAIVE),
        (pa.timestamp("s"), NAIVE),
        (pa.timestamp("us"), AWARE),
        (pa.timestamp("us", "UTC"), NAIVE),
        (pa.timestamp("us"), np.datetime64(5, "ns")),
        (pa.timestamp("us"), 5),
        (pa.time32("s"), dt.time(1, 1, 1, 5)),
        (pa.duration("s"), dt.timedelta(microseconds=5)),
        (pa.string(), b"x"),
        (pa.binary(), "x"),
        (pa.dictionary(pa.int8(), pa.int8()), 2.5),
    ],
    ids=str,
)
def test_a_value_that_would_be_another_one_in_its_column_is_refused(tmp_path: Path, kind: Any, value: Any) -> None:
    sink = sinks.parquet(tmp_path / "x.parquet", pa.schema([("id", pa.int64()), ("result", kind)]))
    with pytest.raises(ValueError, match=r"^item 1, column 'result': expected values of type .*, got .* of type "):
        write(sink, table_of([None, value]), [range(2)])
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (pa.int64(), np.int32(3), 3),
        (pa.int64(), 3.0, 3),
        (pa.bool_(), np.True_, True),
        (pa.float64(), 2, 2.0),
        (pa.float32(), 0.1, float(np.float32(0.1))),
        (pa.float32(), np.float64(1e-60), 0.0),
        (pa.float16(), 0.1, float(np.float16(0.1))),
        (pa.float32(), -math.inf, -math.inf),
        (pa.decimal128(5, 2), Decimal("1.5"), Decimal("1.50")),
        (pa.list_(pa.int8()), (1, None), [1, None]),
        (pa.list_(pa.float32()), np.array([1.5, 2.0]), [1.5, 2.0]),
        (pa.list_(pa.list_(pa.int8())), [[1], None, [2, 3]], [[1], None, [2, 3]]),
        (pa.struct({"a": pa.int8(), "b": pa.int8()}), {"a": 1}, {"a": 1, "b": None}),
        (pa.map_(pa.string(), pa.int8()), {"a": 1}, [("a", 1)]),
        (pa.dictionary(pa.int8(), pa.string()), "cat", "cat"),
        (pa.date32(), NAIVE.date(), NAIVE.date()),
        (pa.timestamp("s"), NAIVE.replace(microsecond=0), NAIVE.replace(microsecond=0)),
        (pa.timestamp("us", "Europe/Berlin"), AWARE, AWARE),
        (pa.timestamp("us"), np.datetime64(NAIVE), NAIVE),
        (pa.time64("us"), NAIVE.time(), NAIVE.time()),
        (pa.duration("us"), dt.timedelta(1), dt.timedelta(1)),
        (pa.binary(), bytearray(b"x"), b"x"),
        (pa.string(), np.str_("x"), "x"),
    ],
    ids=str,
)
def test_a_value_that_fits_its_column_is_written(tmp_path: Path, kind: Any, value: Any, read: Any) -> None:
    path = tmp_path / "x.parquet"
    write(sinks.parquet(path, pa.schema([("result", kind)])), table_of([None, value]), [range(2)])
    assert pq.read_table(path).to_pydict() == {"result": [None, read]}


def test_not_a_number_is_a_float_and_without_a_schema_mixed_times_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write(sinks.parquet(path, pa.schema([("result", pa.float32())])), table_of([math.nan]), [range(1)])
    (found,) = pq.read_table(path).to_pydict()["result"]
    assert math.isnan(found)
    for first, other in ((NAIVE, AWARE), (AWARE, NAIVE), (NAIVE.date(), NAIVE)):
        write(sinks.parquet(path, columns=["result"]), table_of([first, other]), [range(2)])
        assert pq.read_table(path).to_pydict()["result"] == [first.isoformat(), other.isoformat()]


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ([0.5, True], ["0.5", "True"]),
        ([True, 0.5], ["True", "0.5"]),
        ([[0.5], [True]], ["[0.5]", "[true]"]),
        ([{"a": [{"b": 0.5}]}, {"a": [{"b": True}]}], ['{"a": [{"b": 0.5}]}', '{"a": [{"b": true}]}']),
        (["é", b"\xff"], ["é", "b'\\xff'"]),
        ([b"\xff", "é"], ["b'\\xff'", "é"]),
        ([[1, 0.5], [2]], [[1.0, 0.5], [2.0]]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("blocks", [[range(2)], [range(1), range(1, 2)]], ids=["one block", "two blocks"])
def test_what_a_column_would_change_is_text(
    values: list[Any], there: list[Any], blocks: list[range], tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    write(sinks.parquet(path, columns=["result"]), table_of(values), blocks)
    found = pq.read_table(path)["result"].to_pylist()
    assert found == there
    assert list(map(type, found)) == list(map(type, there))


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ([{"n": 1, "tags": {}}] * 2, ["{}", "{}"]),
        ([{"tags": [{}]}, {"tags": []}], ["[{}]", "[]"]),
        ([{"tags": {"in": {}}}, {"tags": None}], ['{"in": {}}', None]),
        ([{"tags": {}}, {"tags": 1}], ["{}", "1"]),
    ],
    ids=repr,
)
@pytest.mark.parametrize("blocks", [[range(2)], [range(1), range(1, 2)]], ids=["one block", "two blocks"])
@pytest.mark.parametrize("group", [1, 9])
def test_a_column_of_empty_dicts_is_text(
    values: list[Any],
    there: list[Any],
    blocks: list[range],
    group: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet_sink, "GROUP_ROWS", group)
    path, table = tmp_path / "x.parquet", table_of(values)
    write(sinks.parquet(path), table, blocks)
    assert pq.read_table(path)["result.tags"].to_pylist() == there
    formats.export(table, path)
    assert pq.read_table(path)["result.tags"].to_pylist() == there


def test_numbers_that_grow_too_big_for_their_column_are_kept_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_sink, "GROUP_ROWS", 1)
    path, big = tmp_path / "x.parquet", 2**62 + 1
    write(sinks.parquet(path, columns=["result"]), table_of([1, 0.5, big]), [range(1), range(1, 2), range(2, 3)])
    assert [float(value) for value in pq.read_table(path).to_pydict()["result"]] == [1, 0.5, float(big)]
    assert str(big) in map(str, pq.read_table(path).to_pydict()["result"])


@pytest.mark.parametrize(
    ("results", "there"),
    [
        ([2**62 + 1, 2, 3, 0.5], ["4611686018427387905", "2", "3", "0.5"]),
        ([2, 2**62 + 1, 3, 0.5], ["2", "4611686018427387905", "3", "0.5"]),
        ([[2**62 + 1], [2], [3], [0.5]], ["[4611686018427387905]", "[2]", "[3]", "[0.5]"]),
        ([{"a": [2**62 + 1]}, {"a": [2]}, {"a": [3]}, {"a": [0.5]}], ["[4611686018427387905]", "[2]", "[3]", "[0.5]"]),
        (
            [{"a": {"b": 2**62 + 1}}, {"a": {"b": 2}}, {"a": {"b": 3}}, {"a": {"b": 0.5}}],
            ['{"b": 4611686018427387905}', '{"b": 2}', '{"b": 3}', '{"b": 0.5}'],
        ),
    ],
    ids=["numbers", "the second row", "elements of lists", "a key", "a key of a key"],
)
def test_a_column_that_can_t_be_widened_for_a_value_in_the_file_is_text(
    results: list[Any], there: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_sink, "GROUP_ROWS", 2)
    path, exported, table = tmp_path / "x.parquet", tmp_path / "exported.parquet", table_of(results)
    write(sinks.parquet(path), table, [range(at, at + 1) for at in range(4)])
    formats.export(table, exported)
    name = "result.a" if isinstance(results[0], dict) else "result"
    assert pq.read_table(path)[name].to_pylist() == there
    assert pq.read_table(exported)[name].to_pylist() == there


@pytest.mark.parametrize("item", ["bad", b"bad", 17, ["bad"]], ids=repr)
def test_methods_of_items_and_what_all_numbers_have_are_no_cells(
    item: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ["title", "count", "real"]
    table = make_table([item] * 3)
    for at, result in enumerate(({"title": "a", "count": 3, "real": 1}, {"title": "b"})):
        table.complete(range(at, at + 1), [result])
    table.fail(2, Failure(ValueError("no")))
    schema = pa.schema([("title", pa.string()), ("count", pa.int32()), ("real", pa.int64())])
    expected = [{"title": "a", "count": 3, "real": 1}, {"title": "b", "count": None, "real": None}]
    expected.append(dict.fromkeys(names))
    for given_schema, columns in ((schema, None), (None, names)):
        write(sinks.parquet(tmp_path / "x.parquet", given_schema, columns), table, [range(2), range(2, 3)])
        assert pq.read_table(tmp_path / "x.parquet").to_pylist() == expected
    assert exports.records(table, names) == expected
    write(sinks.csv(tmp_path / "x.csv", names), table, [range(3)])
    assert (tmp_path / "x.csv").read_text().splitlines() == ["title,count,real", "a,3,1", "b,,", ",,"]
    assert not caplog.records
    write(sinks.csv(tmp_path / "y.csv", ["title", "index"]), table, [range(3)])  # a method, and a typing error
    assert "got none that has index" in caplog.text
    with pytest.raises(ValueError, match="got 'index', which no item has"):
        exports.records(table, ["index"])


class Fatal:
    """A value that raises what no `except Exception` catches."""

    def __repr__(self) -> str:
        raise SystemExit


@not_on_windows("a process has no limit of the size of its files")
@pytest.mark.parametrize("form", SINKS)
@pytest.mark.parametrize("fails", ["disk", "value"])
def test_a_path_is_free_again_whatever_fails_while_its_file_is_left(tmp_path: Path, form: str, fails: str) -> None:
    import resource

    path, (soft, hard) = tmp_path / f"x.{form}", resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = SINKS[form](path)
    sink.open()
    value = Fatal() if fails == "value" else 1
    try:
        if fails == "disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as if it were full
        with suppress(OSError, SystemExit):
            sink.write([{"id": value, "result": None}])  # which the tables hold until they know their columns
        with suppress(OSError, SystemExit):
            sink.leave()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(SINKS[form](path), table_of([{"a": 1}]), [range(1)])
    assert path.exists()
    del sink


@pytest.mark.parametrize("planted", ["link", "hard link", "folder"])
def test_nothing_that_stands_at_the_part_s_name_is_written_through(tmp_path: Path, planted: str) -> None:
    victim, part = tmp_path / "victim", tmp_path / "rows.jsonl.part"
    victim.write_text("precious")
    if planted == "link":
        part.symlink_to(victim)
    elif planted == "hard link":
        part.hardlink_to(victim)
    else:
        part.mkdir()
    with pytest.raises(OSError, match=r"rows\.jsonl\.part"):
        sinks.jsonl(tmp_path / "rows.jsonl").open()
    assert victim.read_text() == "precious"
    assert not (tmp_path / "rows.jsonl").exists()


def test_inf_is_written_or_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    exports._tell_lost_inf.cache_clear()
    table, pieces = table_of([1.5, math.inf, -math.inf, math.nan]), [range(2), range(2, 4)]
    write(sinks.csv(tmp_path / "x.csv", ["id", "result"]), table, pieces)
    assert (tmp_path / "x.csv").read_text().splitlines() == ["id,result", "0,1.5", "1,inf", "2,-inf", "3,"]
    write(
        sinks.parquet(tmp_path / "x.parquet", columns=["result"]), table_of([math.inf, "text"]), [range(1), range(1, 2)]
    )
    assert pq.read_table(tmp_path / "x.parquet").to_pydict() == {"result": ["inf", "text"]}
    assert not caplog.text
    write(sinks.jsonl(tmp_path / "x.jsonl", ["result"]), table, pieces)
    assert [json.loads(line)["result"] for line in (tmp_path / "x.jsonl").read_text().splitlines()] == [
        1.5,
        None,
        None,
        None,
    ]
    assert caplog.text.count("JSON has no inf") == 1


def test_a_relative_path_is_one_of_the_folder_where_the_sink_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, elsewhere = tmp_path / "there", tmp_path / "elsewhere"
    for folder in (there, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(there)
    whole, left = sinks.jsonl("rows.jsonl"), sinks.jsonl("left.jsonl", in_order=True)
    monkeypatch.chdir(elsewhere)
    write(whole, table_of([1]), [range(1)])
    kept = write(left, table_of([1]), [range(1)], finish=False)
    assert kept == f"1 row in {there / 'left.jsonl.part'}"
    assert sorted(path.name for path in there.iterdir()) == ["left.jsonl.part", "rows.jsonl"]
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("kind", SINKS)
def test_a_device_or_a_pipe_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{kind}"
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"expected a file, got the device or pipe '.*/x\."):
        SINKS[kind](path).open()
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", SINKS)
def test_what_is_dropped_leaves_no_file_and_no_part_even_once_rows_are_on_disk(kind: str, tmp_path: Path) -> None:
    sink: FileSink = SINKS[kind](tmp_path / f"x.{kind}")
    sink.open()
    sink.put({"id": [*range(3)], "result": ["a", "b", "c"]}, 3)
    if isinstance(sink, parquet_sink.ParquetSink):
        sink._flush()  # its writer exists now, and says more when it is freed
    sink.drop()
    del sink
    gc.collect()
    assert list(tmp_path.iterdir()) == []
