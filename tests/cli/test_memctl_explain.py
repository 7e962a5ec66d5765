from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from memd.cli.memctl import TROUBLE, main
from tests.differential.harness import Side

MIB = 1 << 20


class Memctl:
    """`memctl -s SOCKET explain ...` beside a daemon."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._path = path
        self._capsys = capsys

    def explain(self, *arguments: str) -> tuple[int, str]:
        """The exit status, and what is printed; nothing is said on standard error."""
        status = main(["-s", str(self._path), "explain", *arguments])
        said = self._capsys.readouterr()
        assert said.err == ""
        return status, said.out

    def data(self, *arguments: str) -> dict[str, Any]:
        """The explanation as data."""
        _status, out = self.explain("--json", *arguments)
        found = json.loads(out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def memctl(memd: Side, capsys: pytest.CaptureFixture[str]) -> Memctl:
    return Memctl(memd.server.path, capsys)


def test_what_works(memctl: Memctl, memd: Side) -> None:
    status, out = memctl.explain("memory-backend-ram,id=m0,size=1M")
    assert status == 0
    lines = out.splitlines()
    assert lines[0] == "It would work: memory-backend-ram, 1 MiB."
    assert len(lines) > 5
    assert memd.regions() == []


def test_what_fails(memctl: Memctl) -> None:
    status, out = memctl.explain("memory-backend-ram,id=m0,size=0")
    assert status == 1
    assert out == "It would fail: property 'size' of memory-backend-ram doesn't take value '0'\n"


def test_what_can_not_be_told(memctl: Memctl) -> None:
    status, out = memctl.explain("memory-backend-file,size=4k,mem-path=/proc/version,readonly=on")
    assert status == 1
    assert out.startswith("It may work")


@pytest.mark.parametrize(
    ("text", "desc"),
    [
        ("memory-backend-ram,id=m0,size=x", "Parameter 'size' expects a size value"),
        ("memory-backend-ram,id=m0", "Parameter 'size' is missing"),
        ("memory-backend-ram", "Parameter 'size' is missing"),
        ("foo,id=m0", "Parameter 'qom-type' does not accept value 'foo'"),
        ('{"qom-type": "memory-backend-ram"}', "Parameter 'size' is missing"),
        ('{"id": "m0"}', "Parameter 'qom-type' is missing"),
    ],
)
def test_arguments_that_are_wrong(memctl: Memctl, text: str, desc: str) -> None:
    status, out = memctl.explain(text)
    assert (status, out) == (1, f"It would fail: {desc}\n")
    assert memctl.data(text)["error"] == {"class": "GenericError", "desc": desc}


def test_json(memctl: Memctl) -> None:
    text = '{"qom-type": "memory-backend-memfd", "id": "m0", "size": 1048576, "share": false}'
    found = memctl.data(text)
    assert found["verdict"] == "works"
    assert found["mapping"]["length"] == MIB
    assert found["suggestion"]["options"]["id"] == "m0"
    assert memctl.data("memory-backend-memfd,id=m0,size=1M,share=off") == found


def test_an_id_may_be_left_out(memctl: Memctl) -> None:
    for text in (
        "memory-backend-memfd,size=1M,share=off",
        '{"qom-type": "memory-backend-memfd", "size": 1048576, "share": false}',
    ):
        found = memctl.data(text)
        assert found["suggestion"]["options"] == {
            "qom-type": "memory-backend-ram",
            "size": MIB,
            "share": False,
        }
        assert not any("id=" in line for line in found["text"])


def test_help(memctl: Memctl) -> None:
    status, out = memctl.explain("memory-backend-file,help")
    assert status == 0
    assert out.startswith("memory-backend-file options:\n")


def test_a_server_that_can_not_explain(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Others serve QMP as well, and not this."""
    path = directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve_little, args=(listening,))
        thread.start()
        assert main(["-s", str(path), "explain", "memory-backend-ram,size=1M"]) == TROUBLE
        thread.join()
    assert capsys.readouterr().err == ("memctl: The command x-memdev-explain has not been found\n")


def serve_little(listening: socket.socket) -> None:
    """Negotiate with one client, and know no other command."""
    peer, _address = listening.accept()
    with peer, peer.makefile("rw") as stream:
        stream.write('{"QMP": {"version": 3}}\n')
        stream.flush()
        for line in stream:
            request = json.loads(line)
            name = request["execute"]
            answer: dict[str, Any] = {"return": {}, "id": request["id"]}
            if name != "qmp_capabilities":
                del answer["return"]
                desc = f"The command {name} has not been found"
                answer["error"] = {"class": "CommandNotFound", "desc": desc}
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
