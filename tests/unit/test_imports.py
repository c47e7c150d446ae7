"""What the parent does to its imports, and workers after it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mpqueue.backends
from mpqueue._wire.pickling.main_names import ImportWatch, NamedFiles, module_name_of, take_path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in ``sys.path``; modules that were imported from it are forgotten afterwards."""
    path, modules = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    yield tmp_path
    sys.dont_write_bytecode = before
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)
    importlib.invalidate_caches()


def load(folder: Path, name: str, text: str) -> Any:
    write(folder, name, text)
    return importlib.import_module(name)


def watch() -> ImportWatch:
    started = ImportWatch()
    assert not started.look()
    return started


def test_reload_is_seen_once(folder: Path) -> None:
    module = load(folder, "edited_by_user", "x = 1")
    watching = watch()
    write(folder, "edited_by_user", "x = 1000")
    assert not watching.look(), "the program has the older one, as its workers have"
    importlib.reload(module)
    assert watching.look()
    assert not watching.look()


def test_modules_that_come_later_are_watched_too(folder: Path) -> None:
    watching = watch()
    module = load(folder, "came_later", "x = 1")
    assert not watching.look()
    importlib.reload(module)
    assert watching.look()


def test_module_that_is_imported_anew_counts_as_reloaded(folder: Path) -> None:
    load(folder, "imported_anew", "x = 1")
    watching = watch()
    del sys.modules["imported_anew"]
    assert not watching.look()
    importlib.import_module("imported_anew")
    assert watching.look()


def test_an_edit_counts_where_something_takes_it_over_in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder, "patched_in_place", "x = 1")
    watching = watch()
    write(folder, "patched_in_place", "x = 1000")
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", ModuleType("autoreload"))
    assert watching.look()
    assert not watching.look()
    (folder / "patched_in_place.py").unlink()
    assert not watching.look(), "what can't be read can't be taken over"
    write(folder, "patched_in_place", "x = 1001")
    assert watching.look()


def test_a_tool_that_takes_over_edits_makes_nothing_new_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, "not_edited", "x = 1")
    watching = watch()
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", ModuleType("autoreload"))
    assert not watching.look()


def test_an_edit_in_the_same_second_that_keeps_the_size_is_compiled_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", ModuleType("autoreload"))
    module = load(folder, "compiled_once", "x = 1")
    file, watching = folder / "compiled_once.py", watch()
    second = int(file.stat().st_mtime)
    os.utime(file, (second, second))
    importlib.reload(module)
    assert watching.look()
    file.write_text("x = 2")
    os.utime(file, ns=(second * 10**9 + 1, second * 10**9 + 1))
    assert watching.look()
    del sys.modules["compiled_once"]
    assert importlib.import_module("compiled_once").x == 2


def test_standard_library_packages_and_what_is_no_module_are_not_watched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Odd(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError

    monkeypatch.setitem(sys.modules, "not_a_module", object())
    monkeypatch.setitem(sys.modules, "made_up", ModuleType("made_up"))
    monkeypatch.setitem(sys.modules, "odd", Odd("odd"))
    watching = watch()
    importlib.reload(importlib.import_module("json"))
    assert not watching.look()


def test_path_is_told_with_the_current_folder_spelled_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    monkeypatch.chdir(folder)
    assert ImportWatch().path_now() == (str(folder), "/elsewhere")


def test_a_file_is_found_by_the_name_that_is_made_of_its_path(tmp_path: Path) -> None:
    file = tmp_path / "a file.v2.py"
    name = module_name_of(str(file))
    assert not set(name) & set(". :")
    assert NamedFiles.find_spec(name) is None
    file.touch()
    spec = NamedFiles.find_spec(name)
    assert spec is not None
    assert spec.origin == str(file)
    assert NamedFiles.find_spec("another") is None


def test_worker_takes_over_the_path_and_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/b", "/own"])
    forgotten: list[None] = []
    monkeypatch.setattr("importlib.invalidate_caches", lambda: forgotten.append(None))
    take_path(("/a", "/b"))
    assert forgotten, "files that are new are seen"
    assert sys.path == ["/a", "/b", "/own"]


@pytest.mark.parametrize(
    ("module", "needs", "extra"), [("otel", "opentelemetry", "otel"), ("joblib_backend", "joblib", "joblib")]
)
def test_what_an_extra_brings_is_named_where_it_is_not_there(
    monkeypatch: pytest.MonkeyPatch, module: str, needs: str, extra: str
) -> None:
    monkeypatch.delitem(sys.modules, f"mpqueue.{module}", raising=False)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(ImportError, match=rf"mpqueue\.{module} needs .*`pip install 'mpqueue\[{extra}\]'`"):
        importlib.import_module(f"mpqueue.{module}")


@pytest.mark.parametrize(("engine", "needs"), [("Dask", "distributed"), ("Ray", "ray")])
def test_what_an_engine_s_extra_brings_is_named_too(monkeypatch: pytest.MonkeyPatch, engine: str, needs: str) -> None:
    extra = engine.lower()
    monkeypatch.delitem(sys.modules, f"mpqueue._engines.{extra}.{extra}_backend", raising=False)
    monkeypatch.setitem(sys.modules, needs, None)
    with pytest.raises(ImportError, match=rf"{engine}Backend needs {engine} .*`pip install 'mpqueue\[{extra}\]'`"):
        getattr(mpqueue.backends, f"{engine}Backend")
