"""What a handler's modules look like, here and where it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue._wire.pickling import sources
from mpqueue._wire.pickling.packed_handler import Travels, pack_handler
from mpqueue._wire.pickling.sources import Sources, catch_up_with, check_loaded, digests_of, sources_of
from tests.support.systems import LINUX_ONLY

NAME, HELPER = "users_module_of_sources", "users_helper_of_sources"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In ``sys.path``, with a module that imports another one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sources, "_loaded", {})
    (tmp_path / f"{HELPER}.py").write_text("def double(item):\n    return 2 * item\n")
    (tmp_path / f"{NAME}.py").write_text(f"from {HELPER} import double\n\ndef work(item):\n    return double(item)\n")
    importlib.invalidate_caches()
    yield tmp_path
    for name in (NAME, HELPER):
        sys.modules.pop(name, None)


def of_worker(told: Sources | None) -> Sources:
    """As a worker gets it, which is another process."""
    assert told is not None
    return told._replace(process="another one")


def told_of(function: Any) -> Sources | None:
    return sources_of([pickle.dumps(function)])


def edit(file: Path, text: str) -> None:
    """So that it is newer than all that was loaded."""
    file.write_text(text)
    os.utime(file, ns=(file.stat().st_mtime_ns + 2_000_000_000,) * 2)
    importlib.invalidate_caches()


@pytest.mark.parametrize("text", [f"import {HELPER}", f"from {HELPER} import Kind", f"from {HELPER} import double"])
def test_a_module_is_found_however_it_is_imported(folder: Path, text: str) -> None:
    (folder / f"{HELPER}.py").write_text("class Kind: pass\ndef double(item): return 2 * item\n")
    (folder / f"{NAME}.py").write_text(f"{text}\ndef work(item): return item\n")
    importlib.invalidate_caches()
    told = told_of(importlib.import_module(NAME).work)
    assert told is not None
    assert [name for name, _ in told.digests] == [HELPER, NAME]


def test_the_handler_s_modules_and_those_that_they_import(folder: Path) -> None:
    told = told_of(importlib.import_module(NAME).work)
    assert told is not None
    assert [name for name, _ in told.digests] == [HELPER, NAME]
    assert told_of(len) is None
    assert told_of(os.path.join) is None
    frame = pack_handler("job", importlib.import_module(NAME).work, None, "position", travels=Travels.WHOLE).frame
    assert frame.sources == told
    assert pack_handler("job", importlib.import_module(NAME).work, None, "position").frame.sources is None


def test_the_packages_of_a_module_count(folder: Path) -> None:
    (folder / NAME).mkdir()
    (folder / NAME / "__init__.py").write_text("")
    (folder / NAME / "part.py").write_text("def work(item): return item\n")
    (folder / f"{NAME}.py").unlink()
    importlib.invalidate_caches()
    told = told_of(importlib.import_module(f"{NAME}.part").work)
    sys.modules.pop(f"{NAME}.part")
    assert told is not None
    assert [name for name, _ in told.digests] == [NAME, f"{NAME}.part"]


def test_what_is_not_loaded_has_the_digest_of_its_file_and_what_is_not_there_has_none(folder: Path) -> None:
    names = [HELPER, "mpqueue_no_such_module"]
    before = digests_of(names)
    importlib.import_module(HELPER)
    assert before == digests_of(names)
    assert before.keys() == {HELPER}
    assert before[HELPER]


def test_comments_and_form_do_not_count(folder: Path) -> None:
    work = importlib.import_module(NAME).work
    before = told_of(work)
    edit(folder / f"{HELPER}.py", "# a comment\n\ndef double(item):\n    return (2 * item)\n")
    assert told_of(work) == before
    edit(folder / f"{HELPER}.py", "def double(item):\n    return 3 * item\n")
    assert told_of(work) != before


def test_a_worker_reloads_what_was_edited(folder: Path) -> None:
    module: Any = importlib.import_module(NAME)
    first = of_worker(told_of(module.work))
    check_loaded(first)
    loaded = sys.modules[HELPER]
    catch_up_with(first)
    assert sys.modules[HELPER].double is loaded.double
    edit(folder / f"{HELPER}.py", "def double(item):\n    return 3 * item\n")
    catch_up_with(of_worker(told_of(module.work)))
    assert sys.modules[NAME].work(1) == 3  # which has the function by its name
    edit(folder / f"{NAME}.py", f"from {HELPER} import double\n\ndef work(item):\n    return -double(item)\n")
    catch_up_with(of_worker(told_of(module.work)))
    assert sys.modules[NAME].work(1) == -3


@LINUX_ONLY
def test_a_module_from_before_that_was_edited_since_is_reloaded(folder: Path) -> None:
    """Loaded by somebody else: its file is newer than the process."""
    module: Any = importlib.import_module(NAME)
    edit(folder / f"{NAME}.py", "def work(item):\n    return -item\n")
    catch_up_with(of_worker(told_of(module.work)))
    assert sys.modules[NAME].work(1) == -1


@pytest.mark.parametrize("loaded", [True, False])
def test_another_file_is_refused_by_its_name(folder: Path, loaded: bool) -> None:
    told = of_worker(told_of(importlib.import_module(NAME).work))
    if loaded:
        check_loaded(told)
    else:
        del sys.modules[NAME]
    edit(folder / f"{NAME}.py", "def work(item):\n    return 4 * item\n")
    other = told._replace(digests=tuple((name, "another" if name == NAME else digest) for name, digest in told.digests))
    refused = pytest.raises(ImportError, match=f"expected the module '{NAME}' as it is in the program, got another one")
    if loaded:
        with refused:
            catch_up_with(other)
        return
    catch_up_with(other)
    importlib.import_module(NAME)
    with refused:
        check_loaded(other)
    assert NAME not in sys.modules


def test_in_the_same_process_nothing_is_looked_at(folder: Path) -> None:
    told = told_of(importlib.import_module(NAME).work)
    assert told is not None
    edit(folder / f"{NAME}.py", "def work(item):\n    return 4 * item\n")
    catch_up_with(told)
    check_loaded(told)
    assert sys.modules[NAME].work(1) == 2


def test_an_edit_in_the_same_second_that_keeps_the_size_is_not_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / f"{NAME}.py"
    moment = (1_800_000_000_000_000_000, 1_800_000_000_500_000_000)
    for factor in (2, 3):
        file.write_text(f"def work(item):\n    return {factor} * item\n")
        os.utime(file, ns=(moment[factor - 2],) * 2)
        told = of_worker(told_of(importlib.import_module(NAME).work))
        catch_up_with(told)
        check_loaded(told)
        assert sys.modules[NAME].work(1) == factor


def test_what_was_compiled_before_an_edit_in_the_same_second_is_not_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = folder / f"{HELPER}.py"
    second = file.stat().st_mtime_ns // 10**9 * 10**9
    os.utime(file, ns=(second, second))
    compiled = py_compile.compile(str(file))
    os.utime(str(compiled), ns=(second + 1_000_000, second + 1_000_000))
    file.write_text("def double(item):\n    return 3 * item\n")
    os.utime(file, ns=(second + 2_000_000, second + 2_000_000))
    (digest,) = (value for name, value in _digests_of_new_module(file))
    catch_up_with(Sources("another one", ((HELPER, digest),)))
    assert importlib.import_module(HELPER).double(1) == 3


def _digests_of_new_module(file: Path) -> list[tuple[str, str]]:
    """As the parent tells of it, which has loaded it from the same file."""
    spec = importlib.util.spec_from_file_location(HELPER, file)
    assert spec is not None
    return [(HELPER, sources._digest_of(importlib.util.module_from_spec(spec)))]
