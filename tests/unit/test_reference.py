"""The reference in docs/ names all that is public."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

import mpqueue
from tests.support import docs_site

PAGES = Path(__file__).parent.parent.parent / "docs" / "reference"
#: What is called with options.
CALLED = (
    mpqueue.JobQueue, mpqueue.JobQueue.create_job, mpqueue.JobQueue.start, mpqueue.JobQueue.run,
    mpqueue.JobQueue.retry_failed, mpqueue.JobQueue.cancel, mpqueue.JobQueue.close, mpqueue.JobQueue.serve,
    mpqueue.map, mpqueue.starmap, mpqueue.imap, mpqueue.imap_unordered, mpqueue.amap,
    mpqueue.Pool, mpqueue.Executor, mpqueue.RetryPolicy, mpqueue.Retry, mpqueue.share,
)  # fmt: skip

#: Whose calls the pages show.
OWNERS = (mpqueue, mpqueue.JobQueue, mpqueue.Job, mpqueue.JobRun, mpqueue.CurrentItem)


@pytest.fixture(scope="module")
def all_names() -> str:
    return docs_site.page(["mpqueue"])


@pytest.fixture(scope="module")
def words() -> set[str]:
    return {word for page in PAGES.glob("*.md") for word in re.findall(r"\w+", page.read_text())}


def test_the_reference_has_every_public_name(words: set[str]) -> None:
    assert set(mpqueue.__all__) - words == set(), "docs/reference/*.md lack them"  # type: ignore[attr-defined]


def test_the_reference_has_each_attribute_of_an_item() -> None:
    table = (PAGES / "api.md").read_text().partition("\n## JobItem\n")[2].partition("\n## ")[0]
    first_cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = [name for cell in first_cells for name in re.findall(r"`(\w+)", cell)]
    assert sorted(listed) == sorted(name for name in vars(mpqueue.JobItem) if not name.startswith("_"))


@pytest.mark.parametrize("called", CALLED, ids=lambda called: called.__qualname__)
def test_the_reference_has_every_option(words: set[str], called: object) -> None:
    assert callable(called)
    options = set(inspect.signature(called).parameters) - {"self", "args", "kwargs", "options"}
    assert options - words == set(), "docs/reference/*.md lack them"


def test_the_page_of_all_names_has_each_with_what_it_says_of_itself(all_names: str) -> None:
    assert set(re.findall(r"^### (\w+)$", all_names, re.MULTILINE)) == set(mpqueue.__all__) - {"__version__"}  # type: ignore[attr-defined]
    assert "#### JobQueue.create_job\n\n```python\ncreate_job(self, id: str" in all_names
    assert "\nCreate a job without starting it.\n" in all_names
    assert "- `attempt: int`\n" in all_names


def test_calls_on_the_api_page_have_the_options_and_defaults_of_the_code() -> None:
    text = (PAGES / "api.md").read_text()
    spans = re.findall(r"```python no-run\n(\w+\([^`]*?\))\n", text) + re.findall(r"`(\w+\([^`]+\))`", text)
    checked, wrong = set(), []
    for span in spans:
        shown = _shown(span)
        meant = [one for owner in OWNERS if shown and _is_ours(one := getattr(owner, shown.name, None))]
        if shown and meant:
            checked.add(shown.name)
            if not any(_fits(shown.args, one) for one in meant):
                wrong.append(span)
    assert not wrong, "\n".join(wrong)
    assert checked >= {"JobQueue", "create_job", "run_stages", "close", "RetryPolicy", "Stage", "export"}, checked


def _shown(span: str) -> ast.FunctionDef | None:
    """A call with its arguments, read as if it were a definition; None for what is no whole call."""
    try:
        found = ast.parse(f"def {span}: ...").body[0]
    except SyntaxError:
        return None
    return found if isinstance(found, ast.FunctionDef) and "..." not in span else None


def _is_ours(value: object) -> bool:
    return callable(value) and getattr(value, "__module__", "").startswith("mpqueue")


def _fits(shown: ast.arguments, called: object) -> bool:
    """Whether it shows each argument, but those that ``**options`` stands for here or there, and no other default."""
    assert callable(called)
    options = {name: one for name, one in inspect.signature(called).parameters.items() if name != "self"}
    plain = {name for name, one in options.items() if one.kind is not one.VAR_KEYWORD}
    positional = [one.arg for one in (*shown.posonlyargs, *shown.args)]
    named = {*positional, *(one.arg for one in (*shown.kwonlyargs, shown.vararg) if one)}
    lacks_none = named >= plain or (shown.kwarg is not None and shown.kwarg.arg == "options")
    has_no_other = named <= plain or plain < set(options)
    defaults = dict(zip(reversed(positional), reversed(shown.defaults), strict=False))
    defaults |= {one.arg: value for one, value in zip(shown.kwonlyargs, shown.kw_defaults, strict=True) if value}
    same_defaults = all(
        eval(ast.unparse(value)) == options[name].default for name, value in defaults.items() if name in plain
    )
    return lacks_none and has_no_other and same_defaults
