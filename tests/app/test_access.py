"""What the command line says of access comes to something, or to an error."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from memd.app import access
from memd.errors import StartError
from memd.server.audit_sinks import FileSink, JournaldSink
from tests.descriptors import open_descriptors
from tests.seccomp import OPENAT2, without


def refusal(*directories: str) -> tuple[str, str]:
    with pytest.raises(StartError) as caught:
        access.open_roots(directories)
    return caught.value.where, caught.value.text


def test_directories_for_files(directory: Path) -> None:
    before = open_descriptors()
    roots = access.open_roots([str(directory), "/"])
    assert roots.find(b"/proc/1")[1] == b"proc/1"
    roots.close()
    (directory / "f").touch()
    option = f"--mem-root {directory}/f"
    assert refusal(str(directory), f"{directory}/f") == (option, "Not a directory")
    option = f"--mem-root {directory}/none"
    assert refusal(f"{directory}/none") == (option, "No such file or directory")
    assert open_descriptors() == before


@without(OPENAT2)
def test_directories_for_files_that_nothing_can_be_confined_to() -> None:
    before = open_descriptors()
    assert refusal("/") == (
        "--mem-root /",
        "openat2(2) is not available: nothing can be confined to it",
    )
    assert open_descriptors() == before


def test_an_audit_file(directory: Path) -> None:
    sink = access.open_audit(f"{directory}/audit")
    assert isinstance(sink, FileSink)
    sink.close()
    with pytest.raises(StartError) as caught:
        access.open_audit(f"{directory}/none/audit")
    assert caught.value.where == f"--audit {directory}/none/audit"
    assert caught.value.text == "No such file or directory"


def test_the_journal(directory: Path) -> None:
    path = directory / "socket"
    with pytest.raises(StartError) as caught:
        access.open_audit("journal", str(path))
    assert caught.value.text == "cannot reach the journal: No such file or directory"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sink = access.open_audit("journal", str(path))
        assert isinstance(sink, JournaldSink)
        sink.close()


def test_by_itself_it_is_the_journal_that_memd_runs_under(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory / "socket"
    found = os.fstat(2)
    ours = f"{found.st_dev}:{found.st_ino}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert access.open_audit(None, str(path)) is None
        # Inherited by what has its standard error elsewhere by now.
        for other in (f"{found.st_dev}:{found.st_ino + 1}", "", "x:y", ":", "1"):
            monkeypatch.setenv("JOURNAL_STREAM", other)
            assert access.open_audit(None, str(path)) is None
        monkeypatch.setenv("JOURNAL_STREAM", ours)
        sink = access.open_audit(None, str(path))
        assert isinstance(sink, JournaldSink)
        sink.close()
        assert access.open_audit("off", str(path)) is None
    path.unlink()
    assert access.open_audit(None, str(path)) is None
