"""What becomes of a command that a stand-in only knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from memd.commands.daemon import Daemon
from memd.config import Config, MachineConfig, Report
from memd.errors import QMPError
from memd.qapi.schema import Schema
from memd.qapi.validator import Validator
from memd.qom import Tree
from memd.qom.quota import INTERNAL
from memd.standin.standin import StandIn
from tests.stepping import Running, close_all


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
    objects, held = tree.objects, tree.objects.quota.internal
    add = {"qom-type": "authz-simple", "id": "a0", "identity": "x" * (INTERNAL - 1200)}
    Running(objects.create(add, 1000)).finish()
    assert INTERNAL - 1200 < held[1000] < INTERNAL
    rules = [{"match": "x" * 500, "policy": "allow"}]
    more = {"qom-type": "authz-list", "id": "a1", "rules": rules}
    with pytest.raises(QMPError, match=r"cannot keep \d+ bytes of 'a1'"):
        Running(objects.create(more, 1000))
    Running(objects.create(more, 1001)).finish()
    Running(objects.delete("a0")).finish()
    # A number counts as well.
    Running(objects.create({"qom-type": "iothread", "id": "n0", "poll-grow": 1}, 1002)).finish()
    assert held[1002] > 0
    Running(objects.delete("n0")).finish()
    Running(objects.create({**more, "id": "a2"}, 1000)).finish()
    assert held[1001] == held[1000]
    close_all(tree)
    assert held == {}


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
