"""Queries of management software, answered with a machine and without."""

from __future__ import annotations

import os
from typing import Any

import pytest

from memd.compat import Compat
from memd.config import MachineConfig
from memd.devices.kinds import find_kind
from memd.devices.machine_object import add_cpus, set_machine
from memd.standin.catalogue import Catalogue, packaged
from memd.work import Outcome
from tests.commands.fakes import Console


def test_there_is_a_machine_besides_none() -> None:
    machines = Console()("query-machines")
    recorded = Catalogue(packaged(Compat.V10_0)).section("machines")
    told = {row["name"]: row for row in recorded}
    for row in machines:
        assert row == {name: told[row["name"]][name] for name in row}
        assert told[row["name"]].keys() - row.keys() <= {"is-default"}
    names = {"none", "pc-i440fx-10.0", "pc-q35-10.0", "isapc", "microvm", "x-remote"}
    assert {row["name"] for row in machines} == names
    assert not any("compat-props" in machine for machine in machines)
    more = Console()("query-machines", compat_props=True)
    assert [machine["compat-props"] for machine in more] == [[]] * len(names)


@pytest.mark.parametrize(
    "command",
    [
        *("query-cpus-fast", "query-iothreads", "query-block", "query-named-block-nodes"),
        "query-jobs",
    ],
)
def test_there_is_nothing(command: str) -> None:
    assert Console()(command) == []


def test_no_cpu_can_be_added() -> None:
    assert Console().refusal("query-hotpluggable-cpus") == (
        "GenericError",
        "machine does not support hot-plugging CPUs",
    )


def machine(name: str, **options: Any) -> Console:
    config = MachineConfig(name, smp={"cpus": 1, "maxcpus": 2, "sockets": 2}, **options)
    console = Console(machine=config)
    kind = find_kind(name, Compat.V10_0)
    assert kind is not None
    console.daemon.machine_kind = kind
    set_machine(console.daemon.tree, kind, config, {})
    add_cpus(console.daemon.tree, kind, config)
    return console


def test_cpus_are_told_of() -> None:
    console = machine("q35")
    place = {"socket-id": 0, "core-id": 0, "thread-id": 0}
    path = "/machine/unattached/device[0]"
    assert console("query-cpus-fast") == [
        {
            "cpu-index": 0,
            "qom-path": path,
            # It has to be a thread that there is.
            "thread-id": os.getpid(),
            "props": place,
            "target": "x86_64",
        }
    ]
    common = {"type": "qemu64-x86_64-cpu", "vcpus-count": 1}
    assert console("query-hotpluggable-cpus") == [
        {**common, "props": {**place, "socket-id": 1}},
        {**common, "props": place, "qom-path": path},
    ]


def test_virt_takes_no_cpus() -> None:
    console = machine("virt")
    assert console("query-cpus-fast")[0]["target"] == "aarch64"
    assert console.refusal("query-hotpluggable-cpus")[1] == (
        "machine does not support hot-plugging CPUs"
    )


def test_actions_are_taken_and_checked() -> None:
    console = Console()
    assert console("set-action", panic="exit-failure", watchdog="inject-nmi") == {}
    assert console.refusal("set-action", watchdog="x")[1] == (
        "Parameter 'watchdog' does not accept value 'x'"
    )


def test_accelerators_are_of_11_1() -> None:
    assert Console().refusal("query-accelerators")[0] == "CommandNotFound"
    console = Console(Compat.V11_1)
    answer = console("query-accelerators")
    assert answer["enabled"] == "tcg"
    assert answer["present"] == ["kvm", "mshv", "qtest", "tcg"]
    console.daemon.accel = "kvm"
    assert console("query-accelerators")["enabled"] == "kvm"


def test_devices_have_no_classes() -> None:
    console = Console()
    assert console.refusal("device-list-properties", typename="nope") == (
        "DeviceNotFound",
        "Device 'nope' not found",
    )
    assert console.refusal("device-list-properties", typename="memory-backend-ram") == (
        "GenericError",
        "Parameter 'typename' expects a non-abstract device type",
    )


def test_preconfig_ends_once() -> None:
    console = Console(preconfig=True)
    outcome = console("x-exit-preconfig")
    assert isinstance(outcome, Outcome)
    assert [event.name for event in outcome.events] == ["RESUME"]
    assert console("query-status") == {"running": True, "status": "running"}
    assert console.refusal("x-exit-preconfig") == (
        "GenericError",
        "The command is permitted only before machine initialization",
    )


def test_preconfig_of_one_that_starts_stopped() -> None:
    console = Console(preconfig=True, stopped=True)
    assert console("x-exit-preconfig") == {}
    assert console("query-status") == {"running": False, "status": "prelaunch"}


def test_what_may_be_done_before_the_machine_is() -> None:
    console = Console(preconfig=True)
    text = "The command '{}' is permitted only after machine initialization has completed"
    for command in ("query-cpus-fast", "cont", "device_add", "query-kvm", "getfd"):
        assert console.refusal(command) == ("GenericError", text.format(command))
    assert console.refusal("query-yank", oob=True)[1] == text.format("query-yank")
    assert console.refusal("cont", oob=True)[1] == "The command cont does not support OOB"
    assert console.refusal("nope")[0] == "CommandNotFound"
    console("object-add", qom_type="memory-backend-ram", id="m0", size=4096)
    console("object-del", id="m0")
    console("x-exit-preconfig")
    assert console("query-cpus-fast") == []
