"""Every property of every machine: what QEMU and memd make of a value, and what it is then.

On command lines the tests take some of the ways, drawn from MEMD_SEED;
`python -m tests.differential.test_machine_properties [MACHINE...]` takes all of them.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell
from tests.differential.starts import print_differences, start
from tests.seeds import seed_of_run

MACHINES = ("none", "q35", "pc", "isapc", "microvm", "x-remote")

TEXTS = (
    *("=", "=x", ".x=1", "=on", "=off", "=auto", "=0", "=1", "=-1", "=64", "=31", "=4G", "=1.5"),
    *("=99999999999999999999", "=m0", "=t0", "=a0", "=123456789", "=/nowhere/x"),
)
"""Values of all types, of none, beyond the bounds of some, and names of objects."""

AT_HAND = (
    *("-object", "memory-backend-ram,id=m0,size=128M", "-object", "iothread,id=t0"),
    *("-audiodev", "none,id=a0"),
)
MORE = ("kernel-irqchip", "nope", "accel", "kvm-shadow-mem")
"""Names of properties that no machine tells of."""

NOT_HERE = ("type", "rtc-time")
"""Which machine it is, and what time."""

ABORTS = ("max-ram-below-4g=1",)
"""What ends a QEMU by an assertion."""

COUNT = 30
"""Ways of a run."""


def properties(machine: str) -> list[str]:
    """The names of what a machine of the reference has."""
    told = start(qemu_binary(), ("-machine", machine), [("qom-list", {"path": "/machine"})])
    rows: Any = told.answers[0]
    return [row["name"] for row in rows["return"] if row["name"] not in NOT_HERE]


def ways(machines: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Machine, property, and what follows its name."""
    for machine in machines:
        yield from itertools.product((machine,), (*properties(machine), *MORE), TEXTS)


def difference(machine: str, name: str, text: str, cwd: Path) -> str | None:
    """What differs where a property is set, None for nothing."""
    if name + text in ABORTS:
        return None
    line = (*AT_HAND, "-machine", f"{machine},{name}{text}")
    question = ("qom-get", {"path": "/machine", "property": name})
    theirs, ours = (
        start(argv, line, [question], cwd)
        for argv in (qemu_binary(), qemu_system_memd(qemu_compat()))
    )
    return None if theirs == ours else f"{line[-1]}\n  QEMU: {theirs}\n  memd: {ours}"


def test_a_value_on_the_command_line(directory: Path) -> None:
    seed = seed_of_run()
    print(f"MEMD_SEED={seed}")
    drawn = random.Random(seed).sample([*ways(("none", "q35", "pc", "microvm"))], COUNT)
    found = [difference(*way, directory) for way in drawn]
    assert not any(found), "\n".join(filter(None, found))


VALUES: list[Any] = [
    *("", "x", "on", "auto", "64", "1234567", "m0", "/objects/t0", "a0", "/machine", "cpu"),
    *(True, False, 0, 1, -1, 1 << 20, 1 << 32, 1 << 33, 1 << 64, 1.5, None, [], {}, {"x": 1}),
]

REPLACED = ("memory-backend", "kernel", "smp-cache", "sgx-epc", "cxl-fmw", "memory")
"""Properties that have tests of their own, or that end a QEMU."""


@pytest.mark.parametrize("machine", MACHINES)
def test_a_value_of_a_machine_that_is_made(directory: Path, machine: str) -> None:
    with standin_pair(directory, *AT_HAND, "-machine", machine) as pair:

        def names(side: Side) -> list[str]:
            listed = side.ask("qom-list", {"path": "/machine"})["return"]
            return sorted(row["name"] for row in listed if not row["type"].startswith("child<"))

        told = pair.same("names", lambda side: [*names(side)])
        for name in told:
            if name in (*NOT_HERE, *REPLACED):
                continue
            place = {"path": "/machine", "property": name}
            for value in VALUES:
                tell(pair, [("qom-set", {**place, "value": value}), ("qom-get", place)])


def main() -> None:
    """Take all ways of the machines that are named, or of all."""
    with tempfile.TemporaryDirectory() as directory:
        taken = ways(sys.argv[1:] or MACHINES)
        print_differences(difference(*way, Path(directory)) for way in taken)


if __name__ == "__main__":
    main()
