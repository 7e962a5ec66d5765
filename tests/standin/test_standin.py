"""What becomes of a command that a stand-in only knows."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from memd.commands.daemon import Daemon
from memd.commands.descriptors import no_fd
from memd.config import Config, MachineConfig, Report
from memd.errors import QMPError
from memd.places import ITEM, KEPT_PER_USER, MEMBER
from memd.qapi.schema import Schema
from memd.qapi.validator import Validator
from memd.qom import Tree
from memd.standin.block.jobs import Task
from memd.standin.standin import StandIn
from tests.descriptors import open_descriptors
from tests.stepping import Running, as_user, close_all
from tests.users import STRANGER


def make(unmodelled: str = "refuse", machine: str = "none") -> tuple[StandIn, Schema, Tree]:
    config = Config(Report("memd"))
    config.unmodelled, config.machine = unmodelled, MachineConfig(machine)
    tree = Tree()
    standin = StandIn(Daemon(tree, config))
    return standin, standin.schema(test=False), tree


def test_a_query_without_arguments_answers_as_a_paused_qemu() -> None:
    standin, schema, _tree = make()
    assert standin.answer(schema.commands["query-tpm-types"], {}) == ["passthrough", "emulator"]
    assert standin.answer(schema.commands["query-mice"], {}) == []
    with pytest.raises(QMPError, match="missing ACPI device"):
        standin.answer(schema.commands["query-acpi-ospm-status"], {})
    standin, schema, _tree = make(machine="q35")
    assert standin.answer(schema.commands["query-acpi-ospm-status"], {}) == []
    assert standin.answer(schema.commands["query-mice"], {})[0]["current"] is True


def test_any_other_is_refused_by_an_error_that_says_so() -> None:
    standin, schema, _tree = make()
    with pytest.raises(QMPError, match="memd knows 'block-stream' and does not act on it"):
        standin.answer(schema.commands["block-stream"], {"device": "d0"})


def test_samples_are_the_same_each_time_and_fit_the_schema() -> None:
    def samples() -> list[Any]:
        standin, schema, _tree = make("sample")
        return [standin.answer(each, {"made": "up"}) for each in schema.commands.values()]

    found = samples()
    assert found == samples()
    _standin, schema, _tree = make()
    validator = Validator(schema)
    wrong = {
        name: validator.violations(value, f"{name}.returns")
        for name, value in zip(schema.commands, found, strict=True)
        if schema.commands[name].returns is not None
        and validator.violations(value, f"{name}.returns")
    }
    assert wrong == {}


def test_types_are_the_catalogues_and_what_memd_has_stays_its_own() -> None:
    _standin, _schema, tree = make()
    own = tree.type_by_name("none-machine")
    types = tree.all_types()
    assert types["none-machine"] is own
    disk = types["virtio-blk-pci"]
    assert disk.is_a("pci-device")
    assert disk.is_a("device")
    assert disk.all_properties["num-queues"].default == 65535
    assert types["pc-q35-10.0-machine"].is_a("hotplug-handler")


def test_own_commands_and_types_are_there_besides() -> None:
    _standin, schema, _tree = make()
    assert "x-memdev-stat" in schema.commands
    check = schema.checker("object-add")
    check({"qom-type": "memory-backend-guest-memfd", "id": "m0", "size": 4096})
    check({"qom-type": "rng-random", "id": "r0"})
    with pytest.raises(QMPError, match="'qom-type' does not accept value 'nope'"):
        check({"qom-type": "nope", "id": "m0"})


def test_what_an_object_was_given_counts_for_its_user() -> None:
    _standin, _schema, tree = make()
    objects, kept = tree.objects, tree.objects.account.places

    def add(user: int, **more: Any) -> None:
        with as_user(user):
            Running(objects.create({"qom-type": "authz-simple", **more})).finish()

    add(STRANGER, id="a0", identity="x" * (KEPT_PER_USER - 1200))
    assert KEPT_PER_USER - 1200 < kept.of(STRANGER) < KEPT_PER_USER - 500
    rules = [{"match": "x" * 500, "policy": "allow"}]
    more = {"qom-type": "authz-list", "id": "a1", "rules": rules}
    there = kept.of(STRANGER)
    with pytest.raises(
        QMPError, match=rf"bytes more: {there} bytes are kept for user {STRANGER}, \d+ may"
    ):
        add(STRANGER, **more)
    add(STRANGER + 1, **more)
    Running(objects.delete("a0")).finish()
    # A number counts as well.
    add(1002, **{"qom-type": "iothread", "id": "n0", "poll-grow": 1})
    assert MEMBER < kept.of(1002) < MEMBER + 100
    Running(objects.delete("n0")).finish()
    add(STRANGER, **{**more, "id": "a2"})
    assert kept.of(STRANGER + 1) == kept.of(STRANGER)
    close_all(tree)
    assert kept.taken == 0


def test_a_reset_counts_nothing_any_more() -> None:
    standin, _schema, tree = make()
    kept = tree.objects.account.places
    target = {"driver": "null-co", "node-name": "n"}
    with as_user(STRANGER):
        standin.netdevs.add({"type": "hubport", "id": "h", "hubid": 3}, no_fd)
        null = {"id": "c", "backend": {"type": "null", "data": {}}}
        Running(standin.chardevs.add(null, no_fd)).finish()
        Running(standin.blocks.add(target)).finish()
        Running(standin.jobs.start(Task("backup", "j", {}, end="running"))).finish()
    assert kept.of(STRANGER) > 5 * ITEM
    Running(standin.close()).finish()
    assert kept.taken == 0


def test_a_start_imports_what_its_machine_has() -> None:
    script = (
        "import sys; from memd.cli.qemu_system import main;"
        " main(['-machine', 'pc', '-qmp', 'stdio']);"
        " print([each for each in ('memd.devices.types', 'memd.devices.numa',"
        " 'memd.standin.devices', 'memd.standin.tunable') if each in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input='{"execute": "qmp_capabilities"}{"execute": "quit"}',
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stderr == "[]\n"


def test_drives_of_one_name_at_once(tmp_path: Path) -> None:
    """The name and the place of a drive are taken while its image is being opened."""
    standin, _schema, tree = make()
    daemon = Daemon(tree, Config(Report("memd")))
    daemon.standin = standin
    typed = partial(daemon.typed, "blockdev-add")
    (tmp_path / "image").write_bytes(bytes(4096))

    def add(**more: str) -> Running:
        options = {"if": "none", "file": str(tmp_path / "image"), "format": "raw", **more}
        adding = standin.drives.add(options, typed, hotplugged=True)
        return Running(cast(Any, adding))

    first, *others = add(id="d0"), add(), add()
    for options in ({"id": "d0"}, {"id": "d1", "index": "1"}):
        with pytest.raises(QMPError, match=r"Duplicate ID 'd0'|index=1\) exists"):
            add(**options)
    with pytest.raises(QMPError, match="Duplicate nodes with node-name='d0'"):
        Running(standin.blocks.add({"driver": "null-co", "node-name": "d0"}))
    first.finish()
    for each in others:
        each.finish()
    assert [drive.name for drive in standin.blocks.drives] == ["d0", "none1", "none2"]
    Running(standin.close()).finish()


def test_another_backend_while_all_is_made_anew(tmp_path: Path) -> None:
    """Neither the device that was there nor the one that was to come is there then."""
    standin, _schema, tree = make()
    files = open_descriptors()

    def backend(name: str) -> dict[str, Any]:
        file = {"type": "file", "data": {"out": str(tmp_path / name)}}
        return {"id": "c0", "backend": file}

    with as_user(STRANGER):
        Running(standin.chardevs.add(backend("old"), no_fd)).finish()
        changing = Running(standin.chardevs.change(backend("new"), no_fd))
    Running(standin.close()).finish()
    with pytest.raises(QMPError, match="the machine was reset meanwhile"):
        changing.finish()
    assert tree.chardevs.children == {}
    assert tree.objects.account.places.taken == 0
    assert open_descriptors() == files
