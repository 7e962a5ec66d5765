"""Large messages: how fast one is taken, and how long others wait meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep

from benchmarks import bare
from benchmarks.client import connect
from benchmarks.figures import AT_MOST, SOCKET, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import TREE, Server
from benchmarks.waits import Prober

SIZE = 16 << 20
STRINGS = {"ascii": b"a", "utf-8": "é".encode(), "escapes": b"\\n"}
ATTACKS = {
    "nothing else is sent": "",
    **{f"another sends 16 MiB of `{unit}`": unit for unit in ("[],", "1,", '{"a":')},
    "another sends a string of 16 MiB": "a",
}
"""What is sent again and again, in a message without an end, by its title."""


def attack(path: str, unit: str, size: str) -> None:
    """Send a message of `unit` again and again, which has no end; in a process of its own."""
    sock = connect(Path(path), 5.0)
    sock.recv(4096)
    sock.sendall(b'{"execute":"qmp_capabilities"}\n')
    sock.recv(4096)
    sock.sendall((b'["' if unit.isalpha() else b"[") + unit.encode() * (int(size) // len(unit)))


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    for name, text in STRINGS.items():
        for side in sides:
            if side == "qemu" and not scale.first:
                continue
            # QEMU takes seconds for each MiB.
            size = SIZE // 16 if scale.quick or side == "qemu" else SIZE
            message = b'"' + text * (size // len(text)) + b'"\n'
            with Server(side) as server:
                begin = perf_counter()
                server.client.send(message)
                server.client.line()
                take(f"large-{name}", side, len(message) / (perf_counter() - begin) / 1e6)
        take(f"large-{name}", "limit", bare.carried(SIZE) / 1e6)
    with Server("memd") as server:
        other = server.second()
        for title, unit in ATTACKS.items():
            prober = Prober(other)
            if unit:
                line = [sys.executable, "-m", "benchmarks.large", str(server.paths[0]), unit]
                size = SIZE // 16 if scale.quick else SIZE
                subprocess.run([*line, str(size)], cwd=TREE, check=True)
            else:
                sleep(scale(5, 1))
            take(title, "memd", max(wait for _begin, wait in prober.end()) * 1e3)
        other.close()


SUBJECT = Subject(
    "large",
    (
        *(
            Figure(
                f"large-{name}",
                f"a message of one string of 16 MiB, {name}",
                "MB/s",
                limit=SOCKET,
                note="QEMU: one of 1 MiB, once",
            )
            for name in STRINGS
        ),
        *(
            Figure(
                title,
                f"longest wait of a client, {title}",
                "ms",
                against="",
                less=True,
                aim=AT_MOST,
                target=50 if unit else None,
                worst=True,
            )
            for title, unit in ATTACKS.items()
        ),
    ),
    measure,
)


if __name__ == "__main__":
    attack(*sys.argv[1:])
