from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from memd.cli.log import OneLine
from tests.manager import Manage


def test_a_message_is_a_line() -> None:
    record = logging.makeLogRecord({"msg": "removed '%s'", "args": ("a\nmemd: b\x1b[2J",)})
    assert OneLine().format(record) == r"removed 'a\nmemd: b\x1b[2J'"


def test_a_traceback_has_its_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError:
        record = logging.makeLogRecord({"msg": "a\nb", "exc_info": sys.exc_info()})
    first, second, *_rest = OneLine().format(record).splitlines()
    assert (first, second) == (r"a\nb", "Traceback (most recent call last):")


def test_clients_can_not_write_lines_of_the_log(manage: Manage, directory: Path) -> None:
    """Neither by a path of theirs, nor by options of theirs that are told of at the start."""
    from tests.differential.server import Monitor

    path = f"{directory}/a\nmemd: all is well"
    manager = manage()
    manager.start_and_wait()
    client = Monitor(manager.directory / "qmp.sock")
    options = {"size": 4096, "share": True, "mem-path": path}
    for id, kind, more in (("m0", "memory-backend-file", options), ("s0", "secret", {"data": "x"})):
        answer = client.execute("object-add", {"qom-type": kind, "id": id, **more})
        assert answer == {"return": {}}
    # It is both, which no secret may be, and so it is lost, with a warning.
    for name, value in (("file", path), ("data", "")):
        client.execute("qom-set", {"path": "/objects/s0", "property": name, "value": value})
    client.socket.close()
    manager.end()
    manager.argv += ["--object", "memory-backend-file,id=m0,size=4096,mem-path=/x"]
    with pytest.raises(RuntimeError, match=r"mem-path=.*\\nmemd: all is well"):
        manager.start_and_wait()
    assert "\nmemd: all" not in manager.output()
    assert "\n" not in manager.status
    assert manager.status.startswith("object 'm0' is there from before the restart")
