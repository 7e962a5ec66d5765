"""The human monitor's words, in the format observed on QEMU 10.0.2."""

from __future__ import annotations

import pytest

from memd import __version__
from memd.qom import QObject
from memd.qom.builtin_objects import CONTAINER
from memd.work import Outcome
from tests.commands.fakes import Console


def say(console: Console, line: str) -> str:
    value = console("human-monitor-command", command_line=line)
    if isinstance(value, Outcome):
        value = value.value
    assert isinstance(value, str)
    return value


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", ""),
        ("   ", ""),
        ("foo", "unknown command: 'foo'\r\n"),
        ("/ foo", "unknown command: ''\r\n"),
        ("info foo", "unknown command: 'info foo'\r\n"),
        ('info  "status"', "unknown command: 'info  \"status\"'\r\n"),
        ("help foo", "unknown command: 'foo'\r\n"),
        ("info version", f"10.0.2memd {__version__}\r\n"),
        (" info  status ", "VM status: running\r\n"),
        ("info uuid", "00000000-0000-0000-0000-000000000000\r\n"),
        ("info kvm", "kvm support: disabled\r\n"),
        ("info name", ""),
        ("info memdev", "\r\n"),
        ("info qom-tree nope", "Path 'nope' could not be resolved.\r\n"),
        ("info qom-tree /objects", "/objects (container)\r\n"),
        ("help info version", "info version  -- show the version of QEMU\r\n"),
        ("help help", "help|? [cmd] -- show the help\r\n"),
        ("? stop", "stop|s  -- stop emulation\r\n"),
        (
            "info memdev x",
            "memdev: extraneous characters at the end of line\r\n"
            'Try "help info memdev" for more information\r\n',
        ),
        (
            "stop it",
            "stop|s: extraneous characters at the end of line\r\n"
            'Try "help stop" for more information\r\n',
        ),
    ],
)
def test_what_a_line_prints(line: str, text: str) -> None:
    assert say(Console(), line) == text


def test_help_lists_every_word_and_info_every_subject() -> None:
    console = Console()
    words = [line.split()[0] for line in say(console, "help").splitlines()]
    assert {"cont|c", "help|?", "info", "migrate", "object_add", "quit|q"} < set(words)
    assert len(words) == len(set(words))
    for word in words:
        assert say(console, f"help {word.split('|')[0]}").startswith(f"{word} ")
    subjects = say(console, "info")
    assert say(console, "help info") == subjects
    assert "info memdev  -- show memory backends\r\n" in subjects
    for line in subjects.splitlines():
        assert "unknown" not in say(console, " ".join(line.split()[:2]))


def test_memdev_shows_every_member() -> None:
    console = Console()
    console("object-add", qom_type="memory-backend-ram", id="m1", size=1 << 20)
    console(
        "object-add",
        qom_type="memory-backend-memfd",
        id="m2",
        size=4096,
        host_nodes=[0],
        policy="bind",
        merge=False,
        dump=False,
    )
    try:
        assert say(console, "info memdev") == "\r\n".join(
            [
                "memory backend: m1",
                "  size:  1048576",
                "  merge: true",
                "  dump: true",
                "  prealloc: false",
                "  share: false",
                "  reserve: true",
                "  policy: default",
                "  host nodes: ",
                "memory backend: m2",
                "  size:  4096",
                "  merge: false",
                "  dump: false",
                "  prealloc: false",
                "  share: true",
                "  reserve: true",
                "  policy: bind",
                "  host nodes: 0",
                "",
                "",
            ]
        )
    finally:
        console("object-del", id="m1")
        console("object-del", id="m2")


def test_states_read_as_in_qemu_and_events_are_sent() -> None:
    console = Console(stopped=True, name="store")
    assert say(console, "info status") == "VM status: paused (prelaunch)\r\n"
    assert say(console, "info name") == "store\r\n"
    outcome = console("human-monitor-command", command_line="c")
    assert [event.name for event in outcome.events] == ["RESUME"]
    assert outcome.value == ""
    assert say(console, "cont") == ""
    assert say(console, "s") == ""
    assert say(console, "info status") == "VM status: paused\r\n"
    assert console("human-monitor-command", command_line="quit").shutdown == "host-qmp-quit"


def test_what_is_printed_has_an_end() -> None:
    """It is put into JSON in one go."""
    console = Console()
    tree = console.daemon.tree
    tree.chardevs.add_child("x" * (4 << 20), QObject(CONTAINER, tree))
    text = "Error: there are more than 4194304 characters to tell\r\n"
    assert say(console, "info qom-tree /chardevs") == text
