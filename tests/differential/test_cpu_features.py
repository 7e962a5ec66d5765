"""`-cpu MODEL,...`: which features a model has, and what they take."""

from __future__ import annotations

import pytest

from tests import prefork
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd

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
