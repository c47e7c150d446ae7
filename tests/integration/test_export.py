"""A job's items as records, files and data frames."""

from __future__ import annotations

import csv
import dataclasses
import datetime as dt
import json
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpqueue import Job, JobItem, JobQueue, RetryPolicy
from tests.support import handlers as do
from tests.support.programs import run_program
from tests.support.rows import Rows

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forked_workers")]


@dataclasses.dataclass
class Box:
    """A result with attributes."""

    width: int
    where: Path


def describe(item: dict[str, Any]) -> dict[str, Any]:
    if item["id"] == "b":
        raise ValueError("too dark")
    return {"altText": f"a {item['of']}", "score": item["score"]}


@pytest.fixture(scope="module")
def pictures() -> Job[Any, Any]:
    items = [
        {"id": "a", "of": "cat, black", "score": 0.5},
        {"id": "b", "of": "dog", "score": 1.0},
        {"id": "c", "of": "“Kuh”\nof two lines", "score": np.float64(0.25)},
    ]
    with JobQueue(1, retry=RetryPolicy(1, base_delay=0)) as queue:
        return queue.run(items, describe, id="pictures")


def odd_results() -> list[Any]:
    """Results, each of another kind."""
    return [1, "two", None, [3, {"x": 4}], Box(5, Path("/tmp")), float("nan"), dt.date(2020, 1, 2), 1 + 2j]


@pytest.fixture(scope="module")
def odd() -> Job[Any, Any]:
    with JobQueue(1) as queue:
        return queue.run(odd_results(), do.succeed, id="odd")


def test_records_have_the_values_themselves(pictures: Job[Any, Any]) -> None:
    first, second, _ = pictures.to_records()
    assert list(first) == ["id", "status", "attempts", "elapsed", "error", "result"]
    assert (first["id"], first["status"], first["attempts"], first["error"]) == ("a", "completed", 1, None)
    assert first["result"] is pictures.items[0].result
    assert (second["status"], second["attempts"], second["error"], second["result"]) == (
        "failed",
        2,
        "ValueError: too dark",
        None,
    )


def test_columns_are_attributes_or_keys_of_results_and_payloads(pictures: Job[Any, Any]) -> None:
    first, second, _ = pictures.to_records(["id", "proposedAlt", "altText", "payload.of", "of", "result.score"])
    assert list(first.values()) == ["a", "a cat, black", "a cat, black", "cat, black", "cat, black", 0.5]
    assert list(second.values()) == ["b", None, None, "dog", "dog", None]


def test_the_original_s_columns_can_be_exported(pictures: Job[Any, Any], tmp_path: Path) -> None:
    path = pictures.export(tmp_path / "x.csv", columns=["id", "status", "proposedAlt", "error", "attempts"])
    assert path.read_text().splitlines()[:3] == [
        "id,status,proposedAlt,error,attempts",
        'a,completed,"a cat, black",,1',
        "b,failed,,ValueError: too dark,2",
    ]


#: All that items have, but ``label``, which is a key of results: see ADR 28.
ATTRIBUTES = [
    name for name, kept in vars(JobItem).items() if isinstance(kept, property) and name[0] != "_" and name != "label"
]


@pytest.mark.parametrize("items", [["a", "b"], ["b"]], ids=["one failed", "all failed"])
def test_each_attribute_of_items_and_each_name_of_the_wire_form_is_a_column(items: list[str], tmp_path: Path) -> None:
    given = [{"id": name, "of": "cat", "score": 0.5} for name in items]
    columns = [*ATTRIBUTES, "item", "proposedAlt", "errorType"]
    sink = Rows(columns=columns)
    with JobQueue(1, max_retries=0) as queue:
        kept = queue.run(given, describe, capture_output=True)
        queue.run(given, describe, results=sink, capture_output=True)
    records = kept.to_records(columns)
    for item, record in zip(kept.items, records, strict=True):
        for name in ATTRIBUTES:
            value = getattr(item, name)
            assert record[name] == (round(value, 6) if isinstance(value, float) else value), name
        wire = item.to_dict()
        assert wire.pop("error", None) == (None if item.exception is None else str(item.exception))  # without its type
        assert {name: record[name] for name in wire} == wire
        assert record["item"] == item.label
    measured = {"elapsed", "cpu_seconds", "peak_memory", "exception", "traceback", "history"}
    for record, row in zip(records, sink.rows, strict=True):
        assert list(row) == columns
        assert {name: row[name] for name in columns if name not in measured} == {
            name: record[name] for name in columns if name not in measured
        }
    path = kept.export(tmp_path / "x.csv", columns=["id", "error_type", "errorType"])
    assert path.read_text().splitlines()[-1] == "b,ValueError,ValueError"


def test_a_label_is_a_key_of_results_and_the_column_of_labels_is_named_where_there_is_none() -> None:
    with JobQueue(1) as queue:
        described = queue.run(["a"], lambda _: {"label": "cat"})
        plain = queue.run(["a"], do.succeed)
    assert described.to_records(["item", "label"]) == [{"item": "a", "label": "cat"}]
    with pytest.raises(ValueError, match="got 'label', which no item has; did you mean item"):
        plain.to_records(["label"])


def test_a_column_that_no_item_has_is_refused(pictures: Job[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"columns: expected attributes of items .* got 'lable', which no item has"):
        pictures.to_records(["lable"])
    with pytest.raises(ValueError, match="lable"):
        pictures.export(tmp_path / "x.csv", columns=["lable"])
    assert list(tmp_path.iterdir()) == []


def test_columns_of_results_are_empty_where_no_item_has_a_result(tmp_path: Path) -> None:
    with JobQueue(1, max_retries=0) as queue:
        failed = queue.run([{"id": "a"}, {"id": "b"}], do.fail)
        pending = queue.create_job("pending", [1], do.succeed)
    path = failed.export(tmp_path / "x.csv", columns=["id", "altText", "result.folderId", "status"])
    assert path.read_text().splitlines() == ["id,altText,result.folderId,status", "a,,,failed", "b,,,failed"]
    assert pending.to_records(["altText"]) == [{"altText": None}]


def test_json_lines_have_an_item_a_line(pictures: Job[Any, Any], tmp_path: Path) -> None:
    lines = pictures.export(tmp_path / "x.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    assert rows[0]["result"] == {"altText": "a cat, black", "score": 0.5}
    assert rows[2]["result"] == {"altText": "a “Kuh”\nof two lines", "score": 0.25}
    assert "“Kuh”" in lines[2]
    assert json.loads(pictures.export(tmp_path / "x.json").read_text()) == rows


def test_csv_has_a_column_for_each_key_of_the_results(pictures: Job[Any, Any], tmp_path: Path) -> None:
    for name, delimiter in (("x.csv", ","), ("x.tsv", "\t")):
        with pictures.export(tmp_path / name).open(newline="") as file:
            rows = list(csv.DictReader(file, delimiter=delimiter))
        assert list(rows[0]) == ["id", "status", "attempts", "elapsed", "error", "result.altText", "result.score"]
        assert [row["result.altText"] for row in rows] == ["a cat, black", "", "a “Kuh”\nof two lines"]
        assert [row["result.score"] for row in rows] == ["0.5", "", "0.25"]


@pytest.mark.holds("promise: No value ends an export, a page or a run")
def test_every_kind_of_result_can_be_written(odd: Job[Any, Any], tmp_path: Path) -> None:
    rows = [json.loads(line)["result"] for line in odd.export(tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == [1, "two", None, [3, {"x": 4}], {"width": 5, "where": "/tmp"}, None, "2020-01-02", "(1+2j)"]
    with odd.export(tmp_path / "x.csv").open(newline="") as file:
        cells = [row["result"] for row in csv.DictReader(file)]
    assert cells == ["1", "two", "", '[3, {"x": 4}]', '{"width": 5, "where": "/tmp"}', "", "2020-01-02", "(1+2j)"]


@pytest.mark.parametrize("name", ["x.txt", "x", "x.xlsx"])
def test_an_unknown_format_is_refused_and_nothing_is_written(
    pictures: Job[Any, Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"expected a file named .jsonl, .* .parquet, got"):
        pictures.export(tmp_path / name)
    with pytest.raises(ValueError, match=r"format: expected one of jsonl, .* parquet, got 'xls'"):
        pictures.export(tmp_path / name, format="xls")
    assert list(tmp_path.iterdir()) == []
    assert pictures.export(tmp_path / name, format="jsonl").read_text().count("\n") == 3


class Interrupts:
    """Ctrl-C is pressed while it is written."""

    def __repr__(self) -> str:
        raise KeyboardInterrupt


def test_a_file_that_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")
    with JobQueue(1) as queue:
        job = queue.run(["bystander", Interrupts()], do.succeed)
    with pytest.raises(KeyboardInterrupt):
        job.export(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
def test_data_frames_and_parquet_hold_what_the_items_have(tmp_path: Path) -> None:
    """In a process of their own: these libraries start threads that stay."""
    body = """
        import math
        import polars as pl
        from mpqueue import JobQueue
        from tests.integration.test_export import describe, odd_results

        items = [{"id": name, "of": "cat", "score": 0.5 + at} for at, name in enumerate("abc")]
        with JobQueue(1, max_retries=0) as queue:
            pictures = queue.run(items, describe)
            odd = queue.run(odd_results(), lambda item: item)
            lists = queue.run([[1, 2], [3]], lambda item: item)
            empty = queue.run([], str)

        names = ["id", "status", "attempts", "elapsed", "error", "result.altText", "result.score"]
        pandas_frame, frame = pictures.to_pandas(), pictures.to_polars()
        assert list(pandas_frame.columns) == frame.columns == names
        scores = list(pandas_frame["result.score"])
        assert (scores[0], scores[2]) == (0.5, 2.5) and math.isnan(scores[1])
        assert frame["result.score"].to_list() == [0.5, None, 2.5]
        assert frame["attempts"].dtype == pl.Int64
        assert pl.read_parquet(pictures.export("x.parquet")).equals(frame)

        assert lists.to_polars(["result"])["result"].to_list() == [[1, 2], [3]]
        assert pl.read_parquet(lists.export("lists.parquet"))["result"].to_list() == [[1, 2], [3]]

        texts = ["1", "two", None, '[3, {"x": 4}]', '{"width": 5, "where": "/tmp"}', None, "2020-01-02", "(1+2j)"]
        assert odd.to_polars()["result"].to_list() == texts
        assert pl.read_parquet(odd.export("odd.parquet"))["result"].to_list() == texts
        assert list(odd.to_pandas()["result"])[1] == "two"
        assert len(empty.to_pandas()) == len(empty.to_polars()) == 0
        print("all is well")
    """
    assert run_program(tmp_path, body).stdout == "all is well\n"


def test_what_polars_would_change_is_text_and_all_else_is_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    body = """
        import datetime as dt, json
        from operator import itemgetter
        from mpqueue import JobQueue

        noon, late = dt.datetime(2020, 1, 1, 12), [[{"a": None}]] * 200 + [[{"a": "x"}]]
        changed = [
            ([[1, 2], [2.5, 3.75]], ["[1, 2]", "[2.5, 3.75]"]),
            ([{"box": [1, 2]}, {"box": [2.5, 3.5]}], ["[1, 2]", "[2.5, 3.5]"]),
            ([{"a": {"x": 1}}, {"a": {"y": 2}}], ['{"x": 1}', '{"y": 2}']),
            ([[True], [2]], ["[true]", "[2]"]),
            ([[1, True]], ["[1, true]"]),
            ([1, True], ["1", "True"]),
            ([noon.replace(tzinfo=dt.UTC), noon], ["2020-01-01T12:00:00+00:00", "2020-01-01T12:00:00"]),
            ([dt.time(1, tzinfo=dt.UTC), dt.time(2)], ["01:00:00+00:00", "02:00:00"]),
            (late, [json.dumps(value) for value in late]),
        ]
        kept = [
            [1, None, 2**62], [0.5, None], [True, None], ["a", None], [b"a", bytes([255])], [noon, None],
            [dt.date(2020, 1, 1)], [dt.time(1)], [dt.timedelta(1)], [[1], [], None], [["a"]], [[{"a": 1}], []],
        ]
        with JobQueue(1, max_retries=0) as queue:
            for values, there in changed + [(values, values) for values in kept]:
                items = [{"id": at, "value": value} for at, value in enumerate(values)]
                frame = queue.run(items, itemgetter("value")).to_polars()
                found = frame[frame.columns[-1]].to_list()
                if found != there or list(map(type, found)) != list(map(type, there)):
                    print(values, found)
        print("all is well")
    """
    assert run_program(tmp_path, body).stdout == "all is well\n"


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("pandas", lambda job, folder: job.to_pandas()),
        ("polars", lambda job, folder: job.to_polars()),
        ("pyarrow", lambda job, folder: job.export(folder / "x.parquet")),
    ],
)
def test_what_is_not_installed_is_named(
    pictures: Job[Any, Any], module: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs {module}, which is not installed: `pip install {module}`"):
        call(pictures, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_captured_output_is_exported(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        job = queue.run(["a", "b"], print, capture_output=True)
    assert [row["stdout"] for row in job.to_records()] == ["a\n", "b\n"]
    header = "id,item,status,attempts,elapsed,error,result,stdout,stderr\n"
    assert job.export(tmp_path / "x.csv").read_text().startswith(header)


def test_jobs_without_items_and_jobs_that_did_not_run_can_be_exported(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        empty, waiting = queue.run([], do.succeed), queue.create_job("waiting", ["a", "b"], do.succeed)
        assert empty.export(tmp_path / "x.csv").read_text() == "id,item,status,attempts,elapsed,error,result\n"
        assert empty.export(tmp_path / "x.jsonl").read_text() == ""
        assert [row["status"] for row in waiting.to_records()] == ["pending", "pending"]


@pytest.mark.parametrize(
    "values", [[2**53 + 1, None], [np.int64(2**53 + 1), None], [0.5, -(2**53) - 1], [1j, 2**53 + 1]]
)
def test_pandas_columns_keep_integers_that_no_float_is(values: list[Any]) -> None:
    pytest.importorskip("pandas")
    with JobQueue(1, max_retries=0) as queue:
        frame = queue.run(list(enumerate(values)), itemgetter(1)).to_pandas()
        small = queue.run([1, None], do.succeed).to_pandas()
    assert frame["result"].tolist() == values
    assert small["result"].dtype == float


def columns_of(job: Job[Any, Any], columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """Its table."""
    pytest.importorskip("pandas")
    return dict(job.to_pandas(columns).to_dict("list"))


@pytest.mark.parametrize(("key", "text"), [(1, "1"), (True, "True"), (None, "None"), (0.5, "0.5")], ids=repr)
def test_keys_that_are_alike_as_text_lose_no_value(key: Any, text: str, tmp_path: Path) -> None:
    with JobQueue(1, max_retries=0) as queue:
        apart = queue.run([("a", {key: "x"}), ("b", {text: "y"})], itemgetter(1))
        both = queue.run([("a", {key: "x", text: "y", "in": {text: 2, key: 1}})], itemgetter(1))
    other = f"{text} ({type(key).__name__})"
    assert columns_of(apart)[f"result.{text}"] == ["x", "y"]
    assert columns_of(apart, [f"result.{text}"]) == {f"result.{text}": ["x", "y"]}
    assert columns_of(both, [f"result.{other}", text]) == {f"result.{other}": ["x"], text: ["y"]}
    found = columns_of(both)
    assert (found[f"result.{text}"], found[f"result.{other}"]) == (["y"], ["x"])
    written = json.loads(both.export(tmp_path / "x.jsonl").read_text())["result"]
    assert written == {text: "y", other: "x", "in": {text: 2, other: 1}}


def test_arrays_and_mixed_mappings_are_spread(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        job = queue.run([{"a": np.arange(2)}, {"b": 1}, "plain"], do.succeed)
    with job.export(tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["result"], row["result.a"], row["result.b"]) for row in rows] == [
        ("", "[0, 1]", ""),
        ("", "", "1"),
        ("plain", "", ""),
    ]


def test_a_result_that_holds_itself_is_its_repr_and_costs_the_others_nothing(tmp_path: Path) -> None:
    with JobQueue(1) as queue:
        job = queue.run([1, 2], return_itself_for_two)
    for suffix in ("json", "jsonl", "csv", "parquet"):
        job.export(tmp_path / f"table.{suffix}", columns=["id", "result"])
    assert json.loads((tmp_path / "table.json").read_text()) == [
        {"id": 0, "result": 1},
        {"id": 1, "result": "[[...]]"},
    ]


def return_itself_for_two(item: int) -> Any:
    """A list that holds itself, or the item."""
    found: list[Any] = []
    found.append(found)
    return found if item == 2 else item


@pytest.mark.parametrize("columns", ["id", 5, [1], ["id", None]], ids=repr)
def test_columns_that_are_no_names_are_refused(odd: Job[Any, Any], tmp_path: Path, columns: Any) -> None:
    with pytest.raises(TypeError, match=r"^columns: expected a list of names, got "):
        odd.export(tmp_path / "table.csv", columns=columns)
    with pytest.raises(TypeError, match=r"^format: expected a str, got 5"):
        odd.export(tmp_path / "table.csv", format=5)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
