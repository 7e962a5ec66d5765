"""`memctl completion`: the script that completes memctl's command line in a shell.

shtab makes it from the parser; the ids of backends are asked for as they are
wanted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from memd.memctl.context import Context, needs_extra
from memd.memctl.objects import METAVAR, short_names

SHELLS = ("bash", "zsh", "fish")

_PREAMBLE = {
    "bash": """\
_memctl_ids() {
  local socket=() i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i - 1]} in -s | --socket) socket=(-s "${COMP_WORDS[i]}") ;; esac
  done
  compgen -W "$(memctl "${socket[@]}" ls --quiet 2>/dev/null)" -- "$1"
}
_memctl_types() {
  compgen -W "$TYPES" -- "$1"
}
""",
    "zsh": """\
_memctl_ids() {
  # All of the line: of $words the subcommand's are left.
  local -a line=(${(z)BUFFER}) socket ids
  local at=${line[(I)(-s|--socket)]}
  (( at )) && socket=(-s ${line[at + 1]})
  ids=(${(f)"$(memctl $socket ls --quiet 2>/dev/null)"})
  compadd -a ids
}
_memctl_types() {
  compadd -S '' $TYPES
}
""",
    "fish": """\
function _memctl_ids
  set -l words (commandline -opc)
  set -l socket
  for i in (seq 2 (count $words))
    contains -- $words[(math $i - 1)] -s --socket; and set socket -s $words[$i]
  end
  memctl $socket ls --quiet 2>/dev/null
end
function _memctl_types
  printf '%s\\n' $TYPES
end
""",
}
_HOW = (
    "The script goes where the shell looks for it:"
    " ~/.local/share/bash-completion/completions/memctl,"
    " _memctl in a directory of $fpath, or ~/.config/fish/completions/memctl.fish."
)


def prepare(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    parser.epilog = _HOW


def run(context: Context, arguments: argparse.Namespace) -> None:
    """Print the script."""
    text = script(arguments.shell)
    context.tell({"shell": arguments.shell, "script": text}, text.splitlines())


def script(shell: str) -> str:
    """A shell's script.

    Raises:
        Trouble: shtab is not installed.
    """
    try:
        import shtab

        from memd.memctl.main import parser
    except ImportError:
        raise needs_extra("completion", "shtab") from None
    # All of it: here every subcommand's arguments matter.
    whole = parser()
    whole.prog = "memctl"
    call = "({})" if shell == "fish" else "{}"
    completed = {
        "ID": {shell: call.format("_memctl_ids")},
        METAVAR: {shell: call.format("_memctl_types")},
        "FILE": shtab.FILE,
        "IMAGE": shtab.FILE,
        "ADDRESS": shtab.FILE,
        "DIR": shtab.DIRECTORY,
    }
    for each in _parsers(whole):
        for action in each._actions:
            if isinstance(action.metavar, str) and action.metavar in completed:
                action.complete = completed[action.metavar]  # type: ignore[attr-defined]
    types = " ".join([*sorted(short_names()), "thread-context"])
    preamble = _PREAMBLE[shell].replace("$TYPES", types)
    return shtab.complete(whole, shell, preamble=preamble)


def _parsers(whole: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of its subcommands."""
    yield whole
    for action in whole._actions:
        if isinstance(action.choices, dict):
            for each in action.choices.values():
                yield from _parsers(each)
