"""Tries what memd in its sandbox may not do; a program that runs in the container.

Prints a JSON object: what was tried, and the name of the error that came of it,
or "done". Whatever is done is undone.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress

OPEN_TO_ALL = "/srv/open-to-all"
"""A directory that everybody may write to, outside of the sandbox."""

DEVICE = "/dev/memd-test"
"""A device that everybody may open, outside of the sandbox."""

ASIDE = ("/tmp/memd-test", "/var/tmp/memd-test")
"""Files that everybody may read, outside of the sandbox."""

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS = 0x00020000
_PTRACE_TRACEME = 0
_PER_LINUX32 = 8
_SYS_PERSONALITY = {"x86_64": 135}.get(os.uname().machine, 92)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "")


def _write(path: str) -> None:
    with open(path, "xb"):
        pass
    os.unlink(path)


def _rewrite(path: str) -> None:
    with open(path, "r+b", buffering=0) as file:
        file.write(file.read())


def _cgroup() -> None:
    v1 = "/sys/fs/cgroup/systemd"
    path = f"{v1 if os.path.isdir(v1) else '/sys/fs/cgroup'}/memd-probe"
    os.mkdir(path)
    os.rmdir(path)


def _device_node() -> None:
    path = f"/dev/shm/memd-probe-{os.getpid()}"
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    os.unlink(path)


def _set_user_id() -> None:
    path = f"/dev/shm/memd-probe-{os.getpid()}"
    with open(path, "xb"):
        pass
    try:
        os.chmod(path, 0o4700)
    finally:
        os.unlink(path)


def _become_executable() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    held = ctypes.c_char.from_buffer(memory)
    try:
        _check(_libc.mprotect(ctypes.addressof(held), mmap.PAGESIZE, mmap.PROT_EXEC))
    finally:
        del held
        memory.close()


def _mount() -> None:
    _check(_libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
    _check(_libc.umount(b"/mnt"))


def _setns() -> None:
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    try:
        _check(_libc.setns(fd, 0))
    finally:
        os.close(fd)


def _host_name() -> None:
    name = os.uname().nodename.encode()
    _check(_libc.sethostname(name, len(name)))


def _lock_memory() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    held = ctypes.c_char.from_buffer(memory)
    try:
        address = ctypes.c_void_p(ctypes.addressof(held))
        _check(_libc.mlock(address, ctypes.c_size_t(mmap.PAGESIZE)))
    finally:
        del held
        memory.close()


ATTEMPTS: dict[str, Callable[[], object]] = {
    "write to /etc": lambda: _write("/etc/memd-probe"),
    "write to /usr": lambda: _write("/usr/memd-probe"),
    "write where everybody may": lambda: _write(f"{OPEN_TO_ALL}/memd-probe"),
    "write beside its runtime directory": lambda: _write("/run/memd/memd-probe"),
    "list home directories": lambda: os.listdir("/home"),
    "list root's home directory": lambda: os.listdir("/root"),
    "read a file in /tmp": lambda: os.stat(ASIDE[0]),
    "read a file in /var/tmp": lambda: os.stat(ASIDE[1]),
    "set a kernel parameter": lambda: _rewrite("/proc/sys/net/ipv4/ip_forward"),
    "make a cgroup": _cgroup,
    "see process 1": lambda: os.stat("/proc/1"),
    "open a device": lambda: os.close(os.open(DEVICE, os.O_RDWR)),
    "make a device node": _device_node,
    "make a file set-user-id": _set_user_id,
    "open an IPv4 socket": lambda: socket.socket(socket.AF_INET).close(),
    "open an IPv6 socket": lambda: socket.socket(socket.AF_INET6).close(),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "make a user namespace": lambda: _check(_libc.unshare(_CLONE_NEWUSER)),
    "make a mount namespace": lambda: _check(_libc.unshare(_CLONE_NEWNS)),
    "enter a namespace": _setns,
    "mount a file system": _mount,
    "change the root directory": lambda: os.chroot("/"),
    "change the host's name": _host_name,
    "change its user": lambda: os.setresuid(*os.getresuid()),
    "change a file's owner": lambda: os.chown(ASIDE[0], 0, 0),
    "map memory writable and executable": lambda: mmap.mmap(-1, mmap.PAGESIZE, prot=7).close(),
    "make memory executable": _become_executable,
    "lock memory": _lock_memory,
    "be traced": lambda: _check(_libc.ptrace(_PTRACE_TRACEME, 0, None, None)),
    "be of another architecture": lambda: _check(_libc.syscall(_SYS_PERSONALITY, _PER_LINUX32)),
    "run in real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
}
"""Each in a process of its own, for some can't be undone."""


def attempt(what: Callable[[], object]) -> str:
    """Do it in a child; the name of the error that came of it, or "done"."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = "done"
        try:
            what()
        except OSError as error:
            said = errno.errorcode.get(error.errno or 0, str(error))
        except BaseException as error:
            said = repr(error)
        with suppress(OSError):
            os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        found = pipe.read().decode()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return found


def main() -> None:
    """Try everything; the first argument names the file that takes the results."""
    found = {name: attempt(what) for name, what in ATTEMPTS.items()}
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
