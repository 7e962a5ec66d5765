"""Catalogues: what is recorded, how it is read, and what is not a catalogue."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import QMPError
from memd.qapi.introspect import introspect
from memd.standin.catalogue import SECTIONS, Catalogue, Members, packaged, write_catalogue
from memd.standin.expressions import expressions
from memd.testing.run import main
from tests.differential.server import qemu_binary
from tests.qapi.files import schema_of
from tests.standin.schema import catalogue_schema


@pytest.mark.parametrize("compat", Compat)
def test_the_packages_own_are_of_their_release_and_have_every_section(compat: Compat) -> None:
    catalogue = Catalogue(packaged(compat))
    assert catalogue.version == compat.version
    assert [name for name in SECTIONS if not catalogue.section(name)] == []


@pytest.mark.parametrize("compat", Compat)
def test_no_text_of_the_qemus_own_is_in_it(compat: Compat) -> None:
    catalogue = Catalogue(packaged(compat))
    sections = map(catalogue.section, SECTIONS)
    text = json.dumps([dict(each) if isinstance(each, Members) else each for each in sections])
    assert '"help":' not in text
    assert '"description":' not in text


def canonical(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """An introspected schema without the names of its types, some levels deep."""
    by_name = {each["name"]: each for each in entries if each["meta-type"] != "command"}

    def form(name: str, depth: int) -> Any:
        each = by_name[name]
        if each["meta-type"] == "array":
            return [form(each["element-type"], depth)]
        if depth == 0 or each["meta-type"] == "builtin":
            return each["meta-type"], each.get("json-type")
        keys = ("meta-type", "values", "tag", "features")
        found = {key: each[key] for key in keys if key in each}
        found["members"] = [
            {key: form(value, depth - 1) if key == "type" else value for key, value in m.items()}
            for m in each.get("members", [])
        ]
        return found

    told = {}
    for each in entries:
        if each["meta-type"] in ("command", "event"):
            types: dict[str, Any] = {
                key: form(each[key], 3) for key in ("arg-type", "ret-type") if key in each
            }
            told[each["name"]] = {**each, **types}
    return told


@pytest.mark.parametrize("compat", Compat)
def test_what_it_says_of_the_schema_is_said_again(compat: Compat) -> None:
    """Nothing is lost between a QEMU's introspection and that of what is made from it."""
    entries = introspect(catalogue_schema(compat))
    made = schema_of(expressions(entries, {}, {}, [], []))
    assert canonical(introspect(made)) == canonical(entries)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json\n",
        b"[]\n",
        b'{"memd-catalogue": 1, "version": [1, 0, 0], "sections": {}}\n',
        b'{"memd-catalogue": 2, "version": "x", "sections": {"schema": [0]}}\n',
    ],
)
def test_another_file_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(QMPError, match="is not a catalogue of this edition"):
        Catalogue(str(path))


def test_a_torn_one_is_told_of_when_the_section_is_read(tmp_path: Path) -> None:
    path = tmp_path / "torn"
    write_catalogue(str(path), (10, 0, 2), {name: {name: [name]} for name in SECTIONS})
    assert Catalogue(str(path)).section("options") == {"options": ["options"]}
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(QMPError, match="is not a catalogue"):
        Catalogue(str(path)).section(SECTIONS[-1])


def test_a_member_that_is_not_json_is_told_of_when_it_is_looked_up() -> None:
    members = Members('["good","bad"]\n[1]\n[1}', "file")
    assert (members["good"], list(members), len(members)) == ([1], ["good", "bad"], 2)
    assert "other" not in members
    with pytest.raises(QMPError, match="'file' is not a catalogue"):
        members["bad"]
    assert not Members("[]", "file")
    assert dict(Members("null\n[1]\n2", "file")) == {0: [1], 1: 2}
    with pytest.raises(ValueError):
        Members('["one","two"]\n1', "file")


def test_nobody_waits_for_its_file_once_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "gone"
    write_catalogue(str(path), (10, 0, 2), {name: {name: [name]} for name in SECTIONS})
    catalogue = Catalogue(str(path))
    path.unlink()
    assert [catalogue.section(name) for name in SECTIONS] == [{name: [name]} for name in SECTIONS]


def test_a_missing_one(tmp_path: Path) -> None:
    with pytest.raises(QMPError, match=r"cannot read catalogue '.*none': No such file"):
        Catalogue(str(tmp_path / "none"))


MISREADING = """#!{python}
import os, socket, sys
try:
    os.mkdir({begun!r})
except FileExistsError:
    os.execvp({binary[0]!r}, [*{binary!r}, *sys.argv[1:]])
path = sys.argv[-1].removeprefix("unix:").partition(",")[0]
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen()
    client, _ = listener.accept()
    client.sendall(b'{{"QMP": {{}}}}\\r\\n')
    client.recv(4096)
    client.sendall(b'{{"error": {{"class": "GenericError", "desc": "JSON parse error"}}}}\\r\\n')
    client.recv(4096)
    client.sendall(b'{{"return": {{}}, "id": 2}}\\r\\n')
    client.recv(4096)
"""
"""A QEMU that misreads its first command, but does so at its first start alone."""


def test_the_command_records_the_one_that_the_package_has(tmp_path: Path) -> None:
    path = tmp_path / "recorded"
    binary, begun = tmp_path / "qemu", tmp_path / "begun"
    code = MISREADING.format(python=sys.executable, begun=str(begun), binary=[*qemu_binary()])
    binary.write_text(code)
    binary.chmod(0o755)
    assert main(["catalogue", str(binary), str(path)]) == 0
    begun.rmdir()
    binary.unlink()
    recorded = Catalogue(str(path))
    compat = next((each for each in Compat if each.version[:2] == recorded.version[:2]), None)
    if compat is None:
        pytest.skip(f"not here: no catalogue of QEMU {recorded.version} comes with memd")
    own = Catalogue(packaged(compat))
    for name in ("schema", "types", "rows", "devices", "options", "monitor", "machines"):
        assert recorded.section(name) == own.section(name), name
    # Values depend on the host's processor and kernel.
    assert recorded.section("answers").keys() == own.section("answers").keys()
    assert len(recorded.section("cpus")) == len(own.section("cpus"))
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_qemu_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recorded"
    assert main(["catalogue", "false", str(path)]) == 125
    assert "memd-test: false does not start" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
