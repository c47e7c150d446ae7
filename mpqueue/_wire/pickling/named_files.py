"""Modules whose name is the path of their file: for a file whose own name leads to another module.

``json.py`` in a folder of the user's, or a second ``step.py``, can't be imported by that name. Under the name of
`module_name_of` it can, in the program, in each worker, and by a journal's reader: what is pickled by name is found in
that file, or not at all.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any

_BEGINNING = "file@"


def module_name_of(path: str) -> str:
    """The name under which that file can be imported; the path must be absolute. It has no dot, colon or space."""
    from urllib.parse import quote  # 2 ms, which few programs need

    return _BEGINNING + quote(os.fsencode(path)).replace(".", "%2E")


class NamedFiles:
    """The finder of these modules, and of no other."""

    @staticmethod
    def find_spec(name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Find the module for the import system, which also gives its package and the module to replace."""
        if not name.startswith(_BEGINNING):
            return None
        from urllib.parse import unquote_to_bytes

        file = os.fsdecode(unquote_to_bytes(name.removeprefix(_BEGINNING)))
        return importlib.util.spec_from_file_location(name, file) if os.path.isfile(file) else None


sys.meta_path.append(NamedFiles)
