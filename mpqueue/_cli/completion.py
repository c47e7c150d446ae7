"""mpqueue completion: a script that lets a shell complete commands, options, choices, and the functions of a module."""

from __future__ import annotations

import argparse
import ast
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder

from mpqueue._cli.outputs import rows_on_stdout
from mpqueue._cli.usage import Exit, UsageError

#: The largest file, in bytes, that is parsed: larger ones are data.
MOST_BYTES = 4 << 20


def functions_of(word: str) -> list[str]:
    """Return the full completions of ``module:fun`` or ``file.py:fun``, in the file's order; none for other words.

    Names that begin with ``_`` are given only if a ``_`` was typed. After ``Class.``, the methods of that class.
    """
    place, colon, typed = word.rpartition(":")
    path = _path_of(place) if colon else None
    if path is None:
        return []
    try:
        with open(path, "rb") as file:
            body = ast.parse(file.read(MOST_BYTES)).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    owner, _, start = typed.rpartition(".")
    for name in filter(None, owner.split(".")):
        body = next((one.body for one in body if isinstance(one, ast.ClassDef) and one.name == name), [])
    before = f"{place}:{owner}{'.' if owner else ''}"
    names = dict.fromkeys(_names_in(body))
    return [before + name for name in names if name.startswith(start) and (start or not name.startswith("_"))]


def _names_in(body: Sequence[ast.stmt]) -> Iterator[str]:
    """Yield the names of functions, also of those defined under a condition."""
    for one in body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            yield one.name
        elif isinstance(one, ast.If | ast.Try | ast.With):
            yield from _names_in(one.body)
            yield from _names_in(getattr(one, "orelse", ()))


def _path_of(place: str) -> str | None:
    """The file of the module, or the file itself. A package is not imported to look into it."""
    if place.endswith(".py"):
        return place if os.path.isfile(place) else None
    folders: Sequence[str] | None = [os.getcwd(), *sys.path]
    found = None
    for part in place.split("."):
        try:
            spec = PathFinder.find_spec(part, folders)
        except (ImportError, ValueError):
            return None
        if spec is None:
            return None
        found, folders = spec.origin, list(spec.submodule_search_locations or ())
    return found if found is not None and found.endswith(".py") else None


# -- ``mpqueue completion``: a script that lets a shell complete commands, options, choices, files and functions. ------
#
# shtab writes it from the parser. A script is made once, and most installations make none: so shtab is an extra, loaded
# when the command runs. For the functions of a module the script calls ``mpqueue completion --functions``, which needs
# no shtab.

#: The shells of shtab that the command promises.
SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
examples:
  mpqueue completion bash > ~/.local/share/bash-completion/completions/mpqueue
  mpqueue completion zsh > ~/.zfunc/_mpqueue
  mpqueue completion fish > ~/.config/fish/completions/mpqueue.fish

For zsh, ~/.zshrc needs fpath+=~/.zfunc before compinit.

The command needs shtab (pip install 'mpqueue[completion]'), the script that it prints does not.
"""


#: Options whose value may be module:function.
FUNCTIONS = ("handler", "inputs", "setup", "backend")
#: The shell functions that complete such a word. By default, bash takes the part before a colon as a word of its own.
#: Their names end in ``files``, which tells shtab that they may print files.
IN_BASH = """\
_mpqueue_functions_or_files() {
  local line="${COMP_LINE:0:${COMP_POINT:-0}}" word before=""
  word="${line##*[[:space:]]}"
  if [[ "$word" != *:* ]]; then
    compgen -f -- "$1"
    return
  fi
  [[ "$COMP_WORDBREAKS" == *:* ]] && before="${word%:*}:"
  "${COMP_WORDS[0]}" completion --functions "$word" 2>/dev/null | while IFS= read -r word; do
    printf '%s\\n' "${word#"$before"}"
  done
}
"""
IN_ZSH = """\
_mpqueue_functions_or_files() {
  if [[ "$PREFIX" == *:* ]]; then
    local -a found
    # By now `words` begins with the subcommand.
    found=("${(@f)$(${~_comp_command1:-mpqueue} completion --functions "$PREFIX" 2>/dev/null)}")
    compadd -a found
  else
    _files
  fi
}
"""
IN_FISH = """\
function _mpqueue_functions_or_files
  set -l word (commandline -ct)
  if string match -q '*:*' -- $word
    set -l command (commandline -opc)
    $command[1] completion --functions $word 2>/dev/null
  else
    __fish_complete_path $word
  end
end
"""
COMPLETES_FUNCTIONS = {
    "bash": "_mpqueue_functions_or_files",
    "zsh": "_mpqueue_functions_or_files",
    "fish": "(_mpqueue_functions_or_files)",
    "preamble": {"bash": IN_BASH, "zsh": IN_ZSH, "fish": IN_FISH},
}


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], command_line: argparse.ArgumentParser
) -> None:
    """Add the command to the command line, which it completes."""
    parser = commands.add_parser(
        "completion",
        help="print a script for completion in a shell",
        description="Print a script that completes commands, options, files and functions of modules in a shell.",
        epilog=EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, nargs="?", help="for which shell")
    #: Instead, prints the functions of a module with this beginning; the script calls it.
    parser.add_argument("--functions", help=argparse.SUPPRESS)

    def print_script(args: argparse.Namespace) -> int:
        if args.functions is not None:
            _print(functions_of(args.functions))
            return Exit.GOOD
        if args.shell is None:
            raise UsageError(f"completion: expected a shell: {', '.join(SHELLS)}")
        try:
            import shtab
        except ImportError as error:
            raise UsageError(f"completion: expected shtab: pip install 'mpqueue[completion]' ({error})") from None
        for one in commands.choices.values():
            for action in one._actions:
                if action.nargs != 0 and action.type is None and not action.choices:
                    takes_function = one.prog.endswith(" run") and action.dest in FUNCTIONS
                    action.complete = COMPLETES_FUNCTIONS if takes_function else shtab.FILE  # type: ignore[attr-defined]
        script = shtab.complete(command_line, args.shell)
        _print([_mended_for_zsh(script) if args.shell == "zsh" else script])
        return Exit.GOOD

    parser.set_defaults(command=print_script)


def _mended_for_zsh(script: str) -> str:
    """Mend shtab's script for zsh, which completes only the first of many inputs, and cuts a name at its colon."""
    script = re.sub(r'^  "\(\*\)::?(?=\S)', '  "*:', script, flags=re.MULTILINE)
    return script.replace("]:module:function:", r"]:module\:function:")


def _print(texts: Iterable[str]) -> None:
    r"""Print lines that end with ``\n`` everywhere: bash runs on Windows too, and takes ``\r`` as part of a word."""
    with rows_on_stdout() as out:
        for text in texts:
            print(text, file=out)
