"""Small Debian systems, made once and kept outside the tree.

    python3 tests/rootfs.py systemd    # what tests/systemd boots
    python3 tests/rootfs.py bare       # what .ci/bare passes the tests in
    python3 tests/rootfs.py bare bookworm

makes one, as root, with debootstrap, in half a minute, and prints where it is. They
are used under an overlay, so nothing is ever written to them. `kept` and `making` are
for what else is kept there. It needs the standard library only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUITE = "trixie"
"""The release that is made unless another is named: Debian 13, systemd 257, Python 3.13."""

PACKAGES = {
    "systemd": ("systemd", "systemd-sysv", "dbus", "python3"),
    # All that the README asks for.
    "bare": ("python3", "python3-venv", "python3-pip"),
}
"""What is in each system, beside what every Debian has."""

RECIPE = 1
"""Goes up when what is made here changes, so that an older one is not taken for it."""

_MIRROR = "http://deb.debian.org/debian"
_SOURCES = ("/etc/apt/sources.list", "/etc/apt/sources.list.d")


def kept() -> Path:
    """The directory of all that is made once and kept outside the tree.

    MEMD_TEST_ROOTFS names another one.
    """
    named = os.environ.get("MEMD_TEST_ROOTFS")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/cache/memd-tests")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "memd-tests")


def place(name: str, suite: str = SUITE) -> Path:
    """Where a system of a Debian release is or will be."""
    return kept() / f"{suite}-{name}-{RECIPE}"


@contextmanager
def making(place: Path) -> Iterator[Path]:
    """A directory that is at that place in the end, unless another process was faster.

    Nothing is left of it where the block raises.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
    try:
        made.chmod(0o755)
        yield made
        try:
            made.rename(place)
        except OSError:
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def mirror() -> str:
    """The Debian mirror that this machine itself uses, or the one for everybody."""
    files: list[Path] = []
    for source in map(Path, _SOURCES):
        files += sorted(source.glob("*.sources")) if source.is_dir() else [source]
    for file in files:
        if file.exists():
            text = file.read_text(encoding="utf-8", errors="replace")
            found = re.search(r"^(?:URIs:|deb(?: \[.*?\])?)\s+(\S+/debian/?)(?:\s|$)", text, re.M)
            if found:
                return found[1]
    return _MIRROR


def make(name: str, suite: str = SUITE) -> Path:
    """Make a system unless it is there; gives its place.

    Raises:
        subprocess.CalledProcessError: debootstrap failed, and says why.
        OSError: there is no debootstrap, or no room.
    """
    root = place(name, suite)
    if root.is_dir():
        return root
    with making(root) as made:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES[name])}"]
        subprocess.run([*command, suite, str(made), mirror()], check=True)
        shutil.rmtree(made / "var/cache/apt/archives")
    return root


if __name__ == "__main__":
    print(make(*sys.argv[1:]))
