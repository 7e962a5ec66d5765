from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.hostmem import kvm, libc
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec
from tests.descriptors import open_descriptors
from tests.hostmem.made import HOST
from tests.kvm import needs_guest_memfd
from tests.seccomp import IOCTL, Lacking, without

SIZE = 16 * libc.PAGE_SIZE

CHECK_EXTENSION = Lacking(IOCTL, 0xAE03, errno.ENOTTY)
"""Of a kernel whose KVM does not say which flags it has."""


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(QMPError) as caught:
        work()
    return caught.value.desc


@needs_guest_memfd
def test_it_maps_shared_and_takes_writes() -> None:
    region = Region(
        HOST, MapSpec(SIZE, SIZE, libc.PAGE_SIZE, libc.PAGE_SIZE), kvm.guest_memfd(SIZE)
    )
    try:
        assert os.readlink(f"/proc/self/fd/{region.fd}") == "anon_inode:[kvm-gmem]"
        assert not os.get_inheritable(region.fd)
        # Through the kernel: what can't be accessed is an error, no signal.
        assert libc.write_memory(region.address, bytes([1]) * SIZE) == SIZE
        other = libc.mmap(0, SIZE, libc.PROT_READ, libc.MAP_SHARED, region.fd, 0)
        seen = bytearray(SIZE)
        assert libc.read_memory(other, seen) == SIZE
        assert seen == bytes([1]) * SIZE
        libc.munmap(other, SIZE)
    finally:
        region.close()


@needs_guest_memfd
def test_it_can_not_be_mapped_private() -> None:
    fd = kvm.guest_memfd(SIZE)
    try:
        with pytest.raises(OSError):
            libc.mmap(0, SIZE, libc.PROT_READ, libc.MAP_PRIVATE, fd, 0)
    finally:
        os.close(fd)


@needs_guest_memfd
@pytest.mark.parametrize("size", [1, libc.PAGE_SIZE + 1, 1 << 63, (1 << 64) - 4096, 1 << 64])
def test_sizes_that_kvm_refuses(size: int) -> None:
    assert refusal(lambda: kvm.guest_memfd(size)) == (
        f"can't create guest_memfd of {size} bytes: Invalid argument"
    )


@needs_guest_memfd
@pytest.mark.parametrize("size", [SIZE, 1 << 62, (1 << 64) - 4096, 1 << 64])
def test_what_is_planned(size: int) -> None:
    def comes_to(work: Callable[[int], int | None]) -> str:
        try:
            fd = work(size)
        except QMPError as error:
            return error.desc
        if fd is not None:
            os.close(fd)
        return "made"

    assert comes_to(kvm.plan) == comes_to(kvm.guest_memfd)


def test_without_the_device(tmp_path: Path) -> None:
    device = str(tmp_path / "kvm")
    for work in (kvm.guest_memfd, kvm.plan):
        assert refusal(partial(work, SIZE, device)) == (
            f"can't create guest_memfd: {tmp_path}/kvm: No such file or directory"
        )


def test_a_device_that_makes_no_machine() -> None:
    for work in (kvm.guest_memfd, kvm.plan):
        assert refusal(partial(work, SIZE, "/dev/null")) == (
            "can't create guest_memfd: KVM_CREATE_VM: Inappropriate ioctl for device"
        )


@pytest.mark.parametrize(
    ("mask", "missing"),
    [
        (0, "GUEST_MEMFD_FLAG_MMAP and GUEST_MEMFD_FLAG_INIT_SHARED"),
        (1, "GUEST_MEMFD_FLAG_INIT_SHARED"),
        (2, "GUEST_MEMFD_FLAG_MMAP"),
    ],
)
def test_a_kernel_without_the_flags(mask: int, missing: str) -> None:
    assert refusal(lambda: kvm.check_flags(mask)) == (
        f"can't create guest_memfd: this kernel's KVM lacks {missing}"
    )
    kvm.check_flags(7)


@needs_guest_memfd
@without(CHECK_EXTENSION)
def test_a_machine_without_the_flags_is_let_go() -> None:
    before = open_descriptors()
    assert "lacks" in refusal(lambda: kvm.guest_memfd(SIZE))
    assert "lacks" in refusal(lambda: kvm.plan(SIZE))
    assert open_descriptors() == before


def test_what_does_not_know_the_question() -> None:
    with open("/dev/null", "rb") as file:
        assert kvm.supported_flags(file.fileno()) == 0
