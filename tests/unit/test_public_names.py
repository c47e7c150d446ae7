"""Public names and their signatures change on purpose only: they are what a committed file lists."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import mpqueue
from tests.support import public_names

#: What modules need, or their classes, that not each environment of the tests has.
NEEDS = {
    "mpqueue.backends": ("distributed", "ray"),
    "mpqueue.joblib_backend": ("joblib",),
    "mpqueue.otel": ("opentelemetry",),
    "mpqueue.pandas": ("pandas",),
}


@pytest.mark.parametrize(
    "module", [pytest.param(one, marks=pytest.mark.slow if one in NEEDS else ()) for one in public_names.MODULES]
)
def test_the_public_names_are_those_of_the_listing(module: str) -> None:
    if not all(importlib.util.find_spec(need) for need in NEEDS.get(module, ())):
        pytest.skip(f"{module} needs {NEEDS[module]}")
    made, listed = public_names.lines_of(module), public_names.listing()[module]
    assert made == listed, (
        f"the public names of {module} are not those of docs/reference/public-api.txt; if that is meant, "
        "`make public-api` writes it anew (docs/reference/stability.md says what may change when)"
    )


def test_each_module_that_has_no_underscore_is_listed() -> None:
    folder = Path(importlib.import_module("mpqueue").__file__ or "").parent
    public = {
        f"mpqueue.{path.stem}" for path in folder.iterdir() if not path.name.startswith("_") and path.suffix == ".py"
    }
    assert {"mpqueue", *public} == set(public_names.MODULES) == set(public_names.listing())
    assert {f"mpqueue.{name}" for name in mpqueue._MODULES} == public, "they are there without being imported by name"
