"""Hostile clients beside good ones, and what has to be true after each answer.

All that happens is drawn from a seed. Good clients know from a model what they have to
be answered; hostile ones send what they like, take what they can, and leave. Beside the
daemon stands another that nobody attacks: what its client waits is the machine's doing.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, cast

from memd.client import Client, QMPError
from memd.server.jobs import THREADS
from tests.differential.kernel import descriptors, is_exiting
from tests.differential.server import PATIENCE, TREE, Server, memd_argv
from tests.manager import ServiceManager

SIZES = (4096, 1 << 20, 8 << 20, 40 << 20)
GOOD = 3
"""Good clients at a time."""

CALLS = ("getattr", "open", "read", "write", "fsync", "flush", "release", "statfs")
"""Of the FUSE file system that stalls."""

FILES = 4
"""On it."""

SYSCALLS = {
    "mmap": "ENOMEM",
    "madvise": "ENOMEM",
    "memfd-create": "EMFILE",
    "populate": "ENOMEM",
    "pwrite": "EIO",
    "fsync": "EIO",
    "ftruncate": "EIO",
}
"""System calls that fail, and how."""

END = PATIENCE / 2
"""Seconds within which is done what does not wait for a file system that stalls."""


class Wrong(AssertionError):
    """Something is not as it has to be."""


def _queued(pid: int) -> float:
    """The seconds for which a process's threads were ready and had no processor (proc(5))."""
    total = 0
    for each in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += int((each / "schedstat").read_text().split()[1])
    return total / 1e9


class Waits:
    """How long a client waited for its answers, in seconds.

    Attributes:
        all: each wait.
        own: the same, less what client and daemon waited for a processor: the machine's doing.
    """

    def __init__(self) -> None:
        self.all: list[float] = []
        self.own: list[float] = []

    def ask(self, client: Client, pid: int) -> None:
        """Ask the daemon `pid` for something that takes no time."""
        pids = (pid, os.getpid())
        queued = sum(map(_queued, pids))
        begin = time.perf_counter()
        client.execute("query-status")
        self.all.append(time.perf_counter() - begin)
        self.own.append(max(0.0, self.all[-1] - (sum(map(_queued, pids)) - queued)))

    def __str__(self) -> str:
        ordered = sorted(self.all)
        usual = ordered[int(len(ordered) * 0.999)]
        return (
            f"p99.9 {usual * 1e3:.1f} ms, longest {ordered[-1] * 1e3:.1f} ms,"
            f" {max(self.own) * 1e3:.1f} ms less the time without a processor"
        )


class Memory(NamedTuple):
    """An object of the model.

    Attributes:
        size: in bytes.
        data: what it begins with.
        kept: whether it outlives the daemon.
    """

    size: int
    data: bytes
    kept: bool


class Attack:
    """A daemon under attack. A service manager starts it, and again when it was killed.

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
        self.done: Counter[str] = Counter()
        place = directory / "control"
        place.mkdir()
        self._control = Server("memd", memd_argv(), place)
        self._control_client = Client(self._control.path, timeout=PATIENCE)
        self._hostile: list[socket.socket] = []
        self._good: list[Client] = []
        # What there is, by id.
        self.objects: dict[str, Memory] = {}
        self._most_objects = self._most_memory = 0
        self._broken = self._mount()
        # Commands on files that stall, by the id of what they are about.
        self._stuck: dict[str, Pending] = {}
        self._stalled = False
        # Files that are memory, as far as is known.
        self._files: set[str] = set()
        self.path = directory / "sock"
        self._manager = ServiceManager([], directory, stalls=True)
        self._start()

    def _mount(self) -> tuple[Path, subprocess.Popen[bytes]] | None:
        """A file system that can stall, where there is one."""
        path = self.directory / "broken"
        (self.directory / "calls").mkdir()
        path.mkdir()
        if os.geteuid() != 0 or not os.path.exists("/dev/fuse") or not find_spec("mfusepy"):
            return None
        command = [sys.executable, "-m", "tests.faults.broken_fs", str(path)]
        process = subprocess.Popen([*command, str(self.directory / "calls")], cwd=TREE)
        while not os.path.ismount(path):
            if process.poll() is not None:
                return None
            time.sleep(0.01)
        for number in range(FILES):
            (path / f"f{number}").write_bytes(bytes(1 << 20))
        return path, process

    def _start(self) -> None:
        """Start the daemon, with limits that are drawn; what was kept is there again."""
        self.starts += 1
        draw = self.random
        self._most_objects = draw.choice((6, 12, 40))
        self._most_memory = draw.choice((16, 64, 256)) << 20
        taken = sum(each.size for each in self.objects.values())
        clients, fds = draw.choice((24, 60, 200)), draw.choice((32, 60, 200))
        self._most_descriptors = clients + fds + 3 * self._most_objects + 3 * FILES + 60
        self._most_objects = max(self._most_objects, len(self.objects) + FILES)
        self._most_memory = max(self._most_memory, taken + (FILES << 20))
        options = {
            "--max-clients": clients,
            "--max-descriptors": fds,
            "--max-objects": self._most_objects,
            "--max-memory": self._most_memory,
            "--max-held": draw.choice((64, 128)) << 20,
            "--negotiation-timeout": 5,
        }
        self._faulty = draw.random() < 0.5
        argv = [*memd_argv(), "--qmp", f"unix:{self.path},server=on,wait=off", "--accept-loss"]
        argv += [str(each) for pair in options.items() for each in pair]
        self._manager.argv = [*argv, *(["--test-faults"] if self._faulty else [])]
        self._manager.start_and_wait()
        self._good = [Client(self.path, timeout=PATIENCE) for _ in range(GOOD)]

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
            *((self._stall, 3), (self._use_file, 6), (self._delete_file, 4), (self._mend, 4)),
            *((self._fault, 4), (self._save, 2)),
        )
        names, weights = zip(*actions, strict=True)
        while time.monotonic() < end:
            self.steps += 1
            act = self.random.choices(names, weights)[0]
            self.done[act.__name__] += 1
            act()
            self.waits.ask(self.random.choice(self._good), self._manager.pid)
            self.control_waits.ask(self._control_client, self._control.pid)
            if self.steps % 50 == 0:
                self._check()
        self._check()

    def close(self) -> None:
        """End both daemons, which have to end well."""
        try:
            self._drop_hostile()
            self._mend()
            for client in (*self._good, self._control_client):
                client.close()
            _see(self._manager.end() == 0, "the daemon did not end with status 0")
        finally:
            self._control.stop()
            self._manager.close()
            if self._broken is not None:
                path, process = self._broken
                subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
                process.kill()
                process.wait()

    # What good clients do, and what they have to be answered.

    def _expect(
        self, errors: Collection[str], command: str, *, may: bool = False, **arguments: object
    ) -> object:
        """The value, or None where one of these errors came of it.

        Args:
            may: whether it may come to a value all the same.
        """
        client = self.random.choice(self._good)
        named = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            value = client.execute(command, named)
        except QMPError as refused:
            known = any(each in refused.desc for each in errors)
            _see(known, f"{command} {named}: {refused.desc}, not {errors}")
            return None
        _see(may or not errors, f"{command} {named}: no error, but {errors} were expected")
        return value

    def _id(self) -> str:
        return f"m{self.random.randrange(16)}"

    def _add(self, *faults: str) -> None:
        id, size = self._id(), self.random.choice(SIZES)
        # Files may be there, or just not.
        files = len(self._files | self._stuck.keys())
        taken = sum(each.size for each in self.objects.values())
        errors, may = list(faults), bool(faults)
        if id in self.objects:
            errors, may = ["duplicate property"], False
        else:
            # Memory of a file that was deleted counts until its file system lets it go.
            most = taken + size + (2 * FILES << 20)
            if len(self.objects) + files >= self._most_objects:
                errors.append("--max-objects")
            if most > self._most_memory:
                errors.append("--max-memory")
            may |= len(self.objects) < self._most_objects and taken + size <= self._most_memory
        kind = self.random.choice(("memfd", "ram", "shm"))
        share = kind != "ram" or self.random.random() < 0.5
        options = {"qom_type": f"memory-backend-{kind}", "share": share}
        options["prealloc"] = size <= 1 << 20 and self.random.random() < 0.3
        made = self._expect(errors, "object-add", may=may, id=id, size=size, **options)
        if made is None:
            return
        if kind == "ram" and share and os.strerror(errno.EIO) in faults and self._has_no_memory(id):
            return
        (told,) = cast("list[dict[str, bool]]", self._good[0].execute("x-memdev-stat", {"id": id}))
        # Room for it is set aside, whatever hostile clients take.
        _see(told["kept"] == share, f"'{id}': kept is {told['kept']}, share {share}")
        self.objects[id] = Memory(size, bytes(4), told["kept"])

    def _has_no_memory(self, id: str) -> bool:
        """Whether its file could not be given its size, which is not an error, as in QEMU."""
        try:
            self._good[0].read(id, 0, 4)
        except QMPError as refused:
            known = "its file was truncated to 0 bytes" in refused.desc
            _see(known, f"'{id}' can't be read: {refused.desc}")
        else:
            return False
        self._expect([], "object-del", id=id)
        return True

    def _delete(self) -> None:
        id = self._id()
        self._expect([] if id in self.objects else ["not found"], "object-del", id=id)
        self.objects.pop(id, None)

    def _write(self) -> None:
        id = self._id()
        client = self.random.choice(self._good)
        if id in self.objects:
            data = self.random.randbytes(4)
            client.write(id, 0, data)
            self.objects[id] = self.objects[id]._replace(data=data)
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
            _see(found == self.objects[id].data, "an export has other content")

    def _save(self, *faults: str) -> None:
        id = self._id()
        path = self.directory / "saved"
        errors = faults if id in self.objects else ["not found"]
        known = id in self.objects
        value = self._expect(errors, "x-memdev-save", may=known, id=id, filename=str(path))
        if value is not None:
            with path.open("rb") as file:
                _see(file.read(4) == self.objects[id].data, "what was saved has other content")
        left = [each for each in os.listdir(self.directory) if "saved" in each]
        _see(set(left) <= {"saved"}, f"saving has left {left}")

    def _list(self) -> None:
        found = self.random.choice(self._good).execute("query-memdev")
        told = {each["id"]: each["size"] for each in found if each["id"][0] != "f"}
        there = {id: each.size for id, each in self.objects.items()}
        _see(told == there, f"query-memdev: {told} and not {there}")

    def _fault(self) -> None:
        """A system call fails, the next time that it is made."""
        if not self._faulty:
            return
        call = self.random.choice(sorted(SYSCALLS))
        number = getattr(errno, SYSCALLS[call])
        fault = {"id": "x", "syscall": call, "errno": SYSCALLS[call], "times": 1}
        self._good[0].execute("x-test-fault-add", fault)
        told = os.strerror(number), "cannot be mapped", os.strerror(errno.EFAULT)
        self.random.choice((self._add, self._save))(*told)
        with contextlib.suppress(QMPError):
            self._good[0].execute("x-test-fault-del", {"id": "x"})
        self._list()

    # What stalls.

    def _stall(self) -> None:
        if self._broken is not None:
            self._stalled = True
            (self.directory / "calls" / self.random.choice(CALLS)).write_text("stall")

    def _mend(self) -> None:
        """Every call works again, and every command that waited is answered."""
        self._stalled = False
        for each in (self.directory / "calls").iterdir():
            each.unlink()
        for client in self._stuck.values():
            client.end()
        self._stuck.clear()
        found = self._good[0].execute("query-memdev") if self._good else []
        self._files = {each["id"] for each in found if each["id"][0] == "f"}

    def _use_file(self) -> None:
        """A command on the file system, for which nobody waits while it stalls."""
        if self._broken is None:
            return
        id = f"f{self.random.randrange(FILES)}"
        if id in self._stuck or len(self._stuck) >= FILES:
            return
        add = {
            "qom-type": "memory-backend-file",
            "id": id,
            "size": 1 << 20,
            "share": True,
            "mem-path": str(self._broken[0] / id),
        }
        command, arguments = self.random.choice(
            (
                ("object-add", add),
                ("object-add", add),
                ("x-memdev-read", {"id": id, "offset": 0, "length": 4}),
                ("x-memdev-write", {"id": id, "offset": 0, "data": "AAAA"}),
                ("x-memdev-export", {"id": id}),
                ("x-memdev-explain", add),
                ("x-memdev-save", {"id": id, "filename": str(self._broken[0] / "saved")}),
            )
        )
        client = Pending(self.path, command, arguments)
        self._stuck[id] = client
        if not self._stalled:
            self._mend()

    def _delete_file(self) -> None:
        """Which is answered, whatever stalls."""
        id = f"f{self.random.randrange(FILES)}"
        if id not in self._stuck:
            begin = time.monotonic()
            self._expect(["not found"], "object-del", may=True, id=id)
            _see(time.monotonic() - begin < END, "object-del waited for a file system")
            self._files.discard(id)

    # What hostile ones do.

    def _connect(self, *, negotiate: bool = True) -> socket.socket | None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(self.path))
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
        number = self.random.choice((signal.SIGTERM, signal.SIGKILL, signal.SIGKILL))
        process = self._manager.process
        assert process is not None
        begin = time.monotonic()
        process.send_signal(number)
        # However long the kernel then closes its files.
        while process.poll() is None and not is_exiting(process.pid):
            _see(time.monotonic() - begin < END, f"signal {number} does not end it")
            time.sleep(0.01)
        for client in self._good:
            client.close()
        for waiting in self._stuck.values():
            waiting.close()
        self._good = []
        self._stuck.clear()
        self._mend()
        wanted = -signal.SIGKILL if number == signal.SIGKILL else 0
        _see(self._manager.wait() == wanted, "the daemon ended otherwise")
        self._drop_hostile()
        # Neither what was answered goes, nor does more stay than can.
        self.objects = {id: each for id, each in self.objects.items() if each.kept}
        self._start()
        self._list()
        self._mend()

    # What has to be true at any time.

    def _check(self) -> None:
        _see(self._manager.process is not None, "there is no daemon")
        pid = self._manager.pid
        log = self._manager.output()
        _see(os.path.exists(f"/proc/{pid}"), f"the daemon has died: {log[-2000:]}")
        count = sum(descriptors(pid).values())
        _see(count <= self._most_descriptors, f"{count} descriptors are open")
        threads = len(os.listdir(f"/proc/{pid}/task"))
        _see(threads <= THREADS + 30, f"{threads} threads run")
        self._list()
        for id, each in self.objects.items():
            _see(self._good[0].read(id, 0, 4) == each.data, f"'{id}' has other content")
        _see("unexpectedly" not in log and "Traceback" not in log, log[-2000:])

    def figures(self) -> str:
        """What clients waited."""
        return (
            f"{self.steps} steps, {self.starts} starts; waits: {self.waits};"
            f" of the control: {self.control_waits}"
        )


class Pending:
    """A client with a command that may wait for long.

    Args:
        path: the daemon's socket.
        command, arguments: what it sends.
    """

    def __init__(self, path: Path, command: str, arguments: Mapping[str, object]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE)
        request = json.dumps({"execute": command, "arguments": arguments}).encode()
        self._told = f"{command} {arguments}"
        with contextlib.suppress(OSError):
            self._socket.connect(str(path))
            self._socket.sendall(b'{"execute":"qmp_capabilities"}' + request)
            self._socket.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        """See that it is answered, or that there was no room for its client."""
        data = b""
        try:
            while more := self._socket.recv(1 << 16):
                data += more
        except TimeoutError:
            raise Wrong(f"{self._told} is not answered") from None
        except ConnectionResetError:
            pass
        self._socket.close()
        answers = [each for each in data.splitlines() if b'"event"' not in each[:120]]
        _see(len(answers) in (0, 3), f"{self._told}: {answers}")

    def close(self) -> None:
        """Leave."""
        self._socket.close()


def _see(is_right: bool, otherwise: str) -> None:
    if not is_right:
        raise Wrong(otherwise)
