"""What `make docs` takes from the project: version, address of the sources, icon, names, and how to contribute.

A hook of MkDocs. The page is made of `docs/reference/public-api.txt`, which a test holds against the code, and of the
docstrings.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PAGE = "reference/names.md"
#: The part of the menu that is for those who work on mpqueue.
INSIDE = "Inside"
ICON = ROOT / "mpqueue" / "_live_page" / "static" / "icon.svg"

_NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n"
_TOP = """\
# All public names

This page is made from the code: each public name with its signature and its docstring, as `help()` shows it. The
[API page](api.md) says the same shorter. [What is public](stability.md) says what may change in which version.
"""
_NAME = re.compile(r"(?:class |async )?(\w+)")
_EQUALS = re.compile(r"\w+ = ")
_CODE = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)


def on_config(config: Any) -> Any:
    """Set the version and the link to the sources; MkDocs calls this."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    config.repo_url = urls.get("Repository", urls["Homepage"])
    config.extra["version_shown"] = _module_of_root("mpqueue").__version__
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the icon and the generated pages; MkDocs calls this."""
    from mkdocs.structure.files import File  # which only those have who build the site

    files.append(File.generated(config, ICON.name, abs_src_path=str(ICON)))
    files.append(File.generated(config, PAGE, content=page()))
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "contributing.md", content=_NOT_SEARCHED + guide.replace("](docs/", "](")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the search show what is inside after what users do; MkDocs calls this."""
    if any(section.title == INSIDE for section in page.ancestors):
        page.meta.setdefault("search", {}).setdefault("boost", 0.3)
    return markdown


def page(modules: Collection[str] = ()) -> str:
    """The page, in Markdown: of all modules, or of these."""
    listing = _module_of_root("tests.support.public_names").listing()
    parts = [_NOT_SEARCHED + _TOP]
    for module in modules or listing:
        lines = listing[module]
        parts += [f"## {module}\n", *_module(importlib.import_module(module), lines)]
    return "\n".join(parts)


def _module_of_root(name: str) -> Any:
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return importlib.import_module(name)


def _module(module: Any, lines: list[str]) -> Iterator[str]:
    value: Any = None
    for line in lines:
        name = _name(line.strip())
        if not line.startswith(" "):
            value = getattr(module, name)
            yield from _entry(f"### {name}\n", line, value)
        elif name == getattr(value, "__name__", ""):  # how it is made: what the class says is said
            yield f"```python\n{line.strip()}\n```\n"
        else:
            yield from _entry(f"#### {value.__name__}.{name}\n", line.strip(), getattr(value, name, None))


def _entry(heading: str, line: str, value: Any) -> Iterator[str]:
    """One name. What has no text of its own is a line: fields, members of enums, names that are listed elsewhere."""
    text = inspect.getdoc(value) if callable(value) or isinstance(value, property) else None
    if _EQUALS.match(line) or (heading.startswith("####") and not text):
        yield f"- `{line}`\n"
        return
    yield heading
    yield f"```python\n{line}\n```\n"
    if text:
        yield f"{_as_markdown(text)}\n"


def _as_markdown(text: str) -> str:
    """A docstring, which is nearly Markdown: what is no code is text as it stands."""
    parts = _CODE.split(text)
    return "".join(one if at % 2 else one.replace("&", "&amp;").replace("<", "&lt;") for at, one in enumerate(parts))


def _name(line: str) -> str:
    found = _NAME.match(line)
    assert found, line
    return found[1]
