"""What a scraper sees, over TCP and a UNIX socket, of a daemon that is at work."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from memd.app.metrics import AT_ONCE
from memd.pages.store import Store
from memd.places import ANYBODY, SHARE, Places
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import PATIENCE, TREE, Server
from tests.pages.memory import save
from tests.ports import free_port

MIB = 1 << 20
ACCEPT = "application/openmetrics-text; version=1.0.0"


class Unix(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("memd", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(self._path))


class Scraped:
    """A daemon, and what it tells."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server = server
        self.path = path

    def get(self, target: str = "/metrics", accept: str = ACCEPT) -> tuple[int, str, str]:
        """Status, content type, text."""
        with contextlib.closing(Unix(self.path)) as connection:
            connection.request("GET", target, headers={"Accept": accept})
            answer = connection.getresponse()
            text = answer.read().decode()
        return answer.status, answer.getheader("Content-Type", ""), text

    def head(self, target: str = "/metrics") -> tuple[int, str, bytes]:
        """Status, content type, and what comes after the headers."""
        with contextlib.closing(Unix(self.path)) as connection:
            connection.connect()
            connection.sock.sendall(f"HEAD {target} HTTP/1.0\r\n\r\n".encode())
            with connection.sock.makefile("rb") as answer:
                head, _, rest = answer.read().partition(b"\r\n\r\n")
        status, *headers = head.decode().split("\r\n")
        kinds = [each for each in headers if each.lower().startswith("content-type: ")]
        return int(status.split()[1]), kinds[0].partition(": ")[2], rest

    def samples(self) -> list[Sample]:
        _status, _kind, text = self.get()
        families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        return [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float | None:
        for sample in self.samples():
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
        return None


@pytest.fixture
def scraped(start_memd: Callable[..., Server], directory: Path) -> Iterator[Scraped]:
    path = directory / "metrics"
    scraped = Scraped(start_memd("--metrics", f"unix:{path}"), path)
    yield scraped
    assert scraped.server.alive()


def test_backends(scraped: Scraped) -> None:
    kind = "memory-backend-memfd"
    monitor = scraped.server.monitor()
    assert scraped.value("memd_backends", type=kind) is None
    for id, prealloc in (("a", True), ("b", False)):
        arguments = {"qom-type": kind, "id": id, "size": 2 * MIB, "prealloc": prealloc}
        monitor.execute("object-add", arguments)
    assert scraped.value("memd_backends", type=kind) == 2
    assert scraped.value("memd_backend_bytes", type=kind) == 4 * MIB
    assert scraped.value("memd_resident_bytes", type=kind) == 2 * MIB
    assert scraped.value("memd_node_bytes", type=kind, node="0") == 2 * MIB
    assert scraped.value("memd_populated_bytes_total") == 2 * MIB
    assert scraped.value("memd_clients") == 1
    monitor.execute("object-del", {"id": "a"})
    assert scraped.value("memd_backends", type=kind) == 1
    # What was populated once stays counted.
    assert scraped.value("memd_populated_bytes_total") == 2 * MIB


def test_commands(scraped: Scraped) -> None:
    monitor = scraped.server.monitor()
    for _ in range(3):
        monitor.execute("object-del", {"id": "nobody"})
    monitor.execute("whatever-is-this")
    assert scraped.value("memd_command_seconds_count", command="object-del") == 3
    assert scraped.value("memd_command_seconds_bucket", command="object-del", le="+Inf") == 3
    errors = "memd_command_errors_total"
    assert scraped.value(errors, **{"command": "object-del", "class": "GenericError"}) == 3
    assert scraped.value(errors, **{"command": "unknown", "class": "CommandNotFound"}) == 1


def test_much_memory_is_counted_beside_the_loop(scraped: Scraped) -> None:
    monitor = scraped.server.monitor()
    arguments = {"qom-type": "memory-backend-ram", "id": "large", "size": 1 << 30}
    monitor.execute("object-add", arguments)
    assert scraped.value("memd_backend_bytes", type="memory-backend-ram") == 1 << 30


def test_the_form_is_negotiated(scraped: Scraped) -> None:
    status, kind, text = scraped.get()
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    assert scraped.get("/elsewhere")[0] == 404


def test_silent_scrapers_keep_nobody_out(scraped: Scraped) -> None:
    """Nor do they take a thread each."""
    scraped.get()
    threads = len(os.listdir(f"/proc/{scraped.server.pid}/task"))
    with contextlib.ExitStack() as stack:
        for _ in range(1000):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(PATIENCE)
            sock.connect(str(scraped.path))
        assert scraped.value("memd_clients") is not None
        assert len(os.listdir(f"/proc/{scraped.server.pid}/task")) <= threads + 1
        assert sum(descriptors(scraped.server.pid).values()) < AT_ONCE + 50


def test_scrapers_are_on_the_account_of_descriptors(start_memd: Callable[..., Server]) -> None:
    """Users who are not known have a share, and the newest scraper is served."""
    port, most = free_port(), 80
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        server = start_memd("--metrics", f"127.0.0.1:{port}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    places = Places(most - most // 4, SHARE)
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))

        silent = [connect() for _ in range(AT_ONCE)]
        last = connect()
        last.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with last.makefile("rb") as answer:
            assert answer.readline().split()[1] == b"200"
        left = [each for each in silent if not select.select([each], [], [], 0)[0]]
        assert places.most(ANYBODY) - 1 <= len(left) <= places.most(ANYBODY)
        assert "return" in server.monitor().execute("query-status")


def test_rubbish_is_answered_and_nothing_is_lost(scraped: Scraped) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(scraped.path))
        sock.sendall(b"\x00\xff{}\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert scraped.value("memd_clients") is not None


def test_who_drips_makes_room(scraped: Scraped) -> None:
    """A byte now and then does not keep the others out, however long it goes on."""
    slow = [socket.socket(socket.AF_UNIX) for _ in range(AT_ONCE)]
    for sock in slow:
        sock.settimeout(PATIENCE)
        sock.connect(str(scraped.path))
        sock.sendall(b"G")

    def look() -> int:
        for sock in slow[1:]:
            sock.sendall(b"G")
        try:
            return scraped.get()[0]
        except OSError:
            return 0

    assert settle(look, bool) == 200
    assert slow[0].recv(1) == b""
    for sock in slow:
        sock.close()


@pytest.mark.parametrize("version", ["x", "1.x", "\u00ff", "1..0"])
def test_a_form_that_is_rubbish(scraped: Scraped, version: str) -> None:
    accept = f"application/openmetrics-text; version={version}"
    assert scraped.get(accept=accept)[0] in (200, 400)
    assert "Traceback" not in scraped.server.stderr()


def test_the_socket_is_the_daemons_own(start_memd: Callable[..., Server], directory: Path) -> None:
    path = directory / "metrics"
    server = start_memd("--metrics", f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o600
    server.stop()
    assert not path.exists()


def test_every_panel_asks_for_what_there_is(scraped: Scraped) -> None:
    """docs/grafana.json, the dashboard: no panel stays empty for a misspelled name."""
    monitor = scraped.server.monitor()
    arguments = {"qom-type": "memory-backend-ram", "id": "m", "size": MIB, "prealloc": True}
    monitor.execute("object-add", arguments)
    monitor.execute("object-del", {"id": "nobody"})
    # Without a service manager nothing was lost, and the metric has no samples.
    names = {sample.name for sample in scraped.samples()} | {"memd_lost_regions"}
    dashboard = json.loads((TREE / "docs" / "grafana.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) > 8
    for query in queries:
        asked = re.findall(r"\b(?:memd|process)_[a-z_]+", query)
        assert asked, query
        assert set(asked) <= names, query


def test_templates(start_memd: Callable[..., Server], directory: Path) -> None:
    path = directory / "m.sock"
    store = Store(str(directory / "store"))
    save(store, "a", bytes(range(256)) * 256)
    store.close()
    server = start_memd("--metrics", f"unix:{path}", "--templates", str(directory / "store"))
    scraped = Scraped(server, path)
    assert scraped.value("memd_templates") == 1
    assert scraped.value("memd_template_cache_bytes") == 0
    stored = scraped.value("memd_template_stored_bytes")
    assert stored is not None
    assert stored > 0
    exported = {"name": "a", "filename": str(directory / "memory")}
    server.monitor().execute("x-template-export", exported)
    assert scraped.value("memd_template_chunks_total", **{"from": "stored"}) == 1
    assert scraped.value("memd_template_chunks_total", **{"from": "damaged"}) == 0
    # Nobody has been sent it.
    assert scraped.value("memd_template_clones") == 0
    for cause in ("asked", "asked-zero", "working-set", "rest"):
        assert scraped.value("memd_template_pages_total", cause=cause) == 0
    assert scraped.value("memd_template_fault_seconds_count") == 0


def test_metrics_that_are_asked_for_by_name(scraped: Scraped) -> None:
    scraped.server.monitor().execute("query-status")
    _status, _kind, text = scraped.get("/metrics?name[]=memd_clients&name[]=memd_info")
    assert {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line[0] != "#"} == {
        *("memd_clients", "memd_info")
    }
    # Those that there are none of yet, too, and parts of a family.
    name = "memd_command_seconds_count"
    text = scraped.get(f"/metrics?name[]={name}")[2]
    assert f'{name}{{command="query-status"}} 1.0' in text


def test_head(scraped: Scraped) -> None:
    """What monitors of web servers ask for."""
    _status, kind, _text = scraped.get(accept="")
    assert scraped.head() == (200, kind, b"")
    status, _kind, rest = scraped.head("/nothing")
    assert (status, rest) == (404, b"")
