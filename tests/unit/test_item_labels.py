"""What items are called where people see them."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from mpqueue._core.state.item_table import ItemTable, make_table
from mpqueue._wire.item_names import MAX_LABEL, IdRule, label_of, named, plain_label


class Shouting:
    """Code of a user's: whoever runs it is found out."""

    calls = 0

    def __init__(self, text: str = "loud") -> None:
        self.text = text

    def __str__(self) -> str:
        type(self).calls += 1
        if not self.text:
            raise SystemExit("no text")
        return self.text


class Array:
    shape = (512, 3)

    def __str__(self) -> str:
        raise AssertionError("the content of an array is not written")


@pytest.mark.parametrize(
    ("item", "label"),
    [
        (Path("pictures/a.jpg"), "a.jpg"),
        (PurePosixPath("/"), "/"),
        ("pictures/a.jpg", "pictures/a.jpg"),
        ("two\nlines\x1b", "two\\nlines\\x1b"),
        (7, "7"),
        ({"size": 3, "name": "cat", "id": 7}, "cat"),
        ({"id": 7, "path": Path("x/b.png")}, "b.png"),
        ({"id": 7, "name": None, "url": ""}, "7"),
        ({"size": 3}, "{'size': 3}"),
        ((1, "a"), "(1, 'a')"),
        (Shouting(), "loud"),
        (Array(), "Array 512 × 3"),
        (None, None),
        ("", None),
        (object(), None),
        (Shouting(""), None),
        (b"abc", "b'abc'"),
    ],
)
def test_an_item_is_called_by_what_it_is(item: Any, label: str | None) -> None:
    assert label_of(item) == label


def test_the_middle_of_a_long_text_is_left_out() -> None:
    label = label_of("https://example.org/" + "x" * 10_000_000 + "/last.html")
    assert label is not None
    assert len(label) == MAX_LABEL
    assert label == "https://example.org/xxxxxxxxx…xxxxxxxxxxxxxxxxxxxx/last.html"


def test_a_user_chooses_the_label() -> None:
    item = {"title": "Ulysses", "name": "u1"}
    assert label_of(item, "title") == "Ulysses"
    assert label_of(item, lambda each: each["title"].upper()) == "ULYSSES"
    assert label_of(Path("a/b.jpg"), "parent") == "a"


def test_a_choice_that_gives_nothing_or_raises_counts_for_nothing() -> None:
    item = {"name": "u1"}
    assert label_of(item, "title") == "u1"
    assert label_of(item, lambda each: each["title"]) == "u1"
    assert label_of(item, lambda _: None) == "u1"
    assert label_of(item, lambda _: Shouting("")) == "u1"


def test_threads_that_run_no_code_of_users_have_plain_labels_only() -> None:
    before = Shouting.calls
    assert plain_label(Path("pictures/a.jpg")) == "a.jpg"
    assert plain_label({"url": "http://x"}) == "http://x"
    assert plain_label((1, 2.5)) == "(1, 2.5)"
    for item in (Shouting(), {"name": Shouting()}, [Shouting()], {Shouting(): 1}, type("Str", (str,), {})("a")):
        assert plain_label(item) is None
    assert plain_label("a", lambda _: "b") is None
    assert Shouting.calls == before


def test_an_error_names_id_and_label() -> None:
    assert named(3, "a.jpg") == "3 (a.jpg)"
    assert named("a.jpg", "a.jpg") == "'a.jpg'"
    assert named(3, "3") == "3"
    assert named(3, None) == "3"
    assert named(3, "(1, 2)") == "3 (1, 2)"
    assert named(3, "(a) b") == "3 ((a) b)"
    assert named(3, "a (b)") == "3 (a (b))"


def test_a_row_of_a_table_has_the_label_that_the_item_has() -> None:
    table = make_table([{"title": "Ulysses"}, {"title": "Emma"}])
    table.label = "title"
    assert table.label_of(1) == "Emma"
    assert table.row(1).label_of(0) == "Emma"
    assert table.named(1) == "1 (Emma)"
    assert ItemTable([None], None, IdRule.POSITION).label_of(0) == "0"
