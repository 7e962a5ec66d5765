"""The human monitor: what its words take and print, and its terminal on a socket."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memd.json_types import JSON
from tests.differential.harness import Side, settle
from tests.differential.server import PATIENCE, qemu_argv, qemu_compat, qemu_system_memd, running
from tests.differential.standin import standin_pair, tell
from tests.seeds import seed_of_run

NOBODY_THERE = "migrate unix:@DIR@/no"

OF_MIGRATION = (
    *("info migrate", "info migrate_capabilities", "info migrate_parameters", "migrate"),
    *("migrate -x unix:/no", NOBODY_THERE, "migrate -d nope", "migrate -d -r unix:x"),
    *("migrate -dr unix:x", "migrate -b unix:x", "migrate unix:x y", "migrate_cancel"),
    *("info migrate -a", "info migrate x", "migrate_set_capability events on"),
    *("migrate_set_capability nope on", "migrate_set_capability events maybe"),
    *("migrate_set_capability events", "migrate_set_capability", "info migrate_capabilities"),
    *("migrate_set_parameter max-bandwidth 1M", "migrate_set_parameter max-bandwidth 10"),
    *("migrate_set_parameter max-bandwidth 1x", "migrate_set_parameter max-bandwidth -1"),
    *("migrate_set_parameter downtime-limit 100", "migrate_set_parameter downtime-limit 1x"),
    *("migrate_set_parameter nope 1", "migrate_set_parameter downtime-limit"),
    *("migrate_set_parameter tls-creds foo", "migrate_set_parameter multifd-channels 0"),
    *("migrate_set_parameter multifd-channels x", "migrate_set_parameter direct-io maybe"),
    *("migrate_set_parameter multifd-compression zlib", "migrate_set_parameter mode foo"),
    *("migrate_set_parameter cpu-throttle-initial 5", "migrate_set_parameter announce-max 9"),
    *("migrate_set_parameter xbzrle-cache-size 1M", "migrate_set_parameter announce-rounds x"),
    *("migrate_set_parameter xbzrle-cache-size 1000", "info migrate_parameters"),
    *("migrate_set_parameter max-postcopy-bandwidth 1M", "migrate_start_postcopy"),
    *("migrate_continue pre-switchover", "migrate_continue nope", "migrate_continue"),
    *("migrate_set_parameter tls-authz a", "migrate_set_parameter block-bitmap-mapping x"),
    *("migrate_set_parameter mode normal x", "migrate_set_parameter x-rdma-chunk-size 3M"),
    *("migrate_set_parameter x-rdma-chunk-size 2M", "migrate_set_parameter cpr-exec-command 'a"),
    *("migrate_set_parameter cpr-exec-command a 'b c'", "info migrate_parameters"),
)
OTHERS = (
    *("device_add", "device_del", "device_del a b", 'device_del "a b"', 'device_del "a'),
    *("object_add", 'object_add "memory-backend-ram,id=x" y', "object_del", "netdev_add"),
    *("balloon", "balloon x", "balloon 5x", "balloon -5", "balloon 0x10", "qom-list / /"),
    *("qom-get /", "qom-get / x y", "qom-set / x", "qom-set -j / x", "qom-set -k / x y"),
    *("sendkey", "sendkey a 1x", "sendkey a 5 6", "sendkey a foo", "sendkey nope", "sendkey a-b"),
    *("set_link x", "set_link x maybe", "set_link x on y", "set_link x on", "chardev-remove"),
    *("watchdog_action", "watchdog_action foo bar", "watchdog_action foo", "info balloon x"),
    *("block_resize nope", "block_resize nope 1", "block_resize nope -1", "block_resize"),
    *("block_resize nope 1.5G", "block_resize nope 1x", "nbd_server_stop", "nbd_server_stop x"),
    *("chardev-send-break nope", r'object_del "a\"b\\c"', r'object_del "a\qb"'),
)


@pytest.mark.parametrize("lines", [OF_MIGRATION, OTHERS], ids=["migration", "others"])
def test_what_words_take_and_print(directory: Path, lines: Sequence[str]) -> None:
    with standin_pair(directory, "-machine", "q35", "-device", "virtio-balloon-pci") as pair:
        for line in lines:
            tell(pair, [("human-monitor-command", {"command-line": line})])
            if line == NOBODY_THERE:
                pair.each(wait_for_failure)


def wait_for_failure(side: Side) -> None:
    """A migration connects beside the monitor."""
    settle(lambda: side.ask("query-migrate")["return"], lambda now: now["status"] == "failed")


def test_the_bitmaps_of_migration_are_told(directory: Path) -> None:
    bitmaps = [{"name": "b", "alias": "c"}, {"name": "d", "alias": "e"}]
    nodes: JSON = [
        {"node-name": "n", "alias": "a", "bitmaps": bitmaps},
        {"node-name": "m", "alias": "f", "bitmaps": []},
    ]
    none: JSON = []
    steps: list[tuple[str, JSON]] = []
    for value in (nodes, none):
        steps.append(("migrate-set-parameters", {"block-bitmap-mapping": value}))
        steps.append(("human-monitor-command", {"command-line": "info migrate_parameters"}))
    with standin_pair(directory, "-machine", "none") as pair:
        tell(pair, steps)


TYPED = (
    *(b"", b"info status\n", b"info status\r\n", b"info name\ninfo status\n", b"ab\x7fc\n"),
    *(b"ab\bc\n", b"\x7fa\n", "\u00e4\n".encode(), b"\xff\tx\n", b"\n\n", b"foo bar\n"),
    *(b"info status", b"stop\ninfo status\ncont\ninfo status\n", b"x" * 300 + b"\n"),
)


KEYS = (
    *("v", "w", "z", "-", " ", "v w", "\n", "\n", "\r", "\u00e4", "\x00", "\x02", "\x06", "\x0b"),
    *("\x01", "\x04", "\x05", "\b", "\x7f", "\x0c", "\x0e", "\x10", "\x15", "\x17"),
    *("\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[D", "\x1b[E", "\x1b[F", "\x1b[H", "\x1b[1;5D"),
    *("\x1b[1~", "\x1b[2~", "\x1b[3~", "\x1b[4~", "\x1b[13~", "\x1b[1D", "\x1bOF", "\x1bOH"),
    *("\x1bOA", "\x1b", "\x1b\x1b", "\x1b[", "\x1b[\r", "\x9bC", "\x9b"),
    *("\x05\x15object_\t", "\x05\x15info memory\t\x15", "\x05\x15info status \t\x15"),
    *(
        "\x05\x15vw\t",
        "\x05\x15  help inf\t\x15",
        "\x05\x15info mi\tz\x15",
        "\x05\x15? info st\ta\t\x15",
    ),
)


def test_its_keys(directory: Path) -> None:
    seed = seed_of_run()
    drawn = random.Random(seed).choices(KEYS, k=600)
    # Of several in one write, too, and of more lines than are kept in the history.
    data = b"".join(each.encode("latin-1") for each in drawn)
    data += b"".join(b"v%d\n" % each for each in range(70)) + b"\x10" * 70 + b"\n"
    with terminal("QEMU", directory) as theirs, terminal("memd", directory) as ours:
        told = typed(ours, data)
        assert told == typed(theirs, data, len(told)), f"MEMD_SEED={seed}"


@contextlib.contextmanager
def terminal(name: str, directory: Path, *, telnet: bool = False) -> Iterator[Path]:
    place, path = directory / name, directory / f"{name}.sock"
    place.mkdir()
    argv = qemu_argv() if name == "QEMU" else [*qemu_system_memd(qemu_compat()), "-nodefaults"]
    where = f"socket,id=c,path={path},server=on,wait=off,telnet={'on' if telnet else 'off'}"
    line = [*argv, "-S", "-chardev", where, "-mon", "c"]
    with running(name, line, place):
        yield path


def typed(path: Path, data: bytes, length: int = 0) -> bytes:
    """All that is shown where these bytes are typed, and then no more.

    Args:
        length: how many bytes are awaited first, as QEMU 11.1 may forget what was typed
            once no more can come.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        shown = client.recv(1 << 16)
        while not shown.endswith(b"(qemu) "):
            shown += client.recv(1 << 16)
        client.sendall(data)
        while len(shown) < length and (more := client.recv(1 << 16)):
            shown += more
        client.shutdown(socket.SHUT_WR)
        while more := client.recv(1 << 16):
            shown += more
        return shown


def test_its_terminal(directory: Path) -> None:
    with terminal("QEMU", directory) as theirs, terminal("memd", directory) as ours:
        for data in TYPED:
            told = typed(ours, data)
            expected = typed(theirs, data, len(told))
            assert told == expected, data
            # No event is shown, and byte by byte it is the same.
            assert b"RESUME" not in expected
        assert typed(ours, b"quit\n") == typed(theirs, b"quit\n")


TELNET = (
    *(
        b"info status\r\n",
        b"info name\r\0info status\r\0",
        b"\xff\xfd\x01info \xff\xfb\x03status\n",
    ),
    *(b"info \xff\xff\n", b"info\xff\xf3 name\n", b"\xff\xf4info name\n"),
    # QEMU goes on with what the last connection has begun.
    *(b"\xff\xfa\x18\xff\xf0info\n", b"info name\xff"),
)


def test_its_terminal_over_telnet(directory: Path) -> None:
    with (
        terminal("QEMU", directory, telnet=True) as theirs,
        terminal("memd", directory, telnet=True) as ours,
    ):
        for data in TELNET:
            told = typed(ours, data)
            assert told.startswith(b"\xff\xfb\x01")
            assert told == typed(theirs, data, len(told)), data


def test_where_telnet_is_told(directory: Path) -> None:
    with standin_pair(directory, "-monitor", "telnet:127.0.0.1:0,server,nowait") as pair:
        pair.same("addresses", without_ports)


def without_ports(side: Side) -> JSON:
    """The addresses of character devices, whose ports are the kernel's choice."""
    rows = side.ask("query-chardev")["return"]
    return sorted(
        re.sub(r":\d+,", ",", each["filename"]) for each in rows if "tel" in each["filename"]
    )
