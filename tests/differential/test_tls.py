"""TLS on a QEMU and on memd: the same credentials, the same clients.

What a client sees is compared, not how it is told: GnuTLS, which QEMU uses,
disconnects whom it refuses without an alert, and OpenSSL sends one.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.tls_cases import Case, cases, expected
from tests.differential.harness import Pair, fresh_id
from tests.differential.server import PATIENCE, Server, memd_argv, qemu_argv, qemu_compat
from tests.ports import free_port
from tests.tls import (
    PAST,
    Certificates,
    is_served,
    negotiated,
    server_options,
)


@pytest.fixture(scope="session")
def made(certificates: Certificates) -> list[Case]:
    return cases(certificates)


def test_credentials(pair: Pair, made: list[Case]) -> None:
    """What object-add says of each directory."""
    compat = qemu_compat()
    for name, folder, options, text in made:
        id = fresh_id()
        arguments = {"qom-type": "tls-creds-x509", "id": id, "dir": str(folder)}
        arguments.update({"endpoint": "server", **options})
        answer = pair.ask("object-add", arguments)
        wanted = expected(text, compat, folder)
        assert answer.get("error", {}).get("desc", "") == wanted, name
        if not wanted:
            pair.ask("object-del", {"id": id})


def test_properties(pair: Pair, certificates: Certificates) -> None:
    pair.ask("qom-list-properties", {"typename": "tls-creds-x509"})
    pair.ask("qom-list-properties", {"typename": "tls-creds"})
    add = {"qom-type": "tls-creds-x509", "id": "tls0"}
    nowhere = {"dir": "/nowhere/a\0b"}
    for wrong in ({}, {"endpoint": "middle"}, {"verify-peer": "on"}, {"loaded": True}, nowhere):
        pair.refuse("object-add", {**add, **wrong})
    pair.ask("object-add", {**add, "dir": str(certificates.good_client)})
    path = "/objects/tls0"
    pair.ask("qom-list", {"path": path})
    changes: list[tuple[str, list[Any]]] = [
        ("dir", ["/nowhere", 3, ""]),
        ("endpoint", ["server", "middle", 3]),
        ("priority", ["NORMAL", 5]),
        ("sanity-check", [False, 2]),
        ("verify-peer", [False, "on"]),
        ("passwordid", ["s0", None]),
        ("type", ["x"]),
        ("loaded", [True]),
    ]
    for name, values in changes:
        pair.ask("qom-get", {"path": path, "property": name})
        for value in values:
            pair.ask("qom-set", {"path": path, "property": name, "value": value})
            pair.ask("qom-get", {"path": path, "property": name})
    pair.ask("object-del", {"id": "tls0"})
    pair.ask("object-del", {"id": "tls0"})


Start = Callable[..., tuple[int, int]]


@pytest.fixture
def both(directory: Path) -> Iterator[Start]:
    """Starts a QEMU and a memd with the same options; the ports that they serve at."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path, **more: str) -> tuple[int, int]:
            argv = qemu_argv()
            ports = []
            for name, command in (("qemu", argv), ("memd", memd_argv(qemu_compat()))):
                place = directory / name
                place.mkdir()
                ports.append(free_port())
                options = server_options(folder, ports[-1], **more)
                server = Server(name, [*command, *options], place)
                stack.callback(server.stop)
            return ports[0], ports[1]

        yield start


def conversation(port: int, certificates: Certificates, version: str) -> list[Any]:
    """What a client is answered."""
    ram = {"qom_type": "memory-backend-ram", "id": "m0", "size": 1 << 20}
    with negotiated(port, certificates.client_context(version=version)) as client:
        said: list[Any] = [
            client.execute("object-add", **ram),
            client.execute("object-add", **ram),
            client.execute("qom-get", path="/objects/m0", property="size"),
            client.execute("object-del", id="m0"),
        ]
        client.send(*({"execute": "query-name", "id": number} for number in range(2000)))
        said += [client.read() for _ in range(2000)]
        # 200 KB there and back.
        client.send({"execute": "query-name", "id": "x" * 200_000})
        said.append(client.read())
        client.socket.sendall(b'{"execute":\n}\n')
        said.append(client.read())
        said.append(client.execute("query-name"))
    return said


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_conversations(both: Start, certificates: Certificates, version: str) -> None:
    qemu, memd = both(certificates.good)
    said = conversation(qemu, certificates, version)
    assert conversation(memd, certificates, version) == said


def in_clear(port: int, data: bytes) -> str:
    """What comes of a client that does not speak TLS."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            while received := client.recv(1000):
                if b"QMP" in received:
                    return "served"
        except OSError:
            # It may be gone before all is said.
            pass
        return "disconnected"


@pytest.mark.parametrize("verify", ["on", "off"])
def test_who_is_served(both: Start, certificates: Certificates, verify: str) -> None:
    certificates.issue("stranger", by="other-ca")
    certificates.issue("late", by="ca", holds=PAST)

    def outcomes(port: int) -> list[Any]:
        seen: list[Any] = []
        for version in ("1.2", "1.3"):
            for own in ("client", None, "stranger", "late"):
                context = certificates.client_context(own, version=version)
                seen.append((version, own, is_served(port, context)))
        seen.append(is_served(port, certificates.client_context(trusts="other-ca")))
        seen.append(in_clear(port, b'{"execute":"qmp_capabilities"}\n'))
        seen.append(in_clear(port, b""))
        # It serves on, after all that.
        seen.append(is_served(port, certificates.client_context()))
        return seen

    qemu, memd = both(certificates.good, verify_peer=verify)
    seen = outcomes(qemu)
    assert outcomes(memd) == seen
    assert [served for _version, own, served in seen[:8] if own == "client"] == [True, True]
    assert [served for _version, own, served in seen[:8] if own is None] == [verify == "off"] * 2
