"""The schema files themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from memd.compat import Compat
from memd.qapi.reader import load_schema
from tests.qapi.files import MAIN, definitions, subjects, whole_schema
from tests.qapi.rules import check_file


def test_the_served_schema_is_right() -> None:
    assert check_file(str(MAIN))


def test_every_file_is_right() -> None:
    files = {definition.file for definition in definitions()}
    assert files == {str(path) for path in subjects() if path.name != "pragma.json"}


@pytest.mark.parametrize("compat", list(Compat))
def test_every_type_can_be_made(compat: Compat) -> None:
    for schema in (load_schema(compat), whole_schema(compat)):
        for name in schema.type_names:
            schema.type(name)
        for command in schema.commands.values():
            assert command.arguments is not None
            assert command.returns is None or command.returns.name
        for event in schema.events.values():
            assert event.data is not None


def test_every_documentation_says_since_when() -> None:
    for definition in definitions():
        assert definition.doc is not None
        assert definition.doc.sections["Since"] == "0.1"


@pytest.mark.parametrize("path", [MAIN, *subjects()], ids=lambda path: path.name)
def test_lines(path: Path) -> None:
    for line in path.read_text(encoding="ascii").split("\n"):
        assert len(line) <= 80
        assert line == line.rstrip()


def test_qom_list_get_is_of_11_1() -> None:
    assert "qom-list-get" not in load_schema(Compat.V10_0).commands
    assert "qom-list-get" in load_schema(Compat.V11_1).commands
    with pytest.raises(KeyError):
        load_schema(Compat.V10_0).type("ObjectPropertyValue")


def test_out_of_band_commands() -> None:
    commands = whole_schema().commands.values()
    assert {command.name for command in commands if command.allow_oob} == {
        *["migrate-recover", "migrate-pause", "yank", "query-yank"]
    }


def test_commands_before_the_machine_is_complete() -> None:
    # Those that QEMU 10.0.2 and 11.1.3, started with --preconfig, refused.
    commands = whole_schema().commands.values()
    refused = {command.name for command in commands if not command.allow_preconfig}
    assert {name for name in refused if not name.startswith("x-")} == {
        *["stop", "cont", "getfd", "closefd", "add-fd", "remove-fd", "query-fdsets"],
        *["human-monitor-command", "query-target", "query-kvm", "query-machines"],
        *["device-list-properties", "query-migrate-capabilities", "query-cpus-fast"],
        *["query-memory-devices", "query-memory-size-summary", "device_add", "device_del"],
        *["migrate-set-capabilities", "migrate-recover", "migrate-pause", "yank", "query-yank"],
        *["balloon", "query-balloon", "system_powerdown", "system_reset", "system_wakeup"],
    }
