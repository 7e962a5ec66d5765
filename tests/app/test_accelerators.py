"""Which accelerator is used."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests import NOT_THERE
from tests.app.starting import Start, run
from tests.conftest import NOT_HERE


@pytest.mark.parametrize(
    "options",
    [
        ["-accel", "kvm"],
        ["-accel", "kvm", "-accel", "tcg"],
        ["-machine", "none,accel=kvm:tcg"],
        ["-enable-kvm"],
        ["-machine", "none,accel=tcg", "-enable-kvm"],
    ],
)
def test_kvm_is_used_where_it_can_be(start: Start, options: list[str]) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip(f"{NOT_HERE}KVM")
    answer = start(*options).monitor().execute("query-kvm")
    assert answer["return"] == {"enabled": True, "present": True}


@pytest.mark.parametrize(
    "options",
    [
        *([], ["-accel", "tcg"], ["-accel", "tcg", "-accel", "kvm"]),
        ["-enable-kvm", "-machine", "accel=tcg"],
    ],
)
def test_kvm_is_not_used_unasked(start: Start, options: list[str]) -> None:
    assert start(*options).monitor().execute("query-kvm")["return"]["enabled"] is False


@pytest.mark.parametrize(
    "options", [["-enable-kvm", "-accel", "tcg"], ["-accel", "kvm", "-enable-kvm"]]
)
def test_it_is_asked_for_in_one_way(options: list[str]) -> None:
    done = run(*options, "-qmp", "stdio")
    told = 'qemu-system-memd: The -accel and "-machine accel=" options are incompatible\n'
    assert (done.returncode, done.stderr) == (1, told)


def test_kvm_that_is_not_there() -> None:
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"]
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip(f"{NOT_HERE}mount namespaces")
    done = run("-accel", "kvm", "-qmp", "stdio", prefix=hidden)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "qemu-system-memd: Could not access KVM kernel module: No such file or directory",
        "qemu-system-memd: failed to initialize kvm: No such file or directory",
    ]
    done = run("-accel", "kvm", "-accel", "tcg", "-qmp", f"unix:{NOT_THERE}/x", prefix=hidden)
    assert done.stderr.splitlines()[:3] == [
        "qemu-system-memd: Could not access KVM kernel module: No such file or directory",
        "qemu-system-memd: failed to initialize kvm: No such file or directory",
        "qemu-system-memd: falling back to tcg",
    ]


def test_an_accelerator_of_11_1_that_is_not_there() -> None:
    if os.path.exists("/dev/mshv"):
        pytest.skip(f"{NOT_HERE}a machine without mshv")
    done = run("-compat", "11.1", "-accel", "mshv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "qemu-system-memd: Failed to open /dev/mshv: No such file or directory",
        "qemu-system-memd: failed to initialize mshv: Operation not permitted",
    ]
