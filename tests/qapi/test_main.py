from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from memd.compat import Compat
from memd.qapi.__main__ import main
from memd.qapi.introspect import introspect
from memd.qapi.reader import load_schema
from tests.differential.server import TREE

GOOD = '{"execute": "query-status"}\n'
BAD = '{"execute": "qom-get", "arguments": {"path": 1, "property": "x"}}'


def test_writes_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    document = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(document)
    told = document["$defs"]["ObjectOptions.memory-backend-file"]["properties"]["mem-path"]
    assert told["description"].startswith("the file")


def test_writes_to_a_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "memd.schema.json"
    assert main(["--compat", "11.1", "-o", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert "qom-list-get.arguments" in json.loads(path.read_text())["$defs"]


def test_introspection(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--introspect", "--compat", "11.1"]) == 0
    assert json.loads(capsys.readouterr().out) == introspect(load_schema(Compat.V11_1))


def test_checks_a_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "message"
    path.write_text(GOOD)
    assert main(["--check", str(path)]) == 0
    assert capsys.readouterr().out == ""
    path.write_text(BAD)
    assert main(["--check", str(path)]) == 1
    assert capsys.readouterr().out == "arguments.path: 1 is not of type 'string'\n"


def test_checks_standard_input() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memd.qapi", "--check", "-"],
        input=f"{GOOD}{BAD}{BAD}\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=TREE,
    )
    assert done.returncode == 1
    assert done.stdout == (
        "message 2: arguments.path: 1 is not of type 'string'\n"
        "message 3: arguments.path: 1 is not of type 'string'\n"
    )


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("1", 0),
        ("1.0", 1),
        ("1e3", 1),
        ("18446744073709551615", 0),
        ("18446744073709551616", 1),
        ("-9223372036854775809", 1),
        ("9" * 5000, 1),
    ],
)
def test_numbers_are_what_they_are_over_qmp(
    directory: Path, capsys: pytest.CaptureFixture[str], number: str, status: int
) -> None:
    path = directory / "message"
    path.write_text(
        '{"execute": "object-add", "arguments": '
        f'{{"qom-type": "memory-backend-ram", "id": "a", "size": {number}}}}}'
    )
    assert main(["--check", str(path)]) == status
    assert ("arguments.size" in capsys.readouterr().out) is bool(status)


@pytest.mark.parametrize("text", ["", " \n", "{", "[1,]", "{'execute': 'stop'}", "\xff"])
def test_what_is_no_message(directory: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = directory / "message"
    path.write_bytes(text.encode("latin-1"))
    assert main(["--check", str(path)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("memd-schema: ")
    assert told.err.count("\n") == 1


def test_no_file(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", str(directory / "none")]) == 1
    assert "No such file or directory" in capsys.readouterr().err
    assert main(["-o", str(directory / "none" / "x")]) == 1
    assert "No such file or directory" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--compat=9.9", "--no", "--check"])
def test_bad_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([option])
    assert caught.value.code == 2
    assert "usage: memd-schema" in capsys.readouterr().err


def test_as_a_module_into_a_closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "memd.qapi"], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
