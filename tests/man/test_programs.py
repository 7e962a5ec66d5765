"""memd(8) and memctl(1): every option and subcommand is in them."""

from __future__ import annotations

import re

from memd.cli.usage import USAGE
from memd.man.programs import daemon, memctl, memd_test
from memd.man.roff import escaped
from memd.memctl.main import SUBCOMMANDS


def test_every_option_of_the_daemon() -> None:
    source = daemon().source()
    options = re.findall(r"^  (--[a-z-]+)", USAGE, re.MULTILINE)
    assert len(options) > 20
    for option in options:
        assert f".TP\n\\fB{escaped(option)}" in source


def test_what_an_option_does() -> None:
    source = daemon().source()
    part = source.partition(f"\\fB{escaped('--pidfile FILE')}\\fR\n")[2].partition("\n.TP")[0]
    assert part == escaped("write the process id there, locked while memd runs")


def test_examples_keep_their_lines() -> None:
    source = daemon().source()
    line = escaped("memd --qmp unix:/run/vm/mem.sock,server=on,wait=off")
    assert f".nf\n{line}\n" in source.partition('.SS "Examples"')[2]


def test_every_subcommand() -> None:
    source = memctl().source()
    for name, (_module, _summary) in SUBCOMMANDS.items():
        assert f'.SS "memctl {escaped(name)} ' in source
    assert escaped("3    there is no daemon, or it went away") in source
    # What all of them take stands once.
    assert source.count(escaped("-s, --socket ADDRESS")) == 1


def test_the_test_kits_command() -> None:
    source = memd_test().source()
    for option in ("--fault FAULT", "--replay FILE", "--check-schema"):
        assert f".TP\n\\fB{escaped(option)}\\fR" in source
    assert escaped("memd-test --replay conversation.jsonl -- ./my-test") in source
