"""The command `memd`."""

from __future__ import annotations

from collections.abc import Sequence

from memd.cli.options import parse_arguments
from memd.cli.start import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run `memd`; gives its exit status.

    Args:
        argv: the arguments without the program's name; None for `sys.argv`'s.
    """
    return run_command("memd", parse_arguments, argv)
