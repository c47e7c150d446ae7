"""``mpqueue completion``: a script that lets a shell complete commands, options, choices and file names.

shtab writes it, from the parser itself. A script is made once, and most installations make none: so shtab is an extra,
and is loaded when the command runs.
"""

from __future__ import annotations

import argparse

from mpqueue._cli.usage import Exit, UsageError

#: Those of shtab's shells that the command promises.
SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
examples:
  mpqueue completion bash > ~/.local/share/bash-completion/completions/mpqueue
  mpqueue completion zsh > ~/.zfunc/_mpqueue      # with fpath+=~/.zfunc before compinit
  mpqueue completion fish > ~/.config/fish/completions/mpqueue.fish

It needs shtab: pip install 'mpqueue[completion]'. What it printed goes on working without.
"""


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], command_line: argparse.ArgumentParser
) -> None:
    """Add it to the command line, which it completes."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description="Print a script that completes commands and options in a shell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)

    def print_script(args: argparse.Namespace) -> int:
        try:
            import shtab
        except ImportError as error:
            raise UsageError(f"completion: expected shtab: pip install 'mpqueue[completion]' ({error})") from None
        for one in commands.choices.values():
            for action in one._actions:
                if action.nargs != 0 and action.type is None and not action.choices:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(command_line, args.shell))
        return Exit.GOOD

    parser.set_defaults(command=print_script)
