"""A TPM that an emulator is to be: what a machine tells of it."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from tests.differential.standin import standin_pair, tell

_CAPABILITIES, _BUFFER_SIZE = 1, 17
_TPM2 = 0x8001


def _answer_data(fd: int) -> None:
    with socket.socket(fileno=fd) as data:
        while data.recv(4096):
            data.sendall(struct.pack(">HII", _TPM2, 10, 0))


def _answer_control(control: socket.socket) -> None:
    with control:
        while True:
            data, fds, _flags, _address = socket.recv_fds(control, 4096, 1)
            if not data:
                return
            for fd in fds:
                Thread(target=_answer_data, args=(fd,), daemon=True).start()
            command = struct.unpack(">I", data[:4])[0]
            if command == _CAPABILITIES:
                control.sendall(struct.pack(">Q", 0xFFFF))
            elif command == _BUFFER_SIZE:
                control.sendall(struct.pack(">IIII", 0, *(4096,) * 3))
            else:
                control.sendall(bytes(4))


@contextlib.contextmanager
def emulator(path: Path) -> Iterator[None]:
    """What answers a QEMU as a TPM's emulator does, as far as a machine that stands still asks."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    control = listener.accept()[0]
                    Thread(target=_answer_control, args=(control,), daemon=True).start()

        Thread(target=serve, daemon=True).start()
        yield


@pytest.mark.parametrize("model", ["tpm-tis", "tpm-crb", None])
def test_a_tpm(directory: Path, model: str | None) -> None:
    path = directory / "t"
    options = ["-chardev", f"socket,id=c0,path={path}", "-tpmdev", "emulator,id=t0,chardev=c0"]
    if model is not None:
        options += ["-device", f"{model},tpmdev=t0,id=d0"]
    plug = {"driver": "tpm-tis", "tpmdev": "t0", "id": "d1"}
    with emulator(path), standin_pair(directory, "-machine", "q35", *options) as pair:
        steps = [
            *(("query-tpm", None), ("query-tpm-models", None), ("query-tpm-types", None)),
            *(("chardev-remove", {"id": "c0"}), ("device_del", {"id": "d0"})),
            *(("device_add", plug), ("device_add", {**plug, "driver": "tpm-crb"})),
            ("qom-get", {"path": "/machine/peripheral/d0", "property": "tpmdev"}),
        ]
        tell(pair, steps)
