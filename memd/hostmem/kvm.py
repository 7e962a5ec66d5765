"""KVM's guest_memfd: memory that a confidential guest can have for its own.

Numbers are those of Linux's <linux/kvm.h>; what they do was seen on Linux 6.18.
"""

from __future__ import annotations

import errno
import fcntl
import os

from memd.errors import QMPError, refusing
from memd.hostmem import libc
from memd.hostmem.spec import OFF_T_MAX

DEVICE = "/dev/kvm"

MMAP = 1
INIT_SHARED = 2
"""Flags of KVM_CREATE_GUEST_MEMFD: the memory may be mapped, and its pages are
shared with the host from the start, so that touching them is not a SIGBUS."""

_KVM_GET_API_VERSION = 0xAE00
_KVM_CREATE_VM = 0xAE01
_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CREATE_GUEST_MEMFD = 0xC040AED4
_KVM_CAP_GUEST_MEMFD_FLAGS = 244
_FAILED = "can't create guest_memfd"
_NO_MACHINE = f"{_FAILED}: KVM_CREATE_VM"
FLAG_NAMES = {MMAP: "GUEST_MEMFD_FLAG_MMAP", INIT_SHARED: "GUEST_MEMFD_FLAG_INIT_SHARED"}


def guest_memfd(size: int, device: str = DEVICE) -> int:
    """Make a guest_memfd that can be mapped shared; returns its descriptor.

    It gets a virtual machine of its own, whose descriptor is closed again: the
    kernel keeps the machine for as long as the memory is there.

    Args:
        size: in bytes, whole pages.
        device: KVM's.

    Raises:
        QMPError: it can't be made, and what is missing.
    """
    with refusing(f"{_FAILED}: {device}"):
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        with refusing(_NO_MACHINE):
            machine = fcntl.ioctl(fd, _KVM_CREATE_VM, 0)
    finally:
        os.close(fd)
    try:
        check_flags(supported_flags(machine))
        return _create(machine, size)
    finally:
        os.close(machine)


def _create(machine: int, size: int) -> int:
    # struct kvm_create_guest_memfd: size, flags and six reserved, 64 bits each.
    request = bytearray(64)
    with refusing(f"{_FAILED} of {size} bytes"):
        _check_size(size)
        request[:16] = size.to_bytes(8, "little") + (MMAP | INIT_SHARED).to_bytes(8, "little")
        fd: int = fcntl.ioctl(machine, _KVM_CREATE_GUEST_MEMFD, request)
    # KVM has no flag for that.
    os.set_inheritable(fd, False)
    return fd


def plan(size: int, device: str = DEVICE) -> None:
    """Raise what `guest_memfd` would raise, without making anything.

    Args:
        size, device: as there.

    Raises:
        QMPError: it could not be made, and what is missing.
    """
    with refusing(f"{_FAILED}: {device}"):
        libc.check_access(device.encode(), os.R_OK | os.W_OK)
        # KVM answers questions of who may only read, too.
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with refusing(_NO_MACHINE):
            fcntl.ioctl(fd, _KVM_GET_API_VERSION, 0)
            check_flags(supported_flags(fd))
    finally:
        os.close(fd)
    with refusing(f"{_FAILED} of {size} bytes"):
        _check_size(size)


def _check_size(size: int) -> None:
    if size > OFF_T_MAX:
        raise libc.os_error(errno.EINVAL)


def check_flags(mask: int) -> None:
    """See that memory can be mapped and starts shared.

    Args:
        mask: the flags that KVM takes.

    Raises:
        QMPError: it can't, and which flags KVM lacks.
    """
    missing = [name for flag, name in FLAG_NAMES.items() if not mask & flag]
    if missing:
        raise QMPError(f"{_FAILED}: this kernel's KVM lacks {' and '.join(missing)}")


def supported_flags(fd: int) -> int:
    """The flags that KVM_CREATE_GUEST_MEMFD takes; 0 where KVM does not know them.

    Args:
        fd: a virtual machine's descriptor, or that of KVM's device.
    """
    try:
        mask: int = fcntl.ioctl(fd, _KVM_CHECK_EXTENSION, _KVM_CAP_GUEST_MEMFD_FLAGS)
    except OSError:
        return 0
    return mask
