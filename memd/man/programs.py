"""memd(8) from what `--help` prints, memctl(1) and memd-test(1) from their command lines."""

from __future__ import annotations

import argparse

from memd.cli.usage import USAGE
from memd.man.roff import Page
from memd.memctl.main import SUBCOMMANDS, subparser
from memd.memctl.main import parser as memctl_parser
from memd.testing.run import parser as memd_test_parser

_INDENT = 22
"""The column in which `--help` says what an option does."""

_DESCRIPTION = """\
memd owns host memory backends and serves them over QMP: QEMU's memory backends,
without QEMU. It answers as QEMU does, keeps the memory mapped, and hands it to
other processes by descriptor."""

_SECTIONS = {
    "ENVIRONMENT": {
        "XDG_RUNTIME_DIR": (
            "Where the default socket's directory is made, for users other than root."
        ),
        "LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES": (
            "Sockets, and memory kept over a restart, that a service manager passes; see"
            " sd_listen_fds(3)."
        ),
        "REGISTRY_AUTH_FILE, DOCKER_CONFIG": (
            "Where the passwords of template sources are, see docs/templating.md."
        ),
        "SSL_CERT_FILE": "Certificate authorities to trust for template sources.",
        "NOTIFY_SOCKET, WATCHDOG_USEC, FDSTORE": (
            "Where the service manager is told the state, and memory is kept; see sd_notify(3)."
        ),
    },
    "SIGNALS": {
        "SIGTERM, SIGINT, SIGHUP": "End memd, with status 0.",
        "SIGUSR1": (
            "Under a service manager: read the files of TLS credentials again, and store all memory"
            " with the manager again."
        ),
    },
    "FILES": {
        "/run/memd/qmp.sock": "The default socket of root's memd.",
        "$XDG_RUNTIME_DIR/memd/qmp.sock": "That of other users.",
        "/etc/memd/memd.conf": (
            "With the systemd unit: MEMD_OPTIONS=, the options, separated by blanks."
        ),
        "share/doc/memd/docs/": "Below the prefix that memd is installed in: the documents.",
    },
}


def daemon() -> Page:
    """memd(8)."""
    page = Page("memd", 8, "own memory backends of this host and serve them over QMP")
    page.heading("SYNOPSIS", "memd [OPTION]...")
    page.heading("DESCRIPTION", _DESCRIPTION)
    page.heading("OPTIONS")
    _options(page, USAGE.split("\n\n", 2)[2])
    for heading, entries in _SECTIONS.items():
        page.heading(heading)
        for name, text in entries.items():
            page.tagged(name, text)
    page.heading("SEE ALSO", "memctl(1), memd-test(1), memd-qmp-ref(7), qmp-shell(1), qemu(1)")
    return page


def _options(page: Page, text: str) -> None:
    """The parts of a usage text: headings, options with what they do, paragraphs."""
    for part in text.rstrip("\n").split("\n\n"):
        lines = part.split("\n")
        if lines[0].endswith(":") and not lines[0].startswith(" "):
            page.subheading(lines.pop(0).rstrip(":"))
        entry: list[str] = []
        loose: list[str] = []
        for line in lines:
            if line.startswith("  -"):
                _entry(page, entry)
                entry = [line]
            elif entry:
                entry.append(line)
            else:
                loose.append(line)
        _entry(page, entry)
        if loose and loose[0].startswith("  memd "):
            page.example("\n".join(line.strip() for line in loose))
        elif loose:
            page.paragraph("\n".join(line.strip() for line in loose))


def _entry(page: Page, lines: list[str]) -> None:
    """An option: its spelling, and below it what it does."""
    if not lines:
        return
    first = lines[0]
    if len(first) > _INDENT and first[_INDENT - 1] == " ":
        tag, said = first[:_INDENT], [first[_INDENT:]]
    else:
        # Too long to leave room on its line.
        tag, said = first, []
    said += [line[_INDENT:] for line in lines[1:]]
    page.tagged(tag.strip(), "\n".join(said))


def memctl() -> Page:
    """memctl(1)."""
    top = memctl_parser()
    page = Page("memctl", 1, "look at, try out and change the memory backends of a running memd")
    page.heading("SYNOPSIS", "memctl [OPTION]... SUBCOMMAND [ARGUMENT]...")
    page.heading("DESCRIPTION", top.description or "")
    page.heading("OPTIONS")
    _arguments(page, top)
    page.heading("SUBCOMMANDS")
    for name, (_module, summary) in SUBCOMMANDS.items():
        sub = subparser(top, name)
        page.subheading(" ".join(sub.format_usage().removeprefix("usage:").split()))
        page.paragraph(f"{sub.description or summary}")
        _arguments(page, sub, known=top)
        if sub.epilog:
            lines = sub.epilog.strip("\n")
            (page.example if "\n" in lines else page.paragraph)(lines)
    page.heading("EXIT STATUS")
    page.example((top.epilog or "").partition("\n")[2].strip("\n"))
    page.heading("SEE ALSO", "memd(8), memd-qmp-ref(7)")
    return page


def memd_test() -> Page:
    """memd-test(1)."""
    command = memd_test_parser()
    page = Page("memd-test", 1, "run a command beside a memd, and inject faults into it")
    page.heading("SYNOPSIS", command.usage or "")
    page.heading("DESCRIPTION", command.description or "")
    page.heading("OPTIONS")
    _arguments(page, command)
    page.heading("EXAMPLES")
    page.example(command.epilog or "")
    page.heading("SEE ALSO", "memd(8), memctl(1), memd-qmp-ref(7)")
    return page


def _arguments(
    page: Page, parser: argparse.ArgumentParser, known: argparse.ArgumentParser | None = None
) -> None:
    """A parser's arguments, but for options that `known` has."""
    formatter = parser._get_formatter()
    said = set() if known is None else set(known._option_string_actions)
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue
        if said.intersection(action.option_strings):
            continue
        page.tagged(_invocation(formatter, action), formatter._expand_help(action))


def _invocation(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    """The spelling of an argument; argparse's own differs between Python 3.12 and 3.13."""
    if not action.option_strings or action.nargs == 0:
        return formatter._format_action_invocation(action)
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    return f"{', '.join(action.option_strings)} {value}"
