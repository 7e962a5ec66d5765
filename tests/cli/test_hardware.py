"""The options of a machine together, by both commands."""

from __future__ import annotations

import pytest

from tests.cli.lines import config, memd, qemu

MIB = 1 << 20

M0 = ("-object", "memory-backend-ram,id=m0,size=256M")


def test_without_any_there_is_none() -> None:
    for made in (config(memd()), config(qemu("-machine", "none"))):
        assert (made.machine.type, made.machine.ram_size, made.machine.maxmem) == ("none", 0, 0)
        assert made.devices == []
    assert config(memd()).machine_kind is None


@pytest.mark.parametrize("command", [memd, qemu])
def test_a_machine(command: type) -> None:
    made = config(
        command(
            *("-device", "pc-dimm,id=d0,memdev=m1", "-m", "256M,slots=4,maxmem=2G"),
            *("-machine", "q35,nvdimm=on,memory-backend=m0", *M0, "-smp", "2,maxcpus=3"),
            *("-object", "memory-backend-ram,id=m1,size=64M", "--guest-reacts", "after=250"),
        )
    )
    machine = made.machine
    assert (made.machine_kind, machine.type) == ("pc-q35-10.0", "q35")
    assert (machine.ram_size, machine.slots, machine.maxmem) == (256 * MIB, 4, 2048 * MIB)
    assert (machine.nvdimm, machine.memory_backend) == (True, "m0")
    assert (machine.smp["cpus"], machine.smp["maxcpus"]) == (2, 3)
    assert (machine.guest_reacts, machine.guest_delay_ms) == ("after", 250)
    assert [device.options["id"] for device in made.devices] == ["d0"]
    # A QEMU without -nographic has a screen.
    screen = {"graphics": True} if command is qemu else {}
    assert made.machine_values == {"nvdimm": True, **screen}


def test_defaults() -> None:
    machine = config(memd("-machine", "pc")).machine
    assert (machine.ram_size, machine.maxmem, machine.slots) == (128 * MIB, 128 * MIB, 0)
    assert (machine.guest_reacts, machine.nvdimm) == ("immediately", False)
    assert config(memd("-m", "64M")).machine.ram_size == 64 * MIB
    # A backend brings its own size.
    machine = config(memd("-machine", "q35,memory-backend=m0", *M0)).machine
    assert machine.ram_size == 256 * MIB


def test_nodes() -> None:
    line = ("-machine", "q35", "-m", "256M", *M0, "-numa", "node,memdev=m0,cpus=0")
    (node,) = config(memd(*line)).machine.numa_nodes
    assert (node.nodeid, node.memdev, node.cpus) == (0, "m0", [0])


def test_devices_in_json_come_last() -> None:
    devices = ('{"driver":"pc-dimm","id":"a"}', "pc-dimm,id=b", "pc-dimm,id=c")
    argv = [word for text in devices for word in ("-device", text)]
    made = config(memd("-machine", "q35", *argv))
    assert [device.options["id"] for device in made.devices] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("-machine", "bogus"), 'unsupported machine type: "bogus"'),
        (("-machine", "q35", "-m", "1G,slots=1"), "slots specified but no max-size"),
        (("-machine", "q35", "-smp", "0"), "Invalid CPU topology: CPU topology parameters must be"),
        (("-machine", "none", "-numa", "node"), "-numa node: NUMA is not supported by this"),
        (("-device", "zzz,help"), "-device zzz,help: Device 'zzz' not found"),
        (
            ("--guest-reacts", "sometimes"),
            "--guest-reacts sometimes: Parameter 'guest-reacts' does not accept value 'sometimes'",
        ),
        (
            ("--guest-reacts", "after=x"),
            "--guest-reacts after=x: Parameter 'guest-reacts' does not",
        ),
    ],
)
def test_refused(argv: tuple[str, ...], message: str) -> None:
    for command in (memd, qemu):
        outcome = command(*argv)
        assert outcome.status == 1
        assert outcome.stderr.startswith(message)


def test_questions() -> None:
    for argv in (("-device", "help"), ("-device", "pc-dimm,help"), ("-machine", "q35,help")):
        outcome = memd(*argv)
        assert outcome.status == 0
        assert outcome.stdout
