"""Checks of `memctl doctor`: the sources of memory, the kernel, and its limits."""

from __future__ import annotations

import os
from collections.abc import Iterator

from memd.errors import QMPError
from memd.memctl.host import BAD, OK, WARN, Check, Host, warned
from memd.sizes import rounded

_SHM = "/dev/shm"
_KVM = "/dev/kvm"
_SMALL_SHM = 1 << 30
"""Bytes of /dev/shm below which it is taken for a container's, which is 64 MiB by default."""

_USERFAULTFD = "/dev/userfaultfd"
_CAP_SYS_PTRACE = 1 << 19
_MOUNTS = "/proc/self/mountinfo"

_FEW_FILES = 4096
_FEW_MAPPINGS = 65530
"""Backends have a descriptor and two mappings each; the latter is Linux's own default."""


def kernel(host: Host) -> Iterator[Check]:
    """What a kernel of this version lacks."""
    version = host.kernel()
    if version == (0, 0):
        return
    name = (host.text("/proc/sys/kernel/osrelease") or "").strip()
    advice = ""
    if version < (6, 1):
        advice = "memd needs 6.1: prealloc=on fails before 5.14."
    elif version < (6, 5):
        advice = "6.5 is needed to count what others have of a shared file."
    elif version < (6, 7):
        advice = "6.7 is needed to see transparent huge pages, and to count pages fast."
    yield warned("kernel", bool(advice), f"Linux {name}", advice)
    if not host.may("/proc/self/pagemap", os.R_OK):
        yield Check(
            "page statistics",
            BAD,
            "/proc/self/pagemap can't be read: ls, show, map and top fail",
            "Mount /proc without subset=pid, or a kernel with CONFIG_PROC_PAGE_MONITOR is needed.",
        )


def shared_memory(host: Host) -> Iterator[Check]:
    """/dev/shm, where memory-backend-shm is, and memfd_create(2)."""
    if not host.exists(_SHM):
        yield Check(
            _SHM,
            BAD,
            "is missing: memory-backend-shm fails",
            f"mkdir {_SHM}; mount -t tmpfs -o mode=1777 tmpfs {_SHM}",
        )
    elif not host.may(_SHM, os.W_OK | os.X_OK):
        yield Check(_SHM, BAD, "can't be written: memory-backend-shm fails", f"chmod 1777 {_SHM}")
    elif host.exists(_MOUNTS) and _SHM not in host.mounts("tmpfs"):
        yield Check(
            _SHM,
            WARN,
            "is not a tmpfs: memory there is on a disk",
            f"mount -t tmpfs -o mode=1777 tmpfs {_SHM}",
        )
    else:
        size, free = host.space(_SHM)
        yield warned(
            _SHM,
            0 < size < _SMALL_SHM,
            f"{rounded(size)}, {rounded(free)} free",
            f"mount -o remount,size=8G {_SHM}, or the container's --shm-size=8g",
        )
    rule = host.number("/proc/sys/vm/memfd_noexec")
    if rule == 2:
        yield Check(
            "memfd",
            BAD,
            "refused to who does not say that it is not executable: memory-backend-memfd fails",
            "sysctl vm.memfd_noexec=1",
        )


def numa(host: Host) -> Iterator[Check]:
    """The nodes that memory can be bound to."""
    from memd.hostmem.numa import parse_list

    nodes = host.nodes()
    if not nodes:
        yield Check(
            "NUMA",
            WARN,
            "this kernel has none: host-nodes is refused",
            "A kernel with CONFIG_NUMA is needed.",
        )
        return
    allowed = parse_list(host.status().get("Mems_allowed_list", "")) or set(nodes)
    found = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes: {_listed(nodes)}"
    kept = [node for node in nodes if node not in allowed]
    if kept:
        found += f"; kept from this process: {_listed(kept)}"
    yield warned("NUMA", bool(kept), found, "Its cpuset says so: write them to cpuset.mems.")


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def kvm(host: Host) -> Iterator[Check]:
    """/dev/kvm, and whether it makes guest_memfds."""
    if not host.exists(_KVM):
        yield Check(
            _KVM,
            WARN,
            "is missing: memory-backend-guest-memfd fails, and QEMU has to emulate (-accel tcg)",
            "modprobe kvm_intel or kvm_amd; in a container --device /dev/kvm;"
            " in a VM have its host allow nesting.",
        )
        return
    if not host.may(_KVM, os.R_OK | os.W_OK):
        yield Check(_KVM, WARN, "may not be used by this user", "usermod -aG kvm USER")
        return
    yield Check(_KVM, OK, "can be used")
    if not host.here:
        return
    from memd.hostmem import kvm as device

    try:
        device.plan(1 << 20)
    except QMPError as error:
        yield Check("guest_memfd", WARN, error.desc, "Linux 6.18 is needed to map one.")
    else:
        yield Check("guest_memfd", OK, "can be made, and mapped shared")


def postcopy(host: Host) -> Iterator[Check]:
    """Whether a QEMU of this user may wait for its pages, as clones of served templates do."""
    rights = int(host.status().get("CapEff", "0"), 16)
    rule = host.number("/proc/sys/vm/unprivileged_userfaultfd")
    if rule is None and not host.exists(_USERFAULTFD):
        yield Check(
            "userfaultfd",
            WARN,
            "this kernel has none: no QEMU runs from a served template",
            "A kernel with CONFIG_USERFAULTFD is needed; templates as files work without.",
        )
    elif rule == 1 or rights & _CAP_SYS_PTRACE or host.may(_USERFAULTFD, os.R_OK | os.W_OK):
        yield Check("userfaultfd", OK, "a QEMU of this user may run from a served template")
    else:
        yield Check(
            "userfaultfd",
            WARN,
            "not for QEMUs of this user: they can't run from a served template",
            f"setfacl -m u:USER:rw {_USERFAULTFD}, which is undone at a restart;"
            " or sysctl vm.unprivileged_userfaultfd=1, for all users",
        )


def limits(host: Host) -> Iterator[Check]:
    """The limits of this process, which a daemon started here inherits."""
    files = host.limit("Max open files")
    if files is not None:
        yield warned(
            "open files",
            files < _FEW_FILES,
            f"{files}, one for each backend and client",
            "ulimit -n 65536, or LimitNOFILE= of the service",
        )
    mappings = host.number("/proc/sys/vm/max_map_count")
    if mappings is not None:
        yield warned(
            "mappings",
            mappings < _FEW_MAPPINGS,
            f"{mappings}, two for each backend",
            f"sysctl vm.max_map_count={_FEW_MAPPINGS}",
        )
    for name, row, option in (
        ("address space", "Max address space", "-v"),
        ("file size", "Max file size", "-f"),
    ):
        limit = host.limit(row)
        if limit is not None:
            yield Check(
                name,
                WARN,
                f"limited to {rounded(limit)}: what is larger can't be mapped or made",
                f"ulimit {option} unlimited",
            )
    locked = host.limit("Max locked memory")
    if locked is not None:
        yield Check(
            "locked memory",
            OK,
            f"{rounded(locked)}, which memd does not need",
            "A VMM that assigns devices (VFIO) does: ulimit -l unlimited",
        )


CHECKS = (kernel, shared_memory, numa, kvm, postcopy, limits)
"""In the order in which they are told."""
