"""``mpqueue dashboard run.db``: the live page for journals. Nothing runs, and nothing is written."""

from __future__ import annotations

import argparse
import os
import threading

from mpqueue._cli.outputs import add_json, told_on_stdout
from mpqueue._cli.usage import Exit, UsageError, say, usage_errors
from mpqueue._options import check_address
from mpqueue._os.process_signals import wait_long

EPILOG = """\
examples:
  mpqueue dashboard run.db
  mpqueue dashboard yesterday.db today.db
  ssh -L 8000:localhost:8000 server mpqueue dashboard run.db --port 8000

A running program may write the journal meanwhile. End the page with Ctrl-C.
"""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "dashboard",
        help="show the jobs of a journal on a live page",
        description="Show the jobs of journals in a browser: items, errors, groups of failures, reports, and two runs "
        "side by side. Nothing runs, and the journals stay as they are.",
        epilog=EPILOG,
    )
    parser.add_argument("journals", metavar="run.db", nargs="+", help="the file that was given to run as --journal")
    parser.add_argument("--host", default="127.0.0.1", type=str, help="the address to serve on (default: this machine "
        "only)")  # fmt: skip
    parser.add_argument("--port", default=0, type=int, help="the port (default: a free one)")
    add_json(parser.add_argument, "the page's address as a line of JSON")
    parser.set_defaults(command=dashboard)


def dashboard(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    missing = next((path for path in args.journals if not os.path.exists(path)), None)
    if missing is not None:
        raise UsageError(f"{missing}: expected a journal, got a name that is not there")
    try:
        from mpqueue._live_page.server import Page  # an extra
    except ImportError as error:
        raise UsageError(
            f"dashboard: expected Starlette and uvicorn ({error}): pip install 'mpqueue[dashboard]'"
        ) from None
    from mpqueue._queue.live_pages import JournalView  # needs SQLite, which most commands don't

    view = JournalView(args.journals)
    with usage_errors(kinds=(OSError, ValueError, TypeError)):
        page = Page(view, *check_address(args.host, args.port, ()))
    try:
        with told_on_stdout(as_json=args.json) as tell:
            tell({"url": page.url}, page.url)
            say("Ctrl-C ends the page")
            wait_long(threading.Event().wait)
    finally:
        page.close()
    return Exit.GOOD
