"""A kernel and an initial RAM disk for guests, made once and kept outside the tree.

    .venv/bin/python -m tests.guests.image

fetches Debian's cloud kernel and busybox with apt-get, in some seconds, and
unpacks them. Nothing is installed. The first test that needs it makes it, too.
"""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tests.rootfs import kept, making

KERNEL = "linux-image-cloud-amd64"
"""The package that depends on the newest kernel for machines in clouds: no modules are needed."""

RECIPE = 1
"""Goes up when what is made here changes, so that an older one is not taken for it."""

PATTERN = 16 << 20
"""Bytes of memory that the guest checks."""

_INIT = b"""#!/bin/busybox sh
/bin/busybox stty -F /dev/console -echo -onlcr
echo READY
while read line; do eval "$line"; echo DONE; done
"""

_TOOLS = ("md5sum", "cp", "cat", "head", "rm")


def place() -> Path:
    """Where it is or will be, beside the small Debian that other tests boot."""
    return kept() / f"guest-{RECIPE}"


def pattern() -> bytes:
    """What stands in the guest's file /pattern; no page of it is like another."""
    return random.Random(20).randbytes(PATTERN)


def digest() -> str:
    """The MD5 of the pattern, as the guest's md5sum prints it."""
    return hashlib.md5(pattern(), usedforsecurity=False).hexdigest()


def make() -> Path:
    """Make it unless it is there; gives its place, with `kernel` and `initrd` in it.

    Raises:
        subprocess.CalledProcessError: apt-get or dpkg-deb failed, and says why.
        OSError: there is no apt-get, or no room.
    """
    root = place()
    if root.is_dir():
        return root
    with making(root) as made:
        told = _run("apt-cache", "depends", KERNEL, cwd=made)
        found = re.search(r"Depends: (linux-image-\S+)", told)
        if found is None:
            raise OSError(f"apt-cache knows no {KERNEL}")
        sandbox = "APT::Sandbox::User=root"
        _run("apt-get", "-q", "-o", sandbox, "download", found[1], "busybox-static", cwd=made)
        kernel = _extract(made, "linux-image-*.deb", f"./boot/vmlinuz-{found[1][12:]}")
        busybox = _extract(made, "busybox-static_*.deb", "./bin/busybox")
        (made / "kernel").write_bytes(kernel)
        (made / "initrd").write_bytes(_initrd(busybox))
    return root


def _run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def _extract(directory: Path, package: str, name: str) -> bytes:
    """A file of a package, which is removed."""
    (file,) = directory.glob(package)
    opening = ["dpkg-deb", "--fsys-tarfile", str(file)]
    with subprocess.Popen(opening, stdout=subprocess.PIPE) as opened:
        assert opened.stdout is not None
        with tarfile.open(fileobj=opened.stdout, mode="r|") as files:
            for each in files:
                content = files.extractfile(each) if each.name == name else None
                if content is not None:
                    found = content.read()
                    opened.kill()
                    file.unlink()
                    return found
    raise OSError(f"{file.name} has no {name}")


def archive(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An initial RAM disk, an archive of cpio's format "newc" (Linux, initramfs/buffer-format).

    It has a console device, too.

    Args:
        files: paths, modes and contents; directories come before what is in them.
    """
    out = bytearray()

    def add(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        path = name.encode() + b"\0"
        numbers = (len(out), mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        out.extend(b"070701" + b"".join(b"%08X" % number for number in numbers))
        out.extend(path)
        out.extend(bytes(-len(out) % 4))
        out.extend(content)
        out.extend(bytes(-len(out) % 4))

    add("dev", 0o40755)
    add("dev/console", 0o20600, device=(5, 1))
    for name, mode, content in files:
        add(name, mode, content)
    add("TRAILER!!!", 0)
    return bytes(out)


def _initrd(busybox: bytes) -> bytes:
    tools = [(f"bin/{tool}", 0o120777, b"busybox") for tool in _TOOLS]
    return archive(
        [
            ("bin", 0o40755, b""),
            ("bin/busybox", 0o100755, busybox),
            *tools,
            ("pattern", 0o100644, pattern()),
            ("init", 0o100755, _INIT),
        ]
    )


if __name__ == "__main__":
    print(make())
