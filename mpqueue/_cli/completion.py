"""``mpqueue completion``: a script that lets a shell complete commands, options, choices and files.

shtab writes it from the parser. A script is made once, and most installations make none: so shtab is an extra, loaded
when the command runs.
"""

from __future__ import annotations

import argparse
import re

from mpqueue._cli.outputs import rows_on_stdout
from mpqueue._cli.usage import Exit, UsageError

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


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], command_line: argparse.ArgumentParser
) -> None:
    """Add the command to the command line, which it completes."""
    parser = commands.add_parser(
        "completion",
        help="print a script for completion in a shell",
        description="Print a script that completes commands, options, choices and files in a shell.",
        epilog=EPILOG,
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")

    def print_script(args: argparse.Namespace) -> int:
        try:
            import shtab
        except ImportError as error:
            raise UsageError(f"completion: expected shtab: pip install 'mpqueue[completion]' ({error})") from None
        for one in commands.choices.values():
            for action in one._actions:
                if action.nargs != 0 and action.type is None and not action.choices:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        script = shtab.complete(command_line, args.shell)
        with rows_on_stdout() as out:  # its lines end with a bare line feed everywhere: bash runs on Windows too
            print(_mended_for_zsh(script) if args.shell == "zsh" else script, file=out)
        return Exit.GOOD

    parser.set_defaults(command=print_script)


def _mended_for_zsh(script: str) -> str:
    """Mend shtab's script for zsh, which completes only the first of many inputs, and cuts a name at its colon."""
    script = re.sub(r'^  "\(\*\)::?(?=\S)', '  "*:', script, flags=re.MULTILINE)
    return script.replace("]:module:function:", r"]:module\:function:")
