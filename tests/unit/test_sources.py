"""What a handler's modules look like, here and where it runs."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpqueue._wire.pickling.packed_handler import HandlerTransport, pack_handler
from mpqueue._wire.pickling.sources import Sources, check_loaded, digests_of, sources_of

NAME, HELPER = "users_module_of_sources", "users_helper_of_sources"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In ``sys.path``, with a module that imports another one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
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
    frame = pack_handler(
        "job", importlib.import_module(NAME).work, None, "position", transport=HandlerTransport.WHOLE
    ).frame
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


def test_another_file_is_refused_by_its_name(folder: Path) -> None:
    told = of_worker(told_of(importlib.import_module(NAME).work))
    check_loaded(told)
    other = told._replace(digests=tuple((name, "another" if name == NAME else digest) for name, digest in told.digests))
    with pytest.raises(ImportError, match=f"expected the module '{NAME}' as it is in the program, got another one"):
        check_loaded(other)
    assert NAME not in sys.modules, "the next handler finds what is there by then"
    check_loaded(other)


def test_in_the_same_process_nothing_is_looked_at(folder: Path) -> None:
    told = told_of(importlib.import_module(NAME).work)
    assert told is not None
    edit(folder / f"{NAME}.py", "def work(item):\n    return 4 * item\n")
    check_loaded(told)
    assert sys.modules[NAME].work(1) == 2
