"""`-cpu MODEL,...`: which features a model has, what they take, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memd.json_types import JSON
from tests import prefork
from tests.differential.harness import Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair
from tests.differential.starts import start

LEFT_OUT = {
    *("crash-information", "feature-words", "filtered-features", "unavailable-features"),
    *("lapic", "legacy-memory", "memory", "memory[0]", "memory[1]", "smram[0]"),
}
"""What QEMU tells of a processor's parts, and what these hold."""

WRONG = [
    *("qemu64,foo", "qemu64,foo=1", "qemu64,+foo", "qemu64,-foo_bar", "qemu64,foo,bar"),
    *("qemu64,vmx=x", "qemu64,vmx=", "qemu64,level=x", "qemu64,level=99999999999"),
    *("qemu64,tsc-frequency=1G", "qemu64,tsc-freq=x", "qemu64,migratable=no", "qemu64,=1"),
    *("qemu64,+foo,vmx=x", "486,model-id=a,,b", "max,id=c", "nosuch,foo", "Haswell-v4,nosuch=1"),
]


@pytest.mark.parametrize("text", WRONG)
def test_mistakes(text: str) -> None:
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        done = prefork.run([*argv, "-machine", "q35", "-display", "none", "-S", "-cpu", text])
        assert done.returncode == 1
        said.append(done.stderr.partition(":")[2])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "text",
    [
        "qemu64,+lahf_lm,+sep,-vmx,check",
        "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep",
        "host,hv_passthrough,pmu=off,migratable=no,host-phys-bits=true",
        "max,-avx512vl,-pdpe1gb,phys_bits=40,tsc-freq=1G,vendor=GenuineIntel,,",
        "Haswell-noTSX,hv-spinlocks=0x1fff,xlevel=0x8000001e,kvm=off,l3-cache=on",
    ],
)
def test_what_programs_give(text: str) -> None:
    line = ["-machine", "q35", "-display", "none", "-S", "-cpu", text, "-serial", "chardev:nope"]
    done = prefork.run([*qemu_system_memd(qemu_compat()), *line])
    assert done.stderr.endswith("serial device to character backend 'chardev:nope'\n")


@pytest.mark.parametrize(
    "line",
    [
        "-cpu host -bios nope",
        "-machine none -cpu qemu64",
        "-machine none -cpu nosuch",
        "-cpu qemu64,+vmx,+vmx-ept -smp 2",
        "-cpu qemu64,+vmx-ept,+sgx1,+avx10-128,+intel-pt-lip,check=off",
        "-machine microvm -cpu EPYC,enforce=on",
        "-machine isapc -cpu Skylake-Client -device nosuch",
        "-cpu Cascadelake-Server-v5,-hle,+rtm",
        "-cpu EPYC,check=off",
        "-cpu qemu64,+topoext,enforce,check=off -smp 3",
    ],
)
def test_what_is_not_emulated(line: str) -> None:
    told, said = (
        start(argv, line.split()) for argv in (qemu_binary(), qemu_system_memd(qemu_compat()))
    )
    assert said == told


def returned(side: Side, command: str, **arguments: JSON) -> Any:
    return side.ask(command, arguments)["return"]


@pytest.mark.parametrize(
    "line",
    [
        "-machine pc -smp 2,maxcpus=3,sockets=1,cores=3,threads=1",
        "-machine isapc",
        "-machine q35 -smp 4,sockets=2,modules=2",
        "-machine q35 -cpu max,migratable=off,hv-relaxed=on,hv_vapic,kvm=off,pmu=on",
        "-machine q35 -cpu qemu32 -smp 4,sockets=2,dies=1,cores=1,threads=2",
        "-machine q35 -cpu qemu64,-fpu,+sse4_1,+ssse3,xsave=on,popcnt=on,+avx,phys-bits=39",
        "-machine q35 -cpu qemu64,sse3=off,lahf_lm=off,-xd,+ffxsr,+pclmuldq,vendor=GenuineIntel",
        "-machine q35 -cpu Haswell,-lm,model-id=x,family=7,ucode-rev=5",
        "-machine q35 -cpu EPYC-Genoa,+vmx,hv-vendor-id=abc",
        "-machine q35 -cpu Cascadelake-Server-v5,-hle,x2apic=off",
        "-machine q35 -cpu Dhyana",
    ],
)
def test_what_processors_have(directory: Path, line: str) -> None:
    def look(side: Side) -> JSON:
        found: list[JSON] = []
        for each in returned(side, "query-cpus-fast"):
            path = each["qom-path"]
            names = {row["name"]: row["type"] for row in returned(side, "qom-list", path=path)}
            found.append(
                {
                    f"{name} {kind}": side.ask("qom-get", {"path": path, "property": name})
                    for name, kind in names.items()
                    if name not in LEFT_OUT
                }
            )
        return found

    with standin_pair(directory, *line.split(), "-accel", "tcg") as pair:
        pair.same("the processors", look)
        for each in returned(pair.subject, "query-hotpluggable-cpus"):
            if "qom-path" not in each:
                pair.ask("device_add", {"driver": each["type"], **each["props"]})
                pair.same("one more", look)
