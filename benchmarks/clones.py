"""How soon a machine runs from a template: `python -m benchmarks.clones`.

A guest is recorded once, with 480 MiB of its memory filled, 100 MiB of it hot. Then
clones start in several ways, in turn: from a file that they map copy-on-write, and
served by memd into ordinary and huge pages, from the store and from a source behind a
link. Each is asked for a first output, for a check of every 20th hot page, and for a
check of all of them while a twentieth is written to. Seconds from the command that
lets the clone begin, medians of all rounds. It needs QEMU, a C compiler, and what
tests/guests/image.py fetches. `--page` puts what was measured into docs/templating.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

from memd.client import Client
from tests.guests import image

TREE = Path(__file__).resolve().parents[1]
MIB = 1 << 20
HOT = 100 * MIB
LINK = 125_000_000
"""Bytes a second of the link, 1 Gbit/s."""

BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"

STEPS = ("running", "first output", "small", "done")


class Machine:
    """A QEMU with the guest of guest.c, or one that waits for it.

    Args:
        place: where its sockets are made.
        memory: its main memory, an option of -object without id and size.
        size: bytes of it.
        initrd: what it boots; None to wait for a migration.
    """

    def __init__(self, place: Path, memory: str, size: int, initrd: Path | None = None) -> None:
        place.mkdir()
        self.qmp, self.memd = place / "qmp", place / "memd.qmp"
        with socket.socket(socket.AF_UNIX) as console:
            console.bind(str(place / "serial"))
            console.listen(1)
            argv = ["qemu-system-x86_64", "-nodefaults", "-display", "none", "-accel", "tcg"]
            argv += ["-machine", "q35,hpet=off,memory-backend=ram", "-m", f"{size // MIB}M"]
            argv += ["-object", f"{memory},id=ram,size={size}", "-serial", f"unix:{place}/serial"]
            for path in (self.qmp, self.memd):
                argv += ["-qmp", f"unix:{path},server=on,wait=off"]
            if initrd is None:
                argv += ["-incoming", "defer"]
            else:
                argv += ["-kernel", str(image.make() / "kernel"), "-initrd", str(initrd)]
                argv += ["-append", "console=ttyS0 quiet nokaslr rdinit=/init"]
            self.process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
            self.serial, _address = console.accept()
        self.serial.settimeout(120)
        self.client = Client(self.qmp)

    def capability(self, name: str) -> None:
        """Switch a capability of its migrations on."""
        wanted = [{"capability": name, "state": True}]
        self.client.execute("migrate-set-capabilities", {"capabilities": wanted})

    def ask(self, letter: str) -> None:
        """Have the guest do something; returns when it is done, and right."""
        self.serial.sendall(letter.encode())
        answer = self.serial.recv(1)
        assert answer == letter.upper().encode(), answer

    def steps(self, begin: Callable[[], object]) -> dict[str, float]:
        """Seconds from `begin` to each of `STEPS`."""
        taken = {}
        started = time.perf_counter()
        begin()
        if not self.client.execute("query-status")["running"]:
            self.client.wait_event("RESUME", timeout=60)
        taken["running"] = time.perf_counter() - started
        for step, letter in zip(STEPS[1:], "esd", strict=True):
            self.ask(letter)
            taken[step] = time.perf_counter() - started
        return taken

    def resident(self) -> float:
        """MiB that it takes, a shared page divided among those who share it."""
        rows = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        found = {row.partition(":")[0]: row.split()[1] for row in rows[1:]}
        # Huge pages are not part of the first.
        kinds = ("Pss", "Private_Hugetlb", "Shared_Hugetlb")
        return sum(int(found.get(kind, "0")) for kind in kinds) / 1024

    def close(self) -> None:
        """End it."""
        self.client.close()
        self.serial.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def machine(place: Path, memory: str, size: int, initrd: Path | None = None) -> Iterator[Machine]:
    """A machine for the length of a `with` block."""
    with tempfile.TemporaryDirectory(dir=place) as own:
        made = Machine(Path(own) / "m", memory, size, initrd)
        try:
            yield made
        finally:
            made.close()


@contextmanager
def memd(place: Path, store: Path, *options: str) -> Iterator[tuple[Client, Path]]:
    """A memd with that store: a client, and its socket."""
    with tempfile.TemporaryDirectory(dir=place) as own:
        path = Path(own) / "qmp"
        argv = [sys.executable, "-m", "memd", "--templates", str(store), *options]
        argv += ["--qmp", f"unix:{path},server=on,wait=off"]
        process = subprocess.Popen(argv, cwd=TREE)
        try:
            client = None
            while client is None:
                # It is bound before it listens.
                with suppress(FileNotFoundError, ConnectionRefusedError):
                    client = Client(path)
                time.sleep(0.01)
            with client:
                yield client, path
        finally:
            process.terminate()
            process.wait()


def record(place: Path, size: int, cold: int) -> None:
    """Make `memory` and `devices` there."""
    command = ["cc", "-static", "-O2", "-w", f"-DCOLD={cold}ul", "-o", str(place / "init")]
    subprocess.run([*command, str(TREE / "benchmarks/guest.c")], check=True)
    init = (place / "init").read_bytes()
    (place / "initrd").write_bytes(image.archive([("init", 0o100755, init)]))
    with (place / "memory").open("wb") as file:
        file.truncate(size)
    backend = f"memory-backend-file,share=on,mem-path={place}/memory"
    with machine(place, backend, size, place / "initrd") as source:
        said = b""
        while not said.endswith(b"READY"):
            said += source.serial.recv(100)
        source.ask("d")
        source.client.execute("stop")
        source.capability("x-ignore-shared")
        source.client.execute("migrate", {"uri": f"file:{place}/devices"})
        while source.client.execute("query-migrate")["status"] != "completed":
            time.sleep(0.01)


def mapped(place: Path, files: Path, size: int) -> dict[str, float]:
    """A clone that maps the file copy-on-write."""
    backend = f"memory-backend-file,share=off,readonly=on,rom=off,mem-path={files}/memory"
    with machine(place, backend, size) as clone:
        clone.capability("x-ignore-shared")

        def begin() -> None:
            clone.client.execute("migrate-incoming", {"uri": f"file:{files}/devices"})
            while clone.client.execute("query-status")["status"] == "inmigrate":
                pass
            # It is as it was recorded: stopped.
            clone.client.execute("cont")

        taken = clone.steps(begin)
        return {**taken, "MiB": clone.resident()}


def served(
    place: Path, client: Client, size: int, backend: str, *, wait: bool = True, record: bool = False
) -> dict[str, float]:
    """A clone that memd serves."""
    with machine(place, backend, size) as clone:
        request = {"name": "guest", "qmp": str(clone.memd), "record": record}
        taken = clone.steps(lambda: client.execute("x-template-serve", request))
        if wait:
            told = client.wait_event("X_TEMPLATE_SERVED", timeout=120)["data"]
            assert told["outcome"] == "complete", told
            clone.ask("a")
            taken["MiB"] = clone.resident()
    if not wait:
        client.wait_event("X_TEMPLATE_SERVED", timeout=120)
    return taken


def at_once(place: Path, client: Client, path: Path, size: int, count: int) -> dict[str, float]:
    """Clones that begin together, and how long another client waits meanwhile."""
    waits: list[float] = []
    over = threading.Event()

    def probe() -> None:
        with Client(path) as other:
            while not over.is_set():
                began = time.perf_counter()
                other.execute("query-status")
                waits.append(time.perf_counter() - began)
                time.sleep(0.001)

    prober = threading.Thread(target=probe)
    with tempfile.TemporaryDirectory(dir=place) as own:
        clones = [
            Machine(Path(own) / str(number), "memory-backend-memfd", size)
            for number in range(count)
        ]
        try:
            prober.start()
            began = time.perf_counter()
            for clone in clones:
                client.execute("x-template-serve", {"name": "guest", "qmp": str(clone.memd)})
            for clone in clones:
                if not clone.client.execute("query-status")["running"]:
                    clone.client.wait_event("RESUME", timeout=60)
            running = time.perf_counter() - began
            for clone in clones:
                clone.serial.sendall(b"d")
            for clone in clones:
                assert clone.serial.recv(1) == b"D"
            done = time.perf_counter() - began
            for _ in clones:
                client.wait_event("X_TEMPLATE_SERVED", timeout=120)
            whole = time.perf_counter() - began
        finally:
            over.set()
            prober.join()
            for clone in clones:
                clone.close()
    waits.sort()
    return {
        "running": running,
        "done": done,
        "all there": whole,
        "p99.9 ms": waits[int(len(waits) * 0.999)] * 1000,
    }


def plain_reader(place: Path, client: Client) -> float:
    """GB a second into a reader that throws away what it reads."""
    with tempfile.TemporaryDirectory(dir=place) as own, socket.socket(socket.AF_UNIX) as listening:
        path = f"{own}/in"
        listening.bind(path)
        listening.listen(1)
        child = os.fork()
        if not child:
            source, _address = listening.accept()
            # As if the devices were loaded.
            source.sendall(struct.pack(">HHI", 2, 4, 3))
            buffer, last = bytearray(MIB), b""
            end = struct.pack(">BIQBIB", 3, 1, 0x10, 0x7E, 1, 0)
            total, began = 0, time.perf_counter()
            while not last.endswith(end):
                count = source.recv_into(buffer)
                if not count:
                    os._exit(1)
                last = (last + bytes(buffer[max(0, count - 32) : count]))[-32:]
                total += count
            taken = time.perf_counter() - began
            Path(own, "taken").write_text(f"{total / taken / 1e9}")
            source.sendall(struct.pack(">HHI", 1, 4, 0))
            os._exit(0)
        client.execute("x-template-serve", {"name": "guest", "uri": f"unix:{path}"})
        told = client.wait_event("X_TEMPLATE_SERVED", timeout=60)["data"]
        os.waitpid(child, 0)
        assert told["outcome"] == "complete", told
        return float(Path(own, "taken").read_text())


class Link:
    """A file server behind a link: what it sends is held to `LINK` bytes a second."""

    def __init__(self, directory: Path) -> None:
        free = [0.0]
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Else the end of each answer waits until what came before is acknowledged.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                path = directory / self.path.lstrip("/")
                if not path.is_file():
                    self.send_error(404)
                    return
                size = path.stat().st_size
                start, end = 0, size
                span = self.headers.get("Range", "")
                if span.startswith("bytes="):
                    first, _, last = span[6:].partition("-")
                    start, end = int(first), min(size, int(last) + 1 if last else size)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(end - start))
                self.end_headers()
                with path.open("rb") as file:
                    file.seek(start)
                    while start < end:
                        data = file.read(min(64 << 10, end - start))
                        with lock:
                            now = time.monotonic()
                            free[0] = max(free[0], now) + len(data) / LINK
                            pause = free[0] - now
                        time.sleep(pause)
                        self.wfile.write(data)
                        start += len(data)

            def log_message(self, *_words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self) -> None:
        """Serve for ever."""
        self._server.serve_forever()


def link(directory: Path) -> tuple[int, str]:
    """The server in a process of its own: the process, and its address."""
    server = Link(directory)
    child = os.fork()
    if not child:
        server.serve()
    return child, server.url


def fetched(place: Path, url: str, size: int) -> dict[str, dict[str, float]]:
    """A clone on a host that has nothing of the template: served, and mapped when all is here."""
    with tempfile.TemporaryDirectory(dir=place) as own:
        here = Path(own)
        with memd(place, here / "served", "--template-source", url) as (client, _path):
            # The process that serves is started ahead.
            time.sleep(0.5)
            first = served(place, client, size, "memory-backend-memfd", wait=False)
        with memd(place, here / "pulled", "--template-source", url) as (client, _path):
            files = here / "files"
            files.mkdir()
            began = time.perf_counter()
            client.execute("x-template-pull", {"name": "guest"})
            there = {"filename": f"{files}/memory", "devices": f"{files}/devices"}
            client.execute("x-template-export", {"name": "guest", **there})
            taken = time.perf_counter() - began
            second = mapped(place, files, size)
        second = {step: value + taken for step, value in second.items() if step != "MiB"}
    return {"behind the link: served": first, "behind the link: fetched, then mapped": second}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clones", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the guest's memory")
    parser.add_argument("--cold", type=int, default=300, help="MiB filled beside the hot 100")
    parser.add_argument("--clones", type=int, default=8, help="that begin at once")
    parser.add_argument("--place", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--only-local", action="store_true", help="nothing behind a link")
    parser.add_argument("--output", type=Path, default=TREE / "build/benchmarks")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing: renew the page of what was measured"
    )
    options = parser.parse_args()
    if options.page:
        renew_page(options.output)
        return
    size = options.size * MIB
    results: dict[str, list[dict[str, float]]] = {}

    def take(name: str, values: dict[str, float]) -> None:
        results.setdefault(name, []).append(values)
        print(name, json.dumps({key: round(value, 4) for key, value in values.items()}), flush=True)

    place = Path(tempfile.mkdtemp(prefix="memd-bench-", dir=options.place))
    child = 0
    try:
        record(place, size, options.cold * MIB)
        files = {"filename": f"{place}/memory", "devices": f"{place}/devices"}
        with memd(place, place / "store", "--template-source", f"file:{place}/pushed") as (
            client,
            path,
        ):
            began = time.perf_counter()
            client.execute("x-template-save", {"name": "guest", **files})
            print(f"saved in {time.perf_counter() - began:.2f} s")
            served(place, client, size, "memory-backend-memfd")
            take(
                "served, on demand alone (first of all)",
                served(place, client, size, "memory-backend-memfd", wait=False, record=True),
            )
            while not client.execute("x-template-query", {"name": "guest"})["working-set"]:
                time.sleep(0.1)
            if not options.only_local:
                client.execute("x-template-push", {"name": "guest"})
                child, url = link(place / "pushed")
            huge = 2 * size // (2 * MIB) <= _free_huge_pages() * 2
            for _ in range(options.rounds):
                take("mapped copy-on-write", mapped(place, place, size))
                take("served", served(place, client, size, "memory-backend-memfd"))
                take("served, private", served(place, client, size, "memory-backend-ram"))
                if huge:
                    backend = "memory-backend-memfd,hugetlb=on,hugetlbsize=2M"
                    take("served, huge pages", served(place, client, size, backend))
                if options.clones:
                    name = f"{options.clones} served at once"
                    take(name, at_once(place, client, path, size, options.clones))
                take("to a plain reader", {"GB/s": plain_reader(place, client)})
                if child:
                    for name, values in fetched(place, url, size).items():
                        take(name, values)
    finally:
        if child:
            os.kill(child, 15)
            os.waitpid(child, 0)
        shutil.rmtree(place)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"clones-{options.size}.json").write_text(json.dumps(results))
    print()
    for name, row in medians(results).items():
        print(f"{name:40}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


def medians(results: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each way, the median of each figure."""
    return {
        name: {key: median(each[key] for each in rounds) for key in rounds[0]}
        for name, rounds in results.items()
    }


def renew_page(folder: Path) -> None:
    """Put the results into docs/templating.md, with a plot beside it."""
    from benchmarks.plots import draw_clones

    found = {
        int(path.stem.partition("-")[2]): medians(json.loads(path.read_text()))
        for path in sorted(folder.glob("clones-*.json"))
    }
    times = (*STEPS, "all there")
    columns = (*times, "MiB", "p99.9 ms", "GB/s")
    lines: list[str] = []
    for size, rows in sorted(found.items()):
        head = f"{size // 1024} GiB of memory" if size % 1024 == 0 else f"{size} MiB of memory"
        lines += [f"| {head} | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for name, row in rows.items():
            cells = (
                f"{row[key] * 1000 if key in times else row[key]:.{1 if key == 'GB/s' else 0}f}"
                if key in row
                else ""
                for key in columns
            )
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    page = TREE / "docs/templating.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
    draw_clones(TREE / "docs/templating-clones.svg", found[1024])


def _free_huge_pages() -> int:
    return int(Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").read_text())


if __name__ == "__main__":
    main()
