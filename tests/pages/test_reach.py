"""What a client can have memd connect to: what it may name itself, and not more."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.clone_monitor import CloneMonitor
from memd.pages.reach import Reach
from tests.conftest import NOT_HERE
from tests.ports import free_port


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """A socket that somebody listens on, in `allowed`."""
    (tmp_path / "allowed").mkdir()
    path = tmp_path / "allowed" / "sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen(5)
        yield path


async def refusal(reach: Reach, path: Path) -> str:
    """What is said of a machine there, which is that of its monitor as well."""
    with pytest.raises(QMPError) as refused:
        await reach.connect(f"unix:{path}")
    assert not reach.listens(str(path))
    with pytest.raises(QMPError) as monitor:
        await CloneMonitor.connect(str(path), reach)
    said = refused.value.desc.rpartition(": ")[2]
    assert monitor.value.desc == f"cannot connect to the monitor {path}: {said}"
    return said


async def test_below_the_roots_alone(listening: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(listening)
    (tmp_path / "allowed" / "out").symlink_to(tmp_path)
    for path in (listening, tmp_path / "link"):
        (await Reach().connect(f"unix:{path}")).close()
        assert Reach().listens(str(path))
    reach = Reach([str(tmp_path / "allowed")])
    (await reach.connect(f"unix:{listening}")).close()
    assert reach.listens(str(listening))
    outside = "Path is not below a directory of --mem-root"
    other = tmp_path / "allowed" / ".." / "allowed" / "sock"
    for path in (tmp_path / "link", tmp_path / "allowed" / "out" / "allowed" / "sock", other):
        assert await refusal(reach, path) == outside


async def test_no_link_of_a_stranger(listening: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o777)
    (common / "sock").symlink_to(listening)
    os.lchown(common / "sock", 54321, 54321)
    assert "Symbolic link of another user" in await refusal(Reach(), common / "sock")


async def test_what_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert await refusal(Reach(), tmp_path / "file") == "Connection refused"
    assert await refusal(Reach(), tmp_path / "none") == "No such file or directory"


async def test_tcp_leads_to_this_host() -> None:
    """Another host is not even asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        hosts = ["127.0.0.1"]
        with suppress(socket.gaierror):
            # A bare system may not know the name.
            socket.getaddrinfo("localhost", port)
            hosts.append("localhost")
        for host in hosts:
            (await Reach().connect(f"tcp:{host}:{port}")).close()
    far = "it is another host (--insecure-tcp permits that)"
    for uri in ("tcp:192.0.2.1:1", "tcp:[2001:db8::1]:1"):
        with pytest.raises(QMPError) as refused:
            await Reach().connect(uri)
        assert refused.value.desc == f"cannot connect to the QEMU at {uri}: {far}"
    # Nobody listens there: this host has it, and says so.
    with pytest.raises(QMPError, match="refused"):
        await Reach(tcp=True).connect(f"tcp:127.0.0.1:{free_port()}")


@pytest.mark.parametrize("uri", ["", "x", "unix:", "tcp:", "tcp:h", "tcp:h:", "tcp:h:-1", "exec:x"])
async def test_no_address(uri: str) -> None:
    with pytest.raises(QMPError, match="is not an address"):
        await Reach().connect(uri)


async def test_no_port_of_that_number() -> None:
    with pytest.raises(QMPError, match="cannot connect to the QEMU at tcp"):
        await Reach().connect("tcp:127.0.0.1:99999")
