"""The C library's calls that Python has no binding for, with errors as `OSError`.

Numbers are those of Linux on the 64-bit machines that share one numbering
(x86-64, arm64, riscv64); `mmap(2)`, `madvise(2)`, `mbind(2)` and `openat2(2)`
say what each means. Every call lets other Python threads run meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_int,
    c_int64,
    c_long,
    c_size_t,
    c_ssize_t,
    c_uint,
    c_uint64,
    c_ulong,
    c_void_p,
)
from functools import cache
from typing import Any

from memd.named_tuple import NamedTuple

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
"""The size in bytes of an ordinary page."""

HUGE_PAGE = 2 << 20
"""The size in bytes of a huge page of ordinary memory."""

PROT_NONE = 0
PROT_READ = 1
PROT_WRITE = 2

MAP_SHARED = 0x1
MAP_PRIVATE = 0x2
MAP_SHARED_VALIDATE = 0x3
MAP_FIXED = 0x10
MAP_ANONYMOUS = 0x20
MAP_NORESERVE = 0x4000
MAP_SYNC = 0x80000

MADV_DONTNEED = 4
MADV_REMOVE = 9
MADV_DONTFORK = 10
MADV_MERGEABLE = 12
MADV_UNMERGEABLE = 13
MADV_HUGEPAGE = 14
MADV_DONTDUMP = 16
MADV_DODUMP = 17
MADV_COLD = 20
MADV_POPULATE_READ = 22
MADV_POPULATE_WRITE = 23
MADV_COLLAPSE = 25

MPOL_BIND = 2
MPOL_INTERLEAVE = 3
MPOL_PREFERRED_MANY = 5
MPOL_MF_STRICT = 1
MPOL_MF_MOVE = 2

AT_FDCWD = -100
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_CACHED = 0x20
PATH_MAX = 4096
"""Bytes of a path, its end included, from which on the kernel takes none."""

HUGETLBFS_MAGIC = 0x958458F6
TMPFS_MAGIC = 0x01021994
PROC_SUPER_MAGIC = 0x9FA0
ZERO_DEVICE = os.makedev(1, 5)

RESIDENT_MAP = 1 << 30
"""Bytes of memory whose pages are told of at once: 256 KiB."""

FALLOC_FL_KEEP_SIZE = 1
FALLOC_FL_PUNCH_HOLE = 2

_MAP_FAILED = c_size_t(-1).value
_SYS_OPENAT2 = 437
_SYS_CACHESTAT = 451
_SYS_MBIND = 237 if os.uname().machine == "x86_64" else 235
_AT_EACCESS = 0x200
_AT_EMPTY_PATH = 0x1000
_AT_STATX_DONT_SYNC = 0x4000
_STATX_ATTR_APPEND = 0x20
_STATX_MNT_ID_UNIQUE = 0x4000
_STATX_DIOALIGN = 0x2000
_NODE_WORDS = 3
_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None, use_errno=True)


class _IoVec(ctypes.Structure):
    _fields_ = (("base", c_size_t), ("length", c_size_t))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", c_uint64), ("mode", c_uint64), ("resolve", c_uint64))


_SIZE_OF_HOW = ctypes.sizeof(_OpenHow)


class _StatFs(ctypes.Structure):
    # Only the first member is looked at; the rest is space for what follows it.
    _fields_ = (("type", c_long), ("rest", c_long * 32))


class _Range(ctypes.Structure):
    _fields_ = (("offset", c_uint64), ("length", c_uint64))


class _CacheStat(ctypes.Structure):
    _fields_ = tuple(
        (name, c_uint64) for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted")
    )


def os_error(number: int) -> OSError:
    """The exception for an errno value."""
    return OSError(number, os.strerror(number))


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the C library; by item, as several have another prototype of syscall(2)."""
    function = _libc[name]
    function.restype, function.argtypes = result, arguments
    return function


def _raising(name: str, result: Any, *arguments: Any) -> Any:
    """The same; where it returns -1, `OSError` is raised."""

    def check(returned: int, *_call: object) -> int:
        if returned == failed:
            raise os_error(ctypes.get_errno())
        return returned

    function = _function(name, result, *arguments)
    failed = result(-1).value
    function.errcheck = check
    return function


# Every object is mapped and unmapped, and many a file opened: these are checked in place.
_mmap = _function("mmap", c_size_t, c_size_t, c_size_t, c_int, c_int, c_int, c_int64)
_munmap = _function("munmap", c_int, c_size_t, c_size_t)
_pread = _function("pread", c_ssize_t, c_int, c_size_t, c_size_t, c_int64)
_madvise = _function("madvise", c_int, c_size_t, c_size_t, c_int)
_mincore = _raising("mincore", c_int, c_size_t, c_size_t, c_void_p)
_fallocate = _raising("fallocate", c_int, c_int, c_int, c_int64, c_int64)
_faccessat = _raising("faccessat", c_int, c_int, c_char_p, c_int, c_int)
_statx = getattr(_libc, "statx", None)
_fstatfs = _function("fstatfs", c_int, c_int, POINTER(_StatFs))
_openat2 = _function("syscall", c_long, c_long, c_long, c_char_p, POINTER(_OpenHow), c_size_t)
_mbind = _raising(
    "syscall", c_long, c_long, c_size_t, c_size_t, c_long, POINTER(c_ulong), c_ulong, c_ulong
)
_cachestat = _raising(
    "syscall", c_long, c_long, c_long, POINTER(_Range), POINTER(_CacheStat), c_long
)
_NAME = c_int, c_int, c_char_p, POINTER(c_uint)
_getsockname = _raising("getsockname", *_NAME)
_getpeername = _raising("getpeername", *_NAME)
_getsockopt = _raising("getsockopt", c_int, c_int, c_int, c_int, POINTER(c_int), POINTER(c_uint))
_shutdown = _raising("shutdown", c_int, c_int, c_int)
_VM = c_ssize_t, c_int, POINTER(_IoVec), c_ulong, POINTER(_IoVec), c_ulong, c_ulong
_readv = _function("process_vm_readv", *_VM)
_writev = _function("process_vm_writev", *_VM)


def whole_pages(start: int, length: int) -> tuple[int, int]:
    """Where the pages begin and end that so many bytes are in."""
    end = start + length
    return start & -PAGE_SIZE, end + -end % PAGE_SIZE


def mmap(address: int, length: int, protection: int, flags: int, fd: int, offset: int) -> int:
    """Map memory; returns its address.

    Args:
        address: 0 for anywhere.
        length: in bytes; so is `offset`, which wraps at 64 bits as in C.

    Raises:
        OSError: the kernel refused.
    """
    found: int = _mmap(address, length, protection, flags, fd, offset)
    if found == _MAP_FAILED:
        raise os_error(ctypes.get_errno())
    return found


def munmap(address: int, length: int) -> None:
    """Unmap `length` bytes; raises `OSError`."""
    if _munmap(address, length):
        raise os_error(ctypes.get_errno())


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of it at an offset of a file, in as many calls as that takes; raises `OSError`."""
    with memoryview(data) as left:
        done = 0
        while done < len(left):
            done += os.pwrite(fd, left[done:], offset + done)


def madvise(address: int, length: int, advice: int) -> int:
    """Advise the kernel about `length` bytes; returns 0 or the errno value."""
    return ctypes.get_errno() if _madvise(address, length, advice) else 0


def collapse(fd: int, offset: int) -> None:
    """Have `HUGE_PAGE` bytes of a file in memory in one huge page, what are holes as well.

    Args:
        offset: a multiple of `HUGE_PAGE`.

    Raises:
        OSError: the kernel does not, or there is no such page.
    """
    space = mmap(0, 2 * HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    try:
        # The kernel does it through a mapping whose address is a multiple, too.
        address = space + -space % HUGE_PAGE
        mmap(address, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, offset)
        number = madvise(address, HUGE_PAGE, MADV_COLLAPSE)
    finally:
        munmap(space, 2 * HUGE_PAGE)
    if number:
        raise os_error(number)


def file_system_type(fd: int) -> int:
    """The magic number of the file system that a file is on; 0 where it can't be told."""
    found = _StatFs()
    if _fstatfs(fd, found):
        return 0
    # The kernel's type is unsigned where C's is a signed long.
    magic: int = found.type & 0xFFFFFFFF
    return magic


def check_access(file: int | bytes, mode: int) -> None:
    """Ask whether this process, as it is now, may open a file.

    Args:
        file: its path, or a descriptor of it (with an old C library, by /proc).
        mode: of os.R_OK, os.W_OK and os.X_OK.

    Raises:
        OSError: why it may not.
    """
    if isinstance(file, int):
        try:
            _faccessat(file, b"", mode, _AT_EACCESS | _AT_EMPTY_PATH)
            return
        except OSError as failed:
            if failed.errno != errno.EINVAL:
                raise
        file = b"/proc/self/fd/%d" % file
    _faccessat(AT_FDCWD, file, mode, _AT_EACCESS)


def is_append_only(fd: int) -> bool:
    """Whether chattr(1) lets a file only grow, or a directory only get further entries.

    Nothing in such a directory can be removed or renamed. False where it can't be told.
    """
    found = _look(fd, 0)
    attributes = 0 if found is None else int.from_bytes(found.raw[8:16], sys.byteorder)
    return bool(attributes & _STATX_ATTR_APPEND)


def mount_of(fd: int) -> int:
    """A number of the mount that a file is on, which no later one gets.

    It is told without waiting for a file system; 0 where it can't be told, before
    Linux 6.8.
    """
    found = _look(fd, _STATX_MNT_ID_UNIQUE)
    if found is None:
        return 0
    mask, mount = _MOUNT.unpack_from(found)
    return mount if mask & _STATX_MNT_ID_UNIQUE else 0


class Known(NamedTuple):
    """Facts of a file that the kernel knows without asking its file system.

    Attributes:
        mode: its type and permissions, as in `st_mode`.
        device: as in `st_dev`.
        device_number: what it is if it is a device, as in `st_rdev`.
        blocks: of 512 bytes, that it takes.
    """

    mode: int
    device: int
    device_number: int
    blocks: int


_STATX = ctypes.c_char * 256
_KNOWN = struct.Struct("=28xH18xQ72xIIII")
_MOUNT = struct.Struct("=I140xQ")
_DIRECT = struct.Struct("=152xII")


def known(fd: int) -> Known | None:
    """The facts that the kernel knows of a file, or None; nothing is waited for."""
    # Asked for nothing, it tells this of other users' FUSE file systems, too.
    found = _look(fd, 0)
    if found is None:
        return None
    mode, blocks, special_major, special_minor, major, minor = _KNOWN.unpack_from(found)
    return Known(mode, os.makedev(major, minor), os.makedev(special_major, special_minor), blocks)


def direct_alignment(fd: int) -> tuple[int, int]:
    """What O_DIRECT wants memory, and offsets in the file, to be aligned to, in bytes.

    These are what a program finds by trying: sectors at least, pages where the kernel
    does not tell.
    """
    found = _look(fd, _STATX_DIOALIGN)
    memory, offset = (0, 0) if found is None else _DIRECT.unpack_from(found)
    return max(memory, 512) if memory else PAGE_SIZE, max(offset, 512) if offset else PAGE_SIZE


def _look(fd: int, mask: int) -> ctypes.Array[ctypes.c_char] | None:
    """The answer of statx(2) on a file, as it is known already."""
    found = _STATX()
    if _statx is None or _statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, mask, found):
        return None
    return found


@cache
def _how(flags: int, resolve: int) -> Any:
    """A pointer to what openat2(2) is told; it only reads it."""
    return ctypes.byref(_OpenHow(flags, 0, resolve))


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """Open a file in a way that open(2) has not (openat2(2)).

    Args:
        directory: what a relative path begins at; AT_FDCWD for where we are.
        flags: for open(2), without O_CREAT.
        resolve: RESOLVE_*.

    Returns:
        The descriptor.

    Raises:
        OSError: ENOSYS where a filter of system calls says so, or why the file can't be opened.
    """
    how = _how(flags, resolve)
    fd: int
    while (fd := _openat2(_SYS_OPENAT2, directory, path, how, _SIZE_OF_HOW)) < 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise os_error(number)
    return fd


def mbind(address: int, length: int, mode: int, nodes: list[int], flags: int) -> None:
    """Set the NUMA policy of `length` bytes.

    Args:
        mode: one of MPOL_*.
        nodes: the nodes' numbers, in ascending order, each below 128.
        flags: MPOL_MF_*.

    Raises:
        OSError: the kernel refused.
    """
    mask = (c_ulong * _NODE_WORDS)()
    for node in nodes:
        mask[node // 64] |= 1 << node % 64
    # The kernel takes one bit less than it is told there are.
    bits = nodes[-1] + 2
    _mbind(_SYS_MBIND, address, length, mode, mask, bits, flags)


def read_memory(address: int, into: bytearray | memoryview) -> int:
    """Copy this process's memory at an address, where its mapping lets it be read.

    Returns:
        The bytes copied: fewer than wanted where a page is not available, up to it.

    Raises:
        OSError: the kernel does not offer this (process_vm_readv(2)).
    """
    length = len(into)
    if not length:
        return 0
    # As long as this exists, the buffer stays where it is.
    begin = c_char.from_buffer(into)
    return _moved(_readv, ctypes.addressof(begin), address, length)


def write_memory(address: int, data: bytes) -> int:
    """Copy to this process's memory, where its mapping lets it be written.

    Returns:
        The bytes copied: fewer than given where a page is not available, up to it.

    Raises:
        OSError: the kernel does not offer this (process_vm_writev(2)).
    """
    length = len(data)
    if not length:
        return 0
    begin = ctypes.cast(c_char_p(data), c_void_p).value or 0
    return _moved(_writev, begin, address, length)


def read_file(fd: int, address: int, length: int) -> int:
    """Copy from a file's beginning to this process's memory, where its mapping lets it be written.

    Returns:
        The bytes copied: fewer than wanted where a page is not available, up to it, or the file
        ends.

    Raises:
        OSError: the file can't be read.
    """
    done = 0
    while done < length:
        moved: int = _pread(fd, address + done, length - done, done)
        if moved < 0 and ctypes.get_errno() != errno.EFAULT:
            raise os_error(ctypes.get_errno())
        if moved <= 0:
            break
        done += moved
    return done


def _moved(call: Any, here: int, there: int, length: int) -> int:
    local, remote = _IoVec(here, length), _IoVec(there, length)
    moved: int = call(os.getpid(), local, 1, remote, 1, 0)
    if moved >= 0:
        return moved
    number = ctypes.get_errno()
    if number == errno.EFAULT:
        return 0
    raise os_error(number)


def resident_pages(address: int, length: int) -> int:
    """How many pages of a range are in memory, of a file also those not mapped (mincore(2)).

    Args:
        address: of a page; `length` is in bytes.

    Raises:
        OSError: the range is not mapped.
    """
    return sum(pages.count(1) for pages in resident_maps(address, length))


def resident_maps(address: int, length: int) -> Iterator[bytearray]:
    """Which pages of a range are in memory (mincore(2)): a byte for each, 1 or 0.

    Args:
        address: of a page; `length` is in bytes.

    Yields:
        those of `RESIDENT_MAP` bytes of the range, one after another.

    Raises:
        OSError: the range is not mapped.
    """
    for at in range(0, length, RESIDENT_MAP):
        part = min(length - at, RESIDENT_MAP)
        pages = bytearray(-(-part // PAGE_SIZE))
        begin = c_char.from_buffer(pages)
        _mincore(address + at, part, ctypes.addressof(begin))
        yield pages


def use_one_heap() -> None:
    """Have threads that begin from now on share one heap; see mallopt(3), M_ARENA_MAX.

    Each would have its own, and keep what it once needed there: with four
    threads that carry memory for clients a daemon came to 59 MiB in half an
    hour, with one heap it stays at 39.
    """
    mallopt = getattr(_libc, "mallopt", None)
    # Not every C library has it, or more than one heap.
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def allocate(fd: int, offset: int, length: int) -> None:
    """Have a range of a file take its space, where its file system can; raises `OSError`."""
    try:
        if length:
            _fallocate(fd, FALLOC_FL_KEEP_SIZE, offset, length)
    except OSError as failed:
        if failed.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Take a range out of a file, which keeps its size; raises `OSError`."""
    _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)


def swap_used() -> bool:
    """Whether anything of this host is swapped out (sysinfo(2))."""
    found = (c_ulong * 16)()
    # Total and free are in one unit.
    return bool(_libc.sysinfo(found)) or found[8] != found[9]


def cachestat(fd: int, offset: int, length: int) -> tuple[int, int]:
    """How many pages of a range of a file are in memory, and how many were evicted.

    A length of 0 means all that follows.

    Of a file in memory (tmpfs), what is evicted is swapped out.

    Raises:
        OSError: ENOSYS before Linux 6.5, EOPNOTSUPP on hugetlbfs, EPERM where
            the file is somebody else's and can't be written.
    """
    found = _CacheStat()
    _cachestat(_SYS_CACHESTAT, fd, _Range(offset, length), found, 0)
    return found.cached, found.evicted


# Of sockets that another process may keep locked. Python's own objects ask for their address
# when they are made, and keep all threads waiting meanwhile.


def socket_family(fd: int) -> int:
    """The family of a socket's addresses; raises `OSError` where it is no socket. Never waits."""
    found = c_int()
    _getsockopt(fd, socket.SOL_SOCKET, socket.SO_DOMAIN, found, c_uint(ctypes.sizeof(found)))
    return found.value


def socket_address(fd: int, *, peer: bool) -> bytes:
    """An end of a socket, as the kernel has it (sockaddr(3type)); raises `OSError`.

    Args:
        peer: whether the other one.
    """
    space, length = ctypes.create_string_buffer(128), c_uint(128)
    (_getpeername if peer else _getsockname)(fd, space, length)
    return space.raw[: length.value]


def shut_down(fd: int) -> None:
    """End both directions of a connection; raises `OSError`."""
    _shutdown(fd, socket.SHUT_RDWR)
