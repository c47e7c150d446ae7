"""What the parent does to its imports, and workers after it."""

from __future__ import annotations

import importlib
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import mpqueue.backends
from mpqueue._wire.pickling import edits, imports
from mpqueue._wire.pickling.imports import ImportNews, ImportWatch, catch_up
from mpqueue._wire.pickling.named_files import NamedFiles, module_name_of


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


@pytest.fixture(autouse=True)
def patcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that changes modules in place is there."""
    monkeypatch.setattr(imports, "_PATCHERS", (__name__,))


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


HELPER = """
K = 1
cache = {}

def f():
    return 1

def decorated(function):
    def wrapper():
        return function()
    return wrapper

@decorated
def wrapped():
    return 1

class Item:
    class Inner:
        def ask(self):
            return 1

    @staticmethod
    def fixed():
        return 1

    @classmethod
    def made(cls):
        return 1

    @property
    def size(self):
        return 1
"""

_AT = 1_800_000_000


def edit(folder: Path, name: str, text: str, later: int = 2) -> None:
    """So that its time is another one, in seconds too."""
    write(folder, name, text)
    os.utime(folder / f"{name}.py", (_AT + later, _AT + later))


def patch(target: Any, by: Any) -> None:
    """A function gets the code of another one, as reloaders in place do it."""
    target.__code__ = by.__code__


PATCHES: dict[str, tuple[str, str, Callable[[Any, Any], None]]] = {
    "function": ("def f():\n    return 1", "def f():\n    return 2", lambda old, new: patch(old.f, new.f)),
    "variable": ("K = 1", "K = 2", lambda old, new: setattr(old, "K", new.K)),
    "new function": ("cache = {}", "cache = {}\ndef g(): pass", lambda old, new: setattr(old, "g", new.g)),
    "function that is gone": ("def f():\n    return 1", "", lambda old, new: delattr(old, "f")),
    "class of a class": (
        "def ask(self):\n            return 1",
        "def ask(self):\n            return 2",
        lambda old, new: patch(old.Item.Inner.ask, new.Item.Inner.ask),
    ),
    "static method": (
        "def fixed():\n        return 1",
        "def fixed():\n        return 2",
        lambda old, new: patch(old.Item.fixed, new.Item.fixed),
    ),
    "class method": (
        "def made(cls):\n        return 1",
        "def made(cls):\n        return 2",
        lambda old, new: patch(old.Item.made.__func__, new.Item.made.__func__),
    ),
    "property": (
        "def size(self):\n        return 1",
        "def size(self):\n        return 2",
        lambda old, new: patch(old.Item.size.fget, new.Item.size.fget),
    ),
    "new method": (
        "class Item:",
        "class Item:\n    def more(self): pass\n",
        lambda old, new: setattr(old.Item, "more", new.Item.more),
    ),
}


@pytest.mark.parametrize("what", PATCHES)
def test_an_edit_that_was_taken_over_in_place_counts_as_a_reload(folder: Path, what: str) -> None:
    before, after, take_over = PATCHES[what]
    assert before in HELPER
    edit(folder, "patched", HELPER, 0)
    module = importlib.import_module("patched")
    watching = watch()
    new = load(folder, "patched_since", HELPER.replace(before, after))
    edit(folder, "patched", HELPER.replace(before, after))
    watching.look(closely=True)
    assert watching.reloaded == []  # edited, and not taken over
    take_over(module, new)
    watching.look()
    assert watching.reloaded == []
    watching.look(closely=True)
    watching.look(closely=True)
    assert watching.reloaded == ["patched"]


def test_nothing_is_remembered_where_nothing_patches_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_PATCHERS", ("mpqueue_no_such_module",))
    module = load(folder, "edited", "def f():\n    return 1\n")
    watching = watch()
    write(folder, "edited", "def f():\n    return 20\n")
    module.f = lambda: 20
    watching.look(closely=True)
    assert (watching.reloaded, watching._known) == ([], {})
    monkeypatch.setattr(imports, "_PATCHERS", (__name__,))
    watching.look(closely=True)  # from here on
    write(folder, "edited", "def f():\n    return 300\n")
    module.f = lambda: 300
    watching.look(closely=True)
    assert watching.reloaded == ["edited"]


def test_what_a_program_does_to_its_variables_is_no_edit(folder: Path) -> None:
    edit(folder, "of_state", HELPER, 0)
    module: Any = importlib.import_module("of_state")
    watching = watch()
    module.cache, module.K = {"full": module}, 5
    watching.look(closely=True)
    edit(folder, "of_state", HELPER.replace("def f():\n    return 1", "def f():\n    return 2"))
    module.cache, module.K, module.Item.count = {}, 6, 1
    watching.look(closely=True)
    assert watching.reloaded == []
    edit(folder, "of_state", "def f(:", 4)  # which was not taken over, as it can't be
    module.f.__code__ = module.decorated.__code__
    watching.look(closely=True)
    assert watching.reloaded == []


def test_comments_and_form_are_no_edit(folder: Path) -> None:
    edit(folder, "of_form", HELPER, 0)
    module: Any = importlib.import_module("of_form")
    watching = watch()
    edit(folder, "of_form", HELPER.replace("def f():", "# a comment\ndef f(  ):"))
    patch(module.f, load(folder, "of_form_since", HELPER).f)
    watching.look(closely=True)
    assert watching.reloaded == []


@pytest.mark.parametrize("way", ["in place", "reloaded", "reloaded and in place"])
def test_modules_that_have_something_from_a_patched_one_are_reloaded_after_it(folder: Path, way: str) -> None:
    """As in the parent, where a function that was patched in place is the new one in other modules too."""
    edit(folder, "helper", HELPER, 0)
    edit(folder, "subclass", "from helper import Item\nclass Wide(Item): pass\n", 0)
    edit(folder, "of_object", "import helper\nitem = helper.Item()\n", 0)
    edit(folder, "indirect", "from subclass import Wide\nfrom of_function import g\n", 0)
    edit(folder, "of_function", "from helper import f\ndef g(): return f()\n", 0)
    edit(folder, "of_function_edited", "from helper import f\n", 0)
    edit(folder, "unconcerned", "import helper\n", 0)
    names = ("indirect", "subclass", "of_object", "of_function", "of_function_edited", "unconcerned")
    for name in names:
        importlib.import_module(name)
    helper: Any = sys.modules["helper"]
    watching = watch()
    text = HELPER.replace("def f():\n    return 1", "def f():\n    return 2")
    new = load(folder, "helper_since", text)
    edit(folder, "helper", text)
    edit(folder, "of_function_edited", "from helper import f\nnew = 1\n")
    held = helper.f
    if way.startswith("reloaded"):
        importlib.reload(helper)
    if way.endswith("in place"):
        patch(held, new.f)
    watching.look(closely=True)
    assert watching.reloaded[0] == "helper"
    if way == "reloaded":
        assert watching.reloaded == ["helper"]
    else:
        assert set(watching.reloaded) == {"helper", "subclass", "of_object", "of_function", "indirect"}
        assert len(watching.reloaded) == 5
        place = watching.reloaded.index
        assert place("indirect") > max(place("subclass"), place("of_function"))


def test_an_edit_in_the_same_second_that_keeps_the_size_is_compiled_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    edit(folder, "quickly_edited", "def f():\n    return 1\n", 0)
    module: Any = importlib.import_module("quickly_edited")
    watching = watch()
    write(folder, "quickly_edited", "def f():\n    return 2\n")
    os.utime(folder / "quickly_edited.py", ns=(_AT * 10**9 + 1, _AT * 10**9 + 1))
    patch(module.f, lambda: 2)
    watching.look(closely=True)
    assert module.f() == 2
    catch_up(ImportNews(None, tuple(watching.reloaded)))
    assert module.f() == 2


def test_what_else_is_put_among_the_modules_is_no_fault(folder: Path) -> None:
    edit(folder, "replaced", HELPER, 0)
    edit(folder, "patched", HELPER, 0)
    module = importlib.import_module("patched")
    sys.modules["replaced_later"] = importlib.import_module("replaced")
    watching = watch()
    sys.modules["replaced"], sys.modules["replaced_later"] = object(), SlottedModule()  # type: ignore[assignment]
    edit(folder, "patched", HELPER.replace("K = 1", "K = 2"))
    module.__dict__["K"] = 2
    watching.look(closely=True)
    assert "patched" in watching.reloaded
    assert watching._known.keys() == watching._specs.keys()
    watching.look(closely=True)


class SlottedModule:
    __slots__ = ()
    __spec__ = object()


def test_what_is_big_is_not_kept_by_a_look(folder: Path) -> None:
    module: Any = load(folder, "of_big", "class Big(list): pass\nbig = Big()\nlonger = [Big()]\n")
    alive = weakref.ref(module.big), weakref.ref(module.longer[0])
    watching = watch()
    module.big = module.longer = None
    assert [one() for one in alive] == [None, None]
    watching.look(closely=True)


@pytest.mark.parametrize(
    ("value", "light"),
    [
        ([[[1]]], True),
        ([[[[1]]]], False),
        ([0] * 100, True),
        ([0] * 101, False),
        ({"a": (1, {2})}, True),
        ({"a": (1, object())}, False),
        (int, True),
        (object(), False),
    ],
)
def test_what_is_small_is_kept_by_a_look(value: object, light: bool) -> None:
    assert edits._is_light(value) is light


def test_no_code_of_users_runs_in_a_look(folder: Path) -> None:
    text = """
class Meta(type):
    def __eq__(self, other): 1 / 0
    def __hash__(self): 1 / 0

class Odd(metaclass=Meta):
    def __eq__(self, other): 1 / 0
    def __hash__(self): 1 / 0
    def __len__(self): 1 / 0
    __class__ = property(lambda self: 1 / 0)

odd, odds = Odd(), [Odd()]
"""
    module: Any = load(folder, "of_odd", text)
    watching = watch()
    edit(folder, "of_odd", text.replace("[Odd()]", "[Odd(), 1]"))
    module.odds, module.odd, module.Odd.more = [module.Odd()], module.Odd(), module.Odd()
    watching.look(closely=True)
    assert watching.reloaded == ["of_odd"]


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
    catch_up(ImportNews(("/a", "/b"), ()))
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
