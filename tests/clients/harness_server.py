"""A server as QEMU's own test harness starts one: it connects, the harness listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from tests.differential.server import PATIENCE, TREE, Monitor, qemu_system_memd


class Accepted(Monitor):
    """A QMP connection that the server made."""

    __slots__ = ()

    def __init__(self, sock: socket.socket) -> None:
        # Monitor.__init__ connects, and this one is connected.
        self.socket = sock
        self.socket.settimeout(PATIENCE)
        self._buffer = bytearray()
        self._lines = deque()
        self.events = []
        self.greeting = self.read()


class HarnessServer:
    """The process, its qtest socket and its monitor.

    Args:
        directory: an empty one for the sockets and outputs.
        options: the test's own.
    """

    def __init__(self, directory: Path, options: Sequence[str] = ()) -> None:
        self.directory = directory
        listening = [self._listen(name) for name in ("qtest.sock", "qmp.sock")]
        argv = [
            *qemu_system_memd(),
            *("-qtest", f"unix:{directory}/qtest.sock", "-qtest-log", "/dev/null"),
            *("-chardev", f"socket,path={directory}/qmp.sock,id=char0"),
            *("-mon", "chardev=char0,mode=control", "-display", "none", "-audio", "none"),
            *("-nodefaults", "-machine", "none", *options, "-accel", "qtest"),
        ]
        with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=dict(os.environ, PYTHONPATH=str(TREE)),
            )
        try:
            self.qtest, _ = listening[0].accept()
            self.qtest.settimeout(PATIENCE)
            qmp, _ = listening[1].accept()
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise AssertionError((directory / "err").read_text()) from None
        finally:
            for sock in listening:
                sock.close()
        self.monitor = Accepted(qmp)
        assert self.ask_qtest(b"endianness\n") == f"OK {sys.byteorder}\n".encode()

    def _listen(self, name: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.bind(str(self.directory / name))
        sock.listen(1)
        return sock

    def ask_qtest(self, line: bytes) -> bytes:
        """Send a line of the qtest protocol; the line of the answer."""
        self.qtest.sendall(line)
        answer = b""
        while not answer.endswith(b"\n"):
            data = self.qtest.recv(4096)
            assert data, answer
            answer += data
        return answer

    def negotiate(self, *capabilities: str) -> None:
        """Leave capabilities negotiation."""
        enabled = {"enable": list(capabilities)} if capabilities else None
        assert self.monitor.execute("qmp_capabilities", enabled) == {"return": {}}

    def end(self) -> int:
        """End it as the harness does; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Let go of it, whatever state it is in."""
        self.qtest.close()
        self.monitor.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def stdout(self) -> bytes:
        """What it has printed."""
        return (self.directory / "out").read_bytes()

    @property
    def stderr(self) -> str:
        """What it has complained of."""
        return (self.directory / "err").read_text()
