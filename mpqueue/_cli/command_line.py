"""The command ``mpqueue``: its commands, and their exit codes."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from types import TracebackType

from mpqueue._call_checks import nearest, option_meant
from mpqueue._cli import dashboard_command as dashboard
from mpqueue._cli import journal_commands as journal
from mpqueue._cli import run_command as run
from mpqueue._cli.early_end import EndedBeforeStart
from mpqueue._cli.usage import Exit, OutputError, Parser, UsageError, on_stdout, say, say_error
from mpqueue._os import standard_streams
from mpqueue.errors import MPQueueError

#: Frames of these files come before the user's own in a traceback.
_OURS = ("mpqueue", "importlib", "functools", "__main__")
EPILOG = """\
examples:
  mpqueue run words.py:count 'texts/*.txt' -o counts.csv
  mpqueue run words.py:count 'texts/*.txt' -o counts.csv --journal run.db
  mpqueue failures run.db

`mpqueue COMMAND --help` says more, with examples of each.
"""


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    text = "Run Python functions over many items on all CPU cores."
    parser: argparse.ArgumentParser = Parser(prog="mpqueue", description=text, epilog=EPILOG)
    version = sys.modules["mpqueue"].__version__
    parser.add_argument("-V", "--version", action="version", version=f"mpqueue {version}")
    commands = parser.add_subparsers(title="commands", dest="name", metavar="COMMAND", required=True)
    run.add_command(commands)
    journal.add_command(commands)
    dashboard.add_command(commands)
    return parser


def _parse() -> argparse.Namespace:
    """Parse the command line; inputs, and a job, may come after options, which argparse alone does not allow."""
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        import argcomplete  # an extra

        argcomplete.autocomplete(parser)
    words = sys.argv[1:]
    args, rest = parser.parse_known_args(words)
    args.after_dashes = len(words) - words.index("--") - 1 if "--" in words else 0
    end = rest.index("--") if "--" in rest else len(rest)  # of the options: no words after it are options
    options = [word for word in rest[:end] if word.startswith("-") and word != "-"]
    del rest[end : end + 1]
    if rest and not options and getattr(args, "takes_job", False) and args.job is None:
        args.job = rest.pop(0)
    if options or (rest and not hasattr(args, "inputs")):
        wrong = " ".join(options or rest)
        hint = _hint(options[0].partition("=")[0], flags_of(parser, args.name)) if options else ""
        parser.error(f"unrecognized arguments: {wrong}{hint}; `mpqueue {args.name} --help` lists the options")
    if rest:
        args.inputs += rest
    return args


def _hint(option: str, flags: list[str]) -> str:
    """Hint at the likely flag, if any: by its name in Python, another library's word, a typo, or its beginning."""
    name, named = option.lstrip("-").replace("-", "_"), {flag.lstrip("-").replace("-", "_"): flag for flag in flags}
    words = (name, option_meant(name, named), nearest(name, named), *(one for one in named if one.startswith(name)))
    meant = next((named[word] for word in words if word in named), None)
    return "" if meant is None else f"; did you mean {meant}?"


def flags_of(parser: argparse.ArgumentParser, command: str) -> list[str]:
    """All names of the options of a command."""
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return [name for action in commands[command]._actions for name in action.option_strings]


def _without_ours(error: BaseException) -> TracebackType | None:
    """The traceback from the user's own code on, if it was reached; a SyntaxError reports its own place."""
    if isinstance(error, SyntaxError) and os.path.exists(error.filename or ""):
        return None
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        trace = trace.tb_next
    return trace or error.__traceback__


def main() -> int:
    """Run the command line; returns the exit code."""
    standard_streams.keep_taken()  # before a file of ours gets such a descriptor
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the program ends
    try:
        return _do()
    finally:
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except OSError:  # reported before; otherwise the interpreter writes that output again at its end
                _write_nowhere(descriptor)


def _do() -> int:
    try:
        args = _parse()
        try:
            code = int(args.command(args))
        except EndedBeforeStart:
            return run.say_drained(recorded=args.journal is not None)
        if sys.stdout is not None:
            with on_stdout():  # the prints of the user's modules
                return code
        return code
    except UsageError as error:
        say_error(str(error))
        return Exit.USAGE
    except (OutputError, MPQueueError) as error:
        say_error(str(error))
        return Exit.FAILED
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has gone; nothing more can be written to it, even at exit
        _write_nowhere(1)
        return Exit.NO_READER
    except Exception as error:  # noqa: BLE001 - the user's own, raised while a module was imported, or a fault of ours
        say("".join(traceback.format_exception(error.with_traceback(_without_ours(error)))).rstrip())
        return Exit.FAILED


def _write_nowhere(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
