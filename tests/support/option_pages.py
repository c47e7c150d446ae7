"""What is written out of the declarations of the options: `mpqueue/_keywords.py` and the table of the reference.

``python -m tests.support.option_pages`` writes both anew (`make options`); `make check` says where
they are not as declared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mpqueue._cli.command_line import flags_of, make_parser
from mpqueue._declared import At, Option, options_at
from mpqueue._options import GivenOptions, WorkerOptions

ROOT = Path(__file__).parent.parent.parent
KEYWORDS, TABLE = ROOT / "mpqueue" / "_keywords.py", ROOT / "docs" / "reference" / "options.md"

#: The types by which type checkers know what a call takes, each with what it says of itself.
TYPES = {
    "QueueKeywords": (At.QUEUE, "The options of `JobQueue`.", ("concurrency", "max_retries")),
    "StageKeywords": (At.STAGE, "The options of `Stage`.", ()),
    "StagesKeywords": (At.STAGES, "The options of `run_stages`.", ()),
    "OneJobKeywords": (At.JOB, "The keywords of both `create_job` and `open_job`.", ("setup", "cost")),
    "JobKeywords": (At.JOB, "The keywords of `create_job` that choose no overload.", ("setup",)),
    "OpenKeywords": (At.OPEN, "The keywords of `open_job` that choose no overload.", ("setup",)),
    "PoolKeywords": (At.POOL, "The options of `Pool` and `Executor` beside those of the originals.", ()),
    "StagedMapKeywords": (At.STAGED_MAP, "The options of `mpqueue.stages`.", ()),
    "MapKeywords": (At.MAP, "The options of `map`, `starmap` and `amap`.", ()),
    "StreamKeywords": (At.STREAM, "The options of `imap` and `imap_unordered`.", ()),
}  # fmt: skip
#: The columns of the table.
COLUMNS = {
    "JobQueue": At.QUEUE,
    "create_job, run": At.JOB,
    "open_job": At.OPEN,
    "Stage": At.STAGE,
    "run_stages": At.STAGES,
    "map": At.MAP,
    "imap": At.STREAM,
    "stages": At.STAGED_MAP,
}
_HEAD = '''"""The options that calls take, for type checkers; `make options` writes this out of `mpqueue._options`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from mpqueue._core.state.resources import Uses
    from mpqueue._options import Concurrency
    from mpqueue._output.progress import ShowProgress
    from mpqueue._output.row_outlet import Results
    from mpqueue._parent.lane_protocol import Backend
    from mpqueue._queue.arguments import Cost
    from mpqueue._queue.recorded.record_options import Rerun
    from mpqueue._wire.item_names import Label
    from mpqueue.retry import RetryPolicy
'''
_PAGE = """---
hide: [toc]
---
# Options

Which option may be given where? The option of a call wins over that of its queue:

```python
from mpqueue import JobQueue


def fail(item):
    raise ValueError(item)


with JobQueue(max_retries=1) as queue:
    first = queue.run([1], fail)
    second = queue.run([1], fail, max_retries=0)
print(first.items[0].attempts, second.items[0].attempts)
```

```text output
2 1
```

"""


def keywords(declared: type = GivenOptions) -> str:
    """The text of `mpqueue/_keywords.py`."""
    of_workers = options_at(WorkerOptions, At.WORKER).values()
    keys = "".join(f"    ``{one.name}``: {one.text}\n".replace('`"', '``"').replace('"`', '"``') for one in of_workers)
    return (
        _HEAD
        + _class("PerWorker", f"The limits of ``JobQueue(per_worker=)``.\n\n{keys}    ", of_workers)
        + "".join(_classes(declared))
    )


def _classes(declared: type) -> Iterator[str]:
    """The types, each with the options that it has beside those of the largest one before that fits into it."""
    made: dict[str, set[Option]] = {"TypedDict": set()}
    for name, (at, text, without) in TYPES.items():
        options = [one for one in options_at(declared, at).values() if one.name not in without]
        base = max((one for one in made if made[one] <= {*options}), key=lambda one: len(made[one]))
        made[name] = {*options}
        yield _class(name, text, (one for one in options if one not in made[base]), base)


def _class(name: str, text: str, options: Iterable[Option], base: str = "TypedDict") -> str:
    lines = "".join(f"    {one.name}: {one.type}\n" for one in options)
    return f'\n\nclass {name}({base}, total=False):\n    """{text}"""\n\n{lines}'


def table(declared: type = GivenOptions) -> str:
    """The page of the reference."""
    head = ["option", "default", "meaning", *(f"`{name}`" for name in COLUMNS), "`mpqueue run`"]
    options = [_row(head), "|---|---|---|" + ":-:|" * (len(head) - 3), *_rows(declared)]
    keys = [_row([f"`{one.name}`", one.text]) for one in options_at(WorkerOptions, At.WORKER).values()]
    return _PAGE + "\n".join([*options, "", _row(["key of `per_worker`", "meaning"]), "|---|---|", *keys]) + "\n"


def _rows(declared: type) -> Iterator[str]:
    flags = flags_of(make_parser(), "run")
    for one in options_at(declared, ~At(0)).values():
        places = ["x" if one.at & at else "" for at in COLUMNS.values()]
        by_name = f"--{one.name.replace('_', '-')}"
        flag = one.flag or (by_name if by_name in flags else None)
        yield _row([f"`{one.name}`", _default(one), one.text, *places, f"`{flag}`" if flag else ""])


def _default(one: Option) -> str:
    return "none" if one.default is None else f"`{one.default!r}`".replace("'", '"')


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |")


def main() -> None:
    """Write them anew."""
    KEYWORDS.write_text(keywords())
    TABLE.write_text(table())


if __name__ == "__main__":
    main()
