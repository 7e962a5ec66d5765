"""What hostile clients do to others: `python -m benchmarks.attacks`.

A daemon is attacked, once for each row. Beside it stands another that nobody attacks:
what its client waits is the machine's doing. The longest wait less that of the idle
daemon's client says what the attack did; the 99.9th percentile says how often. The
longest turn is the processor time that the loop took in one go, which no other work on
the machine changes. Two
clients of one user are a good one and the hostile ones.

    python -m benchmarks.attacks --only path --tree OTHER_CHECKOUT
"""

from __future__ import annotations

import argparse
import array
import contextlib
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

TREE = Path(__file__).resolve().parents[1]
MIB = 1 << 20
SECONDS = 3.0
"""How long a row is watched."""

PAUSE = 0.002
"""Seconds between two questions of the good client."""

NEGOTIATE = b'{"execute":"qmp_capabilities"}'
ASK = b'{"execute":"query-status"}'
PATIENCE = 60.0


WATCHED = """
import asyncio.events, mmap, os, runpy, struct, sys, time
turns = mmap.mmap(os.open(sys.argv.pop(1), os.O_RDWR), 8)
run = asyncio.events.Handle._run
def timed(handle):
    begun = time.thread_time()
    run(handle)
    took = time.thread_time() - begun
    if took > struct.unpack("d", turns)[0]:
        turns[:] = struct.pack("d", took)
asyncio.events.Handle._run = timed
sys.argv[0] = "memd"
runpy.run_module("memd", run_name="__main__")
"""
"""A daemon that notes the longest turn of its loop."""


class Daemon:
    """A daemon in a directory of its own.

    Args:
        tree: the checkout that it is run from.
        options: of its command line.
    """

    def __init__(self, tree: Path, *options: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="memd-attacks-")
        self.directory = Path(self._directory.name)
        self.path = str(self.directory / "sock")
        turns = self.directory / "turns"
        turns.write_bytes(bytes(8))
        self._turns = mmap.mmap(os.open(turns, os.O_RDWR), 8)
        line = [sys.executable, "-c", WATCHED, str(turns)]
        line += ["--qmp", f"unix:{self.path},server=on,wait=off"]
        self.process = subprocess.Popen(
            [*line, *options],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(tree)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while not Path(self.path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)

    def peak(self) -> int:
        """Its resident memory at most (VmHWM), in bytes; 0 once it has died."""
        with contextlib.suppress(OSError, IndexError):
            for row in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if row.startswith("VmHWM:"):
                    return int(row.split()[1]) << 10
        return 0

    def begin(self) -> None:
        """Look at its turns from now on."""
        self._turns[:] = bytes(8)

    def longest_turn(self) -> float:
        """Seconds of processor time that its loop has spent at most in one go since."""
        seconds: float = struct.unpack("d", self._turns)[0]
        return seconds

    def close(self) -> None:
        """End it."""
        self._turns.close()
        self.process.kill()
        self.process.wait()
        self._directory.cleanup()


def connect(path: str, *, negotiate: bool = True) -> socket.socket:
    """A client's connection."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(path)
    if negotiate:
        line(sock)
        sock.sendall(NEGOTIATE)
        line(sock)
    return sock


def line(sock: socket.socket) -> bytes:
    """The next line that is not an event; what comes with it and after it is dropped."""
    parts: list[bytes] = []
    while True:
        more = sock.recv(1 << 20)
        if not more:
            raise ConnectionResetError
        while b"\n" in more:
            end, _, more = more.partition(b"\n")
            first = b"".join([*parts, end])
            parts.clear()
            if b'"event"' not in first[:120]:
                return first
        parts.append(more)


def command(name: str, **arguments: object) -> bytes:
    """A command; underscores stand for dashes."""
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    return json.dumps({"execute": name, "arguments": named}).encode()


def tell(sock: socket.socket, data: bytes) -> None:
    """Send all of it, for as long as it is taken."""
    with contextlib.suppress(OSError):
        sock.sendall(data)


# The attacks. Each is given the daemon's socket, a directory, and acts until it is killed.

Attack = Callable[[str, str], object]


def again(make: Callable[[], bytes], count: int = 1) -> Attack:
    """Clients that send the same again and again, and read what they are answered."""

    def attack(path: str, _directory: str) -> None:
        data = make()
        poll = select.poll()
        left: dict[int, tuple[socket.socket, memoryview]] = {}
        for _ in range(count):
            sock = connect(path)
            sock.setblocking(False)
            left[sock.fileno()] = sock, memoryview(data)
            poll.register(sock, select.POLLIN | select.POLLOUT)
        while left:
            for fd, flags in poll.poll():
                sock, rest = left[fd]
                try:
                    if flags & select.POLLIN and not sock.recv(1 << 20):
                        raise ConnectionResetError
                    if flags & select.POLLOUT:
                        rest = rest[sock.send(rest[: 1 << 20]) :]
                    left[fd] = sock, rest or memoryview(data)
                except BlockingIOError:
                    continue
                except OSError:
                    poll.unregister(sock)
                    sock.close()
                    del left[fd]

    return attack


def begin(make: Callable[[int, str], bytes], count: int, *before: bytes) -> Attack:
    """As many clients, each of which sends one command at the same time, and waits.

    Args:
        make: the command, by the client's number and a directory.
        before: what one client sends first, and is answered.
    """

    def attack(path: str, directory: str) -> None:
        first = connect(path)
        for each in before:
            first.sendall(each)
            line(first)
        socks = [connect(path) for _ in range(count)]
        for number, sock in enumerate(socks):
            sock.sendall(make(number, directory))
        for sock in socks:
            with contextlib.suppress(OSError):
                line(sock)
        print("done", flush=True)

    return attack


def unread_exports(count: int, each: int) -> Attack:
    """Exports that nobody reads."""

    def attack(path: str, _directory: str) -> None:
        first = connect(path)
        first.sendall(command("object-add", qom_type="memory-backend-memfd", id="e", size=4096))
        line(first)
        socks = [connect(path) for _ in range(count)]
        for sock in socks:
            sock.setblocking(False)
            tell(sock, command("x-memdev-export", id="e") * each)
        time.sleep(PATIENCE)

    return attack


def silent(count: int) -> Attack:
    """Clients that say nothing."""

    def attack(path: str, _directory: str) -> None:
        socks = []
        with contextlib.suppress(OSError):
            for _ in range(count):
                socks.append(connect(path, negotiate=False))
        time.sleep(PATIENCE)

    return attack


def with_descriptors(path: str, _directory: str) -> None:
    """Descriptors that come with nothing that takes them, before negotiation."""
    with open(os.devnull) as null:
        socks = []
        for _ in range(70):
            sock = connect(path, negotiate=False)
            rights = array.array("i", [null.fileno()] * 16)
            with contextlib.suppress(OSError):
                sock.sendmsg([b"{"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            socks.append(sock)
        time.sleep(PATIENCE)


def add(number: int, kind: str, size: int, **options: object) -> bytes:
    """object-add of memory."""
    type_ = f"memory-backend-{kind}"
    return command("object-add", qom_type=type_, id=f"a{number}", size=size, **options)


BIG = command("object-add", qom_type="memory-backend-memfd", id="big", size=512 * MIB)
SECRET = command("object-add", qom_type="secret", id="s", data="x" * 1_000_000) + 8 * (
    command("qom-set", path="/objects/s", property="data", value="y" * 1_000_000)
    + command("qom-get", path="/objects/s", property="data")
)
PLUG = "object_add secret,id=s," + ",".join(f"data=word{at}" for at in range(1200))
STRINGS = [["x" * 256] * 32] * 32


def list_many(path: str) -> None:
    """Make many objects, and list them again and again."""
    first = connect(path)
    for at in range(4000):
        first.sendall(add(1000 + at, "ram", 4096))
        line(first)
    while True:
        for name, arguments in (
            ("x-memdev-stat", {}),
            ("query-memdev", {}),
            ("qom-list", {"path": "/objects"}),
            ("human-monitor-command", {"command_line": "info memdev"}),
        ):
            first.sendall(command(name, **arguments))
            line(first)


def stalled(call: str, make: Callable[[int, str], bytes]) -> Attack:
    """Twenty commands on a FUSE file system that does not answer."""

    def attack(path: str, directory: str) -> None:
        where, control = Path(directory, "broken"), Path(directory, "control")
        for each in (where, control):
            each.mkdir()
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.broken_fs", str(where), str(control)], cwd=TREE
        )
        while not os.path.ismount(where):
            time.sleep(0.01)
        (where / "file").write_bytes(bytes(16 * MIB))
        first = connect(path)
        options: dict[str, Any] = {"mem-path": str(where / "file"), "share": True}
        first.sendall(add(0, "file", 16 * MIB, **options))
        line(first)
        (control / call).write_text("stall")
        socks = [connect(path) for _ in range(20)]
        for number, sock in enumerate(socks):
            sock.sendall(make(number + 1, str(where)))
        time.sleep(PATIENCE)

    return attack


class Row(NamedTuple):
    """An attack.

    Attributes:
        name: by which it is chosen.
        told: what it is, in the table.
        attack: it.
        options: of the daemon.
        finishes: whether it comes to an end; how long that takes is shown then.
    """

    name: str
    told: str
    attack: Attack
    options: tuple[str, ...] = ()
    finishes: bool = False


def value(name: str, text: str) -> Callable[[], bytes]:
    """A command with a long string as its path."""
    arguments = {"path": text, "property": "x"} if name == "qom-get" else {"command-line": text}
    return lambda: json.dumps({"execute": name, "arguments": arguments}).encode()


ROWS = (
    Row("none", "nothing", lambda _path, _directory: time.sleep(PATIENCE)),
    Row("exports", "7 clients, 270 unread exports each", unread_exports(7, 270)),
    Row("exports-1", "one client, 1,500 unread exports", unread_exports(1, 1500)),
    Row("descriptors", "70 clients, 16 descriptors each, not negotiated", with_descriptors),
    Row("silent", "clients that never negotiate, as many as get in", silent(600)),
    Row("path", "`qom-get`, a path of 16 MiB", again(value("qom-get", "ab/" * 5592400))),
    Row("path-2m", "`qom-get`, a path of 2 MB", again(value("qom-get", "ab/" * 660000))),
    Row(
        "help",
        "`help ab …` of 2 MB",
        again(value("human-monitor-command", "help " + "ab " * 650000)),
    ),
    Row(
        "unknown",
        "400,000 unknown arguments",
        again(lambda: command("query-name", **{f"a{at}": 1 for at in range(400_000)})),
    ),
    Row(
        "unknown-4k",
        "4,000 unknown arguments",
        again(lambda: command("query-name", **{f"a{at}": 1 for at in range(4000)})),
    ),
    Row(
        "mem-path",
        "`mem-path` of 2 MB, `--mem-root`",
        again(lambda: add(0, "file", 4096, mem_path="/dev/shm/" + "ab/" * 650_000)),
        ("--mem-root", "/dev/shm"),
    ),
    Row(
        "list-get",
        "`qom-list-get` of 8,000 paths, 11.1",
        again(lambda: command("qom-list-get", paths=["/objects"] * 8000)),
        ("--compat", "11.1"),
    ),
    Row("lists", "16 MiB of `[],`", again(lambda: b'{"execute":"x","id":[' + b"[]," * 5592400)),
    Row(
        "lists-16k",
        "16,000 tokens of `[],`",
        again(lambda: b'{"execute":"x","id":[' + b"[]," * 5400 + b"1]}"),
    ),
    Row("numbers", "7,000 numbers", again(lambda: command("query-name", id=list(range(7000))))),
    Row("string", "a string of 20 MiB", again(lambda: command("x", a="x" * (20 * MIB)))),
    Row(
        "escapes",
        "2 MB of escapes",
        again(lambda: b'{"execute":"x","id":"' + b"\\u20ac" * 330000 + b'"}'),
    ),
    Row(
        "nodes",
        "7,000 host-nodes",
        again(lambda: add(0, "ram", 4096, policy="bind", host_nodes=[0] * 7000)),
    ),
    Row(
        "nodes-30k",
        "30,000 host-nodes, `--max-tokens` for them",
        again(lambda: add(0, "ram", 4096, policy="bind", host_nodes=[0] * 30000)),
        ("--max-tokens", "70000"),
    ),
    Row(
        "properties",
        "`device-list-properties`, again and again",
        again(lambda: command("device-list-properties", typename="virtio-mem-pci")),
    ),
    Row(
        "id",
        "an `id` of 250 KB of points",
        again(lambda: json.dumps({"execute": "query-name", "id": "." * 250_000}).encode()),
    ),
    Row(
        "lists-left",
        "100 clients that begin lists of 16,000 tokens",
        begin(lambda _at, _where: b'{"execute":"x","id":[' + b"[]," * 5300, 100),
    ),
    Row("secret", "a secret of 1 MB, changed again and again", again(lambda: SECRET)),
    Row(
        "redaction",
        "`object_add secret,…` of 16,000 characters, `--audit`",
        again(lambda: command("human-monitor-command", command_line=PLUG)),
        ("--audit", os.devnull),
    ),
    Row(
        "audit",
        "`qom-set` of 32 times 32 strings, `--audit`",
        again(lambda: command("qom-set", path="/objects", property="x", value=STRINGS)),
        ("--audit", os.devnull),
    ),
    Row(
        "objects",
        "4,000 objects, listed in four ways",
        lambda path, _directory: list_many(path),
    ),
    Row("types", "`qom-list-types`", again(lambda: command("qom-list-types", abstract=True))),
    Row("schema", "`query-qmp-schema`", again(lambda: command("query-qmp-schema"))),
    Row("garbage", "garbage, an error a byte", again(lambda: b"}" * 65536)),
    Row(
        "writes",
        "writes of 16 MiB",
        again(
            lambda: (
                BIG + command("x-memdev-write", id="big", offset=0, data="A" * (21 * MIB) + "AAA=")
            )
        ),
    ),
    Row("flood", "200 clients that ask without an end", again(lambda: ASK * 100, 200)),
    Row(
        "flood-add",
        "100 clients that add and delete",
        again(lambda: add(0, "ram", 4096) + command("object-del", id="a0"), 100),
    ),
    Row(
        "saves",
        "100 saves of 16 MiB at once",
        begin(
            lambda at, where: command("x-memdev-save", id="big", filename=f"{where}/s{at}"),
            100,
            BIG.replace(b"536870912", b"16777216"),
            command("x-memdev-write", id="big", offset=0, data="qqqq" * (4 * MIB)),
        ),
        finishes=True,
    ),
    Row(
        "maps",
        "100 `x-memdev-map` of 512 MiB at once",
        begin(lambda at, where: command("x-memdev-map", id="big"), 100, BIG),
        finishes=True,
    ),
    Row(
        "preallocs",
        "100 preallocations of 16 MiB at once",
        begin(lambda at, where: add(at, "memfd", 16 * MIB, prealloc=True), 100),
        finishes=True,
    ),
    Row(
        "reads",
        "100 reads of 16 MiB at once",
        begin(
            lambda at, where: command("x-memdev-read", id="big", offset=0, length=16 * MIB),
            100,
            BIG,
        ),
        finishes=True,
    ),
    Row(
        "stall-open",
        "20 `object-add` on a stalled FUSE",
        stalled("open", lambda at, where: add(at, "file", 4096, mem_path=f"{where}/file")),
    ),
    Row(
        "stall-read",
        "20 reads of 16 MiB on a stalled FUSE",
        stalled(
            "read", lambda at, where: command("x-memdev-read", id="a0", offset=0, length=16 * MIB)
        ),
    ),
    Row(
        "stall-flush",
        "`object-del` on a stalled FUSE",
        stalled("flush", lambda at, where: command("object-del", id="a0")),
    ),
)


class Result(NamedTuple):
    """What came of one attack; waits and the longest turn in seconds, memory in bytes."""

    longest: float
    control: float
    most: float
    control_most: float
    turn: float
    memory: int
    took: float | None
    others: str


def ask(sock: socket.socket) -> float:
    """How long an answer takes."""
    begun = time.perf_counter()
    sock.sendall(ASK)
    line(sock)
    return time.perf_counter() - begun


def can_others(path: str) -> str:
    """What a client that comes now can do."""
    try:
        with connect(path) as sock:
            sock.settimeout(5)
            sock.sendall(add(999, "memfd", 4096))
            if b'"return"' not in line(sock):
                return "answered, no new object"
            sock.sendall(command("x-memdev-read", id="a999", offset=0, length=4096))
            if b'"return"' not in line(sock):
                return "answered, no reads"
            return "all"
    except OSError:
        return "do not get in"


def run(row: Row, tree: Path, seconds: float) -> Result:
    """Attack, and watch."""
    daemon, idle = Daemon(tree, *row.options), Daemon(tree)
    good, control = connect(daemon.path), connect(idle.path)
    for _ in range(50):
        ask(good), ask(control)
    # What the first object brings along is not the attack's doing.
    for each in (add(998, "memfd", 4096), command("object-del", id="a998")):
        good.sendall(each)
        line(good)
    daemon.begin()
    before = daemon.peak()
    attacker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks", "--attack", row.name, daemon.path]
        + [str(daemon.directory)],
        cwd=TREE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    waits: list[float] = []
    control_waits: list[float] = []
    took, turn = None, 0.0
    try:
        begun = time.monotonic()
        while time.monotonic() < begun + (PATIENCE if row.finishes else seconds):
            waits.append(ask(good))
            control_waits.append(ask(control))
            if row.finishes and attacker.poll() is not None:
                took = time.monotonic() - begun
                break
            time.sleep(PAUSE)
        turn = daemon.longest_turn()
        others = can_others(daemon.path)
    except OSError:
        others = "the daemon died" if daemon.process.poll() is not None else "were disconnected"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(attacker.pid, signal.SIGKILL)
        attacker.wait()
        memory = daemon.peak() - before
        unmount = ["umount", "-l", str(daemon.directory / "broken")]
        subprocess.run(unmount, check=False, capture_output=True)
        daemon.close()
        idle.close()
    most, control_most = max(waits, default=0.0), max(control_waits, default=0.0)
    figures = quantile(waits), quantile(control_waits), most, control_most
    return Result(*figures, turn, memory, took, others)


def quantile(waits: list[float]) -> float:
    """The 99.9th percentile."""
    ordered = sorted(waits)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.999))] if ordered else 0.0


def rows(names: list[str]) -> Iterator[Row]:
    """Those that are named, or all."""
    for row in ROWS:
        if not names or row.name in names:
            yield row


def main() -> None:
    """Attack in every way, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attacks", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--tree", type=Path, default=TREE, help="the checkout that is attacked")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--attack", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        name, path, directory = options.attack
        next(rows([name])).attack(path, directory)
        return
    print(
        "| attack | p99.9 ms (idle) | longest less idle's ms | longest turn ms | memory MiB"
        " | took s | others can |"
    )
    print("|---|---:|---:|---:|---:|---:|---|")
    for row in rows(options.only):
        found = run(row, options.tree.resolve(), options.seconds)
        print(
            f"| {row.told} | {found.longest * 1e3:.1f} ({found.control * 1e3:.1f})"
            f" | {(found.most - found.control_most) * 1e3:.0f} | {found.turn * 1e3:.1f}"
            f" | {found.memory / MIB:.0f}"
            f" | {'' if found.took is None else f'{found.took:.1f}'} | {found.others} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
