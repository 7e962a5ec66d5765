"""The two sides: memd and a QEMU without a machine, started and ended alike."""

from __future__ import annotations

import compileall
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.client import Client, connect

TREE = Path(__file__).resolve().parents[1]
QEMU = "qemu-system-x86_64"
SIDES = ("memd", "qemu")

_MADV_POPULATE_WRITE = 23


def environment() -> dict[str, str]:
    """What servers run in: byte code is kept, as in an installed package."""
    kept = dict(os.environ)
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    return kept


def command_line(side: str, paths: list[Path], options: Sequence[str] = ()) -> list[str]:
    """How a side is started with further options, to serve QMP at these sockets."""
    if side == "memd":
        script = Path(sys.executable).with_name("memd")
        line = [str(script)] if script.exists() else [sys.executable, "-m", "memd"]
    else:
        line = [QEMU, "-machine", "none", "-nodefaults", "-nographic", "-S"]
    for path in paths:
        line += ["-qmp", f"unix:{path},server=on,wait=off"]
    return [*line, *options]


class Server:
    """A side that runs, in a directory of its own.

    Args:
        side: one of `SIDES`.
        options: further ones of its command line.

    Attributes:
        client: on its first socket.
        paths: its two sockets: QEMU serves one client a socket.
        pid: its process.
        start: seconds from its start to its greeting.
    """

    def __init__(self, side: str, *options: str) -> None:
        self.side = side
        self._directory = tempfile.TemporaryDirectory(prefix="memd-bench-")
        self.paths = [Path(self._directory.name) / name for name in ("one", "two")]
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            command_line(side, self.paths, options),
            cwd=TREE,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_prepare,
        )
        self.pid = self._process.pid
        try:
            first = connect(self.paths[0], 30.0)
            first.recv(4096)
            self.start = time.perf_counter() - begin
            first.close()
            self.client = Client(self.paths[0])
        except BaseException:
            self._end()
            raise

    def second(self) -> Client:
        """A client on the other socket."""
        return Client(self.paths[1])

    def resident(self) -> int:
        """Its resident memory (VmRSS), in bytes."""
        for row in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if row.startswith("VmRSS:"):
                return int(row.split()[1]) << 10
        raise ProcessLookupError(self.pid)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()
        self._end()

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()


def _prepare() -> None:
    allow_descriptors()


def allow_descriptors() -> int:
    """Let this process have a descriptor for each of 20,000 backends; how many it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for most in (max(hard, 65536), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            return most
        except (OSError, ValueError):
            continue
    return soft


def write_byte_code() -> None:
    """Have all of memd's byte code, as an installed package has it."""
    compileall.compile_dir(TREE / "memd", quiet=1)


def touch_memory() -> None:
    """Have the host of a virtual machine back nearly all of its free memory.

    The first touch of a page takes such a host several times as long as a copy of it: what
    came first to memory that nobody had used ran at 0.5 GB/s, and at 2.5 GB/s later.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE
    populate = f"import mmap; mmap.mmap(-1, {free * 9 // 10}).madvise({_MADV_POPULATE_WRITE})"
    # A process of its own: a control group's limit may end it.
    subprocess.run([sys.executable, "-c", populate], stderr=subprocess.DEVNULL, check=False)


def warm(sides: tuple[str, ...]) -> None:
    """Have memory there, memd's byte code written, and every file that is started read once."""
    touch_memory()
    write_byte_code()
    for side in sides:
        with Server(side) as server:
            server.client.execute("query-qmp-schema")
    subprocess.run([sys.executable, "-c", "import asyncio"], env=environment(), check=True)
