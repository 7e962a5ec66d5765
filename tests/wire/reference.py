"""How a QEMU's answers to raw input are had, and compared with what memd.wire makes of it.

What decoded values are answered with is another room's affair, so requests here
name a command that does not exist and carry an `id`: the answer echoes it.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import Decoder, encode

NEGOTIATION = b'{"execute":"qmp_capabilities"}'


def ask(path: str | Path, data: bytes) -> list[bytes]:
    """What a QMP server on a socket answers to `data`, sent after negotiation.

    The client sends all of it and half-closes, so that its end is the server's. That bears some
    two hundred answers: QEMU loses those that did not fit the socket when it sees the end.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(NEGOTIATION + data)
        client.shutdown(socket.SHUT_WR)
        received = bytearray()
        while piece := client.recv(1 << 18):
            received += piece
    greeting, negotiated, *answers = received.splitlines(keepends=True)
    assert b"QMP" in greeting
    assert json.loads(negotiated) == {"return": {}}
    return [bytes(answer) for answer in answers]


def compat_of(path: str | Path) -> Compat:
    """The release that the greeting of the server on a socket names."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        with client.makefile("rb") as lines:
            version = json.loads(lines.readline())["QMP"]["version"]["qemu"]
    return Compat.V10_0 if version["major"] <= 10 else Compat.V11_1


def negotiated(decoder: Decoder) -> Decoder:
    """The decoder, after what `ask` sends first."""
    assert decoder.feed(NEGOTIATION) == [{"execute": "qmp_capabilities"}]
    return decoder


def decode(decoder: Decoder, *pieces: bytes) -> list[JSON | QMPError]:
    """What a new connection's input comes to, its end included."""
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.end()


def answer(item: JSON | QMPError) -> JSON:
    """What a decoded item is answered with, as far as it can be told without dispatch."""
    if isinstance(item, QMPError):
        return {"error": {"class": item.error_class, "desc": item.desc}}
    if not isinstance(item, dict):
        return {"error": {"class": "GenericError", "desc": "QMP input must be a JSON object"}}
    name = item.get("execute")
    if isinstance(name, str) and item.keys() <= {"execute", "id"}:
        error = {"class": "CommandNotFound", "desc": f"The command {name} has not been found"}
    else:
        # Which member is complained about first is not for the wire to know.
        error = {"class": "GenericError", "desc": "QMP input "}
    return {"error": error} | ({"id": item["id"]} if "id" in item else {})


def agree(items: list[JSON | QMPError], answers: list[bytes]) -> bool:
    """Whether the answers are what the items come to, byte for byte but for the members' order."""
    return len(items) == len(answers) and all(map(_agrees, items, answers))


def _agrees(item: JSON | QMPError, theirs: bytes) -> bool:
    ours = encode(answer(item))
    expected, seen = _loads(ours), _loads(theirs)
    if expected["error"]["desc"] == "QMP input ":
        vague: str = seen["error"]["desc"]
        seen["error"]["desc"] = vague[: len("QMP input ")]
        return bool(expected == seen)
    return bool(expected == seen) and sorted(ours) == sorted(theirs)


def _loads(line: bytes) -> JSON:
    """An answer's value. QEMU writes an infinity as C does, Python reads it by another name."""
    return json.loads(re.sub(rb"(?<=[\[ ])(-?)inf(?=[,\]}])", rb"\1Infinity", line))
