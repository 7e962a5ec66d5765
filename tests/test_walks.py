"""The code does what docs/architecture.md says step by step."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import ARCHITECTURE, PACKAGE

_STEP = re.compile(r"`([a-z_]+/[a-z_]+)\.py`,\s+`([A-Za-z_.]+)`")

_TRACED = """
import json, socket, sys, threading
from memd.cli.main import main

package, path, file = sys.argv[1:]
called = []

def note(frame, event, _arg):
    name = frame.f_code.co_filename
    if event == "call" and name.startswith(package):
        called.append((name.removeprefix(package)[1:-3], frame.f_code.co_qualname))

def talk():
    while True:
        try:
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
            break
        except OSError:
            client.close()
    lines = client.makefile("rwb")
    def ask(command, **arguments):
        message = {"execute": command, "arguments": arguments}
        lines.write(json.dumps(message).encode())
        lines.flush()
        return lines.readline()
    lines.readline()
    ask("qmp_capabilities")
    called.clear()
    arguments = {"qom-type": "memory-backend-file", "size": 4096, "mem-path": file}
    answer = ask("object-add", id="m0", **arguments)
    found = list(called)
    ask("quit")
    print(json.dumps([json.loads(answer), found]))

threading.Thread(target=talk).start()
sys.setprofile(note)
threading.setprofile(note)
main(["--qmp", f"unix:{path},server=on,wait=off"])
"""


def section(title: str) -> list[tuple[str, str]]:
    """The files and functions that a section names, in its order."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    walk = text.partition(f"## {title}")[2].partition("\n## ")[0]
    return _STEP.findall(walk)


def test_object_add_from_the_socket_to_the_mapping(tmp_path: Path) -> None:
    """Each function is called after the one before it, and no file is entered a second time."""
    steps = section("A request, in ten steps")
    assert len({file for file, _function in steps}) == len(steps) > 9
    command = [
        sys.executable,
        "-c",
        _TRACED,
        str(PACKAGE),
        str(tmp_path / "s"),
        str(tmp_path / "f"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    answer, called = json.loads(done.stdout.splitlines()[-1])
    assert answer == {"return": {}}
    at = -1
    for file, function in steps:
        at = called.index([file, function], at + 1)


@pytest.mark.parametrize(
    "title", ["A request", "`x-memdev-explain`", "A restart", "A served template"]
)
def test_what_a_section_names_is_there(title: str) -> None:
    steps = section(title)
    assert steps
    for file, function in steps:
        found: object = importlib.import_module(f"memd.{file.replace('/', '.')}")
        for name in function.split("."):
            found = getattr(found, name)
