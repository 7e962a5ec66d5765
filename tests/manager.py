"""A service manager, as far as a service sees one: sd_notify(3), sockets, a descriptor store.

It starts one service, listens to what it says, keeps what it parks, and starts it
again with all of that, as systemd does (sd_listen_fds(3), systemd.service(5)):
what was said before the service died is acted on before it is started again, a
descriptor that is there already is not kept twice, and what there is no room for
is dropped. Of the standard library alone, for tests of a service that is to
come back whole.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

PATIENCE = 60.0
"""Seconds after which a service that says nothing is taken to hang."""

_F_DUPFD_QUERY = 1027
_PR_SET_PDEATHSIG = 1
_FIRST = 3
_MOST = 253
_SO_PASSCRED = socket.SO_PASSCRED
_SCM_CREDENTIALS = socket.SCM_CREDENTIALS
_libc = ctypes.CDLL(None, use_errno=True)


class Stored:
    """A descriptor in the store."""

    __slots__ = ("fd", "name")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd


class ServiceManager:
    """Runs one service.

    Args:
        argv: its command.
        directory: for the notification socket and the service's output.
        capacity: how many descriptors the store holds (FileDescriptorStoreMax=);
            0 for no store.
        sockets: listening sockets that are passed, with their names
            (FileDescriptorName=).
        watchdog: seconds within which a sign of life is asked for (WatchdogSec=),
            0 for none. It is written down, not acted upon.
        abstract: whether the notification socket is an abstract one.
        stalls: whether what is stored may be on a file system that stalls; then a thread
            closes it, as systemd does.
        environment: more of it.

    Attributes:
        process: the service, while there is one.
        main: the process that is listened to (NotifyAccess=main).
        store: what it stored.
        messages: what it said since it was started, a dictionary each.
        status: its last STATUS=.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        capacity: int = 512,
        sockets: Sequence[tuple[str, socket.socket]] = (),
        watchdog: float = 0.0,
        abstract: bool = False,
        stalls: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.argv = list(argv)
        self.directory = directory
        self.capacity = capacity
        self.sockets = list(sockets)
        self.watchdog = watchdog
        self.stalls = stalls
        self.environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None
        self.main = 0
        self.store: list[Stored] = []
        self.messages: list[dict[str, str]] = []
        self.status = ""
        self._changed = threading.Condition()
        self._paused = threading.RLock()
        address = f"@memd-test-{os.getpid()}-{id(self):x}" if abstract else f"{directory}/notify"
        self.address = address
        self._socket = self._bind()
        self._wake, self._waker = os.pipe()
        self._closed = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, _SO_PASSCRED, 1)
        sock.bind("\0" + self.address[1:] if self.address[0] == "@" else self.address)
        return sock

    # The service

    def start(self) -> None:
        """Start the service; returns at once."""
        passed = [(name, sock.fileno()) for name, sock in self.sockets]
        passed += [(each.name, each.fd) for each in self.store]
        environment = {
            **os.environ,
            **self.environment,
            "NOTIFY_SOCKET": self.address,
        }
        if self.capacity:
            environment["FDSTORE"] = str(self.capacity)
        if self.watchdog:
            environment["WATCHDOG_USEC"] = str(int(self.watchdog * 1_000_000))
        # Out of the way of the numbers that they are to have.
        copies = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1000) for _name, fd in passed]

        def take_place() -> None:
            """Runs in the child, where its own process id is known."""
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            for number, fd in enumerate(copies):
                os.dup2(fd, _FIRST + number, inheritable=True)
            environment["SYSTEMD_EXEC_PID"] = str(os.getpid())
            if self.watchdog:
                environment["WATCHDOG_PID"] = str(os.getpid())
            if copies:
                environment["LISTEN_PID"] = str(os.getpid())
                environment["LISTEN_FDS"] = str(len(copies))
                environment["LISTEN_FDNAMES"] = ":".join(name for name, _fd in passed)
            os.execvpe(self.argv[0], self.argv, environment)

        with self._changed:
            self.messages.clear()
        try:
            # What it says at once waits until it is known who it is.
            with self._paused, self._output.open("ab") as output:
                self.process = subprocess.Popen(
                    self.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    preexec_fn=take_place,
                )
                self.main = self.process.pid
        finally:
            for fd in copies:
                os.close(fd)

    def start_and_wait(self) -> None:
        """Start the service, and wait until it is ready.

        Raises:
            RuntimeError: it ended instead.
        """
        self.start()
        self.wait_for("READY", "1")

    def wait_for(self, name: str, value: str | None = None) -> dict[str, str]:
        """Wait for a message with `name`; the first one since the start.

        Raises:
            RuntimeError: the service ended without.
            TimeoutError: it does not come.
        """

        def said() -> dict[str, str] | None:
            for message in self.messages:
                if name in message and value in (None, message[name]):
                    return message
            return None

        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while (found := said()) is None:
                if self.process is not None and self.process.poll() is not None:
                    self._drain()
                    if (found := said()) is not None:
                        return found
                    raise RuntimeError(f"ended with {self.process.returncode}: {self.output()}")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no {name}: {self.output()}")
                self._changed.wait(0.02)
            return found

    @property
    def pid(self) -> int:
        """The service's process id."""
        if self.process is None:
            raise RuntimeError("there is no service")
        return self.process.pid

    def end(self, number: int = signal.SIGTERM) -> int:
        """End the service with a signal; its exit status, negative for a signal."""
        process = self.process
        if process is None:
            raise RuntimeError("there is no service")
        process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the service to end by itself; its exit status."""
        process = self.process
        if process is None:
            raise RuntimeError("there is no service")
        status = process.wait(PATIENCE)
        # It may have said something with its last breath.
        self.catch_up()
        return status

    def catch_up(self) -> None:
        """Act on all that has been said by now."""
        with self._changed:
            self._drain()

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def restart(self) -> None:
        """`systemctl restart`: end the service, start it again, wait until it is ready."""
        self.end()
        self.start_and_wait()

    @property
    def _output(self) -> Path:
        return self.directory / "output"

    def output(self) -> str:
        """What the service has written to its standard output and error so far."""
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    # The store

    def names(self) -> list[str]:
        """The names of what is stored by now, in its order."""
        self.catch_up()
        with self._changed:
            return [each.name for each in self.store]

    def clean(self) -> None:
        """`systemctl clean --what=fdstore`: drop everything that is stored."""
        with self._changed:
            for each in self.store:
                os.close(each.fd)
            self.store.clear()

    @contextlib.contextmanager
    def deaf(self) -> Iterator[None]:
        """Act on nothing for the length of a `with` block, as while systemd reloads."""
        with self._paused:
            yield

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Not be there for the length of a `with` block, and then with another socket."""
        with self._paused:
            # Wakes the thread that polls it, which would keep it open.
            self._socket.shutdown(socket.SHUT_RD)
            os.unlink(self.address)
            yield
            with self._bind() as fresh:
                os.dup2(fresh.fileno(), self._socket.fileno(), inheritable=False)
            # A thread that has not left poll(2) yet goes on to wait for the old one.
            os.write(self._waker, b"\0")

    def close(self) -> None:
        """End the service, and drop everything."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._closed = True
        os.write(self._waker, b"\0")
        self._listener.join()
        self.clean()
        self._socket.close()
        os.close(self._wake)
        os.close(self._waker)
        if self.address[0] == "/":
            os.unlink(self.address)

    # What it hears

    def _listen(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while not self._closed:
            if any(fd == self._wake for fd, _events in poll.poll()):
                os.read(self._wake, 1)
            with self._paused, self._changed:
                self._drain()
                self._changed.notify_all()

    def _drain(self) -> None:
        """Act on all that has been sent by now."""
        room = socket.CMSG_SPACE(_MOST * 4) + socket.CMSG_SPACE(struct.calcsize("3i"))
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        while True:
            try:
                data, about, _flags, _sender = self._socket.recvmsg(1 << 16, room, flags)
            except BlockingIOError:
                return
            fds = array.array("i")
            sender = 0
            for _level, kind, content in about:
                if kind == socket.SCM_RIGHTS:
                    fds.frombytes(content[: len(content) // 4 * 4])
                elif kind == _SCM_CREDENTIALS:
                    sender = struct.unpack("3i", content)[0]
            try:
                if sender == self.main:
                    self._heed(data, fds)
            finally:
                for fd in fds:
                    self._close(fd)

    def _heed(self, data: bytes, fds: Sequence[int]) -> None:
        lines = data.decode().split("\n")
        message = dict(line.split("=", 1) for line in lines if "=" in line)
        if "FDSTORE" in message:
            for fd in fds:
                self._keep(message.get("FDNAME", "stored"), fd)
        if "FDSTOREREMOVE" in message:
            for each in [each for each in self.store if each.name == message["FDNAME"]]:
                self.store.remove(each)
                self._close(each.fd)
        self.status = message.get("STATUS", self.status)
        if not {"FDSTORE", "FDSTOREREMOVE", "BARRIER"} & set(message):
            self.messages.append(message)

    def _keep(self, name: str, fd: int) -> None:
        if len(self.store) >= self.capacity:
            return
        if not any(_same(each.fd, fd) for each in self.store):
            self.store.append(Stored(name, os.dup(fd)))

    def _close(self, fd: int) -> None:
        memory = ("/memfd:", "/dev/", "pipe:", "socket:")
        if self.stalls and not os.readlink(f"/proc/self/fd/{fd}").startswith(memory):
            threading.Thread(target=os.close, args=(fd,), daemon=True).start()
        else:
            os.close(fd)


def _same(one: int, other: int) -> bool:
    """Whether two descriptors are of one open file description."""
    try:
        return bool(fcntl.fcntl(one, _F_DUPFD_QUERY, other))
    except OSError:
        pass
    # Linux before 6.10: kcmp(2), KCMP_FILE.
    number = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
    pid = os.getpid()
    return bool(_libc.syscall(number, pid, pid, 0, one, other) == 0)


Manage = Callable[..., ServiceManager]
"""Makes a `ServiceManager` for a test."""
