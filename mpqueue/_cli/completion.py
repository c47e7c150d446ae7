"""``mpqueue completion``: a script that lets a shell complete commands and options, made from the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\
examples:
  mpqueue completion bash > ~/.local/share/bash-completion/completions/mpqueue
  mpqueue completion zsh > ~/.zfunc/_mpqueue      # with fpath+=~/.zfunc before compinit
  mpqueue completion fish > ~/.config/fish/completions/mpqueue.fish
"""

_BASH = """\
_mpqueue() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    if [[ $COMP_CWORD -eq 1 ]]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}} $before" in
{choices}
    esac
    if [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _mpqueue mpqueue
"""
_ZSH = """\
#compdef mpqueue
autoload -U +X bashcompinit && bashcompinit
"""

Commands = dict[str, argparse.ArgumentParser]


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add it to the command line."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description="Print a script that completes commands and options in a shell.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(command=lambda args: _print(script(args.shell, commands.choices)))


def _print(text: str) -> int:
    print(text, end="")
    return 0


def script(shell: str, commands: Commands) -> str:
    """The script for one of `SHELLS`."""
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(commands))
    return (_ZSH if shell == "zsh" else "") + _bash(commands)


def _bash(commands: Commands) -> str:
    choices, options = [], []
    for name, parser in commands.items():
        options.append(f'            {name}) COMPREPLY=($(compgen -W "{" ".join(_flags(parser))}" -- "$word"));;')
        for action in _actions(parser):
            if action.choices:
                words = " ".join(map(str, action.choices))
                places = "|".join(f'"{name} {flag}"' for flag in action.option_strings or [name])
                choices.append(f'        {places}) COMPREPLY=($(compgen -W "{words}" -- "$word")); return;;')
    return _BASH.format(commands=" ".join(commands), choices="\n".join(choices), options="\n".join(options))


def _fish(commands: Commands) -> Iterator[str]:
    for name, parser in commands.items():
        yield f"complete -c mpqueue -f -n __fish_use_subcommand -a {name} -d '{_first_line(parser.description)}'"
        here = f"complete -c mpqueue -n '__fish_seen_subcommand_from {name}'"
        for action in _actions(parser):
            words = f" -x -a '{' '.join(map(str, action.choices))}'" if action.choices else ""
            if not action.option_strings:
                if words:
                    yield here + words
                continue
            flags = " ".join(
                f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in action.option_strings
            )
            takes = "" if words or action.nargs == 0 else " -r"
            yield f"{here} {flags}{takes}{words} -d '{_first_line(action.help)}'"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _actions(parser):
        yield from action.option_strings


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0].replace("'", "")
