"""A machine in QEMU, spoken to over its serial console and its monitor."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tests.differential.server import PATIENCE, Monitor
from tests.guests import image
from tests.prefork import DIES_WITH_PARENT

SIZE = 128 << 20
"""Bytes of a guest's memory."""

MACHINE = "-nodefaults -display none -accel tcg -m 128M -machine q35,hpet=off,memory-backend=ram"


def memory(kind: str = "memfd", **options: object) -> str:
    """The option of -object for the main memory."""
    words = {"id": "ram", "size": SIZE, **{key.replace("_", "-"): v for key, v in options.items()}}
    return f"memory-backend-{kind}," + ",".join(f"{key}={value}" for key, value in words.items())


class Guest:
    """A machine.

    Args:
        directory: where its sockets are made.
        backend: its main memory, an option of -object.
        options: further ones.
        machine: further ones, which the tests' machine is made of.
        boots: whether it boots from the image, which takes some seconds; else it waits for
            a migration.
    """

    def __init__(
        self,
        directory: Path,
        backend: str,
        options: Sequence[str] = (),
        *,
        machine: str = MACHINE,
        boots: bool = False,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.qmp = directory / "qmp"
        self.pages = directory / "pages.qmp"
        self.incoming = directory / "incoming"
        self._serial = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._said = b""
        self._running = boots
        where = directory / "serial"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
            console.bind(str(where))
            console.listen(1)
            argv = ["qemu-system-x86_64", *machine.split()]
            argv += ["-object", backend, "-serial", f"unix:{where}"]
            # One for the test, and one for memd.
            for each in (self.qmp, self.pages):
                argv += ["-qmp", f"unix:{each},server=on,wait=off"]
            if boots:
                root = image.make()
                argv += ["-kernel", str(root / "kernel"), "-initrd", str(root / "initrd")]
                # Without what it checks of itself and of the clock: a fifth of a boot.
                checks = "cryptomgr.notests tsc=reliable no_timer_check mitigations=off"
                argv += ["-append", f"console=ttyS0 quiet nokaslr rdinit=/init {checks}"]
            else:
                argv += ["-incoming", "defer"]
            with (directory / "stderr").open("wb") as stderr:
                self.process = subprocess.Popen(
                    [*DIES_WITH_PARENT, *argv, *options], stdout=stderr, stderr=stderr
                )
            console.settimeout(PATIENCE)
            try:
                self._serial.close()
                self._serial, _address = console.accept()
                self._serial.settimeout(PATIENCE)
                self.monitor = Monitor(self.qmp)
            except BaseException:
                self.process.kill()
                self.process.wait()
                raise

    def execute(self, command: str, **arguments: object) -> object:
        """Execute a command of its monitor; its value."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        answer = self.monitor.execute(command, named or None)
        assert "return" in answer, answer
        return answer["return"]

    def listen(self) -> str:
        """Have it wait for a postcopy migration; gives the address."""
        self.execute(
            "migrate-set-capabilities", capabilities=[{"capability": "postcopy-ram", "state": True}]
        )
        self.execute("migrate-incoming", uri=f"unix:{self.incoming}")
        return f"unix:{self.incoming}"

    def type(self, line: str) -> None:
        """Have the guest run a line of shell."""
        if not self._running:
            # What comes before the devices are loaded is lost.
            self.monitor.read_event("RESUME")
            self._running = True
        self._serial.sendall(line.encode() + b"\n")

    def hear(self, word: str = "DONE") -> str:
        """What the guest says until it says that word."""
        while (end := self._said.find(word.encode())) < 0:
            data = self._serial.recv(4096)
            assert data, f"the guest is gone: {self.stderr()}"
            self._said += data
        said, self._said = self._said[:end], self._said[end + len(word) :]
        return said.decode().strip()

    def run(self, line: str) -> str:
        """What a line of shell prints."""
        self.type(line)
        return self.hear()

    def check(self) -> None:
        """See that the guest finds its memory as it was."""
        assert self.run("md5sum /pattern") == f"{image.digest()}  /pattern"

    def migration(self) -> str:
        """The state of its migration."""
        found = self.execute("query-migrate")
        assert isinstance(found, dict)
        return str(found.get("status"))

    def wait_migration(self, status: str) -> None:
        """Wait until its migration is in a state."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.migration()) != status:
            assert time.monotonic() < deadline, f"the migration is {found}: {self.stderr()}"
            time.sleep(0.005)

    def stderr(self) -> str:
        """What QEMU has said."""
        return (self.directory / "stderr").read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        self.monitor.close()
        self._serial.close()
        self.process.kill()
        self.process.wait()


def record(guest: Guest, devices: Path) -> None:
    """Stop a machine and save its devices; its memory stays where it is."""
    capability = {"capability": "x-ignore-shared", "state": True}
    guest.execute("stop")
    guest.execute("migrate-set-capabilities", capabilities=[capability])
    guest.execute("migrate", uri=f"exec:cat > {devices}")
    guest.wait_migration("completed")
