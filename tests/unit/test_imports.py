"""What the parent does to its imports, and workers after it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mpqueue.backends
from mpqueue._wire.pickling.imports import ImportNews, ImportWatch, catch_up


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
    started.look()
    return started


def test_reload_is_seen_once(folder: Path) -> None:
    module = load(folder, "edited_by_user", "x = 1")
    watching = watch()
    assert watching.reloaded == []
    importlib.reload(module)
    watching.look()
    watching.look()
    assert watching.reloaded == ["edited_by_user"]
    importlib.reload(module)
    watching.look()
    assert watching.reloaded == ["edited_by_user"] * 2


def test_modules_that_come_later_are_watched_too(folder: Path) -> None:
    watching = watch()
    module = load(folder, "came_later", "x = 1")
    watching.look()
    importlib.reload(module)
    watching.look()
    assert watching.reloaded == ["came_later"]


def test_module_that_is_imported_anew_counts_as_reloaded(folder: Path) -> None:
    load(folder, "imported_anew", "x = 1")
    watching = watch()
    del sys.modules["imported_anew"]
    watching.look()
    assert watching.reloaded == []
    importlib.import_module("imported_anew")
    watching.look()
    assert watching.reloaded == ["imported_anew"]


def test_standard_library_and_packages_are_not_watched(folder: Path) -> None:
    sys.modules["not_a_module"] = object()  # type: ignore[assignment]
    sys.modules["made_up"] = ModuleType("made_up")
    watching = watch()
    assert not {"json", "pytest", "mpqueue", "mpqueue.errors", "__main__", "not_a_module", "made_up"} & set(
        watching._specs
    )


def test_path_is_told_with_the_current_folder_spelled_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["", "/elsewhere"])
    monkeypatch.chdir(folder)
    assert watch().path == (str(folder), "/elsewhere")


def test_worker_reloads_what_it_has_and_nothing_else(folder: Path) -> None:
    module = load(folder, "worker_has", "x = 1")
    write(folder, "worker_has", "x = 1000")
    catch_up(ImportNews(None, ("worker_has", "worker_has_not")))
    assert module.x == 1000
    assert sys.modules["worker_has"] is module
    assert "worker_has_not" not in sys.modules


def test_module_that_can_not_be_reloaded_is_dropped_so_that_its_user_hears_why(folder: Path) -> None:
    load(folder, "worker_breaks", "x = 1")
    write(folder, "worker_breaks", "1 / 0")
    catch_up(ImportNews(None, ("worker_breaks",)))
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("worker_breaks")


def test_worker_takes_over_the_path_and_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/b", "/own"])
    catch_up(ImportNews(("/a", "/b"), ()))
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
