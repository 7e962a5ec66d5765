"""Hostile clients beside good ones, and what has to be true after each answer.

All that happens is drawn from a seed. Good clients know from a model what they have to
be answered; hostile ones send what they like, take what they can, and leave. Beside the
daemon stands another that nobody attacks: what its client waits is the machine's doing.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from memd.client import Client, QMPError
from tests.differential.kernel import descriptors
from tests.differential.server import PATIENCE, Server, memd_argv

OPTIONS = (
    *("--max-clients", "60", "--max-descriptors", "60", "--max-objects", "12"),
    *("--max-memory", "64M", "--max-held", "64M", "--negotiation-timeout", "5"),
)
MOST_OBJECTS = 12
MOST_MEMORY = 64 << 20
SIZES = (4096, 1 << 20, 8 << 20, 40 << 20)
GOOD = 3
"""Good clients at a time."""

MOST_DESCRIPTORS = 60 + 60 + 3 * MOST_OBJECTS + 30
"""What the daemon may have open: clients, their descriptors, memory, and its own."""


class Wrong(AssertionError):
    """Something is not as it has to be."""


class Waits:
    """How long a client waited for its answers, in seconds."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def ask(self, client: Client) -> None:
        """Ask for something that takes no time."""
        begin = time.perf_counter()
        client.execute("query-status")
        self.all.append(time.perf_counter() - begin)

    @property
    def longest(self) -> float:
        """The longest."""
        return max(self.all, default=0.0)

    def quantile(self, share: float) -> float:
        """What so many did not wait longer than."""
        ordered = sorted(self.all)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Attack:
    """A daemon under attack.

    Args:
        seed: what everything is drawn from.
        directory: for sockets.
    """

    def __init__(self, seed: int, directory: Path) -> None:
        self.random = random.Random(seed)
        self.directory = directory
        self.starts = 0
        self.steps = 0
        self.waits, self.control_waits = Waits(), Waits()
        self._control = self._start(())
        self._control_client = Client(self._control.path, timeout=PATIENCE)
        self._hostile: list[socket.socket] = []
        self.server: Server
        self._good: list[Client] = []
        # What there is: sizes and first bytes, by id.
        self.objects: dict[str, tuple[int, bytes]] = {}
        self._restart()

    def _start(self, options: tuple[str, ...]) -> Server:
        self.starts += 1
        place = self.directory / f"d{self.starts}"
        place.mkdir()
        return Server("memd", [*memd_argv(), *options], place)

    def _restart(self) -> None:
        self.server = self._start(OPTIONS)
        self.objects.clear()
        self._good = [Client(self.server.path, timeout=PATIENCE) for _ in range(GOOD)]

    def run(self, seconds: float) -> None:
        """Attack for so long.

        Raises:
            Wrong: the daemon did what it must not.
        """
        end = time.monotonic() + seconds
        actions: tuple[tuple[Callable[[], None], int], ...] = (
            *((self._add, 20), (self._delete, 12), (self._write, 12), (self._export, 8)),
            *((self._list, 8), (self._silent, 6), (self._garbage, 8), (self._half, 6)),
            *((self._descriptors, 6), (self._unread, 4), (self._flood, 3), (self._long, 2)),
            *((self._leave, 12), (self._stop_reading, 3), (self._kill, 1)),
        )
        names, weights = zip(*actions, strict=True)
        while time.monotonic() < end:
            self.steps += 1
            self.random.choices(names, weights)[0]()
            self.waits.ask(self.random.choice(self._good))
            self.control_waits.ask(self._control_client)
            if self.steps % 50 == 0:
                self._check()
        self._check()

    def close(self) -> None:
        """End both daemons, which have to end well."""
        self._drop_hostile()
        for client in (*self._good, self._control_client):
            client.close()
        for server in (self.server, self._control):
            if server.alive():
                server.process.send_signal(signal.SIGTERM)
                _see(server.wait() == 0, "the daemon did not end with status 0")
            server.stop()

    # What good clients do, and what they have to be answered.

    def _expect(self, error: str | None, command: str, **arguments: object) -> object:
        client = self.random.choice(self._good)
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            value = client.execute(command, named)
        except QMPError as refused:
            _see(error is not None and error in refused.desc, f"{command}: {refused.desc}")
            return None
        _see(error is None, f"{command} {named}: no error, but {error!r} was expected")
        return value

    def _id(self) -> str:
        return f"m{self.random.randrange(16)}"

    def _add(self) -> None:
        id, size = self._id(), self.random.choice(SIZES)
        error = None
        taken = sum(size for size, _data in self.objects.values())
        if id in self.objects:
            error = "duplicate property"
        elif len(self.objects) >= MOST_OBJECTS:
            error = "--max-objects"
        elif taken + size > MOST_MEMORY:
            error = "--max-memory"
        kind = self.random.choice(("memfd", "ram", "shm"))
        share = kind != "ram" or self.random.random() < 0.5
        options = {"qom_type": f"memory-backend-{kind}", "share": share}
        self._expect(error, "object-add", id=id, size=size, **options)
        if error is None:
            self.objects[id] = size, bytes(4)

    def _delete(self) -> None:
        id = self._id()
        self._expect(None if id in self.objects else "not found", "object-del", id=id)
        self.objects.pop(id, None)

    def _write(self) -> None:
        id = self._id()
        client = self.random.choice(self._good)
        if id in self.objects:
            data = self.random.randbytes(4)
            client.write(id, 0, data)
            self.objects[id] = self.objects[id][0], data
            _see(client.read(id, 0, 4) == data, "what was written is not read")

    def _export(self) -> None:
        id = self._id()
        if id not in self.objects:
            return
        try:
            with self.random.choice(self._good).export(id, writable=False) as memory:
                found = os.pread(memory.fd, 4, memory.offset)
        except QMPError as refused:
            known = "share=on" in refused.desc or "--max-descriptors" in refused.desc
            _see(known, f"export: {refused.desc}")
        else:
            _see(found == self.objects[id][1], "an export has other content")

    def _list(self) -> None:
        found = self.random.choice(self._good).execute("query-memdev")
        told = {each["id"]: each["size"] for each in found}
        _see(told == {id: size for id, (size, _data) in self.objects.items()}, "query-memdev")

    # What hostile ones do.

    def _connect(self, *, negotiate: bool = True) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(self.server.path))
            greeted = bool(sock.recv(4096))
            if greeted and negotiate:
                sock.sendall(b'{"execute":"qmp_capabilities"}')
                greeted = bool(sock.recv(4096))
        except OSError:
            greeted = False
        if not greeted:
            # There are too many.
            sock.close()
            return None
        sock.setblocking(False)
        self._hostile.append(sock)
        return sock

    def _send(self, data: bytes, fds: tuple[int, ...] = (), *, negotiate: bool = True) -> None:
        sock = self._connect(negotiate=negotiate)
        if sock is None:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with contextlib.suppress(OSError):
            sent = sock.sendmsg([data], rights)
            while sent < len(data):
                sent += sock.send(data[sent:])

    def _silent(self) -> None:
        self._connect(negotiate=self.random.random() < 0.5)

    def _garbage(self) -> None:
        alphabet = b"{}[]:,\"'\\ab01-.e \n\xff\x00\xc0\x80"
        length = self.random.randrange(1, 60_000)
        self._send(bytes(self.random.choices(alphabet, k=length)))

    def _half(self) -> None:
        what = self.random.choice((b"[],", b"1,", b'"a",', b"[", b'{"a":'))
        self._send(b'{"execute":"query-name","id":[' + what * self.random.randrange(1, 80_000))

    def _descriptors(self) -> None:
        with open("/dev/null") as null:
            what = self.random.choice((b"{", b'{"execute":"query-name"}', b'{"execute":"add-fd"}'))
            count = self.random.randrange(1, 20)
            self._send(what, (null.fileno(),) * count, negotiate=self.random.random() < 0.7)

    def _unread(self) -> None:
        ask = json.dumps({"execute": "x-memdev-export", "arguments": {"id": self._id()}}).encode()
        self._send(ask * self.random.randrange(1, 60))

    def _flood(self) -> None:
        self._send(b'{"execute":"query-qmp-schema"}' * self.random.randrange(1, 300))

    def _long(self) -> None:
        path = "ab/" * self.random.randrange(1000, 2_000_000)
        message = {"execute": "qom-get", "arguments": {"path": path, "property": "x"}}
        self._send(json.dumps(message).encode())

    def _stop_reading(self) -> None:
        if self._hostile:
            with contextlib.suppress(OSError):
                self.random.choice(self._hostile).shutdown(socket.SHUT_WR)

    def _leave(self) -> None:
        for _ in range(min(len(self._hostile), self.random.randrange(1, 6))):
            self._hostile.pop(self.random.randrange(len(self._hostile))).close()

    def _drop_hostile(self) -> None:
        while self._hostile:
            self._hostile.pop().close()

    def _kill(self) -> None:
        if self.random.random() < 0.7:
            return
        number = self.random.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGINT))
        for client in self._good:
            client.close()
        self.server.process.send_signal(number)
        wanted = -signal.SIGKILL if number == signal.SIGKILL else 0
        _see(self.server.wait() == wanted, "the daemon ended otherwise")
        self._drop_hostile()
        self._restart()

    # What has to be true at any time.

    def _check(self) -> None:
        _see(self.server.alive(), f"the daemon has died: {self.server.stderr()[-2000:]}")
        count = sum(descriptors(self.server.pid).values())
        _see(count <= MOST_DESCRIPTORS, f"{count} descriptors are open")
        self._list()
        for id, (_size, data) in self.objects.items():
            _see(self._good[0].read(id, 0, 4) == data, "memory has other content")
        log = self.server.stderr()
        _see("unexpectedly" not in log and "Traceback" not in log, log[-2000:])

    def figures(self) -> str:
        """What clients waited, in milliseconds."""
        longest = self.waits.longest - self.control_waits.longest
        return (
            f"{self.steps} steps, {self.starts - 1} starts; waits: p99.9"
            f" {self.waits.quantile(0.999) * 1e3:.1f} ms (idle control"
            f" {self.control_waits.quantile(0.999) * 1e3:.1f} ms), longest less the control's"
            f" {longest * 1e3:.1f} ms"
        )


def _see(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise Wrong(otherwise)
